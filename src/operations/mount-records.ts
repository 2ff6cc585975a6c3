/** Records of mounts in a cluster, and what follows from them: mount containers, admission, rollouts. */
import { mountContainer } from '../components/mounts.ts';
import { observeDocker } from '../engine/observe.ts';
import { plan } from '../engine/plan.ts';
import { SandbarError } from '../model/errors.ts';
import {
  MOUNT_LABEL,
  formatWorkload,
  mountComponentOf,
  parseRecord,
  volumeNameOf,
  type MountRecord,
  type WorkloadKind,
  type WorkloadRef,
} from '../model/mounts.ts';
import { LABELS, SYSTEM_NAMESPACE } from '../model/names.ts';
import type { Clock, Cluster, Ports, Runtime } from '../model/ports.ts';
import type { KubernetesObject } from '../model/resources.ts';
import { runStep } from './steps.ts';

/** Between two looks at what admission or a rollout has come to. */
const PAUSE_MS = 40;

/** The API server hears of a record within milliseconds; right after its start it may take seconds. */
const ADMISSION_PATIENCE_MS = 15_000;

const CONFIG_MAP = { apiVersion: 'v1', kind: 'ConfigMap' };
const POD = { apiVersion: 'v1', kind: 'Pod' };

/** Kinds whose pods are replaced one after the other when their template changes. */
const ROLLED_KINDS: readonly WorkloadKind[] = ['Deployment', 'StatefulSet', 'DaemonSet'];

type Waiting = { readonly clock: Clock; readonly signal: AbortSignal; readonly timeoutMs?: number | undefined };

/** Every mount that a cluster knows, by id. */
export async function listRecords(cluster: Cluster): Promise<readonly MountRecord[]> {
  return parseRecords(await cluster.list(CONFIG_MAP, { labelSelector: MOUNT_LABEL, namespace: SYSTEM_NAMESPACE }));
}

/** The records among ConfigMaps, by id. */
export function parseRecords(configMaps: readonly KubernetesObject[]): readonly MountRecord[] {
  return configMaps
    .filter(({ metadata }) => metadata.labels?.[MOUNT_LABEL] !== undefined)
    .map(parseRecord)
    .filter((record) => record !== undefined)
    .toSorted((a, b) => (a.id < b.id ? -1 : 1));
}

/** Makes sure that the container of a root runs: creates, replaces or starts it. */
export async function ensureMountContainer(
  root: string,
  options: {
    readonly clusterName: string;
    readonly imageRef: string;
    readonly ports: Ports;
    readonly cluster: Cluster;
    readonly signal: AbortSignal;
  },
): Promise<void> {
  const { clusterName, ports, cluster, signal } = options;
  const { state } = await observeDocker(ports.runtime, clusterName);
  if (!state.has('volume/mounts')) {
    throw new SandbarError('CLUSTER_NOT_RUNNING', `cluster "${clusterName}" was made before it could have mounts`, {
      hint: 'sandbar up brings it up to date',
    });
  }
  const resource = mountContainer(options, root);
  const observed = state.get(resource.id);
  const steps = plan([resource], new Map(observed === undefined ? [] : [[resource.id, observed]]));
  const waitPorts = { ...ports, cluster };
  for (const step of steps) {
    signal.throwIfAborted();
    if (step.verb === 'wait') continue;
    await runStep(
      step,
      { clusterName, waitPorts, objectStore: undefined, timeoutMs: undefined, signal },
      () => undefined,
    );
  }
}

/** Removes the mount containers whose root no record uses. */
export async function removeUnusedMountContainers(
  records: readonly MountRecord[],
  { clusterName, runtime }: { readonly clusterName: string; readonly runtime: Runtime },
): Promise<void> {
  const used = new Set(records.map(({ root }) => `container/${mountComponentOf(root)}`));
  const containers = await runtime.listContainers({ key: LABELS.cluster, value: clusterName });
  const unused = containers.filter(
    ({ labels }) => labels[LABELS.component] === 'mounts' && !used.has(labels[LABELS.resource] ?? ''),
  );
  for (const { id } of unused) await runtime.removeContainer(id);
}

/**
 * Returns when a pod of the record's workload that is created now gets the mount. Rejects with NOT_FOUND where there is
 * no such namespace, in which there are no pods either.
 */
