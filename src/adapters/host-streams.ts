/** Files too large to be held in memory. */
import { createReadStream, createWriteStream } from 'node:fs';
import * as fs from 'node:fs/promises';
import type { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';

/** Through FILE.partial and a rename: nobody ever takes half of it for the whole, and a failure leaves nothing. */
export async function writeStream(file: string, source: Readable): Promise<void> {
  const partial = `${file}.partial`;
  try {
    const handle = await fs.open(partial, 'w', 0o600);
    await pipeline(source, createWriteStream('', { fd: handle, flush: true }));
    await fs.rename(partial, file);
  } catch (error) {
    // Who writes to it must not wait for a reader that never comes.
    source.destroy();
    await fs.rm(partial, { force: true });
    throw error;
  }
}

/** Content of a file; fails at once where it cannot be opened. */
export async function openStream(file: string): Promise<Readable> {
  const handle = await fs.open(file, 'r');
  return createReadStream('', { fd: handle });
}
