/** `status` and `list`: what there is, read from Docker and asked of every part. */
import { INGRESS_CLASS } from '../components/ingress.ts';
import { HOSTING } from '../components/registry.ts';
import { ask, type WaitPorts } from '../engine/wait.ts';
import type { Identity } from '../model/identity.ts';
import {
  COMPONENTS,
  LABELS,
  SYSTEM_NAMESPACE,
  containerName,
  contextName,
  isAside,
  networkName,
  type Component,
} from '../model/names.ts';
import type { Cluster, ContainerSummary, Ports, Runtime } from '../model/ports.ts';
import type { Probe } from '../model/resources.ts';
import {
  clusterState,
  componentOf,
  findContainers,
  hostPortOf,
  listClusterNames,
  openAccess,
  readIdentity,
  type ClusterAccess,
  type ClusterState,
} from './access.ts';
import { probesFor } from './component-probes.ts';
import { observePublished, type PortListing } from './port-list.ts';
import { observeTrust, type StoreTrust } from './trust.ts';
import { findRegistryOn, hostOf } from './registry.ts';

export type ComponentStatus = {
  readonly component: string;
  readonly containerName: string;
  readonly state: string;
  readonly isReady: boolean;
  /** What was seen where it is not ready, else Docker's words on how long it runs. */
  readonly detail: string;
};

export type ClusterStatus = {
  readonly name: string;
  readonly state: ClusterState;
  readonly isReady: boolean;
  readonly components: readonly ComponentStatus[];
  readonly context: string;
  readonly apiServer: string | undefined;
  readonly ingress: string | undefined;
  readonly ingressTls: string | undefined;
  /** Stores of this machine that are to know the ingress' certificates, and whether they do. */
  readonly trust: readonly StoreTrust[];
  readonly objectStore: string | undefined;
  readonly objectStoreConsole: string | undefined;
  /** As image names begin with. */
  readonly registry: string | undefined;
  /** Ports of this machine that lead to Services, workloads and pods. */
  readonly ports: readonly PortListing[];
};

export type ClusterListing = {
  readonly name: string;
  readonly state: ClusterState;
  readonly apiServer: string | undefined;
};

/** What stands in a cluster's API as long as it has this part; the others are in every cluster. */
const TRACES: Readonly<Partial<Record<Component, string>>> = {
  ingress: `/apis/networking.k8s.io/v1/ingressclasses/${INGRESS_CLASS.name}`,
  'object-store': `/api/v1/namespaces/${SYSTEM_NAMESPACE}/services/s3`,
  metrics: '/apis/rbac.authorization.k8s.io/v1/clusterroles/system:sandbar:metrics',
};

const TIMEOUT_MS = 2_000;

/** Asks every component once. A container that somebody removed is told of too. */
export async function status(clusterName: string, ports: Ports, signal: AbortSignal): Promise<ClusterStatus> {
  const [containers, identity, trust, registry] = await Promise.all([
    findContainers(ports.runtime, clusterName),
    readIdentity(ports.runtime, clusterName),
    observeTrust(ports.host),
    findRegistryOn(networkName(clusterName), ports.runtime),
  ]);
  const found = { clusterName, containers, identity };
  const [components, published] = await Promise.all([
    askComponents(found, ports, signal),
    observePublished(found, ports),
  ]);
  const url = (component: string, port: number, scheme = 'http'): string | undefined => {
    const hostPort = hostPortOf(containers, component, port);
    return hostPort === undefined ? undefined : `${scheme}://127.0.0.1:${String(hostPort)}`;
  };
  return {
    name: clusterName,
    state: clusterState(containers),
    isReady: components.every(isReadyEnough),
    components,
    context: contextName(clusterName),
    apiServer: url('control-plane', 6443, 'https'),
    ingress: url('ingress', 80),
    ingressTls: url('ingress', 443, 'https'),
    trust,
    objectStore: url('object-store', 9000),
    objectStoreConsole: url('object-store', 9001),
    registry: registry && hostOf(registry),
    ports: published,
  };
}

/** A cluster is ready a moment before what `up` does not wait for; what does not run at all has to be repaired. */
function isReadyEnough({ component, state, isReady }: ComponentStatus): boolean {
  return isReady || (isAside(component) && state === 'running');
}

/** What every component of a cluster answers. */
export async function askComponents(
  found: {
    readonly clusterName: string;
    readonly containers: readonly ContainerSummary[];
    readonly identity: Identity | undefined;
  },
  ports: Ports,
  signal: AbortSignal,
): Promise<readonly ComponentStatus[]> {
  const { clusterName, containers, identity } = found;
  const registry = await findRegistryOn(networkName(clusterName), ports.runtime);
  const isApiRunning = componentOf(containers, 'control-plane')?.state === 'running';
  if (!isApiRunning) return [...withoutApi(clusterName, containers), ...describeRegistry(registry, undefined)];
  return probeAll({ ...openAccess(clusterName, containers, identity), registry }, ports, signal);
}

