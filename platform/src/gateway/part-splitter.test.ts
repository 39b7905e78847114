import { describe, expect, it } from 'vitest';
import { BulkheadError } from '../errors/bulkhead-error.ts';
import { PartSplitter } from './part-splitter.ts';

/** What comes of a body that arrives in chunks of these sizes (the last one repeats): each part's header and content, or the refusal. */
function split(body: string, sizes: readonly number[]): string {
  const bytes = Buffer.from(body, 'latin1');
  const splitter = new PartSplitter('b');
  const parts: { head: string; content: string; isClosed: boolean }[] = [];
  try {
    for (let start = 0, turn = 0; start < bytes.length; turn++) {
      const size = sizes[Math.min(turn, sizes.length - 1)] ?? 1;
      for (const event of splitter.push(bytes.subarray(start, start + size))) {
        const part = parts.at(-1);
        if (event.kind === 'head') parts.push({ head: event.head.toString('latin1'), content: '', isClosed: false });
        else if (event.kind === 'content' && part !== undefined) part.content += event.bytes.toString('latin1');
        else if (part !== undefined) part.isClosed = true;
      }
      start += size;
    }
    splitter.finish();
  } catch (error) {
    if (error instanceof BulkheadError) return error.code;
    throw error;
  }
  return JSON.stringify(parts);
}

const part = (content: string) => `--b\r\nX: y\r\n\r\n${content}\r\n`;
const bodies = [
  `${part('hello')}${part('')}${part('\r\n')}${part('-b')}${part('\r\n--c\r\n-')}--b--\r\n`,
  `\r\n${part('x'.repeat(300))}--b--`,
  `${part('\r\r\n-\r\n--\r\n--a')}--b--\r\n`,
  // Refused, wherever the chunks end.
  `${part('x\r\n--bx')}--b--\r\n`,
  `${part('x')}--b--\r\nmore`,
  `${part('x')}--b--\r`,
  `hello${part('x')}--b--`,
  `${part('x')}`,
  `--b\r\nX: ${'y'.repeat(8_200)}\r\n\r\nx\r\n--b--`,
  '--b',
];

describe('a body', () => {
  it('is cut into the same parts however it arrives', () => {
    for (const body of bodies) {
      const whole = split(body, [body.length]);
      for (let size = 1; size <= 40; size++) expect(split(body, [size])).toBe(whole);
      for (let first = 1; first < Math.min(400, body.length); first++) expect(split(body, [first, body.length])).toBe(whole);
    }
  });

  it('is what was sent', () => {
    const parts = JSON.parse(split(bodies[0] ?? '', [7])) as readonly { readonly content: string; readonly isClosed: boolean }[];
    expect(parts.map(({ content }) => content)).toEqual(['hello', '', '\r\n', '-b', '\r\n--c\r\n-']);
    expect(parts.every(({ isClosed }) => isClosed)).toBe(true);
    expect(bodies.slice(3).map((body) => split(body, [11]))).toEqual(Array(7).fill('invalid_multipart'));
  });
});
