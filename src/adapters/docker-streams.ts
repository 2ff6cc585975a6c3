/** Docker's multiplexed streams: output of both kinds in one connection, each piece behind a header of 8 bytes. */
import type { Readable, Writable } from 'node:stream';
import { StringDecoder } from 'node:string_decoder';

const HEADER = 8;

type Piece = { readonly isError: boolean; readonly bytes: Buffer };

/** Feeds `stdin` while all output is collected; resolves when the process closed its output. */
export async function collectOutput(
  stream: Readable,
  {
    stdin,
    signal,
    onOutput,
    output,
  }: {
    readonly stdin?: Readable;
    readonly signal?: AbortSignal;
    readonly onOutput?: (text: string) => void;
    /** Takes standard output in place of the result. */
    readonly output?: Writable;
  },
): Promise<{ readonly stdout: string; readonly stderr: string }> {
  let failure: unknown;
  let stopWriting = (): void => undefined;
  const fail = (cause: unknown): void => {
    failure ??= cause;
    stdin?.destroy();
    stream.destroy();
    stopWriting();
  };
  const abort = (): void => {
    fail(signal?.reason);
  };
  // A target that is destroyed does not say of every write that it has come to nothing.
  const lose = (): void => {
    fail(output?.errored ?? new Error('the output was closed'));
  };
  signal?.addEventListener('abort', abort, { once: true });
  output?.once('close', lose);
  if (stdin !== undefined) feed(stdin, stream as Readable & Writable).catch(fail);
  const collected = { out: [] as Buffer[], error: [] as Buffer[] };
  const decoder = new StringDecoder('utf8');
  try {
    for await (const { isError, bytes } of readPieces(stream)) {
      if (!isError && output !== undefined) {
        const stopped = new Promise<void>((resolve) => (stopWriting = resolve));
        await Promise.race([write(output, bytes), stopped]);
        if (failure !== undefined) break;
        continue;
      }
      collected[isError ? 'error' : 'out'].push(bytes);
      if (!isError) onOutput?.(decoder.write(bytes));
    }
  } catch (cause) {
    // A process that ends before it read all its input may cut the connection; its exit code tells the rest.
    if (stdin === undefined || !isBrokenPipe(cause)) failure ??= cause;
  } finally {
    signal?.removeEventListener('abort', abort);
    output?.off('close', lose);
    stdin?.destroy();
    stream.destroy();
  }
  if (failure !== undefined) throw failure as Error;
  return {
    stdout: Buffer.concat(collected.out).toString('utf8'),
    stderr: Buffer.concat(collected.error).toString('utf8'),
  };
}

/** Lines of both kinds of output in the order in which they came. */
export async function* readLines(stream: Readable): AsyncGenerator<string> {
  const pending = { out: '', error: '' };
  const decoders = { out: new StringDecoder('utf8'), error: new StringDecoder('utf8') };
  for await (const { isError, bytes } of readPieces(stream)) {
    const kind = isError ? 'error' : 'out';
    const lines = (pending[kind] + decoders[kind].write(bytes)).split('\n');
    pending[kind] = lines.pop() ?? '';
    for (const line of lines) yield line.replace(/\r$/, '');
  }
  for (const rest of [pending.out, pending.error]) if (rest !== '') yield rest;
}

async function* readPieces(stream: Readable): AsyncGenerator<Piece> {
  let rest: Buffer = Buffer.alloc(0);
  let isError = false;
  let left = 0;
  for await (const chunk of stream as AsyncIterable<Buffer>) {
    rest = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    for (;;) {
      if (left > 0) {
        const bytes = rest.subarray(0, left);
        if (bytes.length === 0) break;
        left -= bytes.length;
        rest = rest.subarray(bytes.length);
        yield { isError, bytes };
      } else {
        if (rest.length < HEADER) break;
        isError = rest[0] === 2;
        left = rest.readUInt32BE(4);
        rest = rest.subarray(HEADER);
      }
    }
  }
}

/** Writes as fast as the process reads, and closes its input at the end. Fails only with the source. */
async function feed(source: Readable, target: Writable): Promise<void> {
  let goOn = (): void => undefined;
  const resume = (): void => {
    goOn();
  };
  // `error` too, though reading reports it: a stream without a listener would end the process.
  for (const event of ['drain', 'close', 'error']) target.on(event, resume);
  for await (const chunk of source as AsyncIterable<Uint8Array | string>) {
    if (target.destroyed) return;
    if (!target.write(chunk)) {
      await new Promise<void>((resolve) => {
        goOn = resolve;
      });
    }
  }
  target.end();
}

/** Returns when the target takes more; its failure, as of a full disk, is the caller's. */
function write(target: Writable, bytes: Buffer): Promise<void> {
  return new Promise((resolve, reject) => {
    target.write(bytes, (cause) => {
      if (cause == null) resolve();
      else reject(cause);
    });
  });
}

function isBrokenPipe(cause: unknown): boolean {
  const code = (cause as { code?: unknown } | null)?.code;
  return code === 'EPIPE' || code === 'ECONNRESET' || code === 'ERR_STREAM_PREMATURE_CLOSE';
}
