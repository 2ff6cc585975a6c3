/** This machine: its files, its directories, its processes, its limits. */
import { randomBytes } from 'node:crypto';
import { constants, watch } from 'node:fs';
import * as fs from 'node:fs/promises';
import { request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';
import os from 'node:os';
import path from 'node:path';
import { SandbarError } from '../model/errors.ts';
import type { DirectoryEntry, Host, InotifyLimits } from '../model/ports.ts';
import { openStream, writeStream } from './host-streams.ts';
import { findPortOwner, isListening, isPortFree, listRoutes } from './host-network.ts';
import { acquireProcessLock } from './process-lock.ts';

type Settings = {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly workingDirectory: string;
};

/** The machine that this process runs on. */
export function createHost(settings: Partial<Settings> = {}): Host {
  const { env = process.env, workingDirectory = process.cwd() } = settings;
  const { platform, pid: processId } = process;
  const homeDirectory = (platform === 'win32' ? env['USERPROFILE'] : env['HOME']) ?? os.homedir();
  const stateDirectory = userDirectory('state', { platform, env, homeDirectory });
  return {
    platform,
    architecture: process.arch,
    env,
    homeDirectory,
    workingDirectory,
    cacheDirectory: userDirectory('cache', { platform, env, homeDirectory }),
    dataDirectory: userDirectory('data', { platform, env, homeDirectory }),
    stateDirectory,
    isRoot: process.getuid?.() === 0,
    processId,
    system: { node: process.version, release: os.release() },
    readFile: (file) => explained(file, () => absentAsUndefined(fs.readFile(file, 'utf8'))),
    hasFile,
    findAgeMs,
    findFileType: (file) => explained(file, () => findFileType(file)),
    resolvePath: (file) => explained(file, () => absentAsUndefined(fs.realpath(file))),
    makeDirectory: (directory) =>
      explained(directory, async () => {
        await fs.mkdir(directory, { recursive: true });
      }),
    touchFile: (file) =>
      explained(file, async () => {
        await absentAsUndefined(touchFile(file));
      }),
    listDirectory,
    createFile: (file, content, mode) => explained(file, () => createFile(file, content, mode)),
    writeFileAtomically: (file, content, mode) => explained(file, () => writeFileAtomically(file, content, mode)),
    writeStream: (file, source) => explained(file, () => writeStream(file, source)),
    openStream: (file) => explained(file, () => absentAsUndefined(openStream(file))),
    removeFile: (file) => explained(file, () => fs.rm(file, { force: true })),
    waitForRemoval,
    isPortFree,
    isListening: (port, protocol) => isListening(platform, port, protocol),
    findPortOwner: (port) => findPortOwner(platform, port),
    listRoutes: () => listRoutes(platform),
    freeDiskBytes,
    findInotifyLimits,
    isProcessAlive,
    run: async (file, args) => (await import('./program.ts')).runUnattended(file, args),
    withLock: async (name, options, work) => {
      const place = { directory: stateDirectory, platform, processId };
      const lock = await explained(stateDirectory, () => acquireProcessLock(place, name, options));
      try {
        return await work();
      } finally {
        await lock.release();
      }
    },
    httpGet,
  };
}

const USER_DIRECTORIES = {
  cache: { variable: 'XDG_CACHE_HOME', fallback: '.cache' },
  data: { variable: 'XDG_DATA_HOME', fallback: '.local/share' },
  state: { variable: 'XDG_STATE_HOME', fallback: '.local/state' },
} as const;

/** By the XDG rules, on macOS too, as most programs of this kind have it; below LOCALAPPDATA on Windows. */
function userDirectory(
  kind: keyof typeof USER_DIRECTORIES,
  host: { readonly platform: NodeJS.Platform; readonly homeDirectory: string } & Pick<Settings, 'env'>,
): string {
  const { variable, fallback } = USER_DIRECTORIES[kind];
  const localData = host.env['LOCALAPPDATA'];
  if (host.platform === 'win32' && localData !== undefined) return path.join(localData, 'sandbar', kind);
  const named = host.env[variable];
  // The rules say that a relative path counts as none.
  const parent = named !== undefined && path.isAbsolute(named) ? named : path.join(host.homeDirectory, fallback);
  return path.join(parent, 'sandbar');
}

async function hasFile(file: string): Promise<boolean> {
  return fs.access(file, constants.F_OK).then(
    () => true,
    () => false,
  );
}

async function findAgeMs(file: string): Promise<number | undefined> {
  const stats = await absentAsUndefined(fs.stat(file));
  return stats === undefined ? undefined : Date.now() - stats.mtimeMs;
}

async function listDirectory(directory: string): Promise<readonly DirectoryEntry[] | undefined> {
  // Nobody may look into every directory above their own.
  const entries = await fs.readdir(directory, { withFileTypes: true }).catch(() => undefined);
  if (entries === undefined) return undefined;
  return Promise.all(
    entries.map(async (entry) => ({
      name: entry.name,
      isDirectory: entry.isSymbolicLink() ? await isDirectory(path.join(directory, entry.name)) : entry.isDirectory(),
    })),
  );
}

async function isDirectory(file: string): Promise<boolean> {
  return (await absentAsUndefined(fs.stat(file)))?.isDirectory() ?? false;
}

async function findFileType(file: string): Promise<'Directory' | 'File' | undefined> {
  const stats = await absentAsUndefined(fs.stat(file));
  if (stats === undefined) return undefined;
  if (stats.isDirectory()) return 'Directory';
  return stats.isFile() ? 'File' : undefined;
}

/** Setting the times themselves would cut them to microseconds; setting the mode raises the same event. */
async function touchFile(file: string): Promise<void> {
  const { mode } = await fs.stat(file);
  await fs.chmod(file, mode & 0o7777);
}

async function createFile(file: string, content: string, mode: number): Promise<boolean> {
  await fs.mkdir(path.dirname(file), { recursive: true, mode: 0o700 });
  try {
    await fs.writeFile(file, content, { flag: 'wx', mode });
    return true;
  } catch (error) {
    if (codeOf(error) === 'EEXIST') return false;
    throw error;
  }
}

/**
 * Nobody ever sees half of the content. A file that is there keeps its owner, and is never opened to more users than
 * before or than `mode` says.
 */
async function writeFileAtomically(link: string, content: string | Buffer, mode: number): Promise<void> {
  const file = await followLinks(link);
  const existing = await absentAsUndefined(fs.stat(file));
  await fs.mkdir(path.dirname(file), { recursive: true, mode: 0o700 });
  const temporary = path.join(path.dirname(file), `.${path.basename(file)}.${randomBytes(6).toString('hex')}`);
  try {
    const handle = await fs.open(temporary, 'wx', mode);
    try {
      await handle.writeFile(content);
      // The umask may have taken bits away, e.g. those of an executable.
      await handle.chmod(existing === undefined ? mode : existing.mode & mode);
      if (existing !== undefined && process.getuid?.() === 0) await handle.chown(existing.uid, existing.gid);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await fs.rename(temporary, file);
  } catch (error) {
    await fs.rm(temporary, { force: true });
    throw error;
  }
}

/** The file that a chain of symbolic links leads to, whether it is there or not. */
async function followLinks(file: string): Promise<string> {
  let current = file;
  for (let depth = 0; depth < 40; depth += 1) {
    const stats = await absentAsUndefined(fs.lstat(current));
    if (stats?.isSymbolicLink() !== true) return current;
    current = path.resolve(path.dirname(current), await fs.readlink(current));
  }
  throw new SandbarError('FILE_DENIED', `${file} is a symbolic link in a circle`, { hint: `remove it: rm ${file}` });
}

async function waitForRemoval(file: string, { timeoutMs }: { readonly timeoutMs: number }): Promise<void> {
  const stop = AbortSignal.timeout(Math.ceil(timeoutMs));
  await new Promise<void>((resolve) => {
    const done = (): void => {
      watcher.close();
      resolve();
    };
    const look = (): void => {
      void hasFile(file).then((isThere) => {
        if (!isThere) done();
      });
    };
    const watcher = watch(path.dirname(file), look);
    // Without the directory nothing can be told; the time limit holds.
    watcher.on('error', look);
    stop.addEventListener('abort', done);
    // It may have gone before the watch began.
    look();
  });
}

/** Free bytes where a path is, or would be: its nearest directory that exists. */
async function freeDiskBytes(wanted: string): Promise<number | undefined> {
  let directory = path.resolve(wanted);
  for (;;) {
    const stats = await fs.statfs(directory).catch(() => undefined);
    if (stats !== undefined) return stats.bavail * stats.bsize;
    const parent = path.dirname(directory);
    if (parent === directory) return undefined;
    directory = parent;
  }
}

async function findInotifyLimits(): Promise<InotifyLimits | undefined> {
  const [maxUserInstances, maxUserWatches] = await Promise.all(
    ['max_user_instances', 'max_user_watches'].map(async (name) =>
      Number(await absentAsUndefined(fs.readFile(`/proc/sys/fs/inotify/${name}`, 'utf8'))),
    ),
  );
  if (!maxUserInstances || !maxUserWatches) return undefined;
  return { maxUserInstances, maxUserWatches };
}

function isProcessAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    // A process of another user is one too.
    return codeOf(error) === 'EPERM';
  }
}

