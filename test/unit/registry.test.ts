import { describe, expect, it } from 'vitest';
import { cacheSettings, registryHosts } from '../../src/components/registry.ts';
import { LABELS } from '../../src/model/names.ts';
import { pruneRegistry, removeRegistry, showRegistry } from '../../src/operations/registry.ts';
import { contextWith } from '../builders/cluster.ts';
import { dyingCaller, Machine } from '../builders/machine.ts';

const wish = (registry: { readonly port?: number; readonly mirrors?: readonly string[] } = {}) => ({
  registry: {
    name: 'sandbar-registry',
    port: { port: registry.port ?? 5001, isFixed: registry.port !== undefined },
    mirrors: registry.mirrors ?? [],
  },
});

const NODE = JSON.stringify({ status: { conditions: [{ type: 'Ready', status: 'True' }] } });
const request = { registryName: 'sandbar-registry', signal: new AbortController().signal };

/** A machine on which two clusters may be, and what happens when the node is told of registries. */
function openMachine(): { readonly machine: Machine; readonly told: string[] } {
  const machine = new Machine();
  const told: string[] = [];
  machine.cluster.answers.set('/api/v1/nodes/sandbar-two', { status: 200, body: NODE });
  machine.cluster.answers.set('/api/v1/nodes/sandbar-two/proxy/healthz', { status: 200, body: 'ok' });
  machine.runtime.programs.set('tar', ({ stdin }) => {
    told.push(stdin);
    return {};
  });
  return { machine, told };
}

const fixed = (port: number) => ({ port, isFixed: true });
const two = {
  ...wish(),
  name: 'two',
  ports: {
    api: fixed(7443),
    http: fixed(8080),
    https: fixed(8443),
    objectStore: fixed(9002),
    objectStoreConsole: fixed(9003),
  },
};

