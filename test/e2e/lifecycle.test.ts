/** One cluster through its life: made, left alone, damaged in every way, repaired, taken down and brought back. */
import { lstat, mkdir, readFile, stat, symlink, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { networkInterfaces } from 'node:os';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { DockerRuntime } from '../../src/adapters/docker.ts';
import { environment, isDockerMissing, provideTestImage, TEST_IMAGE } from '../fixtures/docker.ts';
import {
  COMPONENTS,
  createSandbox,
  eventually,
  withoutFrames,
  type ComponentName,
  type KubernetesJson,
  type Sandbox,
} from './support.ts';
import { workload } from './fixtures/keeper.ts';
import { startWriting, untilMore } from './writers.ts';

describe.skipIf(isDockerMissing)('a cluster', () => {
  const sandbox = createSandbox('life');

  beforeAll(async () => {
    const runtime = new DockerRuntime(environment);
    await provideTestImage(runtime);
    await runtime.close();
  });

  it('is there after one up: every part answers, and all of them are wired together', async () => {
    const { steps, ports, events } = await sandbox.up();
    expect(steps.map(({ cause }) => cause).filter((cause) => cause !== 'missing')).toEqual([]);
    expect(events.filter(({ type }) => ['warning', 'step-failed', 'step-skipped'].includes(type))).toEqual([]);
    expect(Object.keys(await sandbox.containerIds()).sort()).toEqual([...COMPONENTS].sort());
    expect(await sandbox.ports()).toEqual(ports);

    const node = await sandbox.getObject('node', `sandbar-${sandbox.name}`);
    expect(conditionOf(node, 'Ready')).toBe('True');
    expect(node.status['nodeInfo']).toMatchObject({ kubeletVersion: expect.stringMatching(/^v1\.36\./) as string });
    await sandbox.mustKubectl(['get', 'serviceaccount', 'default']);
    const dns = await sandbox.getObject('service', 'kube-dns', '--namespace=kube-system');
    expect(dns.spec['clusterIP']).toBe('10.96.0.10');
    const slices = await sandbox.getObject('endpointslices', '--namespace=kube-system');
    const { NetworkSettings: network } = await sandbox.inspect('dns');
    expect(slices.items[0]?.['endpoints']).toMatchObject([
      { addresses: [Object.values(network.Networks)[0]?.IPAddress] },
    ]);
    const isDefault = ({ metadata }: KubernetesJson): boolean =>
      Object.entries(metadata.annotations ?? {}).some(
        ([key, value]) => key.endsWith('.kubernetes.io/is-default-class') && value === 'true',
      );
    expect(isDefault(await sandbox.getObject('ingressclass', 'sandbar'))).toBe(true);
    expect(isDefault(await sandbox.getObject('storageclass', 'standard'))).toBe(true);
    expect(Object.keys((await sandbox.getObject('secret', 'object-store')).data).sort()).toEqual(
      ['AWS_ACCESS_KEY_ID', 'AWS_ENDPOINT_URL_S3', 'AWS_REGION', 'AWS_SECRET_ACCESS_KEY'].sort(),
    );
    expect((await fetch(`http://127.0.0.1:${String(ports.http)}/`)).status).toBe(404);
    expect((await fetch(`http://127.0.0.1:${String(ports.objectStore)}/minio/health/ready`)).status).toBe(200);

    const status = JSON.parse(await sandbox.must(['status', '-o', 'json'])) as StatusOutput;
    expect(status.isReady).toBe(true);
    expect(status.components.map(({ component }) => component).sort()).toEqual([...COMPONENTS, 'registry'].sort());
    const list = JSON.parse(await sandbox.must(['list', '-o', 'json'])) as { name: string; state: string }[];
    expect(list.find(({ name }) => name === sandbox.name)?.state).toBe('running');
  });

  it('is left alone by a second up, which plans nothing and keeps every container', async () => {
    const before = await sandbox.containerIds();
    const starts = await startTimes(sandbox);
    expect((await sandbox.up()).steps).toEqual([]);
    expect(await sandbox.must(['up'])).toContain('nothing to change');
    expect(await sandbox.containerIds()).toEqual(before);
    expect(await startTimes(sandbox)).toEqual(starts);
  });

  it('publishes its ports on loopback only', async () => {
    const ports = Object.values(await sandbox.ports());
    for (const component of COMPONENTS) {
      const { HostConfig: host } = await sandbox.inspect(component);
      const bindings = Object.values(host.PortBindings as Record<string, { HostIp: string }[]>).flat();
      expect(bindings.map(({ HostIp }) => HostIp).filter((ip) => ip !== '127.0.0.1')).toEqual([]);
    }
    const own = Object.values(networkInterfaces()).flatMap((addresses) => addresses ?? []);
    for (const { address } of own.filter(({ internal, family }) => !internal && family === 'IPv4')) {
      for (const port of ports) expect(await canConnect(address, port)).toBe(false);
    }
  });

  it('shows no secret in what Docker tells of it, in its logs or in the arguments of its processes', async () => {
    const secrets = await secretsOf(sandbox);
    expect(secrets.length).toBeGreaterThan(3);
    const { docker } = sandbox;
    const filters = { label: [`dev.sandbar.cluster=${sandbox.name}`] };
    const shown: [string, string][] = [];
    for (const component of COMPONENTS) {
      const container = docker.getContainer(sandbox.containerName(component));
      const { Processes: processes } = (await container.top({ ps_args: '-eo pid,args' })) as { Processes: string[][] };
      shown.push(
        [`docker inspect ${component}`, JSON.stringify(await container.inspect())],
        [`docker logs ${component}`, withoutFrames(await container.logs({ stdout: true, stderr: true }))],
        [`docker top ${component}`, JSON.stringify(processes)],
      );
    }
    shown.push(['docker volume ls', JSON.stringify(await docker.listVolumes({ filters }))]);
    const network = await docker.getNetwork(`sandbar-${sandbox.name}`).inspect();
    shown.push(['docker network inspect', JSON.stringify(network)]);
    for (const image of JSON.parse(await sandbox.must(['image', 'ls', '-o', 'json'])) as { ref: string }[]) {
      shown.push([`docker image inspect ${image.ref}`, JSON.stringify(await docker.getImage(image.ref).inspect())]);
    }
    const found = shown.flatMap(([place, text]) =>
      secrets.filter(({ value }) => text.includes(value)).map(({ name }) => `${name} in ${place}`),
    );
    expect(found).toEqual([]);
  });

  it('carries a workload with data, which later tests look for', async () => {
    await sandbox.must(['image', 'load', TEST_IMAGE]);
    await sandbox.mustKubectl(['apply', '-f', '-'], { stdin: workload('keeper') });
    await sandbox.must(['bucket', 'create', 'kept']);
    await expectWorkload(sandbox);
  });

  it('is changed by no dry run, which names each change with its cause', async () => {
    const before = await startTimes(sandbox);
    await sandbox.writeConfig('objectStore: { buckets: [reports] }\nkubernetes: { kubeletArguments: { v: "3" } }\n');
    const plan = await sandbox.must(['up', '--dry-run']);
    expect(plan).toContain('remove container/agent (/etc/sandbar/config.json changed)');
    expect(plan).toContain('create container/agent (/etc/sandbar/config.json changed)');
    expect(plan).not.toContain('container/control-plane');
    const { stdout: buckets } = await sandbox.run(['bucket', 'ls']);
    expect(buckets).not.toContain('reports');
    expect(await startTimes(sandbox)).toEqual(before);
  });

  it('has replaced only what a change of sandbar.yaml touches, each with its cause', async () => {
    const before = await sandbox.containerIds();
    await sandbox.writeConfig('objectStore: { buckets: [reports] }\nkubernetes: { kubeletArguments: { v: "3" } }\n');
    expect((await sandbox.up()).steps.map(({ id, cause }) => `${id}: ${cause}`).sort()).toEqual(
      [
        'create bucket/reports: missing',
        'create container/agent: /etc/sandbar/config.json changed',
        'remove container/agent: /etc/sandbar/config.json changed',
      ].sort(),
    );
    expect(changedKeys(before, await sandbox.containerIds())).toEqual(['agent']);

    await sandbox.writeConfig('objectStore: { buckets: [reports] }\nkubernetes: { apiServerArguments: { v: "3" } }\n');
    await sandbox.up();
    expect(changedKeys(before, await sandbox.containerIds())).toEqual(['agent', 'control-plane']);
    await expectWorkload(sandbox);
  });

  it('has a changed feature gate in every part that has gates', async () => {
    const before = await sandbox.containerIds();
    await sandbox.writeConfig('kubernetes: { featureGates: { HPAScaleToZero: true } }\n');
    await sandbox.up();
    expect(changedKeys(before, await sandbox.containerIds())).toEqual(['agent', 'control-plane']);
    await sandbox.mustKubectl(['apply', '-f', '-'], { stdin: SCALED_TO_ZERO });
    const configz = await sandbox.mustKubectl(['get', '--raw', `/api/v1/nodes/sandbar-${sandbox.name}/proxy/configz`]);
    expect(JSON.parse(configz)).toMatchObject({ kubeletconfig: { featureGates: { HPAScaleToZero: true } } });
  });

  it.each(COMPONENTS)('heals by itself when the process of %s dies', async (component) => {
    const before = await runningPid(sandbox, component);
    await killProcess(sandbox, before);
    await eventually(`${component} runs again`, async () => {
      const { State: state } = await sandbox.inspect(component);
      return (state.Running && state.Pid !== before) || undefined;
    });
    await eventually('status is ready', async () => (await sandbox.run(['status'])).exitCode === 0 || undefined);
  });

  it('runs its pods again after all of that', async () => {
    await expectWorkload(sandbox);
    expect((await sandbox.up()).steps).toEqual([]);
  });

  it.each(COMPONENTS)('starts again what docker kill has ended: %s', async (component) => {
    const before = await sandbox.containerIds();
    // To Docker this is a stop that somebody wanted: it does not start the container again by itself.
    await sandbox.docker.getContainer(sandbox.containerName(component)).kill();
    expect(await brokenParts(sandbox)).toContain(component);
    expect((await sandbox.up()).steps).toEqual([
      { id: `start container/${component}`, cause: 'it is exited', losesData: false },
    ]);
    expect(await sandbox.containerIds()).toEqual(before);
  });

  it.each(COMPONENTS)('gets a container back that was removed, and keeps its data: %s', async (component) => {
    const before = await sandbox.containerIds();
    await sandbox.docker.getContainer(sandbox.containerName(component)).remove({ force: true });
    expect(await brokenParts(sandbox)).toContain(component);
    expect((await sandbox.up()).steps).toEqual([
      { id: `create container/${component}`, cause: 'missing', losesData: false },
    ]);
    expect(changedKeys(before, await sandbox.containerIds())).toEqual([component]);
    await expectWorkload(sandbox);
  });

  it('gets objects back that were deleted or edited', async () => {
    const { data: secret } = await sandbox.getObject('secret', 'object-store');
    await sandbox.mustKubectl(['delete', 'service/kube-dns', '--namespace=kube-system']);
    await sandbox.mustKubectl(['delete', 'ingressclass/sandbar', 'clusterrolebinding/system:sandbar:dns']);
    await sandbox.mustKubectl(['annotate', 'storageclass/standard', 'storageclass.kubernetes.io/is-default-class-']);
    await sandbox.mustKubectl(['patch', 'clusterrole/system:sandbar:ingress', '--type=merge', '--patch={"rules":[]}']);
    await sandbox.mustKubectl(['patch', 'secret/object-store', '--patch={"stringData":{"AWS_REGION":"mars"}}']);
    await sandbox.mustKubectl(['label', 'namespace/sandbar-system', 'owner=me']);

    expect((await sandbox.up()).steps.map(({ id, cause }) => `${id}: ${cause}`).sort()).toEqual([
      'create object/ClusterRoleBinding.rbac.authorization.k8s.io/system:sandbar:dns: missing',
      'create object/IngressClass.networking.k8s.io/sandbar: missing',
      'create object/Service/kube-system/kube-dns: missing',
      'update object/ClusterRole.rbac.authorization.k8s.io/system:sandbar:ingress: differs from what is wanted',
      'update object/Secret/object-store: differs from what is wanted',
      'update object/StorageClass.storage.k8s.io/standard: differs from what is wanted',
    ]);
    expect((await sandbox.up()).steps).toEqual([]);
    expect((await sandbox.getObject('service', 'kube-dns', '-n', 'kube-system')).spec['clusterIP']).toBe('10.96.0.10');
    expect((await sandbox.getObject('secret', 'object-store')).data).toEqual(secret);
    // What somebody added beside is theirs.
    expect((await sandbox.getObject('namespace', 'sandbar-system')).metadata.labels?.['owner']).toBe('me');
  });

  it('loses no acknowledged write when its control plane is killed again and again', async () => {
    const writer = await startWriting(sandbox);
    for (let kills = 0; kills < 3; kills += 1) {
      await untilMore(writer, 100);
      await killProcess(sandbox, await runningPid(sandbox, 'control-plane'));
      await eventually('a write is refused', () => Promise.resolve(writer.takeRefusal()));
    }
    await untilMore(writer, 100);
    await writer.stop();
    const stored = await sandbox.getObject('configmaps', '--selector=test=writes');
    const names = new Set(stored.items.map(({ metadata }) => metadata.name));
    expect([...writer.acknowledged].filter((name) => !names.has(name))).toEqual([]);
  });

  it('stands in a kubeconfig beside foreign entries, which stay as they are', async () => {
    const directory = join(sandbox.home, 'kube');
    await mkdir(directory);
    const file = join(directory, 'real-config');
    const link = join(directory, 'config');
    await writeFile(file, FOREIGN_KUBECONFIG, { mode: 0o640 });
    await symlink('real-config', link);
    const env = { KUBECONFIG: link };

    expect((await sandbox.up([], { env })).steps).toEqual([]);
    const merged = await readFile(link, 'utf8');
    expect(merged).toContain('# mine');
    const config = parse(merged) as Kubeconfig;
    expect(config['current-context']).toBe(`sandbar-${sandbox.name}`);
    expect(config.contexts.map(({ name }) => name)).toEqual(['work', `sandbar-${sandbox.name}`]);
    expect(config.users[0]).toEqual({ name: 'work', user: { token: 'foreign' } });
    expect((await lstat(link)).isSymbolicLink()).toBe(true);
    expect((await stat(file)).mode & 0o777).toBe(0o600);
    expect(JSON.parse(await sandbox.mustKubectl(['get', '--raw', '/version'], { env }))).toHaveProperty('gitVersion');

    // Who works in another context stays there when the cluster goes.
    await sandbox.mustKubectl(['config', 'use-context', 'work'], { env });
    await sandbox.must(['down'], { env });
    const rest = parse(await readFile(link, 'utf8')) as Kubeconfig;
    expect(rest).toEqual(parse(FOREIGN_KUBECONFIG));
    expect((await lstat(link)).isSymbolicLink()).toBe(true);
  });

  it('is down now, with its data kept', async () => {
    expect(await sandbox.containerIds()).toEqual({});
    const list = JSON.parse(await sandbox.must(['list', '-o', 'json'])) as { name: string; state: string }[];
    expect(list.find(({ name }) => name === sandbox.name)?.state).toBe('down');
    expect(await volumeNames(sandbox)).toHaveLength(8);
    expect(await sandbox.must(['down'])).toContain('data are kept');
    const status = await sandbox.run(['status']);
    expect(status.exitCode).toBe(4);
    expect(status.stderr).toContain('sandbar up');
  });

  it('comes back with its objects, claims, images and buckets', async () => {
    await sandbox.up();
    await expectWorkload(sandbox);
    expect(await sandbox.must(['image', 'load', TEST_IMAGE])).toContain('is there already');
    expect((await sandbox.up()).steps).toEqual([]);
  });

  it.each(['claims', 'datastore', 'pki'])('works again after its volume %s was removed', async (volume) => {
    await sandbox.must(['down']);
    await sandbox.docker.getVolume(`sandbar-${sandbox.name}-${volume}`).remove();
    expect((await sandbox.up()).steps.map(({ id }) => id)).toContain(`create volume/${volume}`);
    expect((await sandbox.up()).steps).toEqual([]);
    await sandbox.mustKubectl(['apply', '-f', '-'], { stdin: workload(`after-${volume}`) });
    await sandbox.mustKubectl(['rollout', 'status', `deployment/after-${volume}`, '--timeout=60s']);
  });

  it('loses its data only when that is agreed to', async () => {
    const before = await sandbox.containerIds();
    const refused = await sandbox.run(['down', '--volumes']);
    expect(refused.exitCode).toBe(2);
    expect(refused.stderr).toContain('--yes');
    expect(await sandbox.containerIds()).toEqual(before);
    expect(await volumeNames(sandbox)).toHaveLength(8);

    await sandbox.must(['down', '--volumes', '--yes']);
    expect(await sandbox.containerIds()).toEqual({});
    expect(await volumeNames(sandbox)).toEqual([]);
    const networks = await sandbox.docker.listNetworks({ filters: { name: [`sandbar-${sandbox.name}`] } });
    expect(networks).toEqual([]);
    const kubeconfig = parse(await readFile(sandbox.kubeconfig, 'utf8')) as Kubeconfig;
    expect(kubeconfig.contexts).toEqual([]);
    expect(kubeconfig['current-context'] ?? '').toBe('');
    expect(await sandbox.must(['down', '--volumes', '--yes'])).toContain('is not there');
  });
});

describe.skipIf(isDockerMissing)('two clusters', () => {
  const first = createSandbox('one');
  const second = createSandbox('two');

  it('come up at once, side by side, and one goes without the other noticing', async () => {
    // One user's commands know of each other by the locks in one directory, and have one registry.
    const env = { XDG_STATE_HOME: first.env['XDG_STATE_HOME'], SANDBAR_REGISTRY: first.registryName };
    await Promise.all([first.up([], { env }), second.up([], { env })]);
    const ports = [...Object.values(await first.ports()), ...Object.values(await second.ports())];
    expect(new Set(ports).size).toBe(10);
    const subnets = await Promise.all([first, second].map(subnetOf));
    expect(subnets[0]).not.toBe(subnets[1]);
    for (const sandbox of [first, second]) {
      const nodes = await sandbox.getObject('nodes');
      expect(nodes.items.map(({ metadata }) => metadata.name)).toEqual([`sandbar-${sandbox.name}`]);
      expect((await sandbox.up([], { env })).steps).toEqual([]);
    }
    const before = await startTimes(second);
    await first.must(['down', '--volumes', '--yes'], { env });
    expect(await startTimes(second)).toEqual(before);
    expect((await second.run(['status'], { env })).exitCode).toBe(0);
  });
});

type StatusOutput = {
  readonly isReady: boolean;
  readonly components: readonly { readonly component: string; readonly isReady: boolean }[];
};

type Kubeconfig = {
  readonly 'current-context'?: string;
  readonly contexts: readonly { readonly name: string }[];
  readonly users: readonly { readonly name: string; readonly user: Readonly<Record<string, string>> }[];
};

const FOREIGN_KUBECONFIG = `# mine
apiVersion: v1
kind: Config
current-context: work
clusters: [{ name: work, cluster: { server: https://work.example:6443 } }]
contexts: [{ name: work, context: { cluster: work, user: work } }]
users: [{ name: work, user: { token: foreign } }]
`;

/** Valid with the feature gate HPAScaleToZero only. */
const SCALED_TO_ZERO = JSON.stringify({
  apiVersion: 'autoscaling/v2',
  kind: 'HorizontalPodAutoscaler',
  metadata: { name: 'to-zero' },
  spec: {
    minReplicas: 0,
    maxReplicas: 1,
    scaleTargetRef: { apiVersion: 'apps/v1', kind: 'Deployment', name: 'nobody' },
    metrics: [{ type: 'External', external: { metric: { name: 'jobs' }, target: { type: 'Value', value: '1' } } }],
  },
});

/** The workload runs, its claim holds what was written first, and its bucket is there. */
async function expectWorkload(sandbox: Sandbox): Promise<void> {
  const read = ['exec', 'deployment/keeper', '--', '/bin/busybox', 'cat', '/data/kept'];
  await eventually('a command runs in the pod', async () => {
    const { exitCode, stdout } = await sandbox.kubectl(read);
    return (exitCode === 0 && stdout === 'first\n') || undefined;
  });
  expect(await sandbox.must(['bucket', 'ls'])).toContain('kept');
}

function conditionOf({ status }: KubernetesJson, type: string): string | undefined {
  return status.conditions.find((condition) => condition.type === type)?.status;
}

/** When each container was created and started: the same as before when nobody touched it. */
async function startTimes(sandbox: Sandbox): Promise<Readonly<Record<string, string>>> {
  const entries = COMPONENTS.map(async (component) => {
    const { Id: id, State: state } = await sandbox.inspect(component);
    return [component, `${id} ${state.StartedAt}`] as const;
  });
  return Object.fromEntries(await Promise.all(entries));
}

function changedKeys(before: Readonly<Record<string, string>>, after: Readonly<Record<string, string>>): string[] {
  const keys = new Set([...Object.keys(before), ...Object.keys(after)]);
  return [...keys].filter((key) => before[key] !== after[key]).sort();
}

/** What `status` says is not ready. */
async function brokenParts(sandbox: Sandbox): Promise<readonly string[]> {
  const { exitCode, stdout } = await sandbox.run(['status', '-o', 'json']);
  expect(exitCode).toBe(1);
  const { components } = JSON.parse(stdout) as StatusOutput;
  return components.filter(({ isReady }) => !isReady).map(({ component }) => component);
}

async function volumeNames(sandbox: Sandbox): Promise<readonly string[]> {
  const filters = { label: [`dev.sandbar.cluster=${sandbox.name}`] };
  const { Volumes: volumes } = await sandbox.docker.listVolumes({ filters });
  return volumes.map(({ Name: name }) => name);
}

async function subnetOf(sandbox: Sandbox): Promise<string | undefined> {
  const network = (await sandbox.docker.getNetwork(`sandbar-${sandbox.name}`).inspect()) as {
    IPAM: { Config: { Subnet: string }[] };
  };
  return network.IPAM.Config[0]?.Subnet;
}

function canConnect(host: string, port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ host, port, timeout: 1000 });
    const end = (isConnected: boolean) => () => {
      socket.destroy();
      resolve(isConnected);
    };
    socket.on('connect', end(true)).on('error', end(false)).on('timeout', end(false));
  });
}