const LOOPBACK = /^(?:localhost|.*\.localhost|127\.[\d.]+|\[::1\])$/;

function httpGet(
  address: string,
  { timeoutMs }: { readonly timeoutMs: number },
): Promise<{ readonly status: number; readonly body: string }> {
  const url = new URL(address);
  if (!LOOPBACK.test(url.hostname)) {
    throw new RangeError(`probes go to loopback only, where certificates need no check: ${address}`);
  }
  // Not every resolver knows that names below `localhost` are this machine.
  const hostname = url.hostname.endsWith('localhost') ? '127.0.0.1' : url.hostname.replace(/^\[|\]$/g, '');
  const nothing = { status: 0, body: '' };
  return new Promise((resolve) => {
    const send = url.protocol === 'https:' ? httpsRequest : httpRequest;
    const request = send(
      {
        hostname,
        port: url.port,
        path: `${url.pathname}${url.search}`,
        headers: { host: url.host },
        agent: false,
        rejectUnauthorized: false,
        signal: AbortSignal.timeout(timeoutMs),
      },
      (response) => {
        const chunks: Buffer[] = [];
        response.on('data', (chunk: Buffer) => chunks.push(chunk));
        response.on('error', () => {
          resolve(nothing);
        });
        response.on('end', () => {
          resolve({ status: response.statusCode ?? 0, body: Buffer.concat(chunks).toString() });
        });
      },
    );
    request.on('error', () => {
      resolve(nothing);
    });
    request.end();
  });
}

