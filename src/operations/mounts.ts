/** `mount`: attaches a folder or a file of the host to a workload of a running cluster. */
import path from 'node:path';
import { findNearest } from '../config/nearest.ts';
import { SandbarError } from '../model/errors.ts';
import type { Emit } from '../model/events.ts';
import {
  hasSameExclusions,
  mountComponentOf,
  nodePathOf,
  recordObject,
  type MountRecord,
  type MountTarget,
} from '../model/mounts.ts';
import { containerName } from '../model/names.ts';
import type { Cluster, Host, Ports } from '../model/ports.ts';
import { planRecords } from '../mounts/records.ts';
import { findSourceProblem, findTargetProblem } from '../mounts/refusals.ts';
import { accessCluster, withCluster, withClusterLock } from './access.ts';
import { listPlaced, requireAgent, waitUntilPlaced, type PlacedMount } from './mount-agent.ts';
import { settleEvents } from './mount-events.ts';
import { listPods, needsRollout, waitForAdmission } from './mount-pods.ts';
import { ensureMountContainer, listRecords, removeUnusedMountContainers } from './mount-records.ts';
import { rollOut } from './mount-rollout.ts';
import { findDefaultContainer, getWorkload, requireHostPaths, type Rollout, type Workload } from './mount-workloads.ts';

export type MountRequest = {
  readonly clusterName: string;
  /** As it was written; relative to the working directory. */
  readonly writtenSource: string;
  readonly target: MountTarget;
  readonly isReadOnly: boolean;
  readonly excluded: readonly string[];
  readonly allowsSensitive: boolean;
  /** The `sandbar.yaml` in use. */
  readonly configFile: string | undefined;
  readonly timeoutMs: number | undefined;
  readonly signal: AbortSignal;
};

export type MountDependencies = {
  readonly ports: Ports;
  readonly emit: Emit;
  /** Starts a relay of file events, in a process that outlives this one. */
  readonly startRelay: (clusterName: string) => Promise<void>;
  /** The image of the containers that hand folders over: present locally, or made so. */
  readonly ensureImage: () => Promise<string>;
};

export type MountResult = {
  readonly record: MountRecord;
  /** `replaced`: what was mounted there before was another source, or mounted otherwise. */
  readonly change: 'mounted' | 'replaced' | 'unchanged';
  readonly rollout: Rollout;
  readonly placed: PlacedMount | undefined;
  /** Where it lies on the node, for a `hostPath` volume. */
  readonly nodePath: string;
};

/** How long a folder may take from its container's start until the node has it. */
const ATTACH_MS = 20_000;

/** Attaches a source; safe to be interrupted anywhere and run again. What is mounted already stays as it is. */
export async function mount(request: MountRequest, dependencies: MountDependencies): Promise<MountResult> {
  const { clusterName, signal } = request;
  const { ports, emit } = dependencies;
  const source = await resolveSource(request, ports.host);
  requireTarget(request.target);
  return withClusterLock(clusterName, { host: ports.host, emit, signal }, async () => {
    const access = await accessCluster(ports.runtime, clusterName);
    requireAgent(clusterName, access.containers);
    return withCluster(access, ports, (cluster) => attach(request, source, cluster, dependencies));
  });
}

type Source = { readonly path: string; readonly type: 'Directory' | 'File' };

