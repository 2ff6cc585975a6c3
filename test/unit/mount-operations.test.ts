import { describe, expect, it } from 'vitest';
import { SandbarError } from '../../src/model/errors.ts';
import { MOUNT_PLACE_LABEL, type MountTarget, type WorkloadKind } from '../../src/model/mounts.ts';
import { listMounts } from '../../src/operations/mount-list.ts';
import { mount, type MountRequest, type MountResult } from '../../src/operations/mounts.ts';
import { unmount, type UnmountResult } from '../../src/operations/unmount.ts';
import { dyingCaller } from '../builders/machine.ts';
import { MountMachine } from '../builders/mounts.ts';

const SRC = '/home/ada/app/src';

function target(path = '/app/src', kind: WorkloadKind = 'Deployment', name = 'web'): MountTarget {
  return { kind: 'workload', workload: { namespace: 'default', kind, name, container: undefined }, path };
}

function mountOn(machine: MountMachine, wish: Partial<MountRequest> = {}): Promise<MountResult> {
  return mount(
    {
      clusterName: 'dev',
      writtenSource: './src',
      target: target(),
      isReadOnly: false,
      excluded: [],
      allowsSensitive: false,
      configFile: undefined,
      timeoutMs: undefined,
      signal: new AbortController().signal,
      ...wish,
    },
    {
      ports: machine.ports,
      emit: (event) => machine.events.push(event),
      startRelay: () => Promise.resolve(),
      ensureImage: () => Promise.resolve('sandbar/mount:1'),
    },
  );
}

function unmountOn(machine: MountMachine, ...mounts: readonly string[]): Promise<UnmountResult> {
  const { signal } = new AbortController();
  const request = { clusterName: 'dev', namespace: 'default', timeoutMs: undefined, signal };
  return unmount(
    { ...request, mounts: mounts.length === 0 ? 'all' : mounts },
    { ports: machine.ports, emit: (event) => machine.events.push(event) },
  );
}

async function withWeb(replicas = 2): Promise<MountMachine> {
  const machine = await MountMachine.start();
  machine.workload('Deployment', 'web', { replicas });
  return machine;
}

/** What would be seen of a mount that was begun: nothing of it where it was refused. */
function traces(machine: MountMachine): unknown {
  return { records: machine.records(), containers: machine.mountContainers(), rolled: machine.rolled };
}

const UNTOUCHED = { records: [], containers: [], rolled: [] };

