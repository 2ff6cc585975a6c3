import { describe, expect, it } from 'vitest';
import { mountComponentOf, type MountSpec, type WorkloadRef } from '../../src/model/mounts.ts';
import { dyingCaller } from '../builders/machine.ts';
import { MountMachine } from '../builders/mounts.ts';

const lines = (...text: string[]): string => text.join('\n');

const workload = (name: string, changes: Partial<WorkloadRef> = {}): WorkloadRef => ({
  namespace: 'default',
  kind: 'Deployment',
  name,
  container: undefined,
  ...changes,
});

const mountOf = (source: string, target: WorkloadRef | undefined, path = '/app'): MountSpec => ({
  source: `/home/ada/app/${source}`,
  writtenSource: `./${source}`,
  target: target === undefined ? { kind: 'node' } : { kind: 'workload', workload: target, path },
  isReadOnly: false,
  excluded: [],
  createsSource: true,
});

const SOURCE = mountOf('src', workload('web'));

/** A sandbar.yaml in /home/ada/app with these mounts. */
const declaring = (...mounts: readonly MountSpec[]) => ({ spec: { mounts, projectDirectory: '/home/ada/app' } });

const texts = (machine: MountMachine): readonly string[] =>
  machine.events.flatMap((event) => (event.type === 'notice' || event.type === 'warning' ? [event.text] : []));

