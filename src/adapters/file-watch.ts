/** Changes of files below a folder of this machine, as the relay of file events needs them. */
import { watch, type FSWatcher, type Stats } from 'node:fs';
import { lstat, readdir } from 'node:fs/promises';
import path from 'node:path';
import { SandbarError } from '../model/errors.ts';

/** `path` is relative, with slashes; `.` is the watched path itself. The signature changes with content and mode. */
type Change = { readonly path: string; readonly signature: string };

export type WatchOptions = {
  /** Relative paths below which nothing is looked at. */
  readonly excluded: readonly string[];
  readonly signal: AbortSignal;
  readonly onChange: (change: Change) => void;
  /** Tells systems that can watch a whole tree with one watch. */
  readonly platform?: NodeJS.Platform;
};

/** Reports changes until the signal is aborted, or until what lies at `source` is removed or replaced. */
export async function watchFiles(source: string, options: WatchOptions): Promise<void> {
  const { signal, platform = process.platform } = options;
  signal.throwIfAborted();
  const stats = await lstat(source);
  const tree = new WatchedTree(source, stats, options);
  try {
    if (!stats.isDirectory()) tree.watchFile();
    else if (platform === 'linux') await tree.watchFolder('.', { isNew: false });
    else tree.watchWhole();
    await tree.ended;
  } finally {
    tree.close();
  }
}

/**
 * On Linux a recursive watch of Node takes one inotify watch for each file; folders are enough, and those that are
 * excluded need none.
 */
class WatchedTree {
  /** Resolves when the source has gone; rejects when it cannot be watched any more. */
  readonly ended: Promise<void>;
  readonly #source: string;
  readonly #identity: string;
  readonly #options: WatchOptions;
  readonly #watchers = new Map<string, FSWatcher>();
  #end: () => void = () => undefined;
  #fail: (cause: unknown) => void = () => undefined;

  constructor(source: string, stats: Stats, options: WatchOptions) {
    this.#source = source;
    this.#identity = identityOf(stats);
    this.#options = options;
    this.ended = new Promise((resolve, reject) => {
      this.#end = resolve;
      this.#fail = reject;
    });
    // Whoever closes the tree before it waits has its own reason.
    this.ended.catch(() => undefined);
    options.signal.addEventListener('abort', this.#end, { once: true });
  }

  /** Editors replace files by a rename, which ends a watch of the file itself: its folder is watched. */
  watchFile(): void {
    const name = path.basename(this.#source);
    this.#watch('.', path.dirname(this.#source), (changed) => {
      if (changed === name) this.#look('.');
    });
  }

  watchWhole(): void {
    this.#watch('.', this.#source, (changed) => this.#look(relativePath('.', changed)), { recursive: true });
  }

  /** Of a folder that is new, what it holds already is reported too: it may have come before the watch was set. */
  async watchFolder(folder: string, { isNew }: { readonly isNew: boolean }): Promise<void> {
    if (this.#watchers.has(folder) || this.#isExcluded(folder) || this.#options.signal.aborted) return;
    const directory = path.join(this.#source, folder);
    this.#watch(folder, directory, (changed) => this.#look(relativePath(folder, changed)));
    // A folder that has gone again meanwhile holds nothing.
    const entries = await readdir(directory, { withFileTypes: true }).catch(() => []);
    for (const entry of entries) {
      const below = relativePath(folder, entry.name);
      if (isNew) await this.#report(below);
      if (entry.isDirectory()) await this.watchFolder(below, { isNew });
    }
  }

  close(): void {
    this.#options.signal.removeEventListener('abort', this.#end);
    for (const watcher of this.#watchers.values()) watcher.close();
    this.#watchers.clear();
  }

  #watch(
    key: string,
    directory: string,
    onName: (name: string) => void,
    { recursive = false }: { readonly recursive?: boolean } = {},
  ): void {
    try {
      const watcher = watch(directory, { recursive }, (_, name) => {
        // Also the source's own name, when it was moved or removed.
        if (directory === this.#source && name === path.basename(directory)) void this.#checkSource();
        if (name !== null) onName(name);
      });
      watcher.on('error', (cause) => {
        if (key === '.') this.#fail(explained(cause, directory));
        else this.#forget(key);
      });
      this.#watchers.set(key, watcher);
    } catch (cause) {
      // Gone again, or of somebody else: the rest of the tree is watched all the same.
      const isPassedOver = ['ENOENT', 'ENOTDIR', 'EACCES', 'EPERM'].includes(
        String((cause as NodeJS.ErrnoException).code),
      );
      if (!isPassedOver || key === '.') throw explained(cause, directory);
    }
  }

  #look(changed: string): void {
    if (this.#isExcluded(changed)) return;
    this.#report(changed).catch(this.#fail);
  }

  async #report(changed: string): Promise<void> {
    if (this.#isExcluded(changed)) return;
    const stats = await lstat(path.join(this.#source, changed)).catch(() => undefined);
    if (this.#options.signal.aborted) return;
    if (stats === undefined) {
      this.#forget(changed);
      this.#options.onChange({ path: changed, signature: 'gone' });
    } else if (stats.isDirectory()) {
      // Its times change with every file in it, which is reported by itself.
      this.#options.onChange({ path: changed, signature: `folder ${String(stats.ino)} ${String(stats.mode)}` });
      if (this.#watchers.has('.') && !this.#isWatchedWhole()) await this.watchFolder(changed, { isNew: true });
    } else {
      const { mtimeMs, size, ino, mode } = stats;
      this.#options.onChange({ path: changed, signature: [mtimeMs, size, ino, mode].join(' ') });
    }
  }

  async #checkSource(): Promise<void> {
    const stats = await lstat(this.#source).catch(() => undefined);
    if (stats === undefined || identityOf(stats) !== this.#identity) this.#end();
  }

  #forget(folder: string): void {
    for (const [watched, watcher] of this.#watchers) {
      if (watched !== folder && !watched.startsWith(`${folder}/`)) continue;
      watcher.close();
      this.#watchers.delete(watched);
    }
  }

  #isWatchedWhole(): boolean {
    return (this.#options.platform ?? process.platform) !== 'linux';
  }

  #isExcluded(changed: string): boolean {
    return this.#options.excluded.some((path) => changed === path || changed.startsWith(`${path}/`));
  }
}

/** A number may be given to the next file, so that the time of birth is part of it. */
function identityOf({ ino, birthtimeMs }: Stats): string {
  return `${String(ino)} ${String(birthtimeMs)}`;
}

function relativePath(folder: string, name: string): string {
  const below = name.split(path.sep).join('/');
  return folder === '.' ? below : `${folder}/${below}`;
}

function explained(cause: unknown, directory: string): unknown {
  switch ((cause as NodeJS.ErrnoException).code) {
    case 'ENOSPC':
    case 'EMFILE':
      return new SandbarError('HOST_LIMIT', `no more folders can be watched on this machine, at ${directory}`, {
        hint: 'exclude large folders from the mount, or raise fs.inotify.max_user_watches',
        cause,
      });
    default:
      return cause;
  }
}