describe('mount', () => {
  it('attaches the folder, proves its events, and rolls the workload once', async () => {
    const machine = await withWeb();
    const { record, change, rollout } = await mountOn(machine);
    expect({ change, rollout }).toEqual({ change: 'mounted', rollout: { kind: 'rolled', pods: 2 } });
    expect(record).toMatchObject({ source: SRC, sourceType: 'Directory', events: 'native', origin: 'command' });
    expect(machine.records()).toEqual([record]);
    expect(machine.mountContainers()).toHaveLength(1);
    expect(machine.rolled).toEqual(['Deployment default/web']);
    expect(Object.values(machine.volumes())).toEqual(Array(2).fill([`sandbar-${record.id}`]));
    expect([...machine.host.files.keys()].filter((path) => path.includes('probe'))).toEqual([]);
  });

  it('changes nothing the second time, and says so', async () => {
    const machine = await withWeb();
    await mountOn(machine);
    const calls = machine.runtime.calls.length;
    expect(await mountOn(machine)).toMatchObject({ change: 'unchanged', rollout: { kind: 'none' } });
    expect(machine.runtime.calls).toHaveLength(calls);
    expect(machine.rolled).toHaveLength(1);
  });

  it('restarts no pod where another mount of the workload holds the target', async () => {
    const machine = await withWeb();
    const outer = await mountOn(machine, { writtenSource: '.', target: target('/app') });
    machine.file('/home/ada/lib/index.js');
    const inner = await mountOn(machine, { writtenSource: '/home/ada/lib', target: target('/app/lib') });
    expect(inner).toMatchObject({ rollout: { kind: 'none' }, record: { parentId: outer.record.id } });
    expect(machine.rolled).toHaveLength(1);
  });

  it('rolls for one inside of another that excludes something: containers get that when they are made', async () => {
    const machine = await withWeb();
    await mountOn(machine, { writtenSource: '.', target: target('/app') });
    machine.file('/home/ada/lib/index.js');
    const inner = { writtenSource: '/home/ada/lib', target: target('/app/lib'), excluded: ['node_modules'] };
    expect(await mountOn(machine, inner)).toMatchObject({ rollout: { kind: 'rolled' } });
    expect(await mountOn(machine, inner)).toMatchObject({ change: 'unchanged', rollout: { kind: 'none' } });
  });

  it('rolls in the next run where one that changed what is excluded was interrupted', async () => {
    const machine = await withWeb();
    await mountOn(machine);
    const patch = machine.cluster.patch.bind(machine.cluster);
    machine.cluster.patch = (ref, change) =>
      ref.kind === 'Deployment' ? Promise.reject(new Error('killed')) : patch(ref, change);
    const changed = { excluded: ['node_modules'] };
    await expect(mountOn(machine, changed)).rejects.toThrow('killed');
    machine.cluster.patch = patch;
    expect(await mountOn(machine, changed)).toMatchObject({ rollout: { kind: 'rolled' } });
    expect(await mountOn(machine, changed)).toMatchObject({ change: 'unchanged', rollout: { kind: 'none' } });
  });

  it('is one, whether its container is named or is the one that is meant anyway', async () => {
    const machine = await withWeb();
    const { record } = await mountOn(machine);
    const workload = { namespace: 'default', kind: 'Deployment', name: 'web', container: 'main' } as const;
    const named = { kind: 'workload', path: '/app/src', workload } as const;
    expect(await mountOn(machine, { target: named })).toMatchObject({ change: 'unchanged', record: { id: record.id } });
  });

  it('gives a target another source without a rollout, and removes the container that only the old one needed', async () => {
    const machine = await withWeb();
    await mountOn(machine);
    const before = machine.mountContainers();
    machine.file('/srv/other/src/server.js');
    expect(await mountOn(machine, { writtenSource: '/srv/other/src' })).toMatchObject({
      change: 'replaced',
      rollout: { kind: 'none' },
    });
    expect(machine.records()).toMatchObject([{ source: '/srv/other/src' }]);
    expect(machine.mountContainers()).toHaveLength(1);
    expect(machine.mountContainers()).not.toEqual(before);
    expect(machine.rolled).toHaveLength(1);
  });

  it('rolls again where the same source is to be read-only, or other paths are excluded', async () => {
    const machine = await withWeb();
    await mountOn(machine);
    await mountOn(machine, { isReadOnly: true });
    await mountOn(machine, { isReadOnly: true, excluded: ['node_modules'] });
    expect(machine.rolled).toHaveLength(3);
    expect(machine.records()).toMatchObject([{ isReadOnly: true, excluded: ['node_modules'] }]);
  });

  it('keeps what sandbar.yaml declares as declared there', async () => {
    const machine = await withWeb();
    const { record } = await mountOn(machine);
    machine.declare({ ...record, origin: 'file' });
    expect(await mountOn(machine)).toMatchObject({ change: 'unchanged', record: { origin: 'file' } });
  });

  it('only attaches without a workload, and says where', async () => {
    const machine = await MountMachine.start();
    const { record, nodePath, rollout } = await mountOn(machine, { target: { kind: 'node' } });
    expect(nodePath).toBe(`/var/lib/sandbar/mounts/${record.id}`);
    expect(rollout).toEqual({ kind: 'none' });
  });

  it('binds the project once for all mounts below it, where its sandbar.yaml is in use', async () => {
    const machine = await withWeb();
    const configFile = '/home/ada/app/sandbar.yaml';
    await mountOn(machine, { configFile });
    await mountOn(machine, { configFile, writtenSource: 'package.json', target: target('/app/package.json') });
    expect(machine.records().map(({ root }) => root)).toEqual(Array(2).fill('/home/ada/app'));
    expect(machine.mountContainers()).toHaveLength(1);
  });

  it.each([
    ['CronJob', {}, 'its next run does'],
    ['ReplicaSet', {}, 'delete pod web-1'],
    ['StatefulSet', { updateStrategy: { type: 'OnDelete' } }, 'delete pod web-1'],
    ['Deployment', { paused: true }, 'rollout resume deployment/web'],
  ] as const)('leaves the pods of a %s with %j alone and says how they get it', async (kind, spec, advice) => {
    const machine = await MountMachine.start();
    machine.workload(kind, 'web', { spec });
    const { rollout } = await mountOn(machine, { target: target('/app', kind) });
    expect(rollout).toMatchObject({ kind: 'by-hand' });
    expect(rollout).toHaveProperty('advice', expect.stringContaining(advice));
    expect(machine.rolled).toEqual([]);
  });

  it('can be killed at any change of the engine and run again', async () => {
    for (let atChange = 1; ; atChange += 1) {
      const machine = await withWeb();
      const death = { hasCome: false };
      machine.wrapRuntime = (runtime) =>
        dyingCaller(runtime, { atChange, isCarriedOut: atChange % 2 === 0, onDeath: () => (death.hasCome = true) });
      await Promise.race([
        mountOn(machine),
        (async () => {
          while (!death.hasCome) await new Promise((resolve) => setImmediate(resolve));
        })(),
      ]);
      const isOver = !death.hasCome;
      const { files } = machine.host;
      machine.restartCommandLine();
      for (const [path, file] of files) machine.host.files.set(path, file);
      await mountOn(machine);
      expect(machine.records()).toMatchObject([{ source: SRC, events: 'native' }]);
      expect(machine.mountContainers()).toHaveLength(1);
      expect(machine.rolled).toHaveLength(1);
      if (isOver) return;
    }
  });
});

