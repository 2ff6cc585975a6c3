import { describe, expect, it } from 'vitest';
import { parseKept } from '../../src/config/keep.ts';
import { recordObject, type MountRecord } from '../../src/model/mounts.ts';
import { interruptEverywhere, type Interruption } from '../builders/interruption.ts';
import { ResetMachine } from '../builders/reset-machine.ts';
import { Shell } from '../builders/shell.ts';

const mount = (id: string, origin: MountRecord['origin']): MountRecord => ({
  id,
  source: '/home/ada/app',
  sourceType: 'Directory',
  root: '/home/ada/app',
  target: { kind: 'node' },
  isReadOnly: false,
  excluded: [],
  parentId: undefined,
  origin,
  events: undefined,
});

describe('what is kept', () => {
  it('is named in lists, again and again', () => {
    expect(parseKept(['volumes, mounts', 'namespace/shop', 'namespaces/shop'])).toEqual({
      hasVolumes: true,
      hasBuckets: false,
      hasMounts: true,
      hasPorts: false,
      namespaces: ['shop'],
    });
  });

  it.each([
    ['volume', 'did you mean volumes? there are volumes, buckets, mounts, ports, namespace/NAME'],
    ['namespce/shop', 'did you mean namespace/shop? there are volumes, buckets, mounts, ports, namespace/NAME'],
    ['namespace/', 'did you mean namespace/? there are volumes, buckets, mounts, ports, namespace/NAME'],
    ['all', 'there are volumes, buckets, mounts, ports, namespace/NAME'],
  ])('is not "%s"', (word, hint) => {
    expect(() => parseKept([word])).toThrow(expect.objectContaining({ code: 'USAGE', hint }) as Error);
  });
});