async function absentAsUndefined<T>(result: Promise<T>): Promise<T | undefined> {
  try {
    return await result;
  } catch (error) {
    // A circle of symbolic links leads nowhere.
    if (['ENOENT', 'ENOTDIR', 'ELOOP'].includes(codeOf(error) ?? '')) return undefined;
    throw error;
  }
}

/** Failures that the user can do something about say so; a bug stays what it is. */
async function explained<T>(file: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (cause) {
    switch (codeOf(cause)) {
      case 'ENOSPC':
      case 'EDQUOT':
        throw new SandbarError('DISK_FULL', `no space is left for ${file}`, { hint: 'free some disk space', cause });
      case 'EACCES':
      case 'EPERM':
      case 'EROFS':
        throw new SandbarError('FILE_DENIED', `${file} cannot be read or written by this user`, {
          hint: `look at its owner and mode: ls -ld ${file} ${path.dirname(file)}`,
          cause,
        });
      case 'EISDIR':
        throw new SandbarError('FILE_DENIED', `${file} is a directory, where a file is needed`, {
          hint: `choose another name, or look into it: ls ${file}`,
          cause,
        });
      case 'EEXIST':
      case 'ENOTDIR':
      // Folders above are made too: what is missing is what a symbolic link leads to.
      case 'ENOENT':
        throw new SandbarError('FILE_DENIED', `${file} cannot be made: something that is no folder is in its way`, {
          hint: `look at what is there: ls -ld ${file} ${path.dirname(file)}`,
          cause,
        });
      default:
        throw cause;
    }
  }
}

function codeOf(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error ? String(error.code) : undefined;
}