describe('events of a mount', () => {
  it('are polled for where neither the engine nor a relay delivers them', async () => {
    const machine = await withWeb();
    machine.delivery = 'none';
    expect((await mountOn(machine)).record.events).toBe('polling');
    expect(machine.records()).toMatchObject([{ events: 'polling' }]);
  });

  it('of a single file are proven without changing it', async () => {
    const machine = await withWeb();
    const { record } = await mountOn(machine, { writtenSource: 'package.json', target: target('/app/package.json') });
    expect(record).toMatchObject({ sourceType: 'File', events: 'native' });
    expect(new Set(machine.host.touchedFiles)).toEqual(new Set(['/home/ada/app/package.json']));
  });

  it('are not known of a folder that the caller cannot write, which is mounted all the same', async () => {
    const machine = await withWeb();
    machine.host.createFile = () => Promise.reject(new SandbarError('FILE_DENIED', 'not yours'));
    expect(await mountOn(machine)).toMatchObject({ change: 'mounted', record: { events: undefined } });
  });

  it('leave no probe of an interrupted proof behind', async () => {
    const machine = await withWeb();
    machine.file(`${SRC}/.sandbar-probe-00000000`);
    await mountOn(machine);
    expect([...machine.host.files.keys()].filter((path) => path.includes('probe'))).toEqual([]);
  });
});