export async function waitForAdmission(
  cluster: Cluster,
  record: MountRecord,
  { clock, signal, timeoutMs = ADMISSION_PATIENCE_MS }: Waiting,
): Promise<void> {
  const { target, parentId } = record;
  if (target.kind === 'node' || parentId !== undefined) return;
  const pod = podOf(target.workload);
  const deadline = clock.now() + timeoutMs;
  for (;;) {
    signal.throwIfAborted();
    let refusal = 'pods are created without it';
    try {
      if (hasMount(await cluster.create(pod, { isDryRun: true }), record)) return;
    } catch (error) {
      if (!(error instanceof SandbarError) || error.code === 'NOT_FOUND') throw error;
      // A pod that is there under its own name tells nothing of the next one, and is not replaced by anybody.
      if (error.code === 'CONFLICT') return;
      // The namespace may lack its ServiceAccount yet, and the API server its schemas.
      refusal = error.message;
    }
    if (clock.now() >= deadline) {
      throw new SandbarError('TIMED_OUT', `${formatWorkload(target.workload)} gets no mount ${record.id}: ${refusal}`, {
        hint: 'sandbar logs control-plane shows more; sandbar up repairs the admission policy',
      });
    }
    await clock.sleep(PAUSE_MS, signal);
  }
}

/** Whether pods of a kind are replaced one after the other when their template changes. */
export function isRollable({ kind }: WorkloadRef): boolean {
  return ROLLED_KINDS.includes(kind);
}

/**
 * Whether pods that run are other than the record says: `mounted` for one that is there, `unmounted` for one that is to
 * go. Only pods of the newest template count: older ones are being replaced. A mount inside of another needs no new pods.
 */
export async function needsRollout(
  cluster: Cluster,
  record: MountRecord,
  wanted: 'mounted' | 'unmounted',
): Promise<boolean> {
  const { target, parentId } = record;
  if (target.kind === 'node' || parentId !== undefined) return false;
  const pods = await listPods(cluster, target.workload);
  return pods.some((pod) =>
    wanted === 'mounted' ? hasContainer(pod, target.workload) && !hasMount(pod, record) : hasVolume(pod, record),
  );
}

/** Pods of a workload that run, of its newest template. */
export async function listPods(cluster: Cluster, workload: WorkloadRef): Promise<readonly KubernetesObject[]> {
  const pods = (await cluster.list(POD, { namespace: workload.namespace }))
    .filter((pod) => isPodOf(pod, workload) && isAlive(pod))
    .toSorted((a, b) => createdAt(b).localeCompare(createdAt(a)));
  const [newest] = pods;
  return newest === undefined ? [] : pods.filter((pod) => templateOf(pod) === templateOf(newest));
}

/** Whether a pod has the container that a mount is for. */
export function hasContainer(pod: KubernetesObject, { container }: WorkloadRef): boolean {
  return container === undefined || containersIn(pod).some(({ name }) => name === container);
}

/** Replaces a workload's pods as its own strategy says, and returns when the new ones are ready. */
export async function rollWorkload(
  cluster: Cluster,
  workload: WorkloadRef,
  { clock, signal, timeoutMs = 60_000 }: Waiting,
): Promise<void> {
  const { kind, name, namespace } = workload;
  const ref = { apiVersion: 'apps/v1', kind, metadata: { name, namespace } };
  const annotations = { 'kubectl.kubernetes.io/restartedAt': new Date(clock.now()).toISOString() };
  await cluster.patch(ref, { spec: { template: { metadata: { annotations } } } });
  const deadline = clock.now() + timeoutMs;
  for (;;) {
    signal.throwIfAborted();
    const found = (await cluster.list(ref, { namespace })).find(({ metadata }) => metadata.name === name);
    const problem = found === undefined ? 'it is gone' : rolloutProblem(found);
    if (problem === undefined) return;
    if (clock.now() >= deadline) {
      throw new SandbarError(
        'TIMED_OUT',
        `${formatWorkload(workload)} was not rolled after ${String(Math.round(timeoutMs / 1000))} s: ${problem}`,
        { hint: `sandbar kubectl -n ${namespace} describe ${kind.toLowerCase()} ${name} shows why` },
      );
    }
    await clock.sleep(PAUSE_MS, signal);
  }
}

/** A pod as the workload's controller would make it, in what tells whose it is. */
function podOf({ namespace, kind, name, container = 'main' }: WorkloadRef): KubernetesObject {
  const owner = {
    Deployment: { apiVersion: 'apps/v1', kind: 'ReplicaSet', name: `${name}-0` },
    CronJob: { apiVersion: 'batch/v1', kind: 'Job', name: `${name}-0` },
    StatefulSet: { apiVersion: 'apps/v1', kind, name },
    DaemonSet: { apiVersion: 'apps/v1', kind, name },
    ReplicaSet: { apiVersion: 'apps/v1', kind, name },
    Job: { apiVersion: 'batch/v1', kind, name },
    Pod: undefined,
  }[kind];
  return {
    ...POD,
    metadata: {
      name: owner === undefined ? name : 'sandbar-admission',
      namespace,
      labels: { 'pod-template-hash': '0' },
      ...(owner === undefined
        ? {}
        : { ownerReferences: [{ ...owner, uid: '00000000-0000-0000-0000-000000000000', controller: true }] }),
    },
    spec: { containers: [{ name: container, image: 'never-pulled' }] },
  };
}