describe('reset', () => {
  it('takes away what a user made, and keeps every container', async () => {
    const machine = await ResetMachine.start();
    const fresh = new Set(machine.golden?.keys());
    const [ids, calls] = [machine.containerIds(), machine.runtime.calls.length];
    expect(await machine.reset()).toMatchObject({ cluster: 'dev', pods: 2, volumes: 1, buckets: 1, kept: [] });
    expect(new Set(machine.cluster.objects.keys())).toEqual(fresh);
    expect(machine.filesOf('claims')).toEqual({ '/volumes/': '' });
    expect([...machine.objectStore.buckets.keys()]).toEqual([]);
    expect(machine.containerIds()).toEqual(ids);
    expect(machine.runtime.calls).toHaveLength(calls);
    expect(machine.agentResets).toEqual(['']);
  });

  it('keeps what it is told to', async () => {
    const machine = await ResetMachine.start();
    await machine.reset({ kept: { hasBuckets: true, namespaces: ['shop'] } });
    expect([...machine.cluster.objects.keys()]).toContain('v1 ConfigMap shop mine');
    expect([...machine.objectStore.buckets.keys()]).toEqual(['pictures']);
    expect(machine.agentResets).toEqual(['--keep-namespaces shop --keep-volumes pvc-1']);
    await machine.reset({ kept: { hasVolumes: true } });
    expect(machine.filesOf('claims')).toMatchObject({ '/volumes/pvc-1/file': 'mine' });
    expect(machine.agentResets.at(-1)).toBe('--keep-volumes all');
  });

  it('keeps a volume of a kept namespace that is bound at the last moment', async () => {
    const machine = await ResetMachine.start();
    const post = machine.cluster.posts.get('/sandbar/reset')!;
    machine.cluster.posts.set('/sandbar/reset', (request) => {
      const spec = { claimRef: { namespace: 'shop', name: 'late' } };
      machine.add({ apiVersion: 'v1', kind: 'PersistentVolume', metadata: { name: 'pvc-2' }, spec });
      return post(request);
    });
    await machine.reset({ kept: { namespaces: ['shop'] } });
    expect(machine.agentResets).toEqual(['--keep-namespaces shop --keep-volumes pvc-1,pvc-2']);
  });

  it('lets pods be from the moment on that the datastore is back', async () => {
    const machine = await ResetMachine.start();
    machine.cluster.posts.set('/sandbar/reset', async ({ say, signal }) => {
      say({ phase: 'held' });
      say({ phase: 'back' });
      while (machine.agentResets.length === 0) {
        signal.throwIfAborted();
        await new Promise((resolve) => setImmediate(resolve));
      }
      say({ phase: 'done', deleted: 0, restored: 0 });
      return undefined;
    });
    expect(await machine.reset()).toMatchObject({ pods: 2 });
  });

  it('says so where the agent ended without a result', async () => {
    const machine = await ResetMachine.start();
    machine.runtime.programs.set('sandbar-agent', () => ({ stderr: 'killed' }));
    const refusal = { code: 'COMMAND_FAILED', message: 'the agent could not end the pods: killed' };
    await expect(machine.reset()).rejects.toMatchObject(refusal);
  });

  it.each([
    [false, ['mount-declared']],
    [true, ['mount-commanded', 'mount-declared']],
  ])(
    'keeps the records of declared mounts, and with all mounts (%s) those made by command',
    async (hasMounts, names) => {
      const machine = await ResetMachine.start();
      for (const origin of ['file', 'command'] as const) {
        machine.add(recordObject(mount(origin === 'file' ? 'declared' : 'commanded', origin)));
      }
      let kept: readonly string[] = [];
      const post = machine.cluster.posts.get('/sandbar/reset')!;
      machine.cluster.posts.set('/sandbar/reset', (request) => {
        kept = (request.body as { keep: { keys: readonly string[] } }).keep.keys;
        return post(request);
      });
      await machine.reset({ kept: { hasMounts } });
      expect(kept.map((key) => key.split('/').at(-1)).toSorted()).toEqual(names);
      expect(machine.agentResets).toEqual([hasMounts ? '--keep-mounts' : '']);
    },
  );

  it('makes the cluster what up was told to meanwhile', async () => {
    const machine = await ResetMachine.start();
    const shell = new Shell(machine);
    const both = await Promise.all([shell.run('up', '--no-ingress', '--yes'), shell.run('reset', '--yes')]);
    expect(both.map(({ exitCode }) => exitCode)).toEqual([0, 0]);
    expect([...machine.runtime.containers.keys()]).not.toContain('sandbar-dev-ingress');
  });

  it('asks first, and refuses where nobody can be asked', async () => {
    const machine = await ResetMachine.start();
    const before = machine.state();
    const questions: string[] = [];
    const confirm = (question: string): Promise<boolean> => {
      questions.push(question);
      return Promise.resolve(false);
    };
    await expect(machine.reset({ confirm })).rejects.toMatchObject({ code: 'INTERRUPTED', exitCode: 1 });
    expect(questions).toEqual([expect.stringContaining('goes:  every object that is not of the first start')]);
    await expect(machine.reset({ confirm: undefined })).rejects.toMatchObject({ code: 'CONFIRMATION_NEEDED' });
    expect(machine.state()).toEqual(before);
  });

  it('changes nothing in a cluster without a golden copy', async () => {
    const machine = await ResetMachine.start();
    const before = machine.state();
    machine.golden = undefined;
    await expect(machine.reset()).rejects.toMatchObject({ code: 'GOLDEN_COPY_MISSING' });
    expect(machine.state()).toEqual(before);
    expect(machine.agentResets).toEqual([]);
  });

  it.each([
    ['sandbar-dev-agent', 'exited', 'sandbar start, then sandbar reset again'],
    ['sandbar-dev-object-store', 'paused', 'sandbar resume, then sandbar reset again'],
  ] as const)('needs %s, which is %s', async (name, state, hint) => {
    const machine = await ResetMachine.start();
    machine.runtime.containers.get(name)!.state = state;
    await expect(machine.reset()).rejects.toMatchObject({ code: 'CLUSTER_NOT_RUNNING', hint });
  });

  it('does not find a namespace that is to be kept', async () => {
    const machine = await ResetMachine.start();
    const kept = { namespaces: ['shpo'] };
    const refusal = { code: 'NOT_FOUND', message: 'there is no namespace shpo to keep' };
    await expect(machine.reset({ kept })).rejects.toMatchObject(refusal);
    expect(machine.filesOf('claims')).toMatchObject({ '/volumes/pvc-1/file': 'mine' });
  });

  it('says of a bucket in compliance mode that it stays, and goes on', async () => {
    const machine = await ResetMachine.start();
    machine.objectStore.buckets.set('archive', { hasVersioning: true, objects: new Map(), isLocked: true });
    expect(await machine.reset()).toMatchObject({ buckets: 1 });
    expect([...machine.objectStore.buckets.keys()]).toEqual(['archive']);
    const warning = { type: 'warning', text: expect.stringMatching(/^bucket archive stays: .*WORM/) as string };
    expect(machine.events).toContainEqual(expect.objectContaining(warning));
  });

  it('tells what it cannot bring back of the datastore, and lets the pods be', async () => {
    const machine = await ResetMachine.start();
    machine.cluster.posts.set('/sandbar/reset', ({ say }) => {
      say({ phase: 'held' });
      say({ phase: 'failed', message: 'a key keeps changing' });
      return Promise.resolve(undefined);
    });
    await expect(machine.reset()).rejects.toMatchObject({
      code: 'KUBERNETES_FAILED',
      message: 'the control plane could not do it: a key keeps changing',
    });
  });

  describe('--hard', () => {
    it('starts over where the datastore cannot be read', async () => {
      const machine = await ResetMachine.start();
      const fresh = new Set(machine.golden?.keys());
      machine.damage();
      await expect(machine.up()).rejects.toMatchObject({
        code: 'DATASTORE_DAMAGED',
        details: expect.arrayContaining(['the datastore is damaged: member/snap/db: invalid']) as string[],
      });
      await machine.reset({ isHard: true });
      expect(new Set(machine.cluster.objects.keys())).toEqual(fresh);
      expect(machine.filesOf('claims')).toEqual({ '/volumes/': '' });
      expect((await machine.status()).isReady).toBe(true);
    });

    it('killed before the control plane starts, leaves it stopped, and what starts it starts over', async () => {
      const machine = await ResetMachine.start();
      const fresh = new Set(machine.golden?.keys());
      const write = machine.runtime.writeFile.bind(machine.runtime);
      machine.runtime.writeFile = async (ref, file) => {
        await write(ref, file);
        if (file.path.endsWith('/start-over')) throw new Error('killed');
      };
      await expect(machine.reset({ isHard: true })).rejects.toThrow('killed');
      expect(machine.runtime.containers.get('sandbar-dev-control-plane')?.state).toBe('exited');
      await machine.up();
      expect(new Set(machine.cluster.objects.keys())).toEqual(fresh);
    });

    it('wakes the parts that it needs', async () => {
      const machine = await ResetMachine.start();
      machine.runtime.containers.get('sandbar-dev-agent')!.state = 'exited';
      machine.runtime.containers.get('sandbar-dev-object-store')!.state = 'paused';
      expect(await machine.reset({ isHard: true })).toMatchObject({ volumes: 1, buckets: 1 });
    });

    it('has the kubelet register again where the Node is gone', async () => {
      const machine = await ResetMachine.start();
      const path = '/api/v1/nodes/sandbar-dev';
      const node = machine.cluster.answers.get(path)!;
      const start = machine.runtime.startContainer.bind(machine.runtime);
      machine.runtime.startContainer = async (ref) => {
        await start(ref);
        if (ref === machine.containerIds()['agent']) machine.cluster.answers.set(path, node);
      };
      machine.cluster.answers.delete(path);
      machine.runtime.calls.length = 0;
      await machine.reset({ isHard: true });
      expect(machine.runtime.calls).toContain('start sandbar-dev-agent');
    });

    it('cannot keep what is in the datastore', async () => {
      const machine = await ResetMachine.start();
      const kept = { hasVolumes: true, hasBuckets: true };
      const refusal = { code: 'USAGE', message: '--hard puts a whole datastore in place and cannot keep volumes' };
      await expect(machine.reset({ isHard: true, kept })).rejects.toMatchObject(refusal);
      await machine.reset({ isHard: true, kept: { hasBuckets: true } });
      expect([...machine.objectStore.buckets.keys()]).toEqual(['pictures']);
    });
  });

  it.each<[Interruption['kind'], boolean]>([
    ['abort', false],
    ['die', false],
    ['die after', false],
    ['abort', true],
    ['die', true],
    ['die after', true],
  ])(
    'is finished by the next one, whatever call it was interrupted at (%s, hard: %s)',
    async (kind, isHard) => {
      const whole = await ResetMachine.start();
      await whole.reset({ isHard });
      const calls = await interruptEverywhere(kind, {
        begin: () => ResetMachine.start(),
        work: (machine, signal) => machine.reset({ isHard, signal }),
        check: async (machine, atCall) => {
          await machine.reset({ isHard });
          expect(machine.state(), `interrupted at call ${String(atCall)}`).toEqual(whole.state());
        },
      });
      expect(calls).toBeGreaterThan(15);
    },
    60_000,
  );
});