describe('what is not mounted', () => {
  it.each<[string, Partial<MountRequest>, object]>([
    [
      'a source that is missing',
      { writtenSource: './scr' },
      { code: 'NOT_FOUND', message: 'there is no ./scr (/home/ada/app/scr)', hint: `did you mean ${SRC}?` },
    ],
    ['a system folder', { writtenSource: '/etc' }, { code: 'MOUNT_REFUSED' }],
    ['a target that hides a system path', { target: target('/etc') }, { code: 'MOUNT_REFUSED' }],
    ['a file with paths excluded', { writtenSource: 'package.json', excluded: ['a'] }, { code: 'USAGE' }],
    [
      'for a workload that is missing',
      { target: target('/app', 'Deployment', 'wbe') },
      {
        code: 'NOT_FOUND',
        message: 'there is no Deployment "wbe" in namespace default',
        hint: 'did you mean deployment/web?',
      },
    ],
    [
      'for a workload of another namespace',
      { target: target('/app', 'Deployment', 'api') },
      { hint: 'it is in namespace shop: name that with -n' },
    ],
    [
      'for a namespace that is missing',
      {
        target: {
          kind: 'workload',
          workload: { namespace: 'shpo', kind: 'Deployment', name: 'api', container: undefined },
          path: '/app',
        },
      },
      { code: 'NOT_FOUND', message: 'there is no namespace "shpo"', hint: 'did you mean shop?' },
    ],
    [
      'for a container that is missing',
      {
        target: {
          kind: 'workload',
          workload: { namespace: 'default', kind: 'Deployment', name: 'web', container: 'mian' },
          path: '/app',
        },
      },
      { message: 'deployment/web has no container "mian"', hint: 'did you mean deployment/web/main?' },
    ],
  ])('is %s', async (_, wish, error) => {
    const machine = await withWeb();
    machine.namespace('shop');
    machine.workload('Deployment', 'api', { namespace: 'shop' });
    machine.file('/etc/passwd');
    await expect(mountOn(machine, wish)).rejects.toMatchObject(error);
    expect(traces(machine)).toEqual(UNTOUCHED);
  });

  it('is anything into a namespace whose pod security forbids hostPath volumes', async () => {
    const machine = await withWeb();
    machine.namespace('default', { 'pod-security.kubernetes.io/enforce': 'baseline' });
    await expect(mountOn(machine)).rejects.toMatchObject({
      code: 'CONFLICT',
      hint: 'sandbar kubectl label namespace default pod-security.kubernetes.io/enforce=privileged --overwrite',
    });
    expect(traces(machine)).toEqual(UNTOUCHED);
  });

  it('is anything while the agent does not run', async () => {
    const machine = await withWeb();
    await machine.runtime.stopContainer('sandbar-dev-agent');
    await expect(mountOn(machine)).rejects.toMatchObject({ code: 'CLUSTER_NOT_RUNNING' });
    expect(traces(machine)).toEqual(UNTOUCHED);
  });
});

describe('a mount that fails', () => {
  it('says that the engine does not see the folder', async () => {
    const machine = await withWeb();
    const { runtime } = machine;
    const create = runtime.createContainer.bind(runtime);
    runtime.createContainer = (spec, ...rest) =>
      spec.binds.length === 0
        ? create(spec, ...rest)
        : Promise.reject(new SandbarError('NOT_FOUND', 'the engine finds no /home/ada/app'));
    await expect(mountOn(machine)).rejects.toMatchObject({
      code: 'MOUNT_FAILED',
      message: '/home/ada/app is on this machine, but the Docker engine does not see it',
      hint: expect.stringContaining('File sharing') as string,
    });
    expect(machine.rolled).toEqual([]);
  });

  it('says why the node does not get the folder, with the log of its container', async () => {
    const machine = await withWeb();
    machine.attachProblem = 'no space for a mount';
    await expect(mountOn(machine)).rejects.toMatchObject({
      code: 'TIMED_OUT',
      message: `${SRC} was not mounted within 20s: no space for a mount`,
    });
    expect(machine.rolled).toEqual([]);
    // A pod that comes meanwhile would wait for a folder that is not there.
    machine.workload('Deployment', 'web', { replicas: 1 });
    expect(Object.values(machine.volumes()).flat()).toEqual([]);
    machine.attachProblem = undefined;
    expect(await mountOn(machine)).toMatchObject({ change: 'mounted', rollout: { kind: 'rolled' } });
  });

  it('tells in the words of the pods why they do not become ready', async () => {
    const machine = await withWeb(1);
    machine.podProblem = 'server.js is missing';
    await expect(mountOn(machine, { timeoutMs: 5_000 })).rejects.toMatchObject({
      code: 'TIMED_OUT',
      details: [expect.stringMatching(/^web-\d+: main Waiting server\.js is missing$/)],
    });
  });
});

