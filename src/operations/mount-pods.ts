/** Pods as mounts see them: whether admission gives them a mount, which of them lack it, and how new ones take over. */
import { admittedPod } from '../components/mounts.ts';
import { SandbarError } from '../model/errors.ts';
import {
  VOLUME_PREFIX,
  formatWorkload,
  nodePathOf,
  volumeNameOf,
  type MountRecord,
  type WorkloadKind,
  type WorkloadRef,
} from '../model/mounts.ts';
import type { Clock, Cluster } from '../model/ports.ts';
import type { KubernetesObject, Step } from '../model/resources.ts';

/** Between two looks at what admission or a rollout has come to. */
const PAUSE_MS = 40;

/** The API server hears of a record within milliseconds; right after its start it may take seconds. */
const ADMISSION_PATIENCE_MS = 15_000;

/** How long admission may refuse the pod that it is asked with: a namespace is young for less than this. */
const REFUSAL_PATIENCE_MS = 4_000;

/** How long a rollout that somebody else began is waited for before it is looked at what it has brought. */
const SETTLING_MS = 10_000;

const POD = { apiVersion: 'v1', kind: 'Pod' };

/** Kinds whose pods are replaced one after the other when their template changes. */
const ROLLED_KINDS: readonly WorkloadKind[] = ['Deployment', 'StatefulSet', 'DaemonSet'];

type Waiting = { readonly clock: Clock; readonly signal: AbortSignal; readonly timeoutMs?: number | undefined };

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
  const pod = admittedPod(target.workload);
  const deadline = clock.now() + timeoutMs;
  const refusalDeadline = clock.now() + Math.min(timeoutMs, REFUSAL_PATIENCE_MS);
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
      // A full quota, a limit or a webhook says no to this pod, which says nothing of the mount.
      if (clock.now() >= refusalDeadline && timeoutMs > 0) return;
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
  return pods.some((pod) => (wanted === 'mounted' ? isWithout(pod, record) : hasVolume(pod, record.id)));
}

/** Pods of a workload that run, of its newest template. */
export async function listPods(cluster: Cluster, workload: WorkloadRef): Promise<readonly KubernetesObject[]> {
  return podsOf(workload, await cluster.list(POD, { namespace: workload.namespace }));
}

/** The same among pods of any workload. */
export function podsOf(workload: WorkloadRef, pods: readonly KubernetesObject[]): readonly KubernetesObject[] {
  const own = pods
    .filter(({ metadata }) => (metadata.namespace ?? 'default') === workload.namespace)
    .filter((pod) => isPodOf(pod, workload) && isAlive(pod))
    .toSorted((a, b) => createdAt(b).localeCompare(createdAt(a)));
  const [newest] = own;
  return newest === undefined ? [] : own.filter((pod) => templateOf(pod) === templateOf(newest));
}

/** True of a pod that has the container that a mount is for, and not the mount as its record says. */
export function isWithout(pod: KubernetesObject, record: MountRecord): boolean {
  const { target } = record;
  return target.kind === 'workload' && hasContainer(pod, target.workload) && !hasMount(pod, record);
}

/** Ids of the mounts that a pod was made with. */
export function mountIdsIn(pod: KubernetesObject): readonly string[] {
  const { volumes = [] } = pod['spec'] as PodSpec;
  return volumes.flatMap(({ name, hostPath }) => {
    const id = name.slice(VOLUME_PREFIX.length);
    return name === volumeNameOf(id) && hostPath?.path === nodePathOf(id) ? [id] : [];
  });
}

/** The workload behind a pod, of a kind whose pods are replaced when its template changes. */
export function rollableOf({ metadata }: KubernetesObject): WorkloadRef | undefined {
  const owner = controllerOf(metadata);
  const ref = { namespace: metadata.namespace ?? 'default', container: undefined };
  switch (owner?.kind) {
    case 'StatefulSet':
    case 'DaemonSet':
      return { ...ref, kind: owner.kind, name: owner.name };
    case 'ReplicaSet': {
      const ending = `-${metadata.labels?.['pod-template-hash'] ?? ''}`;
      return owner.name.endsWith(ending) && ending !== '-'
        ? { ...ref, kind: 'Deployment', name: owner.name.slice(0, -ending.length) }
        : undefined;
    }
    default:
      return undefined;
  }
}

