/**
 * Locks that end with their process, however it dies: a listening unix socket, which the kernel closes. Whoever waits
 * is connected to it and notices its end at once, without polling.
 *
 * A socket's file outlives its process, and must not be taken over by two at once. So each holder has a number of its
 * own: the file `<name>.<n>` appears by a hard link to a socket that listens already, which fails where the number is
 * taken; the next holder takes n + 1 after it has found n closed. The file with the highest number is never removed,
 * so no number is used twice, and whoever is late with a lower number sees the higher one and gives up.
 */
import { createHash, randomBytes } from 'node:crypto';
import { link, mkdir, readdir, rm } from 'node:fs/promises';
import { connect, createServer, type Server, type Socket } from 'node:net';
import path from 'node:path';

export type LockOptions = { readonly onWait: (holder: string) => void; readonly signal?: AbortSignal };

export type ProcessLock = { release(): Promise<void> };

/** Returns once no other process holds the lock of this name. */
export async function acquireProcessLock(
  place: { readonly directory: string; readonly platform: NodeJS.Platform; readonly processId: number },
  name: string,
  options: LockOptions,
): Promise<ProcessLock> {
  return place.platform === 'win32' ? holdPipe(place, name, options) : holdSocket(place, name, options);
}

async function holdSocket(
  { directory, processId }: { readonly directory: string; readonly processId: number },
  name: string,
  options: LockOptions,
): Promise<ProcessLock> {
  const locks = lockDirectory(directory);
  await mkdir(locks, { recursive: true, mode: 0o700 });
  const server = await listen(path.join(locks, `.${String(processId)}-${randomBytes(3).toString('hex')}`), processId);
  try {
    await takeNumber(locks, { name, ownSocket: server.path }, options);
    return { release: () => server.close() };
  } catch (error) {
    await server.close();
    throw error;
  } finally {
    // The numbered file is a link to the same socket; this name has done its part.
    await rm(server.path, { force: true });
  }
}

async function takeNumber(
  locks: string,
  lock: { readonly name: string; readonly ownSocket: string },
  options: LockOptions,
): Promise<void> {
  const fileOf = (number: number): string => path.join(locks, `${lock.name}.${String(number)}`);
  for (;;) {
    options.signal?.throwIfAborted();
    const highest = Math.max(0, ...(await listNumbers(locks, lock.name)));
    if (highest > 0 && (await waitForEnd(fileOf(highest), options))) continue;
    const number = highest + 1;
    if (!(await linkExclusively(lock.ownSocket, fileOf(number)))) continue;
    const numbers = await listNumbers(locks, lock.name);
    const isOvertaken = numbers.some((other) => other > number);
    const outdated = isOvertaken ? [number] : numbers.filter((other) => other < number);
    await Promise.all(outdated.map((other) => rm(fileOf(other), { force: true })));
    if (!isOvertaken) return;
  }
}

async function listNumbers(locks: string, name: string): Promise<readonly number[]> {
  const prefix = `${name}.`;
  return (await readdir(locks))
    .filter((file) => file.startsWith(prefix) && /^\d+$/.test(file.slice(prefix.length)))
    .map((file) => Number(file.slice(prefix.length)));
}

async function linkExclusively(existing: string, path: string): Promise<boolean> {
  try {
    await link(existing, path);
    return true;
  } catch (error) {
    if (codeOf(error) === 'EEXIST') return false;
    throw error;
  }
}

/** Named pipes of Windows leave nothing behind: whoever creates one has it. */
async function holdPipe(
  { directory, processId }: { readonly directory: string; readonly processId: number },
  name: string,
  options: LockOptions,
): Promise<ProcessLock> {
  const pipe = String.raw`\\.\pipe\sandbar-${digest(directory)}-${name}`;
  for (;;) {
    options.signal?.throwIfAborted();
    try {
      const server = await listen(pipe, processId);
      return { release: () => server.close() };
    } catch (error) {
      if (codeOf(error) !== 'EADDRINUSE') throw error;
      await waitForEnd(pipe, options);
    }
  }
}

/** Listens and tells whoever connects which process this is. */
async function listen(
  file: string,
  processId: number,
): Promise<{ readonly path: string; readonly close: () => Promise<void> }> {
  const connections = new Set<Socket>();
  const server: Server = createServer((socket) => {
    connections.add(socket);
    socket.on('close', () => connections.delete(socket));
    // A waiting process that dies resets its connection; that is its own affair.
    socket.on('error', () => socket.destroy());
    socket.write(`${String(processId)}\n`);
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(file, resolve);
  });
  const close = (): Promise<void> =>
    new Promise((resolve) => {
      server.close(() => {
        resolve();
      });
      for (const socket of connections) socket.destroy();
    });
  return { path: file, close };
}

/** Waits while a process listens there; false when none did. */
async function waitForEnd(file: string, { onWait, signal }: LockOptions): Promise<boolean> {
  const socket = connect(file);
  let wasHeld = false;
  const onAbort = (): void => {
    socket.destroy();
  };
  signal?.addEventListener('abort', onAbort);
  try {
    await new Promise<void>((resolve, reject) => {
      socket.on('connect', () => (wasHeld = true));
      socket.once('data', (chunk) => {
        onWait(`pid ${chunk.toString().trim()}`);
      });
      socket.on('error', (error) => {
        const isGone = ['ECONNREFUSED', 'ENOENT', 'ECONNRESET', 'EPIPE'].includes(codeOf(error) ?? '');
        if (!isGone) reject(error);
      });
      socket.on('close', () => {
        resolve();
      });
    });
  } finally {
    signal?.removeEventListener('abort', onAbort);
  }
  signal?.throwIfAborted();
  return wasHeld;
}

/** The kernel cuts a socket's path at 104 (macOS) or 108 bytes: below a long home directory, the locks lie in /tmp. */
function lockDirectory(directory: string): string {
  const locks = path.join(directory, 'locks');
  return Buffer.byteLength(locks) <= 54 ? locks : path.join('/tmp', `sandbar-${digest(locks)}`);
}

function digest(text: string): string {
  return createHash('sha256').update(text).digest('hex').slice(0, 8);
}

function codeOf(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error ? String(error.code) : undefined;
}
