import { Principal, type PrincipalFacts, principalMint } from './principal.ts';

/** Makes an identity out of verified facts. Only `auth/` and `jobs/` may import this file. */
export function mintPrincipal(facts: PrincipalFacts): Principal {
  return Principal[principalMint](facts);
}
