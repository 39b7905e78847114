import { describe, expect, it } from 'vitest';
import { parseTenantId, type TenantId } from '../primitives/ids.ts';
import { CanaryTokens } from './canary-token.ts';

const idOf = (text: string) => parseTenantId(text) as TenantId;
const acme = idOf('acme');
const globex = idOf('globex');
const tokens = new CanaryTokens(Buffer.alloc(32, 7));
const others = new CanaryTokens(Buffer.alloc(32, 8));
const foundIn = (text: string) => tokens.find(text).map(({ token, view }) => `${view} ${token}`);

describe('a canary token', () => {
  it('is 32 letters and digits, different each time, and says whose it is', () => {
    const made = Array.from({ length: 200 }, () => tokens.make(acme));
    expect(new Set(made).size).toBe(200);
    for (const token of made) expect(token).toMatch(/^qzcnry[a-z2-7]{26}$/);
    expect(made.every((token) => tokens.isGenuine(token) && tokens.belongsTo(token, acme))).toBe(true);
    expect(made.some((token) => tokens.belongsTo(token, globex))).toBe(false);
  });

  it('cannot be made without the key, nor changed by one character', () => {
    const token = tokens.make(acme);
    expect(tokens.isGenuine(others.make(acme))).toBe(false);
    for (let index = 6; index < token.length; index++) {
      const changed = token.slice(0, index) + (token[index] === 'a' ? 'b' : 'a') + token.slice(index + 1);
      expect(tokens.isGenuine(changed), changed).toBe(false);
    }
    for (const wrong of ['', 'qzcnry', `${token}a`, token.slice(1), token.toUpperCase()]) expect(tokens.isGenuine(wrong)).toBe(false);
  });

  const token = tokens.make(acme);
  const every = (between: string) => token.split('').join(between);
  it.each([
    ['as it is', `the code is ${token}.`, 'letters'],
    ['in upper case', token.toUpperCase(), 'letters'],
    ['with hyphens', every('-'), 'letters'],
    ['with spaces and line ends', every(' \n'), 'letters'],
    ['with zero-width characters', every('\u200b\u2060'), 'letters'],
    [
      'in bold letters of Markdown',
      token
        .split('')
        .map((letter) => `**${letter}**`)
        .join(''),
      'letters',
    ],
    [
      'in full-width letters',
      token
        .split('')
        .map((letter) => String.fromCodePoint((letter.codePointAt(0) ?? 0) + 0xfee0))
        .join(''),
      'letters',
    ],
    ['after a beginning that came to nothing', `qzcnry${token}`, 'letters'],
    [
      'percent-encoded',
      token
        .split('')
        .map((letter) => `%${(letter.codePointAt(0) ?? 0).toString(16)}`)
        .join(''),
      'escaped',
    ],
    [
      'in JSON escapes',
      token
        .split('')
        .map((letter) => `\\u00${(letter.codePointAt(0) ?? 0).toString(16)}`)
        .join(''),
      'escaped',
    ],
    ['in hexadecimal, one digit off', `f${Buffer.from(`x${token}`).toString('hex')}`, 'hexadecimal'],
    ['in base64 for URLs', Buffer.from(`??>${token}>>`).toString('base64url'), 'base64'],
    [
      'in base64 of several lines',
      Buffer.from(`lead ${token}`)
        .toString('base64')
        .replaceAll(/(.{20})/g, '$1\r\n'),
      'base64',
    ],
  ])('is found %s', (_, text, view) => {
    expect(foundIn(`lorem ${text} ipsum`)).toEqual([`${view} ${token}`]);
  });

  it.each([0, 1, 2, 3, 4, 5])('is found in base64 with %i bytes before it, wherever the run begins', (lead) => {
    const encoded = Buffer.from(`${'#'.repeat(lead)}${token}!`)
      .toString('base64')
      .replaceAll('=', '');
    for (const before of ['', 'a', 'ab', 'abc']) expect(foundIn(before + encoded)).toEqual([`base64 ${token}`]);
  });

  it('is found over pieces of one character, once', () => {
    const watch = tokens.watch();
    const sightings = Array.from(`It is ${token}, yes ${token}`).flatMap((piece) => watch.push(piece));
    expect(sightings).toEqual([{ token, view: 'letters' }]);
  });

  it('is not seen in what only looks like one', () => {
    expect(foundIn(others.make(acme))).toEqual([]);
    expect(foundIn('qzcnry'.repeat(2_000))).toEqual([]);
    expect(foundIn(token.slice(0, -1))).toEqual([]);
    expect(foundIn('')).toEqual([]);
  });

  it('is looked for in linear time, whatever is in the text', () => {
    for (const text of [
      'qzcnry'.repeat(50_000),
      'a'.repeat(300_000),
      '%71'.repeat(100_000),
      '\u200b'.repeat(300_000),
      'A+/'.repeat(100_000),
    ]) {
      const startedMs = performance.now();
      tokens.find(text);
      expect(performance.now() - startedMs, text.slice(0, 6)).toBeLessThan(3_000);
    }
  });
});