/** The process of a container; one that Docker is just starting again has none yet. */
function runningPid(sandbox: Sandbox, component: ComponentName): Promise<number> {
  return eventually(`${component} runs`, async () => (await sandbox.inspect(component)).State.Pid || undefined);
}

/** Kills a container's process as a crash would: from the host's process table, so that Docker is not told. */
async function killProcess(sandbox: Sandbox, pid: number): Promise<void> {
  const killer = await sandbox.docker.createContainer({
    Image: TEST_IMAGE,
    Entrypoint: ['/bin/busybox', 'kill', '-KILL', String(pid)],
    HostConfig: { PidMode: 'host', NetworkMode: 'none' },
  });
  try {
    await killer.start();
    expect(await killer.wait()).toMatchObject({ StatusCode: 0 });
  } finally {
    await killer.remove({ force: true });
  }
}

/** Everything of the cluster that must be known to nobody but its parts and the user: keys and credentials. */
async function secretsOf(sandbox: Sandbox): Promise<readonly { readonly name: string; readonly value: string }[]> {
  const { data } = await sandbox.getObject('secret', 'object-store');
  const decode = (text: string | undefined): string => Buffer.from(text ?? '', 'base64').toString();
  const accessKeys = ['AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY'].map((name) => ({
    name,
    value: decode(data[name]),
  }));
  const { users } = parse(await readFile(sandbox.kubeconfig, 'utf8')) as Kubeconfig;
  const adminKey = decode(users.find(({ name }) => name === `sandbar-${sandbox.name}`)?.user['client-key-data']);
  // A part of a key in one line, for it may be broken into others.
  const inOneLine = adminKey.replace(/-----[^-]+-----|\s/g, '').slice(40, 100);
  return [
    ...accessKeys,
    { name: 'admin key', value: inOneLine },
    { name: 'a private key', value: 'PRIVATE KEY' },
    ...['name', 'value'].map((_, index) => ({
      name: `encoded credential ${String(index)}`,
      value: Object.values(data).filter((text) => text.length > 20)[index] ?? 'no such credential',
    })),
  ];
}