describe('up with mounts', () => {
  it('makes their records and one container for the project, and plans nothing the second time', async () => {
    const machine = await MountMachine.start();
    const wish = declaring(SOURCE, mountOf('data', workload('db', { kind: 'StatefulSet' }), '/data'));
    expect(await machine.planned(wish)).toBe(
      lines(
        'create object/ConfigMap/sandbar-system/mount-web-app-9edcbe (missing)',
        'create object/ConfigMap/sandbar-system/mount-db-data-33baf8 (missing)',
        'create container/mount-app-32915e (missing)',
      ),
    );
    expect(machine.mountContainers()).toHaveLength(1);
    expect(machine.records().map(({ origin, root }) => [origin, root])).toEqual([
      ['file', '/home/ada/app'],
      ['file', '/home/ada/app'],
    ]);
    const calls = machine.runtime.calls.length;
    expect((await machine.up(wish)).plan).toEqual([]);
    expect(machine.runtime.calls).toHaveLength(calls);
  });

  it('makes a source that is missing, but not in a dry run', async () => {
    const machine = await MountMachine.start();
    const wish = declaring(mountOf('fresh', workload('web')));
    await machine.up({ ...wish, isDryRun: true });
    expect(await machine.host.findFileType('/home/ada/app/fresh')).toBeUndefined();
    expect(machine.records()).toEqual([]);
    await machine.up(wish);
    expect(await machine.host.findFileType('/home/ada/app/fresh')).toBe('Directory');
  });

  it('rolls in the next run where one that changed what is excluded was interrupted', async () => {
    const machine = await MountMachine.start();
    machine.workload('Deployment', 'web');
    await machine.up(declaring(SOURCE));
    const rolled = machine.rolled.length;
    const patch = machine.cluster.patch.bind(machine.cluster);
    machine.cluster.patch = (ref, change) =>
      ref.kind === 'Deployment' ? Promise.reject(new Error('killed')) : patch(ref, change);
    const changed = declaring({ ...SOURCE, excluded: ['node_modules'] });
    await expect(machine.up(changed)).rejects.toThrow('killed');
    machine.cluster.patch = patch;
    await machine.up(changed);
    expect(machine.rolled).toHaveLength(rolled + 1);
    expect((await machine.up(changed)).plan).toEqual([]);
  });

  it('leaves a mount that was begun and not finished as it is, and says so', async () => {
    const machine = await MountMachine.start();
    await machine.up(declaring(SOURCE));
    const [record] = machine.records();
    machine.declare({ ...record!, origin: 'command', isWithheld: true });
    machine.workload('Deployment', 'web');
    await machine.up(declaring());
    expect(machine.records()).toMatchObject([{ id: record!.id, isWithheld: true }]);
    expect(machine.rolled).toEqual([]);
    expect(texts(machine).join()).toContain('was begun and not finished');
  });

  it('is refused where pod security would keep every pod from starting', async () => {
    const machine = await MountMachine.start();
    machine.namespace('shop', { 'pod-security.kubernetes.io/enforce': 'restricted' });
    const wish = declaring(mountOf('src', workload('web', { namespace: 'shop' })));
    await expect(machine.up(wish)).rejects.toMatchObject({ code: 'CONFLICT' });
    expect(machine.records()).toEqual([]);
  });

  it('foresees them in a dry run of a cluster that is not there', async () => {
    const machine = new MountMachine();
    const planned = await machine.planned({ ...declaring(SOURCE), isDryRun: true });
    expect(planned).toContain('create container/agent (missing)');
    expect(planned).toMatch(/create container\/mount-app-32915e \(missing\)$/);
    expect(machine.runtime.calls).toEqual([]);
  });

  it('claims nothing in a dry run of what the datastore of a cluster that does not run may hold', async () => {
    const machine = await MountMachine.start();
    await machine.up(declaring(SOURCE));
    await machine.runtime.stopContainer('sandbar-dev-dns');
    const planned = await machine.planned({ ...declaring(SOURCE), isDryRun: true });
    expect(planned).toBe('start container/dns (it is exited)');
  });

  it('puts manifests after the mounts that their pods need', async () => {
    const machine = await MountMachine.start();
    const manifests = [
      { apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'shop' } },
      { apiVersion: 'apps/v1', kind: 'Deployment', metadata: { name: 'web', namespace: 'shop' } },
    ];
    const wish = declaring(mountOf('src', workload('web', { namespace: 'shop' })));
    await machine.up({ ...wish, manifests });
    const finished = machine.events.flatMap((event) => (event.type === 'step-finished' ? [event.text] : []));
    const order = [
      'create object/Namespace/shop',
      'create container/mount-app-32915e',
      'wait container/mount-app-32915e',
      'create object/Deployment.apps/shop/web',
    ];
    expect(finished.filter((id) => order.includes(id))).toEqual(order);
  });

  it('removes what is declared no more, without a question, and leaves what a command made', async () => {
    const machine = await MountMachine.start();
    const elsewhere = { ...mountOf('', workload('api'), '/lib'), source: '/home/ada/lib/src' };
    machine.file('/home/ada/lib/src/index.js');
    await machine.up(declaring(SOURCE, elsewhere));
    const record = machine.records().find(({ source }) => source === elsewhere.source)!;
    machine.declare({ ...record, origin: 'command' });
    expect(await machine.planned(declaring())).toBe(
      lines(
        'remove container/mount-app-32915e (no longer wanted)',
        'remove object/ConfigMap/sandbar-system/mount-web-app-9edcbe (no longer wanted)',
      ),
    );
    expect(machine.records().map(({ source }) => source)).toEqual(['/home/ada/lib/src']);
    expect(machine.mountContainers()).toEqual([`sandbar-dev-${mountComponentOf('/home/ada/lib')}`]);
  });

  it('starts a container that was stopped, makes one that was removed, and says so', async () => {
    const machine = await MountMachine.start();
    await machine.up(declaring(SOURCE));
    const [name = ''] = machine.mountContainers();
    await machine.runtime.stopContainer(name);
    expect((await machine.status()).isReady).toBe(true);
    expect(await machine.planned(declaring(SOURCE))).toBe('start container/mount-app-32915e (it is exited)');
    await machine.runtime.removeContainer(name);
    expect(await machine.planned(declaring(SOURCE))).toBe('create container/mount-app-32915e (missing)');
  });

  it('brings the containers of all records back after down', async () => {
    const machine = await MountMachine.start();
    await machine.up(declaring(SOURCE));
    const [record] = machine.records();
    machine.declare({ ...record!, origin: 'command' });
    const { kept } = await machine.down();
    expect(kept).toContain('sandbar-dev-mounts');
    expect(machine.mountContainers()).toEqual([]);
    await machine.up();
    expect(machine.mountContainers()).toHaveLength(1);
    expect(machine.records()).toHaveLength(1);
  });

  it('warns of a source that is gone where a command mounted it, and goes on', async () => {
    const machine = await MountMachine.start();
    const gone = { ...mountOf('', workload('api'), '/lib'), source: '/home/ada/lib/src' };
    machine.file('/home/ada/lib/src/index.js');
    await machine.up(declaring(gone));
    machine.declare({ ...machine.records()[0]!, origin: 'command' });
    machine.host.files.delete('/home/ada/lib/src/index.js');
    for (const name of machine.mountContainers()) await machine.runtime.stopContainer(name);
    machine.runtime.missingFolders.add('/home/ada/lib');
    expect(await machine.planned()).toBe('');
    expect(texts(machine).join('\n')).toMatch(/lib\/src is gone: its mount api-lib-\w+ is stale/);
    expect(machine.records()).toHaveLength(1);
  });

  it('fails where a declared mount does not come, and says why', async () => {
    const machine = await MountMachine.start();
    machine.attachProblem = 'the kernel refuses';
    await expect(machine.up(declaring(SOURCE))).rejects.toMatchObject({
      code: 'TIMED_OUT',
      message: expect.stringContaining('the kernel refuses') as string,
    });
  });

  it('fails where admission does not give the mount to new pods', async () => {
    const machine = await MountMachine.start();
    machine.cluster.admit = (object) => object;
    await expect(machine.up(declaring(SOURCE))).rejects.toMatchObject({
      code: 'TIMED_OUT',
      message: expect.stringContaining('pods are created without sandbar-web-app-9edcbe') as string,
    });
  });
});

