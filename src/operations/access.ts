/** Finds a cluster in Docker and opens what it offers: every verb but `up` and `list` starts here. */
import { dirname } from 'node:path/posix';
import { SandbarError } from '../model/errors.ts';
import type { Emit } from '../model/events.ts';
import { IDENTITY_PATH, parseIdentity, type Identity } from '../model/identity.ts';
import { LABELS, containerName } from '../model/names.ts';
import type { ApiAccess, Cluster, ContainerSummary, Host, ObjectStore, Ports, Runtime } from '../model/ports.ts';
import type { ContainerSpec, ContainerState } from '../model/resources.ts';
import { RESTORING_LABEL } from '../model/snapshots.ts';

export type ClusterAccess = {
  readonly name: string;
  readonly containers: readonly ContainerSummary[];
  readonly identity: Identity;
  readonly api: ApiAccess;
};

/** Containers of a cluster by component; an error when there are none. */
export async function findContainers(runtime: Runtime, clusterName: string): Promise<readonly ContainerSummary[]> {
  const labelled = await runtime.listContainers({ key: LABELS.cluster, value: clusterName });
  // Containers that only serve to read something for a moment are of no component.
  const containers = labelled.filter(({ labels }) => labels[LABELS.component] !== undefined);
  if (containers.length > 0) return containers;
  throw await clusterNotFound(runtime, clusterName);
}

/** Says what there is instead. */
export async function clusterNotFound(runtime: Runtime, clusterName: string): Promise<SandbarError> {
  const names = await listClusterNames(runtime);
  if (names.includes(clusterName)) {
    return new SandbarError('CLUSTER_NOT_FOUND', `cluster "${clusterName}" is down: only its data are there`, {
      hint: 'sandbar up brings it back',
    });
  }
  return new SandbarError('CLUSTER_NOT_FOUND', `there is no cluster "${clusterName}"`, {
    hint:
      names.length === 0
        ? 'sandbar up makes one'
        : `there ${names.length === 1 ? 'is' : 'are'} ${names.join(', ')}: choose with --name, or make it with sandbar up`,
  });
}

/** Names of all clusters that have a container or a volume, sorted. */
export async function listClusterNames(runtime: Runtime): Promise<readonly string[]> {
  const [containers, volumes] = await Promise.all([
    runtime.listContainers({ key: LABELS.cluster }),
    runtime.listVolumes({ key: LABELS.cluster }),
  ]);
  const names = [...containers, ...volumes].map((found) => found.labels[LABELS.cluster] ?? '');
  return [...new Set(names)].sort();
}

/** A cluster whose control plane runs; the error of one that does not says what to do. */
export async function accessCluster(runtime: Runtime, clusterName: string): Promise<ClusterAccess> {
  // Reading a file of a container is the slowest answer of all: it is asked for at once.
  const [containers, identity] = await Promise.all([
    findContainers(runtime, clusterName),
    readIdentity(runtime, clusterName),
  ]);
  return openAccess(clusterName, containers, identity);
}

/** The same of what was found already. */
export function openAccess(
  clusterName: string,
  containers: readonly ContainerSummary[],
  identity: Identity | undefined,
): ClusterAccess {
  requireAwake(clusterName, containers);
  const controlPlane = componentOf(containers, 'control-plane');
  if (controlPlane?.state !== 'running') {
    throw new SandbarError(
      'CLUSTER_NOT_RUNNING',
      `the control plane of cluster "${clusterName}" is ${controlPlane?.state ?? 'missing'}`,
      { hint: 'sandbar up starts what is stopped and repairs what is missing' },
    );
  }
  return accessOf(clusterName, containers, identity);
}

