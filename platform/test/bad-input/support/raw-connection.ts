/** A TCP connection on which a test writes exactly the bytes it wants and reads the answers one by one. */
import { connect, type Socket } from 'node:net';

export interface RawAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

export interface RawConnection extends Disposable {
  readonly socket: Socket;
  write(bytes: string | Buffer): void;
  /** The next complete answer; rejects when the connection closes before it is complete. */
  answer(): Promise<RawAnswer>;
  /** Resolves when the server has closed the connection. */
  closed(): Promise<void>;
  /** Everything received so far and not yet taken as an answer. */
  received(): string;
  /** Resolves when `text` was received, rejects when the connection closes before. */
  until(text: string): Promise<void>;
}

export async function openConnection(port: number): Promise<RawConnection> {
  const socket = connect(port, '127.0.0.1');
  let buffer = Buffer.alloc(0);
  let isClosed = false;
  let wake: () => void = () => undefined;
  const changed = () => new Promise<void>((resolve) => (wake = resolve)); // one waiter at a time
  socket.on('data', (chunk: Buffer) => {
    buffer = Buffer.concat([buffer, chunk]);
    wake();
  });
  socket.on('error', () => undefined);
  socket.on('close', () => {
    isClosed = true;
    wake();
  });
  await new Promise<void>((resolve) => socket.once('connect', resolve));
  const take = async (): Promise<RawAnswer> => {
    for (;;) {
      const parsed = parseAnswer(buffer, isClosed);
      if (parsed !== undefined) {
        buffer = buffer.subarray(parsed.length);
        return parsed.answer;
      }
      if (isClosed) throw new Error(`the connection closed after ${JSON.stringify(buffer.toString('latin1').slice(0, 200))}`);
      await changed();
    }
  };
  return {
    socket,
    write: (bytes) => void socket.write(bytes),
    answer: take,
    async closed() {
      while (!isClosed) await changed();
    },
    received: () => buffer.toString('utf8'),
    async until(text) {
      while (!buffer.includes(text)) {
        if (isClosed) throw new Error(`the connection closed before ${JSON.stringify(text)}`);
        await changed();
      }
    },
    [Symbol.dispose]: () => void socket.destroy(),
  };
}

function parseAnswer(buffer: Buffer, isClosed: boolean): { readonly answer: RawAnswer; readonly length: number } | undefined {
  const headEnd = buffer.indexOf('\r\n\r\n');
  if (headEnd === -1) return undefined;
  const [statusLine = '', ...lines] = buffer.toString('latin1', 0, headEnd).split('\r\n');
  const status = Number(/^HTTP\/1\.1 (\d{3})/.exec(statusLine)?.[1]);
  const headers: Record<string, string> = {};
  for (const line of lines) headers[line.slice(0, line.indexOf(':')).toLowerCase()] = line.slice(line.indexOf(':') + 1).trim();
  const bodyStart = headEnd + 4;
  if (status === 100) return { answer: { status, headers, body: '' }, length: bodyStart };
  if (headers['transfer-encoding'] === 'chunked') {
    const end = buffer.indexOf('\r\n0\r\n\r\n', bodyStart - 2);
    if (end === -1) return undefined;
    return { answer: { status, headers, body: dechunk(buffer.subarray(bodyStart, end + 2)) }, length: end + 7 };
  }
  const length =
    headers['content-length'] === undefined
      ? isClosed
        ? buffer.length - bodyStart
        : Number.POSITIVE_INFINITY
      : Number(headers['content-length']);
  if (buffer.length < bodyStart + length) return undefined;
  return { answer: { status, headers, body: buffer.toString('utf8', bodyStart, bodyStart + length) }, length: bodyStart + length };
}

function dechunk(bytes: Buffer): string {
  const parts: Buffer[] = [];
  let position = 0;
  while (position < bytes.length) {
    const lineEnd = bytes.indexOf('\r\n', position);
    const size = Number.parseInt(bytes.toString('latin1', position, lineEnd), 16);
    parts.push(bytes.subarray(lineEnd + 2, lineEnd + 2 + size));
    position = lineEnd + 2 + size + 2;
  }
  return Buffer.concat(parts).toString('utf8');
}