describe('a process that is killed in up with mounts', () => {
  it.each([1, 2].flatMap((atChange) => [true, false].map((isCarriedOut) => ({ atChange, isCarriedOut }))))(
    'at change $atChange (carried out: $isCarriedOut) is made good by the next up, and by down',
    async (death) => {
      for (const repair of ['up', 'down'] as const) {
        const machine = await MountMachine.start();
        await new Promise<void>((resolve, reject) => {
          machine.wrapRuntime = (runtime) => dyingCaller(runtime, { ...death, onDeath: resolve });
          machine.up(declaring(SOURCE)).then(() => {
            reject(new Error('it was over before'));
          }, reject);
        });
        machine.restartCommandLine();
        if (repair === 'up') {
          await machine.up(declaring(SOURCE));
          expect(await machine.planned(declaring(SOURCE))).toBe('');
          expect(machine.mountContainers()).toHaveLength(1);
        } else {
          await machine.down({ includesVolumes: true, isAgreed: true });
          expect([...machine.runtime.containers.keys(), ...machine.runtime.volumes.keys()]).toEqual([]);
        }
      }
    },
  );
});

describe('up, where pods run already', () => {
  it('rolls a workload once for all its new mounts, with a notice, and foresees it in a dry run', async () => {
    const machine = await MountMachine.start();
    machine.workload('Deployment', 'web', { replicas: 2 });
    machine.workload('Deployment', 'web-api');
    const wish = declaring(SOURCE, mountOf('data', workload('web'), '/data'));
    const foreseen = await machine.planned({ ...wish, isDryRun: true });
    expect(foreseen).toMatch(/^roll deployment\/web \(its pods were made without web-app-9edcbe, web-data-\w+\)$/m);
    expect(machine.rolled).toEqual([]);
    expect(await machine.planned(wish)).toBe(foreseen);
    expect(machine.rolled).toEqual(['Deployment default/web']);
    expect(texts(machine).join('\n')).toContain('deployment/web is rolled once');
    expect(await machine.planned(wish)).toBe('');
  });

  it('rolls it once more when its mount is gone', async () => {
    const machine = await MountMachine.start();
    machine.workload('StatefulSet', 'db');
    const wish = declaring(mountOf('data', workload('db', { kind: 'StatefulSet' }), '/data'));
    await machine.up(wish);
    expect(await machine.planned(declaring())).toMatch(
      /^roll statefulset\/db \(its pods were made with db-data-\w+\)$/m,
    );
    expect(Object.values(machine.volumes())).toEqual([[]]);
    expect(machine.rolled).toHaveLength(2);
  });

  it('rolls nothing for another source of the same mount, and for one inside of another', async () => {
    const machine = await MountMachine.start();
    machine.workload('Deployment', 'web');
    await machine.up(declaring(SOURCE));
    const other = mountOf('lib', workload('web'));
    await machine.up(
      declaring({ ...other, source: '/home/ada/app/lib' }, mountOf('deep', workload('web'), '/app/deep')),
    );
    expect(machine.rolled).toHaveLength(1);
    expect(machine.records().map(({ source, parentId }) => [source, parentId])).toContainEqual([
      '/home/ada/app/deep',
      'web-app-9edcbe',
    ]);
  });

  it('rolls for what a mount excludes, once', async () => {
    const machine = await MountMachine.start();
    machine.workload('Deployment', 'web');
    await machine.up(declaring(SOURCE));
    const wish = declaring({ ...SOURCE, excluded: ['node_modules'] });
    expect(await machine.planned(wish)).toContain('roll deployment/web (what its mounts exclude changed)');
    expect(await machine.planned(wish)).toBe('');
  });

  it('says of a container that is not there, and of pods that nobody replaces, what to do', async () => {
    const machine = await MountMachine.start();
    machine.workload('Deployment', 'web');
    machine.workload('ReplicaSet', 'old');
    await machine.up(
      declaring(
        mountOf('src', workload('web', { container: 'mian' })),
        mountOf('src', workload('old', { kind: 'ReplicaSet' })),
      ),
    );
    expect(machine.rolled).toEqual([]);
    expect(texts(machine)).toContain('deployment/web has no container "mian": /home/ada/app/src is not mounted');
    expect(texts(machine).join('\n')).toContain('pods of replicaset/old were made without the mount');
  });

  it('says which workload did not become ready', async () => {
    const machine = await MountMachine.start();
    machine.workload('Deployment', 'web');
    machine.podProblem = 'no such file: server.js';
    await expect(machine.up(declaring(SOURCE))).rejects.toMatchObject({
      code: 'TIMED_OUT',
      message: expect.stringContaining('deployment/web was not rolled') as string,
    });
  });
});