describe('unmount', () => {
  it.each([
    ['its target', 'deploy/web:/app/src'],
    ['its source', './src'],
  ])('finds a mount by %s, and rolls the workload once', async (_, name) => {
    const machine = await withWeb();
    await mountOn(machine);
    const { removed, rollouts } = await unmountOn(machine, name);
    expect(removed).toMatchObject([{ source: SRC }]);
    expect(rollouts).toEqual([{ workload: 'deployment/web', rollout: { kind: 'rolled', pods: 2 } }]);
    expect(machine.records()).toEqual([]);
    expect(machine.mountContainers()).toEqual([]);
    expect(Object.values(machine.volumes())).toEqual([[], []]);
  });

  it('finds it by its id, and by a source that is gone', async () => {
    const machine = await withWeb();
    const { record } = await mountOn(machine);
    await unmountOn(machine, record.id);
    await mountOn(machine);
    machine.host.files.delete(`${SRC}/server.js`);
    expect((await unmountOn(machine, './src')).removed).toHaveLength(1);
  });

  it('takes all mounts of a workload with one rollout', async () => {
    const machine = await withWeb();
    await mountOn(machine);
    await mountOn(machine, { writtenSource: 'package.json', target: target('/app/package.json') });
    machine.rolled.splice(0);
    expect((await unmountOn(machine)).removed).toHaveLength(2);
    expect(machine.rolled).toEqual(['Deployment default/web']);
  });

  it('restarts no pod for a mount inside of another', async () => {
    const machine = await withWeb();
    await mountOn(machine, { writtenSource: '.', target: target('/app') });
    await mountOn(machine, { target: target('/app/lib') });
    expect((await unmountOn(machine, 'deployment/web:/app/lib')).rollouts).toEqual([]);
    expect(machine.rolled).toHaveLength(1);
  });

  it('gives those inside of a mount that goes a place of their own', async () => {
    const machine = await withWeb();
    await mountOn(machine, { writtenSource: '.', target: target('/app') });
    const inner = await mountOn(machine, { target: target('/app/lib') });
    await unmountOn(machine, 'deployment/web:/app');
    expect(machine.records()).toMatchObject([{ id: inner.record.id, parentId: undefined }]);
    expect(Object.values(machine.volumes())).toEqual(Array(2).fill([`sandbar-${inner.record.id}`]));
  });

  it('keeps the record until the pods are new, so that it can be run again', async () => {
    const machine = await withWeb();
    await mountOn(machine);
    const { cluster } = machine;
    const patch = cluster.patch.bind(cluster);
    cluster.patch = () => Promise.reject(new SandbarError('KUBERNETES_FAILED', 'the server is gone'));
    await expect(unmountOn(machine)).rejects.toMatchObject({ code: 'KUBERNETES_FAILED' });
    expect(machine.records()).toHaveLength(1);
    cluster.patch = patch;
    expect((await unmountOn(machine)).rollouts).toHaveLength(1);
    expect(machine.records()).toEqual([]);
  });

  it('renews no pod before admission has forgotten the mount', async () => {
    const machine = await withWeb();
    await mountOn(machine);
    const { admit } = machine.cluster;
    const [withVolume] = [...machine.cluster.objects.values()].filter(({ kind }) => kind === 'Pod');
    let outdatedAnswers = 5;
    machine.cluster.admit = (object) => {
      outdatedAnswers -= 1;
      return outdatedAnswers >= 0 ? { ...object, spec: withVolume?.['spec'] } : admit(object);
    };
    await unmountOn(machine);
    expect(Object.values(machine.volumes())).toEqual([[], []]);
  });

  it('that was interrupted is undone by mounting again', async () => {
    const machine = await withWeb();
    await mountOn(machine);
    machine.cluster.patch = () => Promise.reject(new SandbarError('KUBERNETES_FAILED', 'the server is gone'));
    await expect(unmountOn(machine)).rejects.toMatchObject({ code: 'KUBERNETES_FAILED' });
    await mountOn(machine);
    const [object] = [...machine.cluster.objects.values()].filter(({ metadata }) => metadata.name.startsWith('mount-'));
    expect(object?.metadata.labels?.[MOUNT_PLACE_LABEL]).toBe('workload');
  });

  it('of a workload that is gone removes the record', async () => {
    const machine = await withWeb();
    await mountOn(machine);
    await machine.cluster.remove({
      apiVersion: 'apps/v1',
      kind: 'Deployment',
      metadata: { name: 'web', namespace: 'default' },
    });
    expect((await unmountOn(machine)).rollouts).toEqual([]);
    expect(machine.records()).toEqual([]);
  });

  it('goes only from the namespace that is named', async () => {
    const machine = await withWeb();
    const { record } = await mountOn(machine);
    const request = { clusterName: 'dev', timeoutMs: undefined, signal: new AbortController().signal };
    const elsewhere = { ...request, mounts: [SRC], namespace: 'shop' };
    await expect(unmount(elsewhere, { ports: machine.ports, emit: () => undefined })).rejects.toMatchObject({
      code: 'NOT_FOUND',
    });
    expect(machine.records()).toMatchObject([{ id: record.id }]);
    await unmount({ ...elsewhere, namespace: undefined }, { ports: machine.ports, emit: () => undefined });
    expect(machine.records()).toEqual([]);
  });

  it('names the mount that was probably meant', async () => {
    const machine = await withWeb();
    const { record } = await mountOn(machine);
    await expect(unmountOn(machine, record.id.replace('web', 'wbe'))).rejects.toMatchObject({
      code: 'NOT_FOUND',
      hint: `did you mean ${record.id}?`,
    });
    await expect(unmountOn(await withWeb(), 'x')).rejects.toMatchObject({ hint: 'there are no mounts' });
  });
});

