/** The gallery of docs/examples: what it accepts as a picture, how it keeps captions, how it follows edits. */
import { spawn, type ChildProcess } from 'node:child_process';
import { copyFile, mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';

type Entry = { readonly text: string; readonly likes: number };
type Store = {
  all(): Readonly<Record<string, Entry>>;
  count(): number;
  setText(id: string, text: string): Promise<Entry>;
  like(id: string): Promise<Entry>;
  remove(id: string): Promise<void>;
};
type Pictures = {
  readonly detectPicture: (bytes: Buffer) => { readonly type: string; readonly extension: string } | undefined;
  readonly typeOfKey: (key: string) => string | undefined;
  readonly isPictureKey: (key: string) => boolean;
  readonly newPictureKey: (parts: {
    readonly now: Date;
    readonly random: string;
    readonly extension: string;
  }) => string;
  readonly pageOfNewest: <T extends { readonly key: string; readonly modified: string }>(
    pictures: readonly T[],
    page: { readonly offset: number; readonly limit: number },
  ) => readonly T[];
  readonly escapeHtml: (text: string) => string;
  readonly parseCount: (text: string | null, bounds: { readonly fallback: number; readonly max: number }) => number;
};

// The app is plain JavaScript that runs as it is: it has no types to import.
const gallery = new URL('../../docs/examples/gallery/', import.meta.url);
const load = (path: string): Promise<unknown> => import(new URL(path, gallery).href);
const pictures = (await load('web/src/pictures.js')) as Pictures;
const { fillIn } = (await load('web/src/page.js')) as {
  readonly fillIn: (template: string, values: Readonly<Record<string, string>>) => string;
};
const { collectNames, versionOf } = (await load('web/src/live-reload.js')) as {
  readonly versionOf: (directory: string) => string;
  readonly collectNames: (
    callback: (names: readonly string[]) => void,
  ) => (event: 'change' | 'rename', name: string | null) => void;
};
const { openStore, cleanCaption } = (await load('captions/src/store.js')) as {
  readonly openStore: (path: string) => Promise<Store>;
  readonly cleanCaption: (text: unknown) => string;
};

describe('what counts as a picture', () => {
  it.each([
    ['image/png', [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a, 0, 0, 0, 13]],
    ['image/jpeg', [0xff, 0xd8, 0xff, 0xe0, 0, 16]],
    ['image/gif', [...Buffer.from('GIF89a'), 1, 0]],
    ['image/webp', [...Buffer.from('RIFF'), 1, 2, 3, 4, ...Buffer.from('WEBPVP8 ')]],
    ['image/avif', [0, 0, 0, 32, ...Buffer.from('ftypavif')]],
  ])('knows %s by its first bytes', (type, bytes) => {
    expect(pictures.detectPicture(Buffer.from(bytes))?.type).toBe(type);
  });

  it.each([
    '',
    '<svg xmlns="http://www.w3.org/2000/svg"/>',
    '<!doctype html><script>alert(1)</script>',
    'RIFF1234WAVE',
  ])('refuses %j, whatever it is called', (text) => {
    expect(pictures.detectPicture(Buffer.from(text))).toBeUndefined();
  });

  it('serves objects by their name, so that nothing in the bucket becomes a page', () => {
    expect(pictures.typeOfKey('holiday/CAT.JPEG')).toBe('image/jpeg');
    expect(['page.html', 'drawing.svg', 'cat.png.html', 'png'].map(pictures.typeOfKey)).toEqual(
      Array.from({ length: 4 }),
    );
  });

  it.each([
    '../secret.png',
    'a/../b.png',
    './a.png',
    '/etc/a.png',
    'a//b.png',
    'a\nb.png',
    '',
    `${'a'.repeat(1025)}.png`,
  ])('refuses the name %j', (key) => {
    expect(pictures.isPictureKey(key)).toBe(false);
  });

  it('takes its own names and those that others gave', () => {
    const key = pictures.newPictureKey({
      now: new Date('2026-03-01T10:20:30.045Z'),
      random: 'c0ffee',
      extension: '.png',
    });
    expect(key).toBe('2026-03-01-102030045-c0ffee.png');
    expect([key, 'cat.webp', 'holiday/day 1 (süß).jpg', '__proto__.gif'].every(pictures.isPictureKey)).toBe(true);
  });
});

describe('the page', () => {
  it('shows the newest pictures first and goes on where a page ended', () => {
    const all = [2, 5, 1, 4, 3].map((day) => ({ key: `p${String(day)}.png`, modified: `2026-01-0${String(day)}` }));
    const keys = (offset: number): string[] =>
      pictures.pageOfNewest(all, { offset, limit: 2 }).map((picture) => picture.key);
    expect([keys(0), keys(2), keys(4), keys(6)]).toEqual([['p5.png', 'p4.png'], ['p3.png', 'p2.png'], ['p1.png'], []]);
  });

  it('reads counts from a query within bounds', () => {
    const count = (text: string | null): number => pictures.parseCount(text, { fallback: 24, max: 200 });
    expect([null, '', '7', '-1', '1e9', '999999', '0'].map(count)).toEqual([24, 24, 7, 24, 24, 200, 0]);
  });

  it('puts settings into the template as text', () => {
    const page = fillIn('<title>{{title}}</title><p id="{{title}}">{{other}}', { title: `"><script>'&` });
    expect(page).toBe(
      '<title>&#34;&#62;&#60;script&#62;&#39;&#38;</title><p id="&#34;&#62;&#60;script&#62;&#39;&#38;">{{other}}',
    );
  });

  it('leaves no character that ends a text or an attribute', () => {
    fc.assert(
      fc.property(fc.string(), (text) => {
        expect(pictures.escapeHtml(text)).not.toMatch(/[<>"']/);
      }),
      { numRuns: 50 },
    );
  });
});

describe('captions', () => {
  let directory: string;
  let path: string;
  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'gallery-test-'));
    path = join(directory, 'data', 'captions.json');
  });
  afterEach(() => rm(directory, { recursive: true, force: true }));

  it('are one line of at most 200 characters, markup and all', () => {
    expect(cleanCaption('  a\n\tb\u0000c  <b>d</b> ')).toBe('a b c <b>d</b>');
    expect(cleanCaption('😀'.repeat(300))).toBe('😀'.repeat(200));
    expect(cleanCaption({ toString: () => 'x' })).toBe('');
  });

  it('are there again when the service starts again', async () => {
    const store = await openStore(path);
    await store.setText('a.png', 'A cat');
    await store.like('a.png');
    await store.like('b.png');
    await store.setText('gone.png', 'x');
    await store.remove('gone.png');
    const again = await openStore(path);
    expect(again.all()).toEqual({ 'a.png': { text: 'A cat', likes: 1 }, 'b.png': { text: '', likes: 1 } });
  });

  it('keep every one of many likes that come at once', async () => {
    const store = await openStore(path);
    await Promise.all(Array.from({ length: 100 }, () => store.like('a.png')));
    expect(JSON.parse(await readFile(path, 'utf8'))).toEqual({ 'a.png': { text: '', likes: 100 } });
  });

  it('may be of a picture called __proto__', async () => {
    const store = await openStore(path);
    await store.setText('__proto__', 'odd');
    expect(store.count()).toBe(1);
    expect((await openStore(path)).count()).toBe(1);
  });

  it('are not thrown away where their file is broken', async () => {
    await openStore(path);
    await writeFile(path, '{"a.png":');
    await expect(openStore(path)).rejects.toThrow('is not JSON: move it away');
  });
});