/** How a cluster is reached, whether or not it answers just now. */
export function accessOf(
  clusterName: string,
  containers: readonly ContainerSummary[],
  identity: Identity | undefined,
): ClusterAccess {
  if (identity === undefined) {
    throw new SandbarError('CLUSTER_NOT_RUNNING', `cluster "${clusterName}" has no identity in its volume`, {
      hint: 'sandbar up makes a new one',
    });
  }
  const port = hostPortOf(containers, 'control-plane', 6443) ?? 6443;
  return { name: clusterName, containers, identity, api: adminAccess(identity, port) };
}

/** `partly running`: something ended that should run, or an earlier command was interrupted. `down`: only data are kept. */
export type ClusterState = 'running' | 'partly running' | 'paused' | 'stopped' | 'down';

export function clusterState(containers: readonly ContainerSummary[]): ClusterState {
  // A folder of the host that is gone stops its mount's container, and no more; some serve only for a moment.
  const own = containers.filter(({ labels }) => ![undefined, 'mounts'].includes(labels[LABELS.component]));
  const count = (state: ContainerState): number => own.filter((container) => container.state === state).length;
  if (own.length === 0) return 'down';
  if (count('running') === own.length) return 'running';
  if (count('running') + count('restarting') > 0) return 'partly running';
  return count('paused') > 0 ? 'paused' : 'stopped';
}

/** Refuses what needs a cluster that runs, where somebody has stopped or paused all of it. */
export function requireAwake(clusterName: string, containers: readonly ContainerSummary[]): void {
  const state = clusterState(containers);
  if (state !== 'paused' && state !== 'stopped') return;
  throw new SandbarError('CLUSTER_NOT_RUNNING', `cluster "${clusterName}" is ${state}`, {
    hint: state === 'paused' ? 'sandbar resume' : 'sandbar start',
  });
}

/** Between the start and the end of a restore, volumes and datastore may be of different moments: nothing runs on that. */
export function requireRestored(containers: readonly ContainerSummary[]): void {
  const restoring = containers.find(({ labels }) => labels[RESTORING_LABEL] !== undefined);
  if (restoring === undefined) return;
  const name = restoring.labels[RESTORING_LABEL] ?? '';
  throw new SandbarError('CONFLICT', `the restore of snapshot ${name} was interrupted`, {
    hint: `sandbar snapshot restore ${name} finishes it, sandbar reset --hard starts over without it`,
  });
}

/** What a file of the volume `pki` is read through where the cluster has no control plane. */
export type Reader = {
  readonly volumeName: string;
  readonly imageRef: string;
  /** Of this process: two that read at once do so through containers of their own. */
  readonly processId: number;
};

/** The cluster's identity, as its volume `pki` holds it; undefined when it holds none. */
export async function readIdentity(
  runtime: Runtime,
  clusterName: string,
  reader?: Reader,
): Promise<Identity | undefined> {
  const text = await readPrivateFile(runtime, clusterName, { path: IDENTITY_PATH, reader });
  return text === undefined ? undefined : parseIdentity(text);
}

/**
 * A file of the volume `pki`: read through the control plane's container or, where `reader` says that there is none,
 * through a container that is made for it and never started.
 */
export async function readPrivateFile(
  runtime: Runtime,
  clusterName: string,
  { path, reader }: { readonly path: string; readonly reader: Reader | undefined },
): Promise<string | undefined> {
  if (reader === undefined) return runtime.readFile(containerName(clusterName, 'control-plane'), path);
  const name = containerName(clusterName, `identity-reader-${String(reader.processId)}`);
  await createReader(runtime, clusterName, { name, ...reader });
  try {
    const text = await runtime.readFile(name, path);
    if (text === undefined && (await runtime.inspectState(name)) === undefined) {
      // What was not read is not taken for missing: an identity would be made anew.
      throw new SandbarError('CONFLICT', `${name} was removed while ${path} was read through it`, {
        hint: 'run the same command again',
      });
    }
    return text;
  } finally {
    await runtime.removeContainer(name);
  }
}