/** Every cluster of the engine, from labels alone. */
export async function list(runtime: Runtime): Promise<readonly ClusterListing[]> {
  const [names, containers] = await Promise.all([
    listClusterNames(runtime),
    runtime.listContainers({ key: LABELS.cluster }),
  ]);
  return names.map((name) => {
    const own = containers.filter(({ labels }) => labels[LABELS.cluster] === name);
    const apiPort = hostPortOf(own, 'control-plane', 6443);
    return {
      name,
      state: clusterState(own),
      apiServer: apiPort === undefined ? undefined : `https://127.0.0.1:${String(apiPort)}`,
    };
  });
}

async function probeAll(
  access: ClusterAccess & { readonly registry: ContainerSummary | undefined },
  ports: Ports,
  signal: AbortSignal,
): Promise<readonly ComponentStatus[]> {
  const cluster = ports.connectCluster(access.api);
  const waitPorts: WaitPorts = { ...ports, cluster };
  try {
    const found = await Promise.all(
      COMPONENTS.map(async (component) => {
        const container = componentOf(access.containers, component);
        if (container === undefined) {
          return (await isMissed(component, cluster)) ? missing(access.name, component) : undefined;
        }
        if (container.state !== 'running') return describe(container, component, `it is ${container.state}`);
        const probes = probesFor(component, access.name, { containers: access.containers, timeoutMs: TIMEOUT_MS });
        return describe(container, component, await findProblem(probes, waitPorts, signal));
      }),
    );
    return [
      ...found.filter((component) => component !== undefined),
      ...(await askRegistry(access, { waitPorts, signal })),
    ];
  } finally {
    cluster.close();
  }
}

async function findProblem(
  probes: readonly Probe[],
  ports: WaitPorts,
  signal: AbortSignal,
): Promise<string | undefined> {
  for (const probe of probes) {
    const problem = await ask(probe, ports, signal);
    if (problem !== undefined) return problem;
  }
  return undefined;
}

/** Nothing can be asked then; what runs all the same waits for the API to come back. */
function withoutApi(clusterName: string, containers: readonly ContainerSummary[]): readonly ComponentStatus[] {
  return COMPONENTS.flatMap((component) => {
    const container = componentOf(containers, component);
    if (container === undefined) return component in TRACES ? [] : [missing(clusterName, component)];
    const isRunning = container.state === 'running';
    return [
      describe(container, component, isRunning ? 'the control plane is not running' : `it is ${container.state}`),
    ];
  });
}

async function isMissed(component: Component, cluster: Cluster): Promise<boolean> {
  const trace = TRACES[component];
  return trace === undefined || (await cluster.get(trace, { timeoutMs: TIMEOUT_MS })).status === 200;
}

function describe(container: ContainerSummary, component: string, problem: string | undefined): ComponentStatus {
  const detail = problem ?? container.status.toLowerCase();
  const { name, state } = container;
  return { component, containerName: name, state, isReady: problem === undefined, detail };
}

function missing(clusterName: string, component: Component): ComponentStatus {
  const name = containerName(clusterName, component);
  return { component, containerName: name, state: 'missing', isReady: false, detail: 'its container is missing' };
}

/** It is no container of the cluster: whether it should be there is what the cluster's API tells tools of it. */
async function askRegistry(
  { registry }: { readonly registry: ContainerSummary | undefined },
  { waitPorts, signal }: { readonly waitPorts: WaitPorts; readonly signal: AbortSignal },
): Promise<readonly ComponentStatus[]> {
  if (registry?.state === 'running') {
    const url = `http://${hostOf(registry).replace('localhost', '127.0.0.1')}/v2/`;
    const probe: Probe = { kind: 'http', url, acceptedStatuses: [200], timeoutMs: TIMEOUT_MS };
    return describeRegistry(registry, await ask(probe, waitPorts, signal));
  }
  const path = `/api/v1/namespaces/${HOSTING.namespace}/configmaps/${HOSTING.name}`;
  const isWanted = (await waitPorts.cluster.get(path, { timeoutMs: TIMEOUT_MS })).status === 200;
  return isWanted || registry !== undefined ? describeRegistry(registry ?? 'missing', undefined) : [];
}

function describeRegistry(
  found: ContainerSummary | 'missing' | undefined,
  problem: string | undefined,
): readonly ComponentStatus[] {
  const component = 'registry';
  if (found === undefined) return [];
  if (found === 'missing') {
    const detail = "it is not on the cluster's network";
    return [{ component, containerName: component, state: 'missing', isReady: false, detail }];
  }
  return [describe(found, component, found.state === 'running' ? problem : `it is ${found.state}`)];
}
