/** Watching files on this machine, as the relay does. */
import { chmod, mkdir, mkdtemp, realpath, rename, rm, stat, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { watchFiles } from '../../src/adapters/file-watch.ts';
import { createEchoFilter, type FileChange } from '../../src/mounts/events.ts';

const cleanups: (() => Promise<void>)[] = [];

afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function makeFolder(): Promise<string> {
  const folder = await realpath(await mkdtemp(path.join(os.tmpdir(), 'sandbar-watch-')));
  cleanups.push(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

/** Changes as they come; `next` resolves with the first one that was not asked for yet and fits. */
class Seen {
  readonly changes: FileChange[] = [];
  readonly ended: Promise<void>;
  #wake = (): void => undefined;
  #taken = 0;

  constructor(source: string, excluded: readonly string[] = []) {
    const stop = new AbortController();
    const isNews = createEchoFilter();
    const onChange = (change: FileChange): void => {
      if (!isNews('', change)) return;
      this.changes.push(change);
      this.#wake();
    };
    this.ended = watchFiles(source, { excluded, signal: stop.signal, onChange });
    cleanups.push(async () => {
      stop.abort();
      await this.ended;
    });
  }

  /** A file may be seen while it is being written: `size` waits for all of it. */
  async next(wanted: string, { size }: { readonly size?: number } = {}): Promise<FileChange> {
    const isWanted = ({ path: changed, signature }: FileChange): boolean =>
      changed === wanted && (size === undefined || signature.split(' ')[1] === String(size));
    for (;;) {
      const found = this.changes.findIndex((change, index) => index >= this.#taken && isWanted(change));
      if (found !== -1) {
        this.#taken = found + 1;
        return this.changes[found]!;
      }
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
  }
}

/** A watch that is known to be set: it has seen a file come. */
async function watching(source: string, excluded: readonly string[] = []): Promise<Seen> {
  const seen = new Seen(source, excluded);
  for (let attempt = 0; seen.changes.length === 0; attempt += 1) {
    await writeFile(path.join(source, '.ready'), String(attempt));
    await new Promise((resolve) => setImmediate(resolve));
  }
  return seen;
}

describe('watching a folder', () => {
  it('sees files change, be replaced by a rename, and go', async () => {
    const folder = await makeFolder();
    await writeFile(path.join(folder, 'a.js'), '1');
    const seen = await watching(folder);
    await writeFile(path.join(folder, 'a.js'), '22');
    await seen.next('a.js', { size: 2 });
    await writeFile(path.join(folder, '.a.js.swp'), '333');
    await rename(path.join(folder, '.a.js.swp'), path.join(folder, 'a.js'));
    await seen.next('a.js', { size: 3 });
    await rm(path.join(folder, 'a.js'));
    expect(await seen.next('a.js')).toEqual({ path: 'a.js', signature: 'gone' });
  });

  it('sees what folders hold that come later, and what changes in them', async () => {
    const folder = await makeFolder();
    const elsewhere = await makeFolder();
    await mkdir(path.join(elsewhere, 'lib', 'deep'), { recursive: true });
    await writeFile(path.join(elsewhere, 'lib', 'deep', 'ünï cödé.js'), '1');
    const seen = await watching(folder);
    await rename(path.join(elsewhere, 'lib'), path.join(folder, 'lib'));
    await seen.next('lib/deep/ünï cödé.js');
    await writeFile(path.join(folder, 'lib', 'deep', 'b.js'), '1');
    await seen.next('lib/deep/b.js');
  });

  it('looks at nothing that is excluded', async () => {
    const folder = await makeFolder();
    await mkdir(path.join(folder, 'node_modules', 'left-pad'), { recursive: true });
    const seen = await watching(folder, ['node_modules']);
    await writeFile(path.join(folder, 'node_modules', 'left-pad', 'index.js'), '1');
    await writeFile(path.join(folder, 'node_modules', 'a.js'), '1');
    await writeFile(path.join(folder, 'node_modules.txt'), '1');
    await seen.next('node_modules.txt');
    expect(seen.changes.map((change) => change.path).filter((name) => name.startsWith('node_modules/'))).toEqual([]);
  });

  it('takes the echo of a touch for no change', async () => {
    const folder = await makeFolder();
    const file = path.join(folder, 'a.js');
    const seen = await watching(folder);
    await writeFile(file, '1');
    await seen.next('a.js', { size: 1 });
    const count = seen.changes.length;
    await chmod(file, (await stat(file)).mode);
    await writeFile(path.join(folder, 'end'), '');
    await seen.next('end');
    expect(seen.changes.slice(count).map((change) => change.path)).not.toContain('a.js');
  });

  it('ends when the folder goes, and when another takes its place', async () => {
    const folder = path.join(await makeFolder(), 'src');
    await mkdir(folder);
    const first = await watching(folder);
    await rm(folder, { recursive: true });
    await first.ended;

    await mkdir(folder);
    const second = await watching(folder);
    await rename(folder, `${folder}.old`);
    await mkdir(folder);
    await second.ended;
  });

  it('of a folder that is not there fails', async () => {
    const source = path.join(await makeFolder(), 'none');
    const { signal } = new AbortController();
    await expect(watchFiles(source, { excluded: [], signal, onChange: () => undefined })).rejects.toThrow('ENOENT');
  });
});

describe('watching a file', () => {
  it('sees it change and be replaced, and nothing beside it', async () => {
    const folder = await makeFolder();
    const file = path.join(folder, 'app.conf');
    await writeFile(file, '');
    const seen = new Seen(file);
    for (let attempt = 0; seen.changes.length === 0; attempt += 1) {
      await writeFile(file, 'x'.repeat(attempt));
      await new Promise((resolve) => setImmediate(resolve));
    }
    await writeFile(path.join(folder, 'other.conf'), '1');
    const before = seen.changes.length;
    await rename(path.join(folder, 'other.conf'), file);
    await expect.poll(() => seen.changes.length).toBeGreaterThan(before);
    expect(new Set(seen.changes.map((change) => change.path))).toEqual(new Set(['.']));
  });
});