/** What a pod says of the workload behind it; the admission policy asks the same. */
function isPodOf({ metadata }: KubernetesObject, { kind, name }: WorkloadRef): boolean {
  if (kind === 'Pod') return metadata.name === name;
  const owner = ((metadata.ownerReferences ?? []) as readonly OwnerReference[]).find(({ controller }) => controller);
  if (owner === undefined) return false;
  switch (kind) {
    case 'Deployment':
      return owner.kind === 'ReplicaSet' && owner.name === `${name}-${metadata.labels?.['pod-template-hash'] ?? ''}`;
    case 'CronJob':
      return (
        owner.kind === 'Job' && owner.name.startsWith(`${name}-`) && /^\d+$/.test(owner.name.slice(name.length + 1))
      );
    case 'StatefulSet':
    case 'DaemonSet':
    case 'ReplicaSet':
    case 'Job':
      return owner.kind === kind && owner.name === name;
  }
}

type OwnerReference = { readonly kind: string; readonly name: string; readonly controller?: boolean };

type Container = {
  readonly name: string;
  readonly volumeMounts?: readonly { readonly name: string; readonly readOnly?: boolean }[];
};

type PodSpec = {
  readonly containers: readonly Container[];
  readonly initContainers?: readonly Container[];
  readonly volumes?: readonly { readonly name: string; readonly hostPath?: { readonly type?: string } }[];
};

type Rolled = KubernetesObject & {
  readonly metadata: { readonly generation?: number };
  readonly spec?: {
    readonly replicas?: number;
    readonly paused?: boolean;
    readonly updateStrategy?: { readonly type?: string };
  };
  readonly status?: Readonly<Record<string, number | undefined>>;
};

function containersIn(pod: KubernetesObject): readonly Container[] {
  const { containers, initContainers = [] } = pod['spec'] as PodSpec;
  return [...containers, ...initContainers];
}

function hasVolume(pod: KubernetesObject, { id }: MountRecord): boolean {
  return ((pod['spec'] as PodSpec).volumes ?? []).some(({ name }) => name === volumeNameOf(id));
}

/** True where the pod has the mount just as the record says. */
function hasMount(pod: KubernetesObject, { id, sourceType, isReadOnly }: MountRecord): boolean {
  const volume = ((pod['spec'] as PodSpec).volumes ?? []).find(({ name }) => name === volumeNameOf(id));
  const mounts = containersIn(pod).flatMap(({ volumeMounts = [] }) => volumeMounts);
  const mount = mounts.find(({ name }) => name === volumeNameOf(id));
  return volume?.hostPath?.type === sourceType && mount !== undefined && (mount.readOnly ?? false) === isReadOnly;
}

function isAlive(pod: KubernetesObject): boolean {
  const { phase } = (pod['status'] ?? {}) as { readonly phase?: string };
  const { deletionTimestamp } = pod.metadata as { readonly deletionTimestamp?: string };
  return deletionTimestamp === undefined && phase !== 'Succeeded' && phase !== 'Failed';
}

function createdAt({ metadata }: KubernetesObject): string {
  return (metadata as { readonly creationTimestamp?: string }).creationTimestamp ?? '';
}

function templateOf({ metadata: { labels } }: KubernetesObject): string | undefined {
  return labels?.['pod-template-hash'] ?? labels?.['controller-revision-hash'];
}

/** What is still missing, as `kubectl rollout status` sees it; undefined when the rollout is over. */
function rolloutProblem({ kind, metadata, spec = {}, status = {} }: Rolled): string | undefined {
  if (spec.paused === true) return 'its rollouts are paused (kubectl rollout resume goes on)';
  if (spec.updateStrategy?.type === 'OnDelete') return 'its pods are only replaced when they are deleted (OnDelete)';
  if ((status['observedGeneration'] ?? 0) < (metadata.generation ?? 0)) return 'its controller has not seen it yet';
  const isDaemonSet = kind === 'DaemonSet';
  const wanted = isDaemonSet ? (status['desiredNumberScheduled'] ?? 0) : (spec.replicas ?? 1);
  const updated = status[isDaemonSet ? 'updatedNumberScheduled' : 'updatedReplicas'] ?? 0;
  const total = status[isDaemonSet ? 'currentNumberScheduled' : 'replicas'] ?? 0;
  const available = status[isDaemonSet ? 'numberAvailable' : 'availableReplicas'] ?? 0;
  if (updated >= wanted && total <= updated && available >= wanted) return undefined;
  return `${String(Math.min(updated, available))} of ${String(wanted)} new pods are ready`;
}