describe('edits of the front end', () => {
  afterEach(() => {
    vi.useRealTimers();
  });

  it('are told once for all files of a save, without those that an editor makes for itself', () => {
    vi.useFakeTimers();
    const told: (readonly string[])[] = [];
    const note = collectNames((names) => told.push(names));
    for (const name of ['4913', 'style.css~', '.style.css.swp', 'style.css', 'style.css', 'app.js', null]) {
      note('change', name);
    }
    expect(told).toEqual([]);
    vi.advanceTimersByTime(20);
    note('rename', '.style.css.swp');
    vi.advanceTimersByTime(20);
    note('change', 'index.html');
    vi.advanceTimersByTime(20);
    expect(told).toEqual([['style.css', 'app.js'], ['index.html']]);
  });

  it('make another version, which a page asks for once it listens, so that none is missed before', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'gallery-test-'));
    try {
      await writeFile(join(directory, 'app.js'), 'one');
      const before = versionOf(directory);
      await writeFile(join(directory, 'app.js~'), 'two');
      expect(versionOf(directory)).toBe(before);
      await rename(join(directory, 'app.js~'), join(directory, 'app.js'));
      expect(versionOf(directory)).not.toBe(before);
    } finally {
      await rm(directory, { recursive: true });
    }
  });
});

