import { describe, expect, it } from 'vitest';
import { SandbarError } from '../../src/model/errors.ts';
import { SPEC } from '../builders/cluster.ts';
import { dyingCaller, Machine } from '../builders/machine.ts';

const lines = (...text: string[]): string => text.join('\n');

describe('up', () => {
  it('makes everything of a cluster that is not there', async () => {
    const machine = new Machine();
    const planned = await machine.planned();
    expect(planned).toContain('create network (missing)');
    expect(planned).toContain('create container/control-plane (missing)');
    expect([...machine.runtime.containers.values()].map(({ state }) => state)).toEqual(Array(7).fill('running'));
    expect([...machine.cluster.objects.keys()]).toContain('v1 Service kube-system kube-dns');
    expect((await machine.status()).isReady).toBe(true);
  });

  it('starts what it does not wait for once the rest is on its way', async () => {
    const machine = new Machine();
    machine.cluster.answers.delete('/apis/metrics.k8s.io/v1beta1');
    await machine.up();
    const made = machine.runtime.calls.filter((call) =>
      /^(?:create container|start) \S+-(?:agent|dns|metrics)$/.test(call),
    );
    expect(made.slice(-2)).toEqual(['create container sandbar-dev-metrics', 'start sandbar-dev-metrics']);
  });

  it('plans nothing the second time and keeps every container and the identity', async () => {
    const machine = new Machine();
    await machine.up();
    const before = machine.containerIds();
    const calls = machine.runtime.calls.length;
    expect(await machine.planned()).toBe('');
    expect(machine.containerIds()).toEqual(before);
    expect(machine.runtime.calls).toHaveLength(calls);
    expect(machine.identitiesMade).toBe(1);
  });

  it('changes nothing in a dry run, whatever would change', async () => {
    const machine = new Machine();
    expect(await machine.planned({ isDryRun: true })).toContain('create container/agent (missing)');
    expect(machine.runtime.calls).toEqual([]);
    await machine.up();
    const calls = machine.runtime.calls.length;
    const spec = { kubernetes: { ...SPEC.kubernetes, kubeletArguments: { v: '4' } } };
    expect(await machine.planned({ isDryRun: true, spec })).toBe(
      lines(
        'remove container/agent (/etc/sandbar/config.json changed)',
        'create container/agent (/etc/sandbar/config.json changed)',
      ),
    );
    expect(machine.runtime.calls).toHaveLength(calls);
  });

  it('lets the next command in only when nothing of it goes on', async () => {
    const machine = new Machine();
    await machine.up();
    let hasBegun = false;
    let hasEnded = false;
    machine.cluster.posts.set('/sandbar/repair', async ({ say }) => {
      hasBegun = true;
      for (let turn = 0; turn < 5; turn += 1) await new Promise((resolve) => setImmediate(resolve));
      hasEnded = true;
      say({ phase: 'done', repaired: [] });
      return undefined;
    });
    machine.runtime.writeFile = async () => {
      while (!hasBegun) await new Promise((resolve) => setImmediate(resolve));
      throw new Error('no space left');
    };
    const origin = { file: '/home/ada/sandbar.yaml', flags: {} };
    await expect(machine.up({ origin })).rejects.toThrow('no space left');
    expect(hasEnded).toBe(true);
  });

  it('foresees in a dry run that the identity is kept where the control plane was removed', async () => {
    const machine = new Machine();
    await machine.up();
    await machine.runtime.removeContainer('sandbar-dev-control-plane');
    expect(await machine.planned({ isDryRun: true })).toBe('create container/control-plane (missing)');
  });

  it('starts what was stopped and creates what was removed, and nothing else', async () => {
    const machine = new Machine();
    await machine.up();
    await machine.runtime.stopContainer('sandbar-dev-dns');
    await machine.runtime.removeContainer('sandbar-dev-ingress');
    expect(await machine.planned()).toBe(
      lines('start container/dns (it is exited)', 'create container/ingress (missing)'),
    );
  });

  it('keeps the identity of a cluster whose control plane was removed', async () => {
    const machine = new Machine();
    await machine.up();
    await machine.runtime.removeContainer('sandbar-dev-control-plane');
    expect(await machine.planned()).toBe('create container/control-plane (missing)');
    expect(machine.identitiesMade).toBe(1);
    expect(machine.runtime.calls).toContain('create container sandbar-dev-identity-reader-4711');
    expect([...machine.runtime.containers.keys()]).not.toContain('sandbar-dev-identity-reader-4711');
  });

  it('makes no new identity where it could not read the one there is', async () => {
    const machine = new Machine();
    await machine.up();
    await machine.down();
    machine.runtime.readFile = async (ref) => {
      await machine.runtime.removeContainer(ref);
      return undefined;
    };
    await expect(machine.up()).rejects.toMatchObject({
      code: 'CONFLICT',
      message: 'sandbar-dev-identity-reader-4711 was removed while /etc/sandbar/identity.json was read through it',
    });
    expect(machine.identitiesMade).toBe(1);
  });

  it('keeps the identity where a port was taken meanwhile, and all is chosen again', async () => {
    const machine = new Machine();
    await machine.up();
    await machine.down();
    const startContainer = machine.runtime.startContainer.bind(machine.runtime);
    let isTaken = false;
    machine.runtime.startContainer = async (ref) => {
      if (isTaken) return startContainer(ref);
      isTaken = true;
      throw new SandbarError('PORT_IN_USE', `a port of ${ref} is in use`);
    };
    await machine.up();
    expect(isTaken).toBe(true);
    expect(machine.identitiesMade).toBe(1);
  });

  it('keeps the data and the identity through down, and brings the cluster back', async () => {
    const machine = new Machine();
    await machine.up();
    expect((await machine.down()).kept).toHaveLength(8);
    expect(machine.runtime.containers.size).toBe(0);
    expect(machine.runtime.networks.size).toBe(0);
    const planned = await machine.planned();
    expect(planned).not.toContain('volume');
    expect(machine.identitiesMade).toBe(1);
  });

  it('repairs objects that were edited or deleted, and leaves those of the user alone', async () => {
    const machine = new Machine();
    await machine.up();
    const objects = machine.cluster.objects;
    objects.delete('v1 Service kube-system kube-dns');
    const role = objects.get('rbac.authorization.k8s.io/v1 ClusterRole  system:sandbar:ingress')!;
    objects.set('rbac.authorization.k8s.io/v1 ClusterRole  system:sandbar:ingress', { ...role, rules: [] });
    const own = { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'mine', namespace: 'default' } };
    await machine.cluster.apply(own);
    expect((await machine.planned()).split('\n').sort()).toEqual([
      'create object/Service/kube-system/kube-dns (missing)',
      'update object/ClusterRole.rbac.authorization.k8s.io/system:sandbar:ingress (differs from what is wanted)',
    ]);
    expect(objects.get('v1 ConfigMap default mine')).toEqual(own);
  });

  it('has the control plane make again what every cluster has, and says what that was', async () => {
    const machine = new Machine();
    await machine.up();
    machine.cluster.repairs = ['role view', 'Node sandbar-dev'];
    await machine.up();
    expect(machine.events).toContainEqual({ type: 'notice', text: 'made again: role view, Node sandbar-dev' });
  });

  it('waits for no other part when the control plane does not come up', async () => {
    const machine = new Machine();
    machine.cluster.answers.set('/readyz', { status: 500, body: '' });
    machine.cluster.answers.set('/api/v1/nodes/sandbar-dev', { status: 404, body: '{}' });
    machine.runtime.programs.set('sandbar-agent', () => ({ exitCode: 1 }));
    const startedAt = machine.clock.now();
    await expect(machine.up()).rejects.toMatchObject({
      message: 'control-plane was not ready after 60 s: /readyz: HTTP 500',
    });
    expect(machine.clock.now() - startedAt).toBeLessThan(65_000);
  });

  it('says which part did not come up, with its log', async () => {
    const machine = new Machine();
    machine.runtime.images.set('sandbar/agent:1', { output: ['no cgroup is mounted'] });
    machine.cluster.answers.set('/api/v1/nodes/sandbar-dev', { status: 404, body: '{}' });
    await expect(machine.up()).rejects.toMatchObject({
      code: 'TIMED_OUT',
      exitCode: 5,
      message: 'agent was not ready after 90 s: /api/v1/nodes/sandbar-dev: HTTP 404',
      details: ['no cgroup is mounted'],
    });
  });

  it('refuses to lose data where nobody can be asked', async () => {
    const machine = new Machine();
    await machine.up();
    const spec = { objectStore: { ...SPEC.objectStore, isEnabled: false } };
    const before = machine.containerIds();
    await expect(machine.up({ spec })).rejects.toMatchObject({ code: 'CONFIRMATION_NEEDED', exitCode: 2 });
    expect(machine.containerIds()).toEqual(before);
    await machine.up({ spec, confirm: () => Promise.resolve(true) });
    expect([...machine.runtime.volumes.keys()]).not.toContain('sandbar-dev-object-store');
  });

  it('lets two runs for one cluster take turns', async () => {
    const machine = new Machine();
    const [first, second] = await Promise.all([machine.up(), machine.up()]);
    expect(first.plan.length).toBeGreaterThan(10);
    expect(second.plan).toEqual([]);
    expect(machine.events).toContainEqual(
      expect.objectContaining({
        type: 'waiting',
        text: expect.stringContaining('waiting for another sandbar') as string,
      }),
    );
  });

  it('chooses another subnet or port when somebody has taken the chosen one meanwhile', async () => {
    const machine = new Machine();
    const { runtime } = machine;
    runtime.networks.set('other', { id: 'other', name: 'other', labels: {}, subnets: ['172.30.0.0/24'] });
    runtime.foreignPorts.add(80);
    const listNetworks = runtime.listNetworks.bind(runtime);
    let looks = 0;
    runtime.listNetworks = async () => ((looks += 1) === 1 ? [] : listNetworks());
    const isPortFree = machine.host.isPortFree.bind(machine.host);
    let probes = 0;
    // Nobody listens on port 80 when it is looked at first.
    machine.host.isPortFree = (port) => (port === 80 ? Promise.resolve((probes += 1) <= 2) : isPortFree(port));
    machine.host.httpStatuses.set('http://127.0.0.1:8080/', 404);
    const { context } = await machine.up();
    expect(context.subnet).toBe('172.30.1.0/24');
    expect(context.ports.http).toBe(8080);
    expect(await machine.planned()).toBe('');
  });

  it('insists on the subnet that the user has named', async () => {
    const machine = new Machine();
    const { runtime } = machine;
    runtime.networks.set('other', { id: 'other', name: 'other', labels: {}, subnets: ['10.9.8.0/24'] });
    const spec = { network: { ...SPEC.network, subnet: '10.9.8.0/24' } };
    await expect(machine.up({ spec })).rejects.toMatchObject({ code: 'SUBNET_IN_USE', exitCode: 3 });
    runtime.listNetworks = () => Promise.resolve([]);
    await expect(machine.up({ spec })).rejects.toMatchObject({ code: 'SUBNET_IN_USE', exitCode: 3 });
  });

  it('stops before the next step when it is interrupted', async () => {
    const machine = new Machine();
    const interruption = new AbortController();
    const { runtime } = machine;
    const createVolume = runtime.createVolume.bind(runtime);
    runtime.createVolume = async (volume) => {
      await createVolume(volume);
      interruption.abort(new Error('interrupted'));
    };
    await expect(machine.up({ signal: interruption.signal })).rejects.toThrow('interrupted');
    expect(machine.runtime.containers.size).toBe(0);
    await machine.up();
    expect(await machine.planned()).toBe('');
  });
});

