/** Live mounts through everything that ends and starts again around them; nobody calls the command line meanwhile. */
import { existsSync } from 'node:fs';
import { appendFile, mkdir, mkdtemp, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { execa } from 'execa';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { isDockerMissing } from '../fixtures/docker.ts';
import { canRestartEngine, restartEngine } from '../fixtures/engine-restart.ts';
import { TOOLBOX_IMAGE } from './fixtures/apps.ts';
import {
  countTraces,
  deploy,
  inPod,
  listMounts,
  mountContainers,
  podOf,
  podsOf,
  untilRead,
  watchInPod,
  workload,
  type PodWatch,
} from './mounts.ts';
import { createSandbox, eventually, SANDBAR, type RunResult } from './support.ts';

const isRoot = process.getuid?.() === 0;
/** A soak asks for more: docs/development.md. */
const CYCLES = Number(process.env['SANDBAR_MOUNT_CYCLES'] ?? '200');

describe.skipIf(isDockerMissing)('live mounts', () => {
  const sandbox = createSandbox('survive');
  const path = (...names: readonly string[]): string => join(sandbox.directory, ...names);
  let edits = 0;

  beforeAll(async () => {
    await mkdir(path('app/nested'), { recursive: true });
    await mkdir(path('nested'));
    await writeFile(path('settings.json'), 'first');
    await sandbox.up();
    await sandbox.must(['image', 'load', TOOLBOX_IMAGE]);
    await deploy(sandbox, workload('Deployment', 'web'));
    for (const [source, target] of [
      ['app', '/app/src'],
      ['nested', '/app/src/nested'],
      ['settings.json', '/etc/settings.json'],
    ]) {
      await sandbox.must(['mount', source ?? '', `deployment/web:${target ?? ''}`]);
    }
    await expectLive();
  });

  /** An edit of each mount is seen in the pod, with its event, and what the pod writes is on the host. */
  async function expectLive(): Promise<void> {
    edits += 1;
    const text = `edit ${String(edits)}`;
    await Promise.all(['app/file.txt', 'nested/file.txt', 'settings.json'].map((name) => writeFile(path(name), text)));
    for (const file of ['/app/src/file.txt', '/app/src/nested/file.txt', '/etc/settings.json']) {
      await untilRead(sandbox, { pod: 'deployment/web', path: file, text });
    }
    await sandbox.mustKubectl(['rollout', 'status', 'deployment/web', '--timeout=60s']);
    const pod = await podOf(sandbox, 'web');
    const watches = await Promise.all(['/app/src', '/app/src/nested'].map((file) => watchInPod(sandbox, pod, file)));
    await Promise.all(['app/event.txt', 'nested/event.txt'].map((name) => writeFile(path(name), text)));
    await Promise.all(watches.map(({ until }) => until('event.txt')));
    await Promise.all(watches.map(({ stop }) => stop()));
    await inPod(sandbox, pod, ['sh', '-c', `printf "${text}" | tee /app/src/pod.txt > /app/src/nested/pod.txt`]);
    expect((await execa('cat', [path('app/pod.txt'), path('nested/pod.txt')])).stdout).toBe(`${text}${text}`);
  }

  const mountNames = async (): Promise<readonly string[]> =>
    (await mountContainers(sandbox)).map(({ Names: names }) => names[0]?.slice(1) ?? '');
  const docker = (...args: readonly string[]): Promise<unknown> => execa('docker', args);

  it('survive their pod', async () => {
    await sandbox.mustKubectl(['delete', 'pod', '-l', 'app=web', '--wait=true']);
    await expectLive();
  });

  it.each([
    ['is restarted', ['restart']],
    ['is killed and started', ['kill', 'start']],
  ])('survive that their container %s, without a restart of pods or an end of watches', async (_title, deeds) => {
    const before = await podsOf(sandbox, 'web');
    const watching = await watchInPod(sandbox, await podOf(sandbox, 'web'), '/app/src');
    for (const deed of deeds) await docker(deed, ...(await mountNames()));
    await expectLive();
    expect(await podsOf(sandbox, 'web')).toEqual(before);
    await watching.until('event.txt');
    await watching.stop();
  });

  it('are still there while their container is gone, and it is back with the next up', async () => {
    await docker('rm', '--force', ...(await mountNames()));
    await writeFile(path('app/file.txt'), 'without its container');
    await untilRead(sandbox, { pod: 'deployment/web', path: '/app/src/file.txt', text: 'without its container' });
    await sandbox.up();
    expect(await mountContainers(sandbox)).toHaveLength(1);
    await expectLive();
  });

  it('survive the agent being restarted, and killed', async () => {
    await docker('restart', '--time=5', sandbox.containerName('agent'));
    await expectLive();
    const { State: state } = await sandbox.inspect('agent');
    // As a crash would end it: Docker's own `kill` keeps it from being started again.
    if (isRoot && state.Pid > 0) process.kill(state.Pid, 'SIGKILL');
    else await docker('restart', '--time=0', sandbox.containerName('agent'));
    await eventually('another agent', async () => {
      const { State: now } = await sandbox.inspect('agent');
      return (now.Running && now.Pid !== state.Pid) || undefined;
    });
    await expectLive();
  });

  it('survive the control plane being restarted', async () => {
    const before = await podsOf(sandbox, 'web');
    await docker('restart', sandbox.containerName('control-plane'));
    await expectLive();
    expect(await podsOf(sandbox, 'web')).toEqual(before);
  });

  it.each([
    ['mount', 'agent', 'control-plane'],
    ['agent', 'mount', 'control-plane'],
    ['control-plane', 'agent', 'mount'],
  ])('come back when what carries them starts in the order %s, %s, %s', async (...order) => {
    const mounts = await mountNames();
    const namesOf = (part: string): readonly string[] =>
      part === 'mount' ? mounts : [`sandbar-${sandbox.name}-${part}`];
    await docker('stop', '--time=5', ...order.flatMap(namesOf));
    for (const part of order) await docker('start', ...namesOf(part));
    await expectLive();
  });

  it.skipIf(!canRestartEngine)('survive the engine being restarted', async () => {
    await restartEngine(sandbox.docker);
    await expectLive();
  });

  it('are there again after down and up', async () => {
    await sandbox.must(['down']);
    expect(await mountContainers(sandbox)).toEqual([]);
    await sandbox.up();
    await expectLive();
    expect((await sandbox.up()).steps).toEqual([]);
  });

  it('show a source that is gone as stale, and take it up again when it is back', async () => {
    const stateOf = async (target: string): Promise<string | undefined> =>
      (await listMounts(sandbox)).find((row) => row.target === target)?.state;
    const until = (target: string, state: string): Promise<unknown> =>
      eventually(`${target} is ${state}`, async () => (await stateOf(target)) === state || undefined);
    const before = await podsOf(sandbox, 'web');

    await rename(path('app'), path('moved'));
    await until('/app/src', 'stale');
    await rename(path('moved'), path('app'));
    await expectLive();
    await until('/app/src', 'attached');

    await rm(path('app'), { recursive: true });
    await rm(path('settings.json'));
    await until('/app/src', 'stale');
    await until('/etc/settings.json', 'stale');
    await mkdir(path('app/nested'), { recursive: true });
    await writeFile(path('settings.json'), 'another file');
    await expectLive();
    await until('/etc/settings.json', 'attached');
    expect(await podsOf(sandbox, 'web')).toEqual(before);
  });

  it(`leave nothing behind, ${String(CYCLES)} times`, async () => {
    const pod = await podOf(sandbox, 'web');
    const mountsInPod = async (): Promise<number> =>
      Number(await inPod(sandbox, pod, ['grep', '-c', '/app/src', '/proc/self/mountinfo']));
    const elsewhere = join(sandbox.home, 'elsewhere', 'folder');
    await mkdir(elsewhere, { recursive: true });
    // Each tenth has a container of its own; two at a time, as two terminals have it.
    const cycle = async (lane: string, number: number): Promise<void> => {
      const target = `deployment/web:/app/src/${lane}`;
      await sandbox.must(['mount', number % 10 === 0 ? elsewhere : 'nested', target]);
      await sandbox.must(['unmount', target]);
    };
    const cycles = async (count: number): Promise<void> => {
      const lanes = ['one', 'two'].map(async (lane) => {
        await mkdir(path('app', lane), { recursive: true });
        for (let number = 0; number < count / 2; number += 1) await cycle(lane, number);
      });
      await Promise.all(lanes);
    };
    await cycles(4);
    const [traces, mounts, pods] = await Promise.all([countTraces(sandbox), mountsInPod(), podsOf(sandbox, 'web')]);
    await cycles(CYCLES);
    expect(await mountsInPod()).toBe(mounts);
    const { exact, kubeletFiles } = await countTraces(sandbox);
    expect(exact).toEqual(traces.exact);
    expect(kubeletFiles - traces.kubeletFiles).toBeLessThan(20);
    expect(await podsOf(sandbox, 'web')).toEqual(pods);
    await expectLive();
  });
});

/**
 * A folder that the engine sees through a file sharing that passes no events on, as a virtual machine's does: bindfs in
 * the engine's mount namespace, while the editor and the command line are in another, where the folder is the plain one.
 */
describe.skipIf(isDockerMissing || !isRoot)('a live mount of a shared folder', () => {
  const sandbox = createSandbox('shared');
  let plain = '';
  let shared = '';

  beforeAll(async () => {
    if (!isInstalled('bindfs')) {
      await execa('apt-get', ['update', '--quiet']);
      await execa('apt-get', ['install', '--yes', '--no-install-recommends', 'bindfs']);
    }
    const folder = await mkdtemp(join(tmpdir(), 'sandbar-shared-'));
    plain = join(folder, 'plain');
    shared = join(folder, 'shared');
    await mkdir(join(plain, 'app'), { recursive: true });
    await mkdir(shared);
    await execa('bindfs', ['--multithreaded', plain, shared]);
    await sandbox.up();
    await sandbox.must(['image', 'load', TOOLBOX_IMAGE]);
    await deploy(sandbox, workload('Deployment', 'web'));
  });

  afterAll(async () => {
    await execa('umount', ['--lazy', shared], { reject: false });
    await rm(join(shared, '..'), { recursive: true, force: true });
  });

  /** Runs a command where the shared path is the plain folder. */
  const onHost = async (...command: readonly string[]): Promise<RunResult> => {
    const script = 'mount --bind "$1" "$2" && shift 2 && exec "$@"';
    const args = ['--mount', 'sh', '-c', script, 'sh', plain, shared, ...command];
    const {
      exitCode = -1,
      stdout,
      stderr,
    } = await execa('unshare', args, {
      env: sandbox.env,
      cwd: sandbox.directory,
      reject: false,
    });
    return { exitCode, stdout, stderr };
  };

  it('delivers no events of its own: a watch in a pod hears nothing of an edit', async () => {
    await sandbox.must(['mount', join(shared, 'app'), 'deployment/web:/bare']);
    const watching = await watchInPod(sandbox, await podOf(sandbox, 'web'), '/bare');
    await onHost('sh', '-c', 'printf unheard > "$0/app/unheard.txt"', shared);
    await untilRead(sandbox, { pod: 'deployment/web', path: '/bare/unheard.txt', text: 'unheard' });
    expect(watching.names).toEqual([]);
    await watching.stop();
    await sandbox.must(['unmount', 'deployment/web:/bare']);
  });

  it('has its events relayed from the host', async () => {
    const mounted = await onHost(process.execPath, SANDBAR, 'mount', join(shared, 'app'), 'deployment/web:/app/src');
    expect(mounted.exitCode, mounted.stderr).toBe(0);
    expect(await listMounts(sandbox)).toMatchObject([{ target: '/app/src', state: 'attached', events: 'relayed' }]);
    const pod = await podOf(sandbox, 'web');
    const edit = async (name: string, watching: PodWatch): Promise<void> => {
      await onHost('sh', '-c', 'printf edited > "$0/app/$1"', shared, name);
      await watching.until(name);
      expect(await inPod(sandbox, pod, ['cat', `/app/src/${name}`])).toBe('edited');
    };
    const watching = await watchInPod(sandbox, pod, '/app/src');
    await edit('one.txt', watching);
    await edit('ünï cödé, two.txt', watching);
    await onHost('sh', '-c', 'cd "$0/app" && printf again > .tmp && mv .tmp one.txt', shared);
    await untilRead(sandbox, { pod, path: '/app/src/one.txt', text: 'again' });
    // What is relayed changes nothing: a file that is left alone has no further event.
    await edit('last.txt', watching);
    const count = watching.names.length;
    await appendFile(join(plain, 'unwatched.txt'), '');
    await edit('marker.txt', watching);
    expect(watching.names.slice(count).filter((name) => name !== 'marker.txt')).toEqual([]);
    await watching.stop();
  });

  it('has them in a folder that is made later, too', async () => {
    const pod = await podOf(sandbox, 'web');
    await onHost('sh', '-c', 'mkdir -p "$0/app/new/folder"', shared);
    await eventually('the folder', async () => {
      const { exitCode } = await sandbox.kubectl(['exec', pod, '--', 'ls', '/app/src/new/folder']);
      return exitCode === 0 || undefined;
    });
    const watching = await watchInPod(sandbox, pod, '/app/src/new');
    await eventually('an event of it', async () => {
      await onHost('sh', '-c', 'printf x > "$0/app/new/folder/file.txt"', shared);
      return watching.names.includes('folder/file.txt') || undefined;
    });
    await watching.stop();
  });

  it('ends its relay with the last mount', async () => {
    const listRelays = async (): Promise<readonly string[]> => {
      const { stdout } = await execa('ps', ['-eo', 'args']);
      return stdout.split('\n').filter((line) => line.includes('relay') && line.includes(sandbox.name));
    };
    expect(await listRelays()).toHaveLength(1);
    await onHost(process.execPath, SANDBAR, 'unmount', '--all');
    await eventually('no relay', async () => ((await listRelays()).length === 0 ? true : undefined));
  });
});

function isInstalled(program: string): boolean {
  return (process.env['PATH'] ?? '').split(delimiter).some((folder) => existsSync(join(folder, program)));
}
