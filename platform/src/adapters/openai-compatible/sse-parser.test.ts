import { createParser } from 'eventsource-parser';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type SseEvent, SseParser, sseLimitsDefault } from './sse-parser.ts';

function parse(chunks: readonly (string | Buffer)[], limits = sseLimitsDefault): string[] {
  return events(chunks, limits).map((event) => event.data);
}

function events(chunks: readonly (string | Buffer)[], limits = sseLimitsDefault): SseEvent[] {
  const parser = new SseParser(limits);
  const received: SseEvent[] = [];
  for (const chunk of chunks) parser.push(Buffer.from(chunk), received);
  parser.end(received);
  return received;
}

/** `bytes` cut at the given places, which may repeat: an empty chunk is a chunk. */
function cut(bytes: Buffer, places: readonly number[]): Buffer[] {
  const sorted = [0, ...places.map((place) => place % (bytes.length + 1)).sort((left, right) => left - right), bytes.length];
  return sorted.slice(1).map((end, index) => bytes.subarray(sorted[index], end));
}

describe('lines', () => {
  test.each([
    ['line feeds', 'data: a\n\ndata: b\n\n'],
    ['carriage returns', 'data: a\r\rdata: b\r\r'],
    ['both', 'data: a\r\n\r\ndata: b\r\n\r\n'],
    ['a mixture', 'data: a\r\n\ndata: b\r\r\n'],
    ['no break after the last', 'data: a\n\ndata: b'],
    ['no space after the colon', 'data:a\n\ndata:b\n\n'],
    ['a byte order mark before the first', '\ufeffdata: a\n\ndata: b\n\n'],
    ['empty events between', 'data: a\n\n\n\ndata\n\ndata:\n\ndata: b\n\n'],
    ['comments and other fields between', ': hi\nid: 1\nretry: 5\ndata: a\nfoo\n\n:\n\ndatas: x\ndata: b\n\n'],
  ])('may end or come with %s', (_name, text) => {
    expect(parse([text])).toEqual(['a', 'b']);
  });

  test('of one event are joined by line feeds', () => {
    expect(parse(['data: {\ndata: "a": 1\ndata: }\n\n'])).toEqual(['{\n"a": 1\n}']);
  });

  test('keep every space but the first', () => {
    expect(parse(['data:   a \n\n'])).toEqual(['  a ']);
  });

  test('name their event', () => {
    expect(events(['event: error\ndata: x\n\ndata: y\n\n'])).toEqual([
      { data: 'x', name: 'error' },
      { data: 'y', name: '' },
    ]);
  });
});

describe('chunks', () => {
  const bytes = Buffer.from('data: "größe 多租户 🚀"\r\n\r\n: ping\rdata: b\r\revent: e\ndata: c\n\n');

  test('may be single bytes', () => {
    const expected = ['"größe 多租户 🚀"', 'b', 'c'];
    expect(parse([bytes])).toEqual(expected);
    expect(parse([...bytes].map((byte) => Buffer.from([byte])))).toEqual(expected);
  });

  test('may end anywhere and change nothing', () => {
    fc.assert(
      fc.property(fc.array(fc.nat(1_000), { maxLength: 12 }), (places) => {
        expect(events(cut(bytes, places))).toEqual(events([bytes]));
      }),
    );
  });

  test('are read as eventsource-parser reads the whole text', () => {
    const line = fc.oneof(
      fc.constantFrom('', '', 'data', 'data:', ': comment', 'event: delta', 'id: 7', 'unknown: field'),
      fc.string({ unit: 'grapheme', maxLength: 20 }).map((text) => `data: ${text.replace(/[\r\n]/g, '')}`),
    );
    const lineEnd = fc.constantFrom('\n', '\r', '\r\n');
    const stream = fc.array(fc.tuple(line, lineEnd), { maxLength: 30 });
    fc.assert(
      fc.property(stream, fc.array(fc.nat(1_000), { maxLength: 8 }), (lines, places) => {
        const text = `${lines.map((parts) => parts.join('')).join('')}\n\n`.toWellFormed();
        const expected: string[] = [];
        const oracle = createParser({ onEvent: (event) => event.data !== '' && expected.push(event.data) });
        oracle.feed(text);
        expect(parse(cut(Buffer.from(text), places))).toEqual(expected);
      }),
      { numRuns: 300 },
    );
  });
});

describe('a limit', () => {
  const limits = { eventBytesMax: 100, noiseBytesMax: 50 };
  const dataOf = (bytes: number) => `${'data: '.padEnd(bytes, 'x')}\n\n`;

  test('holds for an event on one line', () => {
    expect(parse([dataOf(100)], limits)).toHaveLength(1);
    expect(() => parse([dataOf(101)], limits)).toThrow('more than 100 bytes');
  });

  test('holds for a line that never ends, before it ends', () => {
    const parser = new SseParser(limits);
    parser.push(Buffer.alloc(100, 'x'), []);
    expect(() => parser.push(Buffer.from('x'), [])).toThrow('more than 100 bytes');
  });

  test('holds for an event of many lines', () => {
    expect(parse([`${'data: 1234\n'.repeat(10)}\n`], limits)).toHaveLength(1);
    expect(() => parse([`${'data: 1234\n'.repeat(10)}data\n`], limits)).toThrow('more than 100 bytes');
  });

  test('holds for comments, empty lines and unknown fields between two events', () => {
    for (const noise of [':\n', '\n', 'id: 1\n', 'data:\n\n']) {
      expect(() => parse([noise.repeat(60)], limits), JSON.stringify(noise)).toThrow('50 bytes without an event');
      expect(
        parse(
          Array.from({ length: 60 }, () => `${noise}data: a\n\n`),
          limits,
        ),
      ).toHaveLength(60);
    }
  });

  test('costs memory only up to itself, however small the chunks', () => {
    const parser = new SseParser();
    const events: SseEvent[] = [];
    const byte = Buffer.from('x');
    parser.push(Buffer.from('data: '), events);
    for (let index = 0; index < 1_000_000; index++) parser.push(byte, events);
    parser.push(Buffer.from('\n\n'), events);
    expect(events[0]?.data).toHaveLength(1_000_000);
  });
});