async function attach(
  request: MountRequest,
  source: Source,
  cluster: Cluster,
  dependencies: MountDependencies,
): Promise<MountResult> {
  const { clusterName, timeoutMs, signal } = request;
  const { ports } = dependencies;
  const [workload, existing] = await Promise.all([
    request.target.kind === 'workload' ? checkWorkload(cluster, request.target) : undefined,
    listRecords(cluster),
  ]);
  const target = workload === undefined ? request.target : findSamePlace(request.target, workload, existing);
  const planned = await planRecord({ ...request, target }, source, existing, ports.host);
  const present = existing.find(({ id }) => id === planned.id);
  const isSame = present !== undefined && isSameMount(present, planned);
  const record = isSame ? asFinished(present) : planned;

  // Kept in the record until it is done, so that an interrupted run is made good by the next.
  const isRemade = present?.isRollDue === true || !hasSameExclusions(present, record);

  const wasRunning = await isContainerRunning(record, clusterName, ports);
  await startContainer(record, request, cluster, dependencies);
  // Pods that are created before the node has the folder would wait for it, for ever where it never comes.
  if (present === undefined) await cluster.apply(recordObject({ ...record, isWithheld: true }));
  else if (!isSame) await cluster.apply(recordObject(record));
  await waitUntilPlaced(record, clusterName, ports.runtime, { timeoutMs: timeoutMs ?? ATTACH_MS, signal });
  // Also one that is the same: it may have been on its way out, or in.
  await cluster.apply(recordObject(isRemade ? { ...record, isRollDue: true } : record));
  const settled = await settleEvents(record, { ...dependencies, cluster, clusterName, signal });
  const rollout = await renew(workload, settled, { request, cluster, dependencies, isRemade });
  if (isRemade) await cluster.patch(recordObject(record), { data: { rollDue: '' } });
  if (!isSame) {
    const records = [...existing.filter(({ id }) => id !== record.id), settled];
    await removeUnusedMountContainers(records, { clusterName, runtime: ports.runtime });
  }
  const placed = (await listPlaced(ports.runtime, clusterName)).find(({ id }) => id === record.id);
  const isUnchanged = isSame && wasRunning && rollout.kind !== 'rolled';
  return {
    record: settled,
    change: isUnchanged ? 'unchanged' : present === undefined || isSame ? 'mounted' : 'replaced',
    rollout,
    placed,
    nodePath: nodePathOf(record.id),
  };
}

/** One place in a container has one mount, whether the container is named or is the one that is meant without a name. */
function findSamePlace(target: MountTarget, workload: Workload, existing: readonly MountRecord[]): MountTarget {
  const usual = findDefaultContainer(workload);
  const placeOf = (other: MountTarget): string =>
    other.kind === 'node'
      ? ''
      : JSON.stringify({ path: other.path, ...other.workload, container: other.workload.container ?? usual });
  return existing.find((record) => placeOf(record.target) === placeOf(target))?.target ?? target;
}

/** Pods that were made without the mount are renewed; one inside of another mount appears in them as they run. */
async function renew(
  workload: Workload | undefined,
  record: MountRecord,
  context: {
    readonly request: MountRequest;
    readonly cluster: Cluster;
    readonly dependencies: MountDependencies;
    /** Whether what is excluded has changed: that is decided when a container is made, and its pod does not tell. */
    readonly isRemade: boolean;
  },
): Promise<Rollout> {
  if (workload === undefined) return { kind: 'none' };
  const { request, cluster, dependencies, isRemade } = context;
  const { signal, timeoutMs } = request;
  const { ports, emit } = dependencies;
  // Also where no pod is renewed: whoever deploys next must get the mount.
  await waitForAdmission(cluster, record, { clock: ports.clock, signal });
  return rollOut(workload, {
    cluster,
    ports,
    emit,
    timeoutMs,
    signal,
    isNeeded: async () =>
      (await needsRollout(cluster, record, 'mounted')) ||
      (isRemade && (await listPods(cluster, workload.ref)).length > 0),
  });
}

async function checkWorkload(
  cluster: Cluster,
  { workload: ref }: Extract<MountTarget, { kind: 'workload' }>,
): Promise<Workload> {
  const [workload] = await Promise.all([getWorkload(cluster, ref), requireHostPaths(cluster, ref.namespace)]);
  return workload;
}

async function isContainerRunning(record: MountRecord, clusterName: string, { runtime }: Ports): Promise<boolean> {
  const state = await runtime.inspectState(containerName(clusterName, mountComponentOf(record.root)));
  return state?.state === 'running';
}

