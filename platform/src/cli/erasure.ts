/** `bulkhead tenant erase`, `bulkhead tenant receipts`, `bulkhead verify-receipt`, `bulkhead signing-key`. */
import { readFileSync, writeFileSync } from 'node:fs';
import { setTimeout as wait } from 'node:timers/promises';
import { Command } from 'commander';
import { openSecrets } from '../app/secrets.ts';
import { loadConfig, systemSources } from '../config/load.ts';
import { DocumentSigner, isSignedDocument, type SignedDocument, signatureFault } from '../primitives/signed-document.ts';
import type { DeletionReceipt } from '../tenancy/tenant-erasure.ts';
import { openAdminClient } from './admin-client.ts';
import { CommandError } from './command-error.ts';
import { type OutputOptions, print, table, withOutput } from './output.ts';

type Erasure = {
  readonly status: 'erasing' | 'completed' | 'refused' | 'waiting';
  readonly step: string;
  readonly refusal: string | null;
  readonly receipt: SignedDocument<DeletionReceipt> | null;
};

const pollMs = 300;

export function eraseCommand(): Command {
  const command = new Command('erase')
    .description('Erase a tenant for good, on every surface, and print the signed receipt. Its id is never given out again.')
    .argument('<id>', 'the tenant')
    .option('--yes', 'there is no way back')
    .option('--receipt <file>', 'write the receipt here too')
    .action(async (id: string, options: OutputOptions & { yes?: boolean; receipt?: string }, self: Command) => {
      if (options.yes !== true)
        throw new CommandError(`erasing ${id} cannot be undone: export it first if it may be wanted again, then add --yes`);
      await using client = await openAdminClient(self);
      const path = `/admin/v1/tenants/${encodeURIComponent(id)}`;
      let erasure = (await client.call('DELETE', path)) as Erasure;
      while (erasure.status === 'erasing') {
        await wait(pollMs);
        erasure = (await client.call('GET', `${path}/erasure`)) as Erasure;
      }
      const { receipt } = erasure;
      if (receipt === null)
        throw new CommandError(`the receipt was refused: ${erasure.refusal ?? 'the erasure was cut off'}; erase again to carry on`);
      if (options.receipt !== undefined) writeFileSync(options.receipt, `${JSON.stringify(receipt, null, 2)}\n`, { mode: 0o600 });
      print(options, receipt, () => describe(receipt.body));
    });
  return withOutput(command, 'bulkhead tenant erase acme --yes --receipt acme-erased.json');
}

export function receiptsCommand(): Command {
  const command = new Command('receipts')
    .description('List the receipts of erased tenants.')
    .action(async (options: OutputOptions, self: Command) => {
      await using client = await openAdminClient(self);
      const { data } = (await client.call('GET', '/admin/v1/receipts')) as { readonly data?: readonly SignedDocument<DeletionReceipt>[] };
      const receipts = data ?? [];
      const rows = receipts.map(({ body, signature }) => [body.tenant, body.finishedAt, body.search.method, signature.keyId]);
      print(options, receipts, () => table(['TENANT', 'ERASED', 'SEARCHED', 'KEY'], rows));
    });
  return withOutput(command, 'bulkhead tenant receipts --json');
}

export function verifyReceiptCommand(): Command {
  const command = new Command('verify-receipt')
    .description('Check a receipt of deletion, offline. Exit code 1 when it is not what this installation signed.')
    .argument('<file>', 'the receipt')
    .option('--public-key <file>', 'PEM of the key to trust (default: the key of this installation)')
    .action(async (file: string, options: OutputOptions & { publicKey?: string }, self: Command) => {
      const document = readJson(file);
      const trusted = options.publicKey === undefined ? ownKey(self) : readFileSync(options.publicKey, 'utf8');
      const fault = signatureFault(document, 'bulkhead.deletion-receipt', trusted);
      if (fault !== undefined || !isSignedDocument(document)) throw new CommandError(`the receipt is not genuine: ${fault}`);
      const body = document.body as DeletionReceipt;
      print(
        options,
        { genuine: true, keyId: document.signature.keyId, body },
        () => `genuine, signed by ${document.signature.keyId}\n${describe(body)}`,
      );
    });
  return withOutput(command, 'bulkhead verify-receipt acme-erased.json --public-key bulkhead.pem');
}

export function signingKeyCommand(): Command {
  return new Command('signing-key')
    .description('Print the public key that receipts, archives and audit reports of this installation are checked with.')
    .addHelpText('after', '\nExample:\n  $ bulkhead signing-key > bulkhead.pem\n')
    .action((_: unknown, self: Command) => {
      process.stdout.write(ownKey(self));
    });
}

function ownKey(self: Command): string {
  const { config } = loadConfig(systemSources(self.optsWithGlobals<{ config?: string }>().config));
  return new DocumentSigner(openSecrets(config.dataDir, config.auth.secret).documentSigning).publicKey;
}

function readJson(file: string): unknown {
  try {
    return JSON.parse(readFileSync(file, 'utf8'));
  } catch {
    throw new CommandError(`${file} holds no receipt`);
  }
}

function describe({ tenant, finishedAt, surfaces, canaries, search }: DeletionReceipt): string {
  const rows = surfaces
    .filter(({ before, after }) => before + after > 0)
    .map(({ name, before, after, kept }) => [name, before, after, kept ?? '']);
  const searched = search.method === 'files' ? `${search.bytes} bytes in ${search.files} files` : 'rows alone';
  return `${tenant} was erased at ${finishedAt}\n${table(['SURFACE', 'BEFORE', 'AFTER', 'KEPT'], rows)}\n${canaries.length} canaries found before, 0 afterwards; searched: ${searched}`;
}