describe('a process that is killed', () => {
  const changesOfUp = 19;
  const changesOfDown = 13;
  const deaths = (count: number) =>
    Array.from({ length: count }, (_, index) => index + 1).flatMap((atChange) =>
      [true, false].map((isCarriedOut) => ({ atChange, isCarriedOut })),
    );

  /** Runs `work` on the machine until its caller dies. */
  async function diesIn(
    machine: Machine,
    death: { atChange: number; isCarriedOut: boolean },
    work: () => Promise<unknown>,
  ): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      machine.wrapRuntime = (runtime) => dyingCaller(runtime, { ...death, onDeath: resolve });
      void work().then(() => {
        reject(new Error(`it was over before change ${String(death.atChange)}`));
      }, reject);
    });
    machine.restartCommandLine();
  }

  it.each(deaths(changesOfUp))(
    'in up, at change $atChange (carried out: $isCarriedOut), is made good by the next up',
    async (death) => {
      const machine = new Machine();
      await diesIn(machine, death, () => machine.up());
      await machine.up();
      expect(await machine.planned()).toBe('');
      expect((await machine.status()).isReady).toBe(true);
    },
  );

  it.each(deaths(changesOfUp))(
    'in up, at change $atChange (carried out: $isCarriedOut), leaves nothing that down does not remove',
    async (death) => {
      const machine = new Machine();
      await diesIn(machine, death, () => machine.up());
      await machine.down({ includesVolumes: true, isAgreed: true });
      const { containers, volumes, networks } = machine.runtime;
      expect([...containers.keys(), ...volumes.keys(), ...networks.keys()]).toEqual([]);
    },
  );

  it.each(deaths(changesOfDown))(
    'in down, at change $atChange (carried out: $isCarriedOut), is made good by up and by down',
    async (death) => {
      for (const repair of ['up', 'down'] as const) {
        const machine = new Machine();
        await machine.up();
        await diesIn(machine, death, () => machine.down({ includesVolumes: true, isAgreed: true }));
        if (repair === 'up') {
          await machine.up();
          expect(await machine.planned()).toBe('');
        } else {
          await machine.down({ includesVolumes: true, isAgreed: true });
          expect(machine.runtime.volumes.size).toBe(0);
        }
      }
    },
  );

  it('in the change of a setting is made good by the next up', async () => {
    const spec = { kubernetes: { ...SPEC.kubernetes, featureGates: { HPAScaleToZero: true } } };
    for (const death of deaths(6)) {
      const machine = new Machine();
      await machine.up();
      await diesIn(machine, death, () => machine.up({ spec }));
      await machine.up({ spec });
      expect(await machine.planned({ spec })).toBe('');
      expect(machine.identitiesMade).toBe(1);
    }
  });
});
