import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { AnswerReader } from '../../bench/support/answer-reader.ts';

interface Answer {
  readonly status: number;
  readonly body: string;
}

function readIn(pieces: readonly Buffer[]): readonly Answer[] {
  const answers: Answer[] = [];
  let body = '';
  const reader = new AnswerReader({
    body: (part) => {
      body += part.toString('latin1');
    },
    end: (status) => {
      answers.push({ status, body });
      body = '';
    },
  });
  for (const piece of pieces) reader.feed(piece);
  return answers;
}

const withLength = ({ status, body }: Answer) => `HTTP/1.1 ${status} Word\r\nContent-Length: ${body.length}\r\nx: y\r\n\r\n${body}`;

function chunked({ status, body }: Answer, cut: number): string {
  const parts = [body.slice(0, cut), body.slice(cut)].filter((part) => part !== '');
  const chunks = parts.map((part) => `${part.length.toString(16)}\r\n${part}\r\n`).join('');
  return `HTTP/1.1 ${status} Word\r\ntransfer-encoding: chunked\r\n\r\n${chunks}0\r\n\r\n`;
}

const answer = fc.record({
  status: fc.integer({ min: 200, max: 599 }),
  body: fc.string({ unit: fc.constantFrom('a', '\r', '\n', '0', ':'), maxLength: 60 }),
});

describe('the reader of HTTP answers', () => {
  it('finds the same answers however the bytes are cut', () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(answer, fc.option(fc.nat(60))), { maxLength: 6 }),
        fc.array(fc.integer({ min: 1, max: 40 })),
        (sent, cuts) => {
          const bytes = Buffer.from(sent.map(([one, cut]) => (cut === null ? withLength(one) : chunked(one, cut))).join(''), 'latin1');
          const pieces: Buffer[] = [];
          let at = 0;
          for (const cut of cuts) {
            pieces.push(bytes.subarray(at, at + cut));
            at += cut;
          }
          pieces.push(bytes.subarray(at));
          expect(readIn(pieces)).toEqual(sent.map(([one]) => one));
        },
      ),
    );
  });

  it('refuses an answer whose length it cannot know', () => {
    expect(() => readIn([Buffer.from('HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n')])).toThrow('without a length');
  });

  it('refuses a head without an end', () => {
    expect(() => readIn([Buffer.alloc(65_536, 'x')])).not.toThrow();
    expect(() => readIn([Buffer.alloc(65_537, 'x')])).toThrow('too large');
  });
});