/** Whether a pod has the container that a mount is for. */
export function hasContainer(pod: KubernetesObject, { container }: WorkloadRef): boolean {
  return container === undefined || containersIn(pod).some(({ name }) => name === container);
}

/** Whether pods that run are other than a rollout wants them. */
export function isOutdated(
  pods: readonly KubernetesObject[],
  { workload, mounted, unmountedIds, isForced }: Pick<RollStep, 'workload' | 'mounted' | 'unmountedIds' | 'isForced'>,
): boolean {
  const own = podsOf(workload, pods);
  if (isForced) return own.length > 0;
  return own.some(
    (pod) => mounted.some((record) => isWithout(pod, record)) || unmountedIds.some((id) => hasVolume(pod, id)),
  );
}

/** Replaces a workload's pods as its own strategy says, and returns when the new ones are ready. */
export async function rollWorkload(cluster: Cluster, workload: WorkloadRef, waiting: Waiting): Promise<void> {
  const { kind, name, namespace } = workload;
  const { clock, timeoutMs = 60_000 } = waiting;
  const ref = { apiVersion: 'apps/v1', kind, metadata: { name, namespace } };
  const annotations = { 'kubectl.kubernetes.io/restartedAt': new Date(clock.now()).toISOString() };
  const before = await listPods(cluster, workload);
  await cluster.patch(ref, { spec: { template: { metadata: { annotations } } } });
  // A StatefulSet waits for a pod to become ready before it renews it, even if it is for want of a mount that it is not.
  if (kind === 'StatefulSet') for (const pod of before) if (!isReady(pod)) await cluster.remove(pod);
  const problem = await waitForRollout(cluster, workload, { ...waiting, timeoutMs });
  if (problem === undefined) return;
  throw new SandbarError(
    'TIMED_OUT',
    `${formatWorkload(workload)} was not rolled after ${String(Math.round(timeoutMs / 1000))} s: ${problem}`,
    { hint: `sandbar kubectl -n ${namespace} describe ${kind.toLowerCase()} ${name} shows why` },
  );
}

/** Returns when a rollout that is under way is over, or has taken long. */
export async function settleRollout(cluster: Cluster, workload: WorkloadRef, waiting: Waiting): Promise<void> {
  await waitForRollout(cluster, workload, { ...waiting, timeoutMs: SETTLING_MS });
}

/** Undefined when every pod is new and ready, else what is missing when the time is over. */
async function waitForRollout(
  cluster: Cluster,
  { kind, name, namespace }: WorkloadRef,
  { clock, signal, timeoutMs }: Waiting & { readonly timeoutMs: number },
): Promise<string | undefined> {
  const deadline = clock.now() + timeoutMs;
  for (;;) {
    signal.throwIfAborted();
    const objects = await cluster.list({ apiVersion: 'apps/v1', kind }, { namespace });
    const found = objects.find(({ metadata }) => metadata.name === name);
    const problem = found === undefined ? 'it is gone' : rolloutProblem(found);
    if (problem === undefined || clock.now() >= deadline) return problem;
    await clock.sleep(PAUSE_MS, signal);
  }
}

/** What a pod says of the workload behind it; the admission policy asks the same. */
function isPodOf({ metadata }: KubernetesObject, { kind, name }: WorkloadRef): boolean {
  if (kind === 'Pod') return metadata.name === name;
  const owner = controllerOf(metadata);
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

function controllerOf({ ownerReferences = [] }: KubernetesObject['metadata']): OwnerReference | undefined {
  return (ownerReferences as readonly OwnerReference[]).find(({ controller }) => controller);
}

type RollStep = Extract<Step, { readonly verb: 'roll' }>;

type OwnerReference = { readonly kind: string; readonly name: string; readonly controller?: boolean };

type Container = {
  readonly name: string;
  readonly volumeMounts?: readonly { readonly name: string; readonly readOnly?: boolean }[];
};

type PodSpec = {
  readonly containers: readonly Container[];
  readonly initContainers?: readonly Container[];
  readonly volumes?: readonly {
    readonly name: string;
    readonly hostPath?: { readonly path: string; readonly type?: string };
  }[];
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

function hasVolume(pod: KubernetesObject, id: string): boolean {
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

export function isReady(pod: KubernetesObject): boolean {
  type Conditions = readonly { readonly type: string; readonly status: string }[];
  const { conditions = [] } = (pod['status'] ?? {}) as { readonly conditions?: Conditions };
  return conditions.some(({ type, status }) => type === 'Ready' && status === 'True');
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
