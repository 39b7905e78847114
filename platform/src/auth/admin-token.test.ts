import { describe, expect, it } from 'vitest';
import { hasAdminToken } from './admin-token.ts';

const token = 'operator-token-0';

describe('the admin token', () => {
  it('opens to whoever sends all of it as bearer', () => {
    for (const authorization of [`Bearer ${token}`, `bearer   ${token}`, `BEARER ${token}`])
      expect(hasAdminToken({ authorization }, token)).toBe(true);
  });

  it('opens to nothing else', () => {
    const wrong = [
      '',
      'Bearer',
      'Bearer ',
      token,
      `Basic ${token}`,
      `Bearer ${token.slice(0, -1)}`,
      `Bearer ${token}1`,
      `Bearer ${token.toUpperCase()}`,
      `Bearer ${token} `,
      `Bearer ${token}, Bearer ${token}`,
    ];
    for (const authorization of wrong) expect(hasAdminToken({ authorization }, token)).toBe(false);
    for (const headers of [{}, { 'x-api-key': token }, { cookie: `authorization=${token}` }])
      expect(hasAdminToken(headers, token)).toBe(false);
  });

  it('shorter than 16 characters opens nothing, least of all an empty one', () => {
    for (const short of ['', 'x', 'x'.repeat(15)]) expect(hasAdminToken({ authorization: `Bearer ${short}` }, short)).toBe(false);
    expect(hasAdminToken({}, '')).toBe(false);
    expect(hasAdminToken({ authorization: `Bearer ${'x'.repeat(16)}` }, 'x'.repeat(16))).toBe(true);
  });
});