describe('listMounts', () => {
  const list = (machine: MountMachine, namespace?: string) => listMounts('dev', machine.ports, { namespace });

  it('says of every mount how it is', async () => {
    const machine = await withWeb();
    const { record } = await mountOn(machine, { excluded: ['node_modules'] });
    machine.placed.set(record.id, { state: 'stale', detail: 'the folder is gone', fileSystem: 'xfs' });
    expect(await list(machine)).toMatchObject([
      {
        id: record.id,
        source: SRC,
        target: '/app/src',
        workload: 'deployment/web',
        namespace: 'default',
        state: 'stale',
        detail: 'the folder is gone',
        events: 'native',
        fileSystem: 'xfs',
        isReadOnly: false,
        excluded: ['node_modules'],
        origin: 'command',
      },
    ]);
    expect(await list(machine, 'shop')).toEqual([]);
  });

  it('calls events relayed only while a relay runs', async () => {
    const machine = await withWeb();
    const { record } = await mountOn(machine);
    machine.declare({ ...record, events: 'relayed' });
    expect(await list(machine)).toMatchObject([{ events: 'stopped' }]);
    let end = (): void => undefined;
    const held = machine.host.withLock('relay-dev', { onWait: () => undefined }, () => {
      return new Promise<void>((resolve) => (end = resolve));
    });
    expect(await list(machine)).toMatchObject([{ events: 'relayed' }]);
    end();
    await held;
  });

  it('knows no state where the agent does not run', async () => {
    const machine = await withWeb();
    await mountOn(machine);
    await machine.runtime.stopContainer('sandbar-dev-agent');
    expect(await list(machine)).toMatchObject([{ state: 'unknown' }]);
  });
});
