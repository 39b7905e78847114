/** Port: where the file of an upload waits on disk until it is stored. What is spooled can be read by nobody but this process, and is gone when it ends. */
import type { FileBody } from './capabilities.ts';

export interface UploadSpool {
  /** An empty file. Throws `capacity_unavailable` when the disk has no room, as `write` does. */
  open(): Promise<SpooledFile>;
}

export interface SpooledFile extends AsyncDisposable {
  /** Appends. The bytes may be reused when the promise resolves. */
  write(bytes: Uint8Array): Promise<void>;
  /** What was written; nothing may be written any more. It can be read until the file is disposed of. */
  finish(): FileBody;
}
