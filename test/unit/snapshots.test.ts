import { PassThrough } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { gunzipSync, gzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { SandbarError } from '../../src/model/errors.ts';
import {
  defaultSnapshotName,
  memberProblem,
  misfitOf,
  parseSnapshot,
  snapshotNameProblem,
  type Snapshot,
} from '../../src/model/snapshots.ts';
import { createTar } from '../../src/model/tar.ts';
import { interruptEverywhere, type Interruption } from '../builders/interruption.ts';
import { ResetMachine } from '../builders/reset-machine.ts';

const SNAPSHOT: Snapshot = {
  version: 1,
  name: 'one',
  created: '2026-05-01T12:00:00.000Z',
  cluster: 'dev',
  kubernetes: 'v1.36.3',
  network: { podSubnet: '10.244.0.0/16', serviceSubnet: '10.96.0.0/16' },
  images: [],
  sizeBytes: { datastore: 1000, volumes: 1000, objects: 1000 },
};

/** A machine with a snapshot `one`, in which everything has changed since. */
async function changedMachine(): Promise<ResetMachine> {
  const machine = await ResetMachine.start();
  await machine.createSnapshot();
  machine.use('later');
  machine.put('claims', '/volumes/pvc-2/file', 'later');
  machine.put('object-store', '/more/object', 'later');
  machine.cluster.objects.delete('v1 ConfigMap shop mine');
  return machine;
}

describe('what a snapshot says of itself', () => {
  it('has a name like a cluster, by default the time', () => {
    expect(defaultSnapshotName(Date.parse('2026-05-01T12:34:56.789Z'))).toBe('2026-05-01-123456');
    expect(snapshotNameProblem('2026-05-01-123456')).toBeUndefined();
    expect(snapshotNameProblem('../x')).toMatch(/^snapshot name "..\/x" is not usable/);
  });

  it('is read only where it is whole and of this version', () => {
    expect(parseSnapshot(JSON.stringify(SNAPSHOT))).toEqual(SNAPSHOT);
    for (const text of [
      '',
      'null',
      '{}',
      JSON.stringify({ ...SNAPSHOT, version: 2 }),
      JSON.stringify({ ...SNAPSHOT, name: '/../../datastore/start-over' }),
    ]) {
      expect(parseSnapshot(text)).toBeUndefined();
    }
  });

  it('tells what it does not fit', () => {
    const ground = { cluster: 'dev', kubernetes: 'v1.36.3', network: SNAPSHOT.network, keyId: '1' };
    expect(misfitOf(SNAPSHOT, ground)).toBeUndefined();
    expect(misfitOf({ ...SNAPSHOT, kubernetes: 'v1.35.9' }, ground)).toBeUndefined();
    expect(misfitOf({ ...SNAPSHOT, kubernetes: 'v1.37.0' }, ground)?.problem).toContain('v1.37.0');
    const older = { ...ground, kubernetes: 'v1.35.4' };
    expect(misfitOf(SNAPSHOT, older)?.fix).toContain("kubernetes.version to '1.36'");
    expect(misfitOf({ ...SNAPSHOT, cluster: 'shop' }, ground)?.fix).toContain('--name shop');
    expect(misfitOf({ ...SNAPSHOT, keyId: '1' }, ground)).toBeUndefined();
    expect(misfitOf({ ...SNAPSHOT, keyId: '2' }, ground)?.problem).toContain('the key of another cluster');
    const network = { ...SNAPSHOT.network, serviceSubnet: '10.97.0.0/16' };
    expect(misfitOf({ ...SNAPSHOT, network }, ground)?.fix).toContain('--service-subnet 10.97.0.0/16');
  });

  it.each(['/volumes/a', 'volumes/../../a', '../volumes', 'volumes//a', 'notes.txt', './volumes'])(
    'has no member %s',
    (path) => {
      expect(memberProblem(path)).toBeDefined();
    },
  );

  it.each(['snapshot.json', 'datastore.db', 'volumes', 'volumes/', 'volumes/a/..b', 'objects/.minio.sys/x'])(
    'has a member %s',
    (path) => {
      expect(memberProblem(path)).toBeUndefined();
    },
  );
});

describe('snapshot create', () => {
  it('copies while writes wait and what writes stands still, and lets all go on', async () => {
    const machine = await ResetMachine.start();
    const before = machine.containerIds();
    const snapshot = await machine.createSnapshot();
    expect(snapshot).toMatchObject({ name: 'one', cluster: 'dev', images: [{ name: 'shop:dev' }] });
    expect(machine.stillDuringCopies).toEqual(Array(2).fill('agent object-store held'));
    expect(machine.isHeld).toBe(false);
    expect((await machine.status()).isReady).toBe(true);
    expect(machine.containerIds()).toEqual(before);
    expect([...machine.runtime.containers.keys()]).not.toContain('sandbar-dev-snapshots');
    expect(machine.filesOf('datastore')).toEqual({});
    expect(machine.filesOf('snapshots')).toMatchObject({
      '/one/volumes/pvc-1/file': 'mine',
      '/one/objects/pictures/object': 'mine',
    });
    expect(await machine.snapshotNames()).toEqual(['one']);
  });

  it.each([
    ['1.35', 'v1.35.1', true],
    ['1.36', 'v1.36.3', false],
  ])('is of the version and the encryption that the datastore has, whatever the file says now (%s)', async (...row) => {
    const [, kubernetes, isEncrypted] = row;
    const machine = await ResetMachine.start();
    await machine.runtime.writeFile('sandbar-dev-control-plane', {
      path: '/etc/sandbar/last-up.json',
      mode: 0o600,
      content: JSON.stringify({ version: 1, file: null, flags: {}, kubernetes, isEncrypted }),
    });
    const snapshot = await machine.createSnapshot();
    expect(snapshot.kubernetes).toBe(kubernetes);
    expect(snapshot.keyId !== undefined).toBe(isEncrypted);
    const newer = { ...SNAPSHOT, name: 'new', kubernetes: 'v1.36.3' };
    const content = gzipSync(createTar([{ path: 'snapshot.json', mode: 0o644, content: JSON.stringify(newer) }]));
    machine.host.files.set('/new', { content: content.toString('base64'), mode: 0o644, ageMs: 0 });
    const problem = kubernetes === 'v1.36.3' ? 'lacks datastore.db' : 'the cluster is v1.35.1';
    await expect(machine.importSnapshot('/new')).rejects.toThrow(problem);
  });

  it('refuses a name that is taken', async () => {
    const machine = await ResetMachine.start();
    await machine.createSnapshot();
    const hint = 'choose another name, or remove it: sandbar snapshot rm one';
    await expect(machine.createSnapshot()).rejects.toMatchObject({ code: 'CONFLICT', hint });
  });

  it('leaves nothing where the disk has no room', async () => {
    const machine = await ResetMachine.start();
    machine.freeOnDisk = 10 ** 6;
    await expect(machine.createSnapshot()).rejects.toMatchObject({ code: 'DISK_FULL' });
    expect(machine.filesOf('snapshots')).toEqual({});
    machine.freeOnDisk = 10 ** 12;
    const copy = machine.runtime.programs.get('cp')!;
    machine.runtime.programs.set('cp', async (call) => {
      await copy(call);
      return { exitCode: 1, stderr: 'cp: error writing: No space left on device' };
    });
    await expect(machine.createSnapshot()).rejects.toMatchObject({ code: 'DISK_FULL' });
    expect(machine.filesOf('snapshots')).toEqual({});
    expect((await machine.status()).isReady).toBe(true);
  });

  it('counts what is written to meanwhile as well as it can', async () => {
    const machine = await ResetMachine.start();
    const count = machine.runtime.programs.get('du')!;
    machine.runtime.programs.set('du', async (call) => ({
      ...(await count(call)),
      exitCode: 1,
      stderr: "du: cannot access '/claims/volumes/pvc-1/wal': No such file or directory",
    }));
    expect(await machine.createSnapshot()).toMatchObject({ sizeBytes: { volumes: 1000 } });
    machine.runtime.programs.set('du', () => ({ exitCode: 1, stdout: '1000\t/claims/volumes\n', stderr: 'du: no' }));
    await expect(machine.createSnapshot('two')).rejects.toMatchObject({ code: 'COMMAND_FAILED' });
  });

  it('lets all go on where one part cannot be frozen, and tells of that', async () => {
    const machine = await ResetMachine.start();
    const agent = machine.containerIds()['agent'];
    const { runtime } = machine;
    const [pause, thaw] = [runtime.pauseContainer.bind(runtime), runtime.unpauseContainer.bind(runtime)];
    runtime.pauseContainer = async (ref) => {
      if (ref === agent) throw new Error('cannot freeze');
      // The engine takes its time.
      for (let turn = 0; turn < 5; turn += 1) await new Promise((resolve) => setImmediate(resolve));
      await pause(ref);
    };
    runtime.unpauseContainer = async (ref) => {
      await thaw(ref);
      if (ref === agent) throw new Error('it is not frozen');
    };
    await expect(machine.createSnapshot()).rejects.toThrow('cannot freeze');
    expect((await machine.status()).isReady).toBe(true);
  });

  it('fails when writes went on before it had all of it', async () => {
    const machine = await ResetMachine.start();
    machine.cluster.posts.set('/sandbar/hold', async ({ say }) => {
      machine.put('datastore', '/snapshot.db', '[]');
      say({ phase: 'held' });
      await Promise.resolve();
      say({ phase: 'failed', message: 'the control plane ends' });
      return undefined;
    });
    await expect(machine.createSnapshot()).rejects.toMatchObject({ code: 'KUBERNETES_FAILED' });
    expect(machine.filesOf('snapshots')).toEqual({});
  });

  it.each<[Interruption['kind']]>([['abort'], ['die'], ['die after']])(
    'leaves, interrupted at any call, nothing that the next one does not put right (%s)',
    async (kind) => {
      const whole = await ResetMachine.start();
      await whole.createSnapshot();
      const calls = await interruptEverywhere(kind, {
        begin: () => ResetMachine.start(),
        work: (machine, signal) => machine.createSnapshot('one', signal),
        check: async (machine, atCall) => {
          const names = await machine.snapshotNames();
          if (kind === 'abort') expect((await machine.status()).isReady, `call ${String(atCall)}`).toBe(true);
          if (names.length === 0) await machine.createSnapshot();
          await machine.up();
          expect(machine.state(), `interrupted at call ${String(atCall)}`).toEqual(whole.state());
        },
      });
      expect(calls).toBeGreaterThan(20);
    },
    60_000,
  );
});

describe('snapshot restore', () => {
  it('puts objects, volumes and buckets back, and nothing runs on half of it', async () => {
    const machine = await changedMachine();
    const before = machine.containerIds();
    machine.stillDuringCopies.length = 0;
    expect(await machine.restoreSnapshot()).toMatchObject({ snapshot: 'one', missingImages: [] });
    expect(machine.stillDuringCopies).toEqual(Array(3).fill('agent object-store'));
    expect([...machine.cluster.objects.keys()]).toContain('v1 ConfigMap shop mine');
    expect([...machine.cluster.objects.keys()]).not.toContain('v1 ConfigMap shop later');
    expect(machine.filesOf('claims')).toEqual({ '/volumes/': '', '/volumes/pvc-1/file': 'mine' });
    expect(machine.filesOf('object-store')).toEqual({ '/pictures/object': 'mine' });
    expect(machine.filesOf('datastore')).toEqual({});
    expect((await machine.status()).isReady).toBe(true);
    expect(machine.containerIds()).toEqual(before);
  });

  it('names images that are gone', async () => {
    const machine = await changedMachine();
    machine.images = [];
    expect(await machine.restoreSnapshot()).toMatchObject({ missingImages: ['shop:dev'] });
    expect(machine.events.at(-1)).toMatchObject({ type: 'warning', hint: 'sandbar image load shop:dev' });
  });

  it('does not find a snapshot, and names the nearest', async () => {
    const machine = await changedMachine();
    const refusal = { code: 'NOT_FOUND', hint: 'did you mean one?' };
    await expect(machine.restoreSnapshot('onw')).rejects.toMatchObject(refusal);
  });

  it('refuses a snapshot that is not whole, and changes nothing', async () => {
    const machine = await changedMachine();
    machine.runtime.volumes.get('sandbar-dev-snapshots')?.files.delete('/one/datastore.db');
    const before = machine.state();
    await expect(machine.restoreSnapshot()).rejects.toMatchObject({ code: 'SNAPSHOT_INVALID' });
    expect(machine.state()).toEqual(before);
  });

  it('helps where the datastore cannot be read', async () => {
    const machine = await changedMachine();
    machine.damage();
    await machine.restoreSnapshot();
    expect([...machine.cluster.objects.keys()]).toContain('v1 ConfigMap shop mine');
    expect((await machine.status()).isReady).toBe(true);
  });

  it('interrupted, has every other command say what finishes it', async () => {
    const machine = await changedMachine();
    machine.runtime.programs.set('sync', () => ({ exitCode: 1, stderr: 'input/output error' }));
    await expect(machine.restoreSnapshot()).rejects.toMatchObject({ code: 'COMMAND_FAILED' });
    await expect(machine.up()).rejects.toMatchObject({
      code: 'CONFLICT',
      hint: 'sandbar snapshot restore one finishes it, sandbar reset --hard starts over without it',
    });
    await machine.reset({ isHard: true });
    expect((await machine.status()).isReady).toBe(true);
  });

  it.each<[Interruption['kind']]>([['abort'], ['die'], ['die after']])(
    'is finished by the next one, whatever call it was interrupted at (%s)',
    async (kind) => {
      const whole = await changedMachine();
      await whole.restoreSnapshot();
      const calls = await interruptEverywhere(kind, {
        begin: changedMachine,
        work: (machine, signal) => machine.restoreSnapshot('one', signal),
        check: async (machine, atCall) => {
          await machine.restoreSnapshot();
          expect(machine.state(), `interrupted at call ${String(atCall)}`).toEqual(whole.state());
        },
      });
      expect(calls).toBeGreaterThan(30);
    },
    60_000,
  );
});

describe('snapshot rm', () => {
  it('removes those named, or none', async () => {
    const machine = await ResetMachine.start();
    for (const name of ['one', 'two', 'three']) await machine.createSnapshot(name);
    await expect(machine.removeSnapshots('one', 'four')).rejects.toMatchObject({ code: 'NOT_FOUND' });
    await machine.removeSnapshots('one', 'three', 'one');
    expect(await machine.snapshotNames()).toEqual(['two']);
  });

  it('goes with the rest of the data, and not before', async () => {
    const machine = await ResetMachine.start();
    await machine.createSnapshot();
    expect(await machine.planned()).toBe('');
    await machine.down();
    await machine.up();
    expect(await machine.snapshotNames()).toEqual(['one']);
    await machine.down({ includesVolumes: true, isAgreed: true });
    expect(machine.runtime.volumes.size).toBe(0);
  });
});

describe('snapshot export and import', () => {
  const path = '/home/ada/one.tar.gz';

  async function exported(machine: ResetMachine): Promise<void> {
    await machine.exportSnapshot('one', { kind: 'file', path, isForced: false });
  }

  it('carry a snapshot to another machine', async () => {
    const first = await changedMachine();
    await exported(first);
    const second = await ResetMachine.start();
    second.host.files.set(path, first.host.files.get(path)!);
    expect(await second.importSnapshot(path, 'theirs')).toMatchObject({ name: 'theirs', cluster: 'dev' });
    await second.restoreSnapshot('theirs');
    expect(second.filesOf('claims')).toMatchObject({ '/volumes/pvc-1/file': 'mine' });
  });

  it.each(['import', 'snapshots'])('carry one named %s', async (name) => {
    const machine = await ResetMachine.start();
    await machine.createSnapshot(name);
    await machine.exportSnapshot(name, { kind: 'file', path, isForced: false });
    await machine.removeSnapshots(name);
    expect(await machine.importSnapshot(path)).toMatchObject({ name });
    expect(await machine.snapshotNames()).toEqual([name]);
  });

  it('replace no file and no snapshot unasked', async () => {
    const machine = await changedMachine();
    await exported(machine);
    await expect(exported(machine)).rejects.toMatchObject({ code: 'CONFLICT', hint: 'add --force to replace it' });
    await machine.exportSnapshot('one', { kind: 'file', path, isForced: true });
    await expect(machine.importSnapshot(path)).rejects.toMatchObject({ code: 'CONFLICT' });
    expect(await machine.snapshotNames()).toEqual(['one']);
  });

  it('write to a stream that stays open', async () => {
    const machine = await changedMachine();
    const stream = new PassThrough();
    await machine.exportSnapshot('one', { kind: 'stream', stream });
    stream.end();
    expect(gunzipSync(await buffer(stream)).toString()).toContain('"name":"one"');
  });

  it('leave no file where reading fails', async () => {
    const machine = await changedMachine();
    machine.runtime.programs.set('tar', () => ({ exitCode: 2, stderr: 'tar: datastore.db: Cannot open' }));
    await expect(exported(machine)).rejects.toMatchObject({ code: 'COMMAND_FAILED' });
    expect(machine.host.files.has(path)).toBe(false);
  });

  it('tell why writing failed, not what followed from that', async () => {
    const machine = await changedMachine();
    const wrongs: string[] = [];
    machine.host.writeStream = async (_, source) => {
      source.destroy();
      while (wrongs.length === 0) await new Promise((resolve) => setImmediate(resolve));
      throw new SandbarError('DISK_FULL', 'no space left');
    };
    machine.runtime.programs.set('tar', () => {
      wrongs.push('the stream was destroyed');
      throw new SandbarError('DOCKER_FAILED', 'the stream was destroyed');
    });
    await expect(exported(machine)).rejects.toMatchObject({ code: 'DISK_FULL' });
  });

  const file = (name: string, content: string) => ({ path: name, mode: 0o644, content });
  const description = (changes: Partial<Snapshot> = {}) =>
    file('snapshot.json', JSON.stringify({ ...SNAPSHOT, name: 'new', ...changes }));

  it.each([
    ['no archive', Buffer.from('hello'), /incorrect header check/],
    ['half an archive', gzipSync(createTar([description()])).subarray(0, 60), /unexpected end/],
    ['something else', gzipSync(createTar([file('notes.txt', '')])), /notes.txt is no part of a snapshot/],
    ['another order', gzipSync(createTar([file('datastore.db', '')])), /does not begin with a snapshot.json/],
    ['a way out', gzipSync(createTar([description(), file('volumes/../../x', '')])), /leads out of the snapshot/],
    ['another version', gzipSync(createTar([file('snapshot.json', '{"version":2}')])), /of this version/],
    ['a name that leads out', gzipSync(createTar([description({ name: '/../../datastore/x' })])), /of this version/],
    ['another cluster', gzipSync(createTar([description({ cluster: 'shop' })])), /was taken of cluster "shop"/],
    ['too little', gzipSync(createTar([description(), file('datastore.db', '')])), /lacks volumes, objects/],
  ])('take nothing over of %s', async (_, content, message) => {
    const machine = await ResetMachine.start();
    machine.host.files.set(path, { content: content.toString('base64'), mode: 0o644, ageMs: 0 });
    const failure = machine.importSnapshot(path);
    await expect(failure).rejects.toMatchObject({
      code: 'SNAPSHOT_INVALID',
      message: expect.stringMatching(message) as string,
    });
    expect(machine.filesOf('snapshots')).toEqual({});
  });

  it('do not find a file', async () => {
    const machine = await ResetMachine.start();
    await expect(machine.importSnapshot('/none')).rejects.toMatchObject({ code: 'NOT_FOUND' });
  });
});