describe('edits of a server', () => {
  let directory: string;
  let watching: ChildProcess | undefined;
  let output = '';
  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'gallery-test-'));
    await writeFile(join(directory, 'package.json'), '{ "type": "module" }');
    output = '';
  });
  afterEach(async () => {
    watching?.kill('SIGKILL');
    await rm(directory, { recursive: true, force: true });
  });

  /** As editors save: another file takes the place of the edited one. */
  const edit = async (text: string): Promise<void> => {
    await writeFile(join(directory, 'server.js~'), text);
    await rename(join(directory, 'server.js~'), join(directory, 'server.js'));
  };
  const serverThatSays = (text: string): string => `
    import { createServer } from 'node:http';
    const server = createServer((request, response) => response.end('${text}'));
    process.once('SIGTERM', () => {
      console.log('${text} ends');
      server.close(() => process.exit(0));
    });
    process.on('message', ({ problem }) => console.log(problem));
    server.listen(0, '127.0.0.1', () => console.log(\`${text} http://127.0.0.1:\${server.address().port}/\`));
  `;
  const start = async (service: string): Promise<ChildProcess> => {
    await copyFile(new URL(`${service}/src/watch.js`, gallery), join(directory, 'watch.js'));
    watching = spawn(process.execPath, [join(directory, 'watch.js')], { stdio: ['ignore', 'pipe', 'pipe'] });
    for (const stream of [watching.stdout, watching.stderr]) {
      stream?.setEncoding('utf8').on('data', (text: string) => (output += text));
    }
    return watching;
  };
  const printed = (pattern: RegExp): Promise<RegExpExecArray> =>
    vi.waitFor(
      () => {
        const match = pattern.exec(output);
        if (match === null) throw new Error(`not printed: ${String(pattern)} in ${output}`);
        return match;
      },
      { timeout: 4_000, interval: 10 },
    );
  /** A server that is on its way out may have the first word. */
  const answers = async (text: string): Promise<void> => {
    const [, url = ''] = await printed(new RegExp(`${text} (http\\S+)`));
    await vi.waitFor(
      async () => {
        const response = await fetch(url, { headers: { connection: 'close' } });
        if ((await response.text()) !== text) throw new Error(`another one than ${text} answers`);
      },
      { timeout: 4_000 },
    );
  };
  const end = async (running: ChildProcess): Promise<unknown> => {
    running.kill('SIGTERM');
    return new Promise((resolve) => running.on('exit', resolve));
  };

  it('start the next web server, and leave the last one where the next does not start', async () => {
    await edit(serverThatSays('first'));
    const running = await start('web');
    await answers('first');
    await edit('this is no program');
    await printed(/The edited server does not start/);
    await answers('first');
    await edit(serverThatSays('second'));
    await answers('second');
    expect(await end(running)).toBe(0);
  });

  it('end the captions server before the next one starts, as often as there is an edit', async () => {
    await edit(serverThatSays('first'));
    const running = await start('captions');
    await answers('first');
    await edit(serverThatSays('second'));
    await answers('second');
    await edit('this is no program');
    await printed(/the next edit starts it again/);
    await edit(serverThatSays('third'));
    await answers('third');
    expect(output).toMatch(/first ends[^]*second http[^]*second ends[^]*third http/);
    expect(await end(running)).toBe(0);
  });
});