/** The engine may be on another machine, or share only some folders of this one. */
async function startContainer(
  { root }: MountRecord,
  { clusterName, signal }: MountRequest,
  cluster: Cluster,
  { ports, ensureImage }: MountDependencies,
): Promise<void> {
  const imageRef = await ensureImage();
  try {
    await ensureMountContainer(root, { clusterName, imageRef, ports, cluster, signal });
  } catch (error) {
    if (!(error instanceof SandbarError) || error.code !== 'NOT_FOUND') throw error;
    throw new SandbarError('MOUNT_FAILED', `${root} is on this machine, but the Docker engine does not see it`, {
      details: [error.message],
      hint:
        ports.host.platform === 'linux'
          ? 'use the engine of this machine: docker context use default; in Docker Desktop: Settings, Resources, File sharing'
          : 'in Docker Desktop share it: Settings, Resources, File sharing; an engine on another machine has no mounts',
      cause: error,
    });
  }
}

async function planRecord(
  request: MountRequest,
  source: Source,
  existing: readonly MountRecord[],
  host: Host,
): Promise<MountRecord> {
  const { writtenSource, target, isReadOnly, excluded, configFile } = request;
  const spec = { source: source.path, writtenSource, target, isReadOnly, excluded, createsSource: false };
  const [record] = planRecords([spec], {
    origin: 'command',
    projectDirectory: configFile === undefined ? undefined : await host.resolvePath(path.dirname(configFile)),
    homeDirectory: (await host.resolvePath(host.homeDirectory)) ?? host.homeDirectory,
    existing,
    sourceTypeOf: () => source.type,
  });
  if (record === undefined) throw new TypeError('a mount without a record');
  return record;
}

async function resolveSource(request: MountRequest, host: Host): Promise<Source> {
  const { writtenSource, allowsSensitive, excluded } = request;
  const wanted = path.resolve(host.workingDirectory, writtenSource);
  const [real, type] = await Promise.all([host.resolvePath(wanted), host.findFileType(wanted)]);
  if (real === undefined) throw await missingSource(wanted, writtenSource, host);
  const refusal = findSourceProblem(real, {
    homeDirectory: (await host.resolvePath(host.homeDirectory)) ?? host.homeDirectory,
    platform: host.platform,
    allowsSensitive,
    socketPath: /^unix:\/\/(.+)$/.exec(host.env['DOCKER_HOST'] ?? '')?.[1],
  });
  if (refusal !== undefined) throw new SandbarError('MOUNT_REFUSED', refusal.message, { hint: refusal.hint });
  if (type === undefined) {
    throw new SandbarError('USAGE', `${writtenSource} is neither a folder nor a file`, {
      hint: 'mount the folder that it lies in',
    });
  }
  if (type === 'File' && excluded.length > 0) {
    throw new SandbarError('USAGE', `${writtenSource} is a file, of which nothing can be excluded`, {
      hint: 'leave out --exclude, or mount the folder that it lies in',
    });
  }
  return { path: real, type };
}

async function missingSource(wanted: string, writtenSource: string, host: Host): Promise<SandbarError> {
  const folder = path.dirname(wanted);
  const siblings = ((await host.listDirectory(folder)) ?? []).map(({ name }) => name);
  const nearest = findNearest(path.basename(wanted), siblings);
  return new SandbarError('NOT_FOUND', `there is no ${writtenSource} (${wanted})`, {
    hint: nearest === undefined ? `make it: mkdir -p ${wanted}` : `did you mean ${path.join(folder, nearest)}?`,
  });
}

function requireTarget(target: MountTarget): void {
  const refusal = target.kind === 'node' ? undefined : findTargetProblem(target.path);
  if (refusal !== undefined) throw new SandbarError('MOUNT_REFUSED', refusal.message, { hint: refusal.hint });
}

/** Whether a mount is already what is asked for; who asked for it, and how its events come, is not part of that. */
function isSameMount(present: MountRecord, planned: MountRecord): boolean {
  const comparable = (record: MountRecord): string =>
    JSON.stringify(recordObject({ ...asFinished(record), ...NEUTRAL }));
  return comparable(present) === comparable(planned);
}

/** As it is once all is done. */
function asFinished(record: MountRecord): MountRecord {
  const { isWithheld, isRollDue, ...rest } = record;
  return isWithheld === true || isRollDue === true ? rest : record;
}

const NEUTRAL = { origin: 'command', events: undefined } as const;