describe('the registry', () => {
  it('is made by the first cluster and joined by the second', async () => {
    const { machine } = openMachine();
    const planned = await machine.planned({ spec: wish() });
    expect(planned).toContain('create container/registry (missing)');
    expect(planned).toContain('create attachment/sandbar-dev (missing)');
    const id = machine.runtime.containers.get('sandbar-registry')?.id;
    const second = await machine.planned({ spec: two });
    expect(second).toContain('create attachment/sandbar-two (missing)');
    expect(second).not.toContain('container/registry');
    expect(machine.runtime.containers.get('sandbar-registry')?.id).toBe(id);
  });

  it('goes with the last cluster and leaves its images', async () => {
    const { machine } = openMachine();
    await machine.up({ spec: two });
    await machine.up({ spec: wish() });
    expect((await machine.down({ includesVolumes: true, isAgreed: true })).removed).not.toContain(
      'container/sandbar-registry',
    );
    expect(machine.runtime.containers.get('sandbar-registry')?.state).toBe('running');
    await machine.up({ spec: wish() });
    await machine.runtime.disconnectNetwork('sandbar-two', 'sandbar-registry');
    expect((await machine.down()).removed).toContain('container/sandbar-registry');
    expect(machine.runtime.volumes.has('sandbar-registry')).toBe(true);
  });

  it('stays where another cluster goes while it is made, which has another lock where the home is another', async () => {
    const { machine } = openMachine();
    await machine.up({ spec: { ...two, registry: { ...wish().registry, name: 'other' } } });
    await machine.up({ spec: wish() });
    // As between its start and its first attachment.
    await machine.runtime.disconnectNetwork('sandbar-two', 'other');
    expect((await machine.down()).removed).toContain('container/sandbar-registry');
    expect(machine.runtime.containers.get('other')?.state).toBe('running');
  });

  it('comes back on the networks of the other clusters when it is made anew', async () => {
    const { machine } = openMachine();
    await machine.up({ spec: two });
    await machine.up({ spec: wish() });
    await machine.runtime.stopContainer('sandbar-registry');
    const registry = machine.runtime.containers.get('sandbar-registry');
    if (registry !== undefined) registry.state = 'created';
    expect(await machine.planned({ spec: wish() })).toContain('create attachment/sandbar-two (its container is new)');
    const addresses = machine.runtime.containers.get('sandbar-registry')?.attachments;
    expect([...(addresses?.keys() ?? [])].sort()).toEqual(['sandbar-dev', 'sandbar-two']);
  });

  it.each([1, 2, 3, 4, 5])(
    'is on all networks again when it was being made anew and up was killed at change %i',
    async (atChange) => {
      const { machine } = openMachine();
      await machine.up({ spec: two });
      await machine.up({ spec: wish() });
      await machine.runtime.stopContainer('sandbar-registry');
      const broken = machine.runtime.containers.get('sandbar-registry');
      if (broken !== undefined) broken.state = 'created';
      await new Promise<void>((resolve, reject) => {
        machine.wrapRuntime = (runtime) => dyingCaller(runtime, { atChange, isCarriedOut: true, onDeath: resolve });
        machine.up({ spec: wish() }).then(() => {
          reject(new Error(`it was over before change ${String(atChange)}`));
        }, reject);
      });
      machine.restartCommandLine();
      await machine.up({ spec: wish() });
      const attachments = machine.runtime.containers.get('sandbar-registry')?.attachments;
      expect([...(attachments?.keys() ?? [])].sort()).toEqual(['sandbar-dev', 'sandbar-two']);
      const [subnet = ''] = machine.runtime.networks.get('sandbar-two')?.subnets ?? [];
      expect(attachments?.get('sandbar-two')).toBe(subnet.replace('0/24', '8'));
    },
  );

  it('leaves a cluster alone that has taken another registry, or none, since its network was made', async () => {
    const { machine } = openMachine();
    await machine.up({ spec: two });
    const other = { ...wish().registry, name: 'other' };
    await machine.up({ spec: { ...two, registry: other } });
    await machine.up({ spec: wish() });
    const networksOf = (name: string): readonly string[] => [
      ...(machine.runtime.containers.get(name)?.attachments.keys() ?? []),
    ];
    expect(networksOf('other')).toEqual(['sandbar-two']);
    expect(networksOf('sandbar-registry')).toEqual(['sandbar-dev']);
  });

  it('is one for two clusters that come up at once, and two on ports of their own where they name two', async () => {
    const { machine: together } = openMachine();
    await Promise.all([together.up({ spec: wish() }), together.up({ spec: two })]);
    expect([...(together.runtime.containers.get('sandbar-registry')?.attachments.keys() ?? [])].sort()).toEqual([
      'sandbar-dev',
      'sandbar-two',
    ]);
    const { machine: apart } = openMachine();
    const ups = await Promise.all([
      apart.up({ spec: wish() }),
      apart.up({ spec: { ...two, registry: { ...wish().registry, name: 'other' } } }),
    ]);
    expect(ups.map(({ context }) => context.registry?.port).sort()).toEqual([5001, 5002]);
  });

  it('goes from a network that it has joined while the cluster goes', async () => {
    const { machine } = openMachine();
    const { runtime } = machine;
    await machine.up({ spec: two });
    await machine.up({ spec: wish() });
    await runtime.disconnectNetwork('sandbar-dev', 'sandbar-registry');
    const removeContainer = runtime.removeContainer.bind(runtime);
    runtime.removeContainer = async (ref) => {
      // Once: up of two makes it anew meanwhile.
      runtime.removeContainer = removeContainer;
      await runtime.connectNetwork('sandbar-dev', 'sandbar-registry', '172.30.0.8');
      await removeContainer(ref);
    };
    await machine.down();
    expect(runtime.networks.has('sandbar-dev')).toBe(false);
    expect([...(runtime.containers.get('sandbar-registry')?.attachments.keys() ?? [])]).toEqual(['sandbar-two']);
  });

  it('leaves another cluster alone that is removed while it is made anew', async () => {
    const { machine } = openMachine();
    const { runtime } = machine;
    await machine.up({ spec: two });
    await machine.up({ spec: wish() });
    await runtime.stopContainer('sandbar-registry');
    const registry = runtime.containers.get('sandbar-registry');
    if (registry !== undefined) registry.state = 'created';
    const connect = runtime.connectNetwork.bind(runtime);
    runtime.connectNetwork = (network, ref, address) => {
      if (network === 'sandbar-two') runtime.networks.delete(network);
      return connect(network, ref, address);
    };
    await machine.up({ spec: wish() });
    expect([...(runtime.containers.get('sandbar-registry')?.attachments.keys() ?? [])]).toEqual(['sandbar-dev']);
  });

  it('is made anew where a network that it was on is gone, as an engine would not start it', async () => {
    const { machine } = openMachine();
    await machine.up({ spec: two });
    await machine.up({ spec: wish() });
    await machine.runtime.stopContainer('sandbar-registry');
    machine.runtime.networks.delete('sandbar-two');
    const planned = await machine.planned({ spec: wish() });
    expect(planned).toContain('networks');
    expect(machine.runtime.containers.get('sandbar-registry')?.state).toBe('running');
  });

  it('is left by a cluster that wants none', async () => {
    const { machine } = openMachine();
    await machine.up({ spec: wish() });
    const planned = await machine.planned({ confirm: () => Promise.resolve(true) });
    expect(planned).toContain('remove attachment/sandbar-dev (no longer wanted)');
  });

  it('keeps the port that it had first, and takes the next free one only then', async () => {
    const { machine } = openMachine();
    machine.host.listeners.set(5001, 'nginx (pid 7)');
    const first = await machine.up({ spec: wish() });
    expect(first.context.registry?.port).toBe(5002);
    expect(machine.events).toContainEqual({
      type: 'notice',
      text: 'port 5001 is used by nginx (pid 7): the registry is on 5002',
    });
    expect(machine.runtime.volumes.get('sandbar-registry')?.labels[LABELS.port]).toBe('5002');
    await machine.down();
    machine.host.listeners.clear();
    expect((await machine.up({ spec: wish() })).context.registry?.port).toBe(5002);
  });

  it('refuses a port that is taken where the user names it, and another one than other clusters know', async () => {
    const { machine } = openMachine();
    machine.host.listeners.set(6000, 'nginx (pid 7)');
    await expect(machine.up({ spec: wish({ port: 6000 }) })).rejects.toThrow('port 6000 is used by nginx (pid 7)');
    machine.host.listeners.clear();
    await machine.up({ spec: two });
    await expect(machine.up({ spec: wish({ port: 6000 }) })).rejects.toThrow(
      'registry sandbar-registry is known to cluster two on port 5001, not 6000',
    );
  });

  it('tells a node that runs of new mirrors, and of those that are no more', async () => {
    const { machine, told } = openMachine();
    await machine.up({ spec: wish({ mirrors: ['docker.io'] }) });
    expect(told).toEqual([]);
    const agent = machine.containerIds().agent;
    const planned = await machine.planned({ spec: wish({ mirrors: ['quay.io'] }) });
    expect(planned).toBe('update object/ConfigMap/sandbar-system/registry-hosts (differs from what is wanted)');
    expect(machine.containerIds().agent).toBe(agent);
    expect(told).toHaveLength(1);
    const files = (told[0] ?? '').split('etc/containerd/certs.d/').slice(1);
    const contentOf = (host: string): string | undefined => files.find((file) => file.startsWith(`${host}/hosts.toml`));
    expect(contentOf('docker.io')).not.toContain('host.');
    expect(contentOf('quay.io')).toContain('[host."http://172.30.0.8:5001"]');
    expect(machine.runtime.calls).toContain('write /var/lib/registry/settings/quay.io.json in sandbar-registry');
  });

  it('is asked for copies before the mirrors, and fetches them from the first of these', () => {
    const mirrors = [{ registry: 'docker.io', endpoints: ['https://mirror.example', 'https://other.example'] }];
    const context = contextWith({ ...wish({ mirrors: ['docker.io', 'quay.io'] }), mirrors });
    const hosts = registryHosts(context);
    expect(hosts['docker.io']?.match(/"http[^"]*"/g)).toEqual([
      '"http://172.30.0.8:5001"',
      '"https://mirror.example"',
      '"https://other.example"',
    ]);
    expect(hosts['localhost:5001']).toBe('server = "http://172.30.0.8:5000"\n');
    const remotes = cacheSettings(context).map(
      ({ content }) => (JSON.parse(content) as { remoteURL: string }).remoteURL,
    );
    expect(remotes).toEqual(['https://mirror.example', 'https://quay.io']);
  });

  it('says what it holds, frees and goes only when asked', async () => {
    const { machine } = openMachine();
    await expect(showRegistry(request, machine.runtime)).rejects.toThrow('registry sandbar-registry is not there');
    machine.runtime.programs.set('/sandbar-registry', ({ args }) => ({
      stdout:
        args[0] === 'content'
          ? '{"sizeBytes":7,"images":[],"caches":[]}'
          : `{"freedBytes":${args[0] === 'prune' ? '1' : '2'}}`,
    }));
    await machine.up({ spec: wish() });
    expect(await showRegistry(request, machine.runtime)).toMatchObject({
      host: 'localhost:5001',
      clusters: ['dev'],
      sizeBytes: 7,
    });
    expect((await pruneRegistry({ ...request, ofCaches: false }, machine.runtime)).freedBytes).toBe(1);
    expect((await pruneRegistry({ ...request, ofCaches: true }, machine.runtime)).freedBytes).toBe(2);
    await expect(removeRegistry({ ...request, confirm: undefined }, machine.ports)).rejects.toThrow('every image');
    // Whoever is asked may take his time: an up goes on meanwhile.
    const confirm = () => machine.up({ spec: wish() }).then(() => true);
    await removeRegistry({ ...request, confirm }, machine.ports);
    expect(machine.runtime.volumes.has('sandbar-registry')).toBe(false);
    expect(await machine.planned({ spec: wish() })).toContain('create volume/registry (missing)');
  });

  it('is told of in status, also when somebody has taken it away', async () => {
    const { machine } = openMachine();
    await machine.up({ spec: wish() });
    machine.host.httpStatuses.set('http://127.0.0.1:5001/v2/', 200);
    expect(await machine.status()).toMatchObject({ isReady: true, registry: 'localhost:5001' });
    await machine.runtime.stopContainer('sandbar-registry');
    const stopped = (await machine.status()).components.find(({ component }) => component === 'registry');
    expect(stopped).toMatchObject({ isReady: false, detail: 'it is exited', containerName: 'sandbar-registry' });
    await machine.runtime.removeContainer('sandbar-registry');
    machine.cluster.answers.set('/api/v1/namespaces/kube-public/configmaps/local-registry-hosting', {
      status: 200,
      body: '{}',
    });
    expect((await machine.status()).components.find(({ component }) => component === 'registry')?.state).toBe(
      'missing',
    );
  });
});

describe('a process that is killed in up with a registry', () => {
  const ends = Array.from({ length: 18 }, (_, index) => index + 1).flatMap((atChange) =>
    [true, false].map((isCarriedOut) => ({ atChange, isCarriedOut })),
  );

  it.each(ends)('at change $atChange (carried out: $isCarriedOut), is made good by up and by down', async (end) => {
    for (const next of ['up', 'down'] as const) {
      const { machine } = openMachine();
      await new Promise<void>((resolve, reject) => {
        machine.wrapRuntime = (runtime) => dyingCaller(runtime, { ...end, onDeath: resolve });
        machine.up({ spec: wish() }).then(() => {
          reject(new Error(`it was over before change ${String(end.atChange)}`));
        }, reject);
      });
      machine.restartCommandLine();
      if (next === 'up') {
        await machine.up({ spec: wish() });
        expect(await machine.planned({ spec: wish() })).toBe('');
        expect(machine.runtime.containers.get('sandbar-registry')?.attachments.has('sandbar-dev')).toBe(true);
      } else {
        await machine.down({ includesVolumes: true, isAgreed: true });
        expect([...machine.runtime.containers.keys(), ...machine.runtime.networks.keys()]).toEqual([]);
      }
    }
  });
});
