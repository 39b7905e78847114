import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type SseEvent, SseReader } from './sse-reader.ts';

function events(chunks: readonly (string | Buffer)[], bytesMax?: number): SseEvent[] {
  const reader = new SseReader(bytesMax);
  return [...chunks.flatMap((chunk) => reader.read(Buffer.from(chunk))), ...reader.end()];
}

function dataOf(chunks: readonly (string | Buffer)[], bytesMax?: number): string[] {
  return events(chunks, bytesMax).map((event) => event.data);
}

/** `bytes` cut at the given places, which may repeat: an empty chunk is a chunk. */
function cut(bytes: Buffer, places: readonly number[]): Buffer[] {
  const sorted = [0, ...places.map((place) => place % (bytes.length + 1)).sort((left, right) => left - right), bytes.length];
  return sorted.slice(1).map((end, index) => bytes.subarray(sorted[index], end));
}

const singly = (bytes: Buffer) => [...bytes].map((byte) => Buffer.from([byte]));

describe('events', () => {
  test.each([
    ['line feeds', 'data: a\n\ndata: b\n\n'],
    ['carriage returns', 'data: a\r\rdata: b\r\r'],
    ['both', 'data: a\r\n\r\ndata: b\r\n\r\n'],
    ['a mixture', 'data: a\r\n\ndata: b\r\r\n'],
    ['no break after the last', 'data: a\n\ndata: b'],
    ['half a break after the last', 'data: a\n\ndata: b\r'],
    ['no space after the colon', 'data:a\n\ndata:b\n\n'],
    ['a byte order mark before the first', '\ufeffdata: a\n\ndata: b\n\n'],
    ['empty ones between', 'data: a\n\n\n\ndata\n\ndata:\n\ndata: b\n\n'],
    ['comments and other fields between', ': hi\nid: 1\nretry: 5\ndata: a\nfoo\n\n:\n\ndatas: x\ndata: b\n\n'],
  ])('may end or come with %s, in any pieces', (_name, text) => {
    expect(dataOf([text])).toEqual(['a', 'b']);
    expect(dataOf(singly(Buffer.from(text)))).toEqual(['a', 'b']);
  });

  test('join their lines by line feeds and keep every space but the first', () => {
    expect(dataOf(['data: {\ndata:  "a": 1 \ndata: }\n\n'])).toEqual(['{\n "a": 1 \n}']);
  });

  test('have names', () => {
    expect(events(['event: error\ndata: x\n\ndata: y\n\n'])).toEqual([
      { data: 'x', name: 'error' },
      { data: 'y', name: '' },
    ]);
  });

  test('are the same wherever their bytes are cut', () => {
    const texts = fc.array(
      fc.string({ unit: 'grapheme', maxLength: 12 }).map((text) => text.replace(/[\r\n]/g, '')),
      { maxLength: 8 },
    );
    fc.assert(
      fc.property(texts, fc.constantFrom('\n', '\r', '\r\n'), fc.array(fc.nat(1_000), { maxLength: 12 }), (data, lineEnd, places) => {
        const bytes = Buffer.from(data.map((text) => `: ping${lineEnd}event: e${lineEnd}data: ${text}${lineEnd}${lineEnd}`).join(''));
        const expected = data.map((text) => text.toWellFormed()).filter((text) => text !== '');
        expect(dataOf(cut(bytes, places))).toEqual(expected);
        expect(dataOf(singly(bytes))).toEqual(expected);
      }),
    );
  });
});

describe('the limit', () => {
  test('holds for an event that does not end', () => {
    const reader = new SseReader(100);
    expect(reader.read(Buffer.from('data: '.padEnd(100, 'x')))).toEqual([]);
    expect(() => reader.read(Buffer.from('x'))).toThrow('more than 100 bytes without completing an event');
  });

  test.each([':\n', '\n', 'id: 1\n', 'data:\n\n', 'data: x\n'])('holds for %j again and again', (noise) => {
    const flood = Array.from({ length: 101 }, () => noise);
    expect(() => dataOf(flood, 100)).toThrow('more than 100 bytes');
  });

  test('begins anew with every event', () => {
    const chunks = Array.from({ length: 50 }, () => [': noise that is long\n', 'data: a\n\n']).flat();
    expect(dataOf(chunks, 100)).toHaveLength(50);
  });

  test('is reached in linear time, however small the pieces', () => {
    const reader = new SseReader();
    const piece = Buffer.from('x');
    reader.read(Buffer.from('data: '));
    for (let index = 0; index < 1_000_000; index++) reader.read(piece);
    expect(reader.read(Buffer.from('\n\n'))[0]?.data).toHaveLength(1_000_000);
  });
});
