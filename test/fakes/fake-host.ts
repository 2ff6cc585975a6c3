import { join } from 'node:path/posix';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { SandbarError } from '../../src/model/errors.ts';
import type { DirectoryEntry, ExecResult, Host, InotifyLimits } from '../../src/model/ports.ts';

/** A machine in memory: files by path, ports that others listen on, routes. */
export class FakeHost implements Host {
  readonly platform: NodeJS.Platform = 'linux';
  readonly architecture: string = 'x64';
  readonly env: Record<string, string | undefined>;
  readonly homeDirectory = '/home/ada';
  readonly workingDirectory = '/home/ada/app';
  readonly cacheDirectory = '/home/ada/.cache/sandbar';
  readonly dataDirectory = '/data/ada/sandbar';
  readonly stateDirectory = '/home/ada/.local/state/sandbar';
  readonly isRoot = false;
  readonly processId = 4711;
  readonly system = { node: 'v22.0.0', release: '6.1.0' };
  readonly files = new Map<string, { readonly content: string; readonly mode: number; readonly ageMs: number }>();
  /** Folders without a file in them. */
  readonly directories = new Set<string>();
  /** Symbolic link → the absolute path that it leads to. */
  readonly links = new Map<string, string>();
  /** Files whose event was raised by a touch, in this order. */
  readonly touchedFiles: string[] = [];
  /** Port → who listens there. */
  readonly listeners = new Map<number, string>();
  routes: readonly string[] = ['172.17.0.0/16'];
  freeBytes = 100 * 2 ** 30;
  inotifyLimits: InotifyLimits | undefined = { maxUserInstances: 8192, maxUserWatches: 1_048_576 };
  readonly alivePids = new Set([4711]);
  /** URL → status; what is not here does not answer. */
  readonly httpStatuses = new Map<string, number>();
  /** What programs of this machine do, by name. */
  readonly programs = new Map<string, (args: readonly string[]) => ExecResult>();
  readonly #locks = new Map<string, Promise<unknown>>();

  constructor(env: Readonly<Record<string, string | undefined>> = {}) {
    this.env = { ...env };
  }

  readFile(path: string): Promise<string | undefined> {
    return Promise.resolve(this.files.get(path)?.content);
  }

  writeFileAtomically(path: string, content: string | Buffer, mode: number): Promise<void> {
    this.files.set(path, { content: content.toString(), mode, ageMs: 0 });
    return Promise.resolve();
  }

  createFile(path: string, content: string, mode: number): Promise<boolean> {
    if (this.files.has(path)) return Promise.resolve(false);
    this.files.set(path, { content, mode, ageMs: 0 });
    return Promise.resolve(true);
  }

  async writeStream(path: string, source: Readable): Promise<void> {
    const content = await buffer(source);
    this.files.set(path, { content: content.toString('base64'), mode: 0o600, ageMs: 0 });
  }

  /** Of a file that was written as a stream. */
  openStream(path: string): Promise<Readable | undefined> {
    const file = this.files.get(path);
    return Promise.resolve(file && Readable.from([Buffer.from(file.content, 'base64')], { objectMode: false }));
  }

  removeFile(path: string): Promise<void> {
    this.files.delete(path);
    return Promise.resolve();
  }

  hasFile(path: string): Promise<boolean> {
    return Promise.resolve(this.files.has(path));
  }

  findAgeMs(path: string): Promise<number | undefined> {
    return Promise.resolve(this.files.get(path)?.ageMs);
  }

  async findFileType(path: string): Promise<'Directory' | 'File' | undefined> {
    const real = await this.resolvePath(path);
    if (real === undefined) return undefined;
    return this.files.has(real) ? 'File' : 'Directory';
  }

  async resolvePath(path: string): Promise<string | undefined> {
    let real = '/';
    for (const part of path.split('/').filter(Boolean)) {
      const here = join(real, part);
      const target = this.links.get(here);
      const next = target === undefined ? here : await this.resolvePath(target);
      if (next === undefined) return undefined;
      real = next;
    }
    const isThere = this.files.has(real) || this.#isDirectory(real);
    return isThere ? real : undefined;
  }

  makeDirectory(path: string): Promise<void> {
    if (this.files.has(path)) {
      return Promise.reject(
        new SandbarError('FILE_DENIED', `${path} cannot be made: something that is no folder is in its way`),
      );
    }
    this.directories.add(path);
    return Promise.resolve();
  }

  touchFile(path: string): Promise<void> {
    if (this.files.has(path)) this.touchedFiles.push(path);
    return Promise.resolve();
  }

  waitForRemoval(): Promise<void> {
    return Promise.resolve();
  }

  listDirectory(path: string): Promise<readonly DirectoryEntry[] | undefined> {
    if (!this.#isDirectory(path)) return Promise.resolve(undefined);
    const below = this.#entries().filter((entry) => entry.startsWith(`${path}/`));
    const names = new Set(below.map((entry) => entry.slice(path.length + 1).split('/')[0] ?? ''));
    return Promise.resolve(
      [...names].map((name) => ({
        name,
        isDirectory: this.#isDirectory(this.links.get(`${path}/${name}`) ?? `${path}/${name}`),
      })),
    );
  }

  isPortFree(port: number): Promise<boolean> {
    return Promise.resolve(!this.listeners.has(port));
  }

  /** Of both protocols, as `listeners` has them. */
  isListening(port: number): Promise<boolean> {
    return Promise.resolve(this.listeners.has(port));
  }

  findPortOwner(port: number): Promise<string | undefined> {
    return Promise.resolve(this.listeners.get(port));
  }

  listRoutes(): Promise<readonly string[]> {
    return Promise.resolve(this.routes);
  }

  freeDiskBytes(): Promise<number | undefined> {
    return Promise.resolve(this.freeBytes);
  }

  findInotifyLimits(): Promise<InotifyLimits | undefined> {
    return Promise.resolve(this.inotifyLimits);
  }

  run(file: string, args: readonly string[]): Promise<ExecResult | undefined> {
    return Promise.resolve(this.programs.get(file)?.(args));
  }

  isProcessAlive(pid: number): boolean {
    return this.alivePids.has(pid);
  }

  async withLock<T>(
    name: string,
    { onWait }: { readonly onWait: (holder: string) => void; readonly signal?: AbortSignal },
    work: () => Promise<T>,
  ): Promise<T> {
    const before = this.#locks.get(name);
    if (before !== undefined) onWait('another process');
    const running = (before ?? Promise.resolve()).catch(() => undefined).then(work);
    this.#locks.set(name, running);
    try {
      return await running;
    } finally {
      if (this.#locks.get(name) === running) this.#locks.delete(name);
    }
  }

  httpGet(url: string): Promise<{ readonly status: number; readonly body: string }> {
    return Promise.resolve({ status: this.httpStatuses.get(url) ?? 0, body: '' });
  }

  #isDirectory(path: string): boolean {
    const prefix = path === '/' ? path : `${path}/`;
    return this.directories.has(path) || this.#entries().some((entry) => entry.startsWith(prefix));
  }

  #entries(): readonly string[] {
    return [...this.files.keys(), ...this.directories, ...this.links.keys()];
  }
}