async function createReader(
  runtime: Runtime,
  clusterName: string,
  reader: Reader & { readonly name: string },
): Promise<void> {
  const volumes = [{ volumeName: reader.volumeName, path: dirname(IDENTITY_PATH) }];
  await runtime.createContainer(bareContainer({ ...reader, volumes }), [], {
    [LABELS.cluster]: clusterName,
    [LABELS.resource]: `container/identity-reader-${String(reader.processId)}`,
  });
}

/** A container that is no part of a cluster: only its volumes, no network, no rights. */
export function bareContainer({
  name,
  imageRef,
  volumes,
}: Pick<ContainerSpec, 'name' | 'imageRef' | 'volumes'>): ContainerSpec {
  return {
    name,
    hostname: name,
    imageRef,
    networkName: 'none',
    address: '',
    ports: [],
    volumes,
    binds: [],
    tmpfs: [],
    hasReadOnlyRoot: true,
    privileges: { level: 'none', capabilities: [] },
    extraHosts: [],
    stopTimeoutS: 0,
  };
}

/** How the host's administrator reaches the API server. */
export function adminAccess(identity: Identity, hostPort: number): ApiAccess {
  return {
    server: `https://127.0.0.1:${String(hostPort)}`,
    ca: identity.ca.certificate,
    certificate: identity.certificates.admin.certificate,
    key: identity.certificates.admin.key,
  };
}

export function componentOf(containers: readonly ContainerSummary[], component: string): ContainerSummary | undefined {
  return containers.find((container) => container.labels[LABELS.component] === component);
}

/** Host port behind which a component listens on `containerPort`. */
export function hostPortOf(
  containers: readonly ContainerSummary[],
  component: string,
  containerPort: number,
): number | undefined {
  const container = componentOf(containers, component);
  return container?.ports.find((port) => port.containerPort === containerPort)?.hostPort;
}

/** Runs `work` while no other command works on the cluster; says so while it has to wait. */
export async function withClusterLock<T>(
  clusterName: string,
  context: { readonly host: Host; readonly emit: Emit; readonly signal: AbortSignal },
  work: () => Promise<T>,
): Promise<T> {
  const { host, emit, signal } = context;
  const onWait = (holder: string): void => {
    emit({ type: 'waiting', text: `waiting for another sandbar (${holder}) that works on "${clusterName}"` });
  };
  return host.withLock(`cluster-${clusterName}`, { onWait, signal }, work);
}

/** Runs `work` with a connection to the cluster's API server and closes it. */
export async function withCluster<T>(
  access: ClusterAccess,
  ports: Ports,
  work: (cluster: Cluster) => Promise<T>,
): Promise<T> {
  const cluster = ports.connectCluster(access.api);
  try {
    return await work(cluster);
  } finally {
    cluster.close();
  }
}

export type ObjectStoreAccess = {
  readonly endpoint: string;
  readonly consoleUrl: string;
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly region: string;
};

/** The object store as the host reaches it; an error where the cluster has none. */
export async function objectStoreAccess(access: ClusterAccess, runtime: Runtime): Promise<ObjectStoreAccess> {
  const port = hostPortOf(access.containers, 'object-store', 9000);
  const consolePort = hostPortOf(access.containers, 'object-store', 9001);
  if (port === undefined || consolePort === undefined) {
    throw new SandbarError('NOT_FOUND', `cluster "${access.name}" has no object store`, {
      hint: 'remove objectStore.enabled: false from sandbar.yaml, then sandbar up',
    });
  }
  const settings = await runtime.readFile(containerName(access.name, 'object-store'), '/etc/sandbar/config.json');
  const { region = 'us-east-1' } = JSON.parse(settings ?? '{}') as { region?: string };
  return {
    endpoint: `http://127.0.0.1:${String(port)}`,
    consoleUrl: `http://127.0.0.1:${String(consolePort)}`,
    ...access.identity.objectStore,
    region,
  };
}

export async function openObjectStore(access: ClusterAccess, ports: Ports): Promise<ObjectStore> {
  return ports.connectObjectStore(await objectStoreAccess(access, ports.runtime));
}
