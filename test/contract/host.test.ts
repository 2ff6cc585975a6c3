/** The machine in memory and the real one keep the same promises; the rest is asked of the real one alone. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { watch } from 'node:fs';
import { chmod, lstat, mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { createServer as createHttpServer } from 'node:http';
import { createServer, type AddressInfo, type Server } from 'node:net';
import { PassThrough } from 'node:stream';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { createHost } from '../../src/adapters/host.ts';
import { parseLinuxRoutes, parseListeningInodes, parseLsof, parseMacRoutes } from '../../src/adapters/host-network.ts';
import type { Host } from '../../src/model/ports.ts';
import { fakeHost } from '../builders/host.ts';

let directory = '';
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'sandbar-host-'));
});
afterAll(() => rm(directory, { recursive: true, force: true }));

const realHost = (): Host => createHost({ env: { HOME: directory }, workingDirectory: directory });

async function listen(server: Server, port = 0, address = '127.0.0.1'): Promise<number> {
  await new Promise<void>((resolve) => server.listen(port, address, resolve));
  return (server.address() as AddressInfo).port;
}

const close = (server: Server): Promise<void> => new Promise((resolve) => server.close(() => resolve()));

describe.each<[string, () => Host]>([
  ['a machine in memory', () => fakeHost()],
  ['this machine', realHost],
])('%s', (_, create) => {
  let host: Host;
  const file = (name: string): string => join(directory, 'shared', name);
  beforeEach(async () => {
    await rm(join(directory, 'shared'), { recursive: true, force: true });
    host = create();
  });

  it('reads what was written, and has nothing where nothing is', async () => {
    expect(await host.readFile(file('a'))).toBeUndefined();
    expect(await host.hasFile(file('a'))).toBe(false);
    expect(await host.findAgeMs(file('a'))).toBeUndefined();
    expect(await host.listDirectory(file('a'))).toBeUndefined();
    await host.writeFileAtomically(file('a'), 'one', 0o600);
    await host.writeFileAtomically(file('a'), 'two', 0o600);
    expect(await host.readFile(file('a'))).toBe('two');
    expect(await host.hasFile(file('a'))).toBe(true);
    expect(await host.findAgeMs(file('a'))).toBeLessThan(60_000);
  });

  it('creates a file once, and removes one as often as asked', async () => {
    expect(await host.createFile(file('lock'), '1', 0o600)).toBe(true);
    expect(await host.createFile(file('lock'), '2', 0o600)).toBe(false);
    expect(await host.readFile(file('lock'))).toBe('1');
    await host.removeFile(file('lock'));
    await host.removeFile(file('lock'));
    expect(await host.createFile(file('lock'), '3', 0o600)).toBe(true);
  });

  it('lists files and folders', async () => {
    await host.writeFileAtomically(file('b/deep'), '', 0o600);
    await host.writeFileAtomically(file('a'), '', 0o600);
    const entries = [...((await host.listDirectory(file(''))) ?? [])].sort((x, y) => x.name.localeCompare(y.name));
    expect(entries).toEqual([
      { name: 'a', isDirectory: false },
      { name: 'b', isDirectory: true },
    ]);
  });

  it('knows files and folders, makes folders as often as asked, but none in the place of a file', async () => {
    expect(await host.findFileType(file('new/deep'))).toBeUndefined();
    await host.makeDirectory(file('new/deep'));
    await host.makeDirectory(file('new/deep'));
    await host.writeFileAtomically(file('new/file'), '', 0o600);
    expect(await host.findFileType(file('new/deep'))).toBe('Directory');
    expect(await host.findFileType(file('new'))).toBe('Directory');
    expect(await host.findFileType(file('new/file'))).toBe('File');
    expect(await host.findFileType(file('new/file/below'))).toBeUndefined();
    expect(await host.listDirectory(file('new/deep'))).toEqual([]);
    await expect(host.makeDirectory(file('new/file'))).rejects.toMatchObject({ code: 'FILE_DENIED' });
  });

  it('resolves what is there, and touches it without a change of its content', async () => {
    await host.writeFileAtomically(file('a'), 'text', 0o600);
    expect(await host.resolvePath(file('a'))).toBe(file('a'));
    expect(await host.resolvePath(file('nothing'))).toBeUndefined();
    await host.touchFile(file('a'));
    await host.touchFile(file('nothing'));
    expect(await host.readFile(file('a'))).toBe('text');
    expect(await host.hasFile(file('nothing'))).toBe(false);
  });

  it('lets one at a time have a lock, tells who waits, and passes a failure on', async () => {
    const log: string[] = [];
    const waits: string[] = [];
    let noteBothWait: () => void = () => undefined;
    const bothWait = new Promise<void>((resolve) => {
      noteBothWait = resolve;
    });
    const onWait = (holder: string): void => {
      if (waits.push(holder) === 2) noteBothWait();
    };
    const work = (name: string) => async (): Promise<string> => {
      log.push(`${name} begins`);
      // The first one goes on only when the others have seen that it has the lock.
      await bothWait;
      log.push(`${name} ends`);
      if (name === 'b') throw new Error('b broke');
      return name;
    };
    const results = await Promise.allSettled(
      ['a', 'b', 'c'].map((name) => host.withLock('cluster-x', { onWait }, work(name))),
    );
    expect(results.map(({ status }) => status).sort()).toEqual(['fulfilled', 'fulfilled', 'rejected']);
    expect(log.filter((_line, index) => index % 2 === 0).map((line) => line.replace('begins', 'ends'))).toEqual(
      log.filter((_line, index) => index % 2 === 1),
    );
    expect(waits.length).toBeGreaterThanOrEqual(2);
  });
});

describe('files of this machine', () => {
  it('are written behind symbolic links, with no more rights than before or than asked for', async () => {
    const host = realHost();
    const target = join(directory, 'dotfiles/config');
    const link = join(directory, 'link');
    await mkdir(join(directory, 'dotfiles'));
    await symlink('dotfiles/config', link);
    await host.writeFileAtomically(link, 'new', 0o600);
    expect((await lstat(link)).isSymbolicLink()).toBe(true);
    expect(await readFile(target, 'utf8')).toBe('new');
    const modeOf = async (): Promise<string> => ((await stat(target)).mode & 0o777).toString(8);
    expect(await modeOf()).toBe('600');
    await chmod(target, 0o644);
    await host.writeFileAtomically(link, 'newer', 0o600);
    expect(await modeOf()).toBe('600');
    await host.writeFileAtomically(link, 'newest', 0o755);
    expect(await modeOf()).toBe('600');
    expect(await readdir(join(directory, 'dotfiles'))).toEqual(['config']);
  });

  it('are found through symbolic links, and links to nothing lead nowhere', async () => {
    const host = realHost();
    const folder = join(directory, 'linked');
    await mkdir(join(folder, 'real'), { recursive: true });
    await symlink('real', join(folder, 'link'));
    await symlink('missing', join(folder, 'dangling'));
    await symlink('loop', join(folder, 'loop'));
    expect(await host.resolvePath(join(folder, 'link'))).toBe(join(folder, 'real'));
    expect(await host.findFileType(join(folder, 'link'))).toBe('Directory');
    for (const name of ['dangling', 'loop']) {
      expect(await host.resolvePath(join(folder, name))).toBeUndefined();
      expect(await host.findFileType(join(folder, name))).toBeUndefined();
    }
    await expect(host.makeDirectory(join(folder, 'dangling'))).rejects.toMatchObject({ code: 'FILE_DENIED' });
    const fake = fakeHost({ '/srv/real/file': '' });
    fake.links.set('/srv/link', '/srv/real');
    fake.links.set('/srv/dangling', '/srv/missing');
    expect(await fake.resolvePath('/srv/link/file')).toBe('/srv/real/file');
    expect(await fake.findFileType('/srv/link')).toBe('Directory');
    expect(await fake.resolvePath('/srv/dangling')).toBeUndefined();
  });

  it('raise an event when they are touched, and keep their times and mode', async () => {
    const host = realHost();
    const file = join(directory, 'touched');
    await writeFile(file, 'text', { mode: 0o640 });
    const before = await stat(file, { bigint: true });
    const watcher = watch(file);
    try {
      const event = once(watcher, 'change');
      await host.touchFile(file);
      await event;
    } finally {
      watcher.close();
    }
    const after = await stat(file, { bigint: true });
    expect([after.mtimeNs, after.atimeNs, after.mode]).toEqual([before.mtimeNs, before.atimeNs, before.mode]);
  });

  it('get their missing folders for the owner alone, and executables all of their mode', async () => {
    const host = realHost();
    const file = join(directory, '.kube/config');
    await host.writeFileAtomically(file, '', 0o755);
    expect((await stat(join(directory, '.kube'))).mode & 0o777).toBe(0o700);
    expect((await stat(file)).mode & 0o777).toBe(0o755);
  });

  it('that cannot be written say so by name', async () => {
    const host = realHost();
    await mkdir(join(directory, 'folder/inside'), { recursive: true });
    await expect(host.writeFileAtomically(join(directory, 'folder'), '', 0o600)).rejects.toMatchObject({
      code: 'FILE_DENIED',
      message: expect.stringContaining(join(directory, 'folder')) as string,
    });
    await symlink('circle', join(directory, 'circle'));
    await expect(host.writeFileAtomically(join(directory, 'circle'), '', 0o600)).rejects.toMatchObject({
      code: 'FILE_DENIED',
    });
    expect((await readdir(directory)).filter((name) => name.startsWith('.folder'))).toEqual([]);
  });

  it('that cannot be written as a stream end it, so that nobody goes on writing to it', async () => {
    const source = new PassThrough();
    await expect(realHost().writeStream(join(directory, 'none', 'file'), source)).rejects.toThrow('none/file');
    expect(source.destroyed).toBe(true);
  });

  it('are waited for until they are gone, but no longer than told', async () => {
    const host = realHost();
    const lock = join(directory, 'wait.lock');
    await host.waitForRemoval(lock, { timeoutMs: 10_000 });
    await writeFile(lock, '');
    await host.waitForRemoval(lock, { timeoutMs: 20.5 });
    expect(await host.hasFile(lock)).toBe(true);
    const waiting = host.waitForRemoval(lock, { timeoutMs: 10_000 });
    await rm(lock);
    await waiting;
    expect(await host.hasFile(lock)).toBe(false);
  });

  it('lie where the XDG rules say', () => {
    const at = (env: Host['env']): readonly string[] => {
      const host = createHost({ env: { HOME: '/home/ada', ...env }, workingDirectory: '/' });
      return [host.cacheDirectory, host.stateDirectory];
    };
    expect(at({})).toEqual(['/home/ada/.cache/sandbar', '/home/ada/.local/state/sandbar']);
    expect(at({ XDG_CACHE_HOME: '/c', XDG_STATE_HOME: 'relative' })).toEqual([
      '/c/sandbar',
      '/home/ada/.local/state/sandbar',
    ]);
  });
});

describe('locks between processes', () => {
  it('end with a killed process, and wake who waits for it with its pid known', async () => {
    const program = join(directory, 'holder.mjs');
    await build({
      stdin: {
        contents: `import { createHost } from './host.ts';
          await createHost({ env: { HOME: process.argv[2] } }).withLock('x', { onWait() {} }, () => {
            console.log('held');
            return new Promise(() => setInterval(() => {}, 1000));
          });`,
        resolveDir: fileURLToPath(new URL('../../src/adapters', import.meta.url)),
        loader: 'ts',
      },
      bundle: true,
      platform: 'node',
      format: 'esm',
      outfile: program,
      banner: { js: `import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);` },
    });
    const host = realHost();
    for (let round = 0; round < 3; round += 1) {
      const holder = spawn(process.execPath, [program, directory], { stdio: ['ignore', 'pipe', 'inherit'] });
      await new Promise((resolve) => holder.stdout.once('data', resolve));
      const waits: string[] = [];
      const onWait = (who: string): void => {
        waits.push(who);
        holder.kill('SIGKILL');
      };
      expect(await host.withLock('x', { onWait }, () => Promise.resolve('mine'))).toBe('mine');
      expect(waits).toEqual([`pid ${String(holder.pid)}`]);
    }
    expect((await readdir(join(host.stateDirectory, 'locks'))).filter((name) => name.startsWith('x'))).toHaveLength(1);
  });

  it('are given up on when the user interrupts', async () => {
    const host = realHost();
    const abort = new AbortController();
    await host.withLock('y', { onWait: () => undefined }, async () => {
      const onWait = (): void => abort.abort(new Error('interrupted'));
      await expect(host.withLock('y', { onWait, signal: abort.signal }, () => Promise.resolve())).rejects.toThrow(
        'interrupted',
      );
    });
    await host.withLock('y', { onWait: () => expect.unreachable() }, () => Promise.resolve());
  });
});

describe('the network of this machine', () => {
  it.each(['127.0.0.1', '0.0.0.0', '::'])('knows that a port is taken on %s, and by whom', async (address) => {
    const host = realHost();
    const server = createServer();
    const port = await listen(server, 0, address);
    try {
      expect(await host.isPortFree(port)).toBe(false);
      expect(await host.findPortOwner(port)).toContain(`(pid ${String(process.pid)})`);
    } finally {
      await close(server);
    }
    expect(await host.isPortFree(port)).toBe(true);
    expect(await host.findPortOwner(port)).toBeUndefined();
  });

  it('is asked over loopback only; what does not answer has status 0', async () => {
    const host = realHost();
    const server = createHttpServer((request, response) => {
      response.writeHead(404).end(`${request.headers.host ?? ''}${request.url ?? ''}`);
    });
    const port = await listen(server);
    try {
      const url = `http://app.localhost:${String(port)}/a?b`;
      expect(await host.httpGet(url, { timeoutMs: 5_000 })).toEqual({
        status: 404,
        body: `app.localhost:${String(port)}/a?b`,
      });
      expect(() => host.httpGet('http://example.com/', { timeoutMs: 1 })).toThrow('loopback');
    } finally {
      server.closeAllConnections();
      await close(server);
    }
    expect(await host.httpGet(`http://127.0.0.1:${String(port)}/`, { timeoutMs: 5_000 })).toEqual({
      status: 0,
      body: '',
    });
  });

  it('and its limits can be read', async () => {
    const host = realHost();
    expect(await host.freeDiskBytes(join(directory, 'not/there/yet'))).toBeGreaterThan(0);
    expect(host.isProcessAlive(process.pid)).toBe(true);
    expect(host.isProcessAlive(2 ** 22 + 1)).toBe(false);
    for (const route of await host.listRoutes()) expect(route).toMatch(/^\d+\.\d+\.\d+\.\d+\/\d+$/);
    if (host.platform === 'linux') expect((await host.findInotifyLimits())?.maxUserWatches).toBeGreaterThan(0);
  });

  it('is read from what the systems print', () => {
    expect(
      parseLinuxRoutes(`Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t010011AC\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
vpn0\t00001EAC\t00000000\t0000\t0\t0\t0\t00FFFFFF\t0\t0\t0
vpn0\t0500000A\t00000000\t0005\t0\t0\t0\tFFFFFFFF\t0\t0\t0
`),
    ).toEqual(['172.17.0.0/16', '10.0.0.5/32']);
    expect(
      parseMacRoutes(`Routing tables

Internet:
Destination        Gateway            Flags               Netif Expire
default            192.168.1.1        UGScg                 en0
10                 utun3              UCS                 utun3
127                127.0.0.1          UCS                   lo0
172.16/12          utun3              UCS                 utun3
192.168.1          link#6             UCS                   en0      !
192.168.1.1/32     link#6             UCS                   en0      !
224.0.0/4          link#6             UmCS                  en0      !
`),
    ).toEqual(['10.0.0.0/8', '172.16.0.0/12', '192.168.1.0/24', '192.168.1.1/32', '224.0.0.0/4']);
    expect(parseLsof('p411\ncnginx\np412\ncnginx\n')).toBe('nginx (pid 411)');
    expect(parseLsof('')).toBeUndefined();
    const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 123 1 0 100 0 0 10 0
   1: 0100007F:0050 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 124 1 0 100 0 0 10 0
`;
    expect(parseListeningInodes(table, 80)).toEqual(['123']);
  });
});
