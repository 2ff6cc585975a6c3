/** `status` and `list`: what there is, read from Docker and asked of every part. */
import { ask, type WaitPorts } from '../engine/wait.ts';
import { LABELS, contextName, nodeName } from '../model/names.ts';
import type { ContainerSummary, Ports, Runtime } from '../model/ports.ts';
import type { Probe } from '../model/resources.ts';
import { accessCluster, componentOf, findContainers, hostPortOf, listClusterNames } from './access.ts';

export type ComponentStatus = {
  readonly component: string;
  readonly state: string;
  readonly isReady: boolean;
  /** What was seen where it is not ready, else Docker's words on how long it runs. */
  readonly detail: string;
};

export type ClusterStatus = {
  readonly name: string;
  readonly isReady: boolean;
  readonly components: readonly ComponentStatus[];
  readonly context: string;
  readonly apiServer: string | undefined;
  readonly ingress: string | undefined;
  readonly objectStore: string | undefined;
  readonly objectStoreConsole: string | undefined;
};

export type ClusterListing = {
  readonly name: string;
  /** `running`, `partly running`, `stopped`, or `down`: only data are kept. */
  readonly state: string;
  readonly apiServer: string | undefined;
};

/** Asks every component once. */
export async function status(clusterName: string, ports: Ports, signal: AbortSignal): Promise<ClusterStatus> {
  const containers = await findContainers(ports.runtime, clusterName);
  const isApiRunning = componentOf(containers, 'control-plane')?.state === 'running';
  const components = isApiRunning
    ? await probeAll(clusterName, ports, signal)
    : containers.map((container) => describe(container, 'the control plane is not running'));
  const url = (component: string, port: number, scheme = 'http'): string | undefined => {
    const hostPort = hostPortOf(containers, component, port);
    return hostPort === undefined ? undefined : `${scheme}://127.0.0.1:${String(hostPort)}`;
  };
  return {
    name: clusterName,
    isReady: components.every((component) => component.isReady),
    components,
    context: contextName(clusterName),
    apiServer: url('control-plane', 6443, 'https'),
    ingress: url('ingress', 80),
    objectStore: url('object-store', 9000),
    objectStoreConsole: url('object-store', 9001),
  };
}

/** Every cluster of the engine, from labels alone. */
export async function list(runtime: Runtime): Promise<readonly ClusterListing[]> {
  const [names, containers] = await Promise.all([
    listClusterNames(runtime),
    runtime.listContainers({ key: LABELS.cluster }),
  ]);
  return names.map((name) => {
    const own = containers.filter((container) => container.labels[LABELS.cluster] === name);
    const running = own.filter((container) => container.state === 'running').length;
    const apiPort = hostPortOf(own, 'control-plane', 6443);
    return {
      name,
      state:
        own.length === 0 ? 'down' : running === 0 ? 'stopped' : running === own.length ? 'running' : 'partly running',
      apiServer: apiPort === undefined ? undefined : `https://127.0.0.1:${String(apiPort)}`,
    };
  });
}

async function probeAll(clusterName: string, ports: Ports, signal: AbortSignal): Promise<readonly ComponentStatus[]> {
  const access = await accessCluster(ports.runtime, clusterName);
  const cluster = ports.connectCluster(access.api);
  const waitPorts: WaitPorts = { ...ports, cluster };
  try {
    return await Promise.all(
      access.containers.map(async (container) => {
        if (container.state !== 'running') return describe(container, `it is ${container.state}`);
        const probe = probeFor(clusterName, container, access.containers);
        return describe(container, probe && (await ask(probe, waitPorts, signal)));
      }),
    );
  } finally {
    cluster.close();
  }
}

function probeFor(
  clusterName: string,
  container: ContainerSummary,
  containers: readonly ContainerSummary[],
): Probe | undefined {
  const component = container.labels[LABELS.component];
  const timeoutMs = 2_000;
  const local = (port: number, path: string): string =>
    `http://127.0.0.1:${String(hostPortOf(containers, component ?? '', port) ?? 0)}${path}`;
  switch (component) {
    case 'control-plane':
      return { kind: 'api', path: '/readyz', timeoutMs };
    case 'agent':
      return { kind: 'api', path: `/api/v1/nodes/${nodeName(clusterName)}`, condition: 'Ready', timeoutMs };
    case 'ingress':
      return { kind: 'http', url: local(80, '/'), acceptedStatuses: [200, 404], timeoutMs };
    case 'object-store':
      return { kind: 'http', url: local(9000, '/minio/health/ready'), acceptedStatuses: [200], timeoutMs };
    default:
      return undefined;
  }
}

function describe(container: ContainerSummary, problem: string | undefined): ComponentStatus {
  return {
    component: container.labels[LABELS.component] ?? container.name,
    state: container.state,
    isReady: problem === undefined,
    detail: problem ?? container.status.toLowerCase(),
  };
}
