/** Workloads as mounts see them: whether they can be given one, how their pods are renewed, and what keeps those. */
import { findNearest } from '../config/nearest.ts';
import { SandbarError } from '../model/errors.ts';
import { formatWorkload, type WorkloadKind, type WorkloadRef } from '../model/mounts.ts';
import type { Cluster } from '../model/ports.ts';
import type { KubernetesObject } from '../model/resources.ts';
import { missingObject } from './missing-object.ts';
import { isReady } from './mount-pods.ts';

/** A workload that is there. */
export type Workload = { readonly ref: WorkloadRef; readonly object: KubernetesObject };

/** What a change of its mounts meant for a workload's pods. */
export type Rollout = { readonly kind: 'none' } | { readonly kind: 'rolled'; readonly pods: number } | ByHand;

/** Pods that run stay as they are; `advice` says how new ones come about. */
type ByHand = { readonly kind: 'by-hand'; readonly advice: string };

type Container = { readonly name: string };

type PodSpec = { readonly containers?: readonly Container[]; readonly initContainers?: readonly Container[] };

type PodTemplate = { readonly metadata?: KubernetesObject['metadata']; readonly spec?: PodSpec };

type Pod = KubernetesObject & {
  readonly status?: {
    readonly phase?: string;
    readonly conditions?: readonly { readonly type: string; readonly status: string; readonly message?: string }[];
    readonly containerStatuses?: readonly ContainerStatus[];
    readonly initContainerStatuses?: readonly ContainerStatus[];
  };
};

type ContainerStatus = {
  readonly name: string;
  readonly state?: { readonly waiting?: { readonly reason?: string; readonly message?: string } };
};

type WorkloadSpec = {
  readonly paused?: boolean;
  readonly updateStrategy?: { readonly type?: string };
  readonly template?: PodTemplate;
  readonly jobTemplate?: { readonly spec?: { readonly template?: PodTemplate } };
};

const API_VERSIONS: Readonly<Record<WorkloadKind, string>> = {
  Deployment: 'apps/v1',
  StatefulSet: 'apps/v1',
  DaemonSet: 'apps/v1',
  ReplicaSet: 'apps/v1',
  Job: 'batch/v1',
  CronJob: 'batch/v1',
  Pod: 'v1',
};

/** The workload of a mount; an error that names what is near where it, its namespace or its container is not there. */
export async function getWorkload(cluster: Cluster, ref: WorkloadRef): Promise<Workload> {
  const object = await findWorkload(cluster, ref);
  if (object === undefined) throw await missingObject(cluster, { ...ref, apiVersion: API_VERSIONS[ref.kind] });
  requireContainer({ ref, object });
  return { ref, object };
}

export async function findWorkload(cluster: Cluster, ref: WorkloadRef): Promise<KubernetesObject | undefined> {
  const { kind, namespace, name } = ref;
  const objects = await cluster.list({ apiVersion: API_VERSIONS[kind], kind }, { namespace });
  return objects.find(({ metadata }) => metadata.name === name);
}

/** Pod security that forbids `hostPath` volumes would refuse every new pod of the workload. */
export async function requireHostPaths(cluster: Cluster, namespace: string): Promise<void> {
  const namespaces = await cluster.list({ apiVersion: 'v1', kind: 'Namespace' }, {});
  const labels = namespaces.find(({ metadata }) => metadata.name === namespace)?.metadata.labels ?? {};
  const level = labels[ENFORCED_LEVEL];
  if (level !== 'baseline' && level !== 'restricted') return;
  throw new SandbarError(
    'CONFLICT',
    `namespace ${namespace} forbids hostPath volumes, which mounts are: its label ${ENFORCED_LEVEL} is ${level}`,
    { hint: `sandbar kubectl label namespace ${namespace} ${ENFORCED_LEVEL}=privileged --overwrite` },
  );
}

const ENFORCED_LEVEL = 'pod-security.kubernetes.io/enforce';

/** How a workload's pods are renewed: `roll`, or by the user, who is told how. */
export function planRollout({ ref, object }: Workload, pods: readonly KubernetesObject[]): 'roll' | ByHand {
  const { paused, updateStrategy } = specOf(object);
  const name = formatWorkload({ ...ref, namespace: 'default', container: undefined });
  const kubectl = `sandbar kubectl -n ${ref.namespace}`;
  const deletion = `${kubectl} delete pod ${pods.map(({ metadata }) => metadata.name).join(' ')}`;
  const byHand = (advice: string): ByHand => ({ kind: 'by-hand', advice });
  switch (ref.kind) {
    case 'Deployment':
      return paused === true ? byHand(`it is paused: ${kubectl} rollout resume ${name}`) : 'roll';
    case 'StatefulSet':
    case 'DaemonSet':
      return updateStrategy?.type === 'OnDelete' ? byHand(`it renews pods that are deleted: ${deletion}`) : 'roll';
    case 'ReplicaSet':
      return byHand(`it renews pods that are deleted: ${deletion}`);
    case 'Job':
    case 'Pod':
      return byHand(`make it anew: ${kubectl} delete ${name}, then apply its manifest again`);
    case 'CronJob':
      return byHand(`its next run does; ${deletion} ends the one that runs`);
  }
}

/** The container that is meant where none is named, as kubectl chooses it. */
export function findDefaultContainer({ ref, object }: Workload): string | undefined {
  const { metadata } = (ref.kind === 'Pod' ? object : templateOf(ref.kind, object)) ?? {};
  const named = metadata?.annotations?.['kubectl.kubernetes.io/default-container'];
  return named ?? podSpecOf(ref.kind, object)?.containers?.[0]?.name;
}

/** Why pods do not become ready, in the cluster's words. */
export async function explainPods(cluster: Cluster, pods: readonly KubernetesObject[]): Promise<readonly string[]> {
  const waiting = (pods as readonly Pod[]).filter((pod) => !isReady(pod));
  const [first] = waiting;
  const events = first === undefined ? [] : await listWarnings(cluster, first);
  return [...waiting.flatMap(podProblems), ...events];
}

function podProblems({ metadata, status }: Pod): readonly string[] {
  const containers = [...(status?.initContainerStatuses ?? []), ...(status?.containerStatuses ?? [])];
  const waits = containers.flatMap(({ name, state }) => {
    const waiting = state?.waiting;
    if (waiting?.reason === undefined || waiting.reason === 'PodInitializing') return [];
    return [`${metadata.name}: ${name} ${waiting.reason} ${waiting.message ?? ''}`.trimEnd()];
  });
  if (waits.length > 0) return waits;
  const unmet = status?.conditions?.find(({ status: state, message }) => state === 'False' && message !== undefined);
  return [`${metadata.name}: ${unmet?.message ?? status?.phase ?? 'not reported yet'}`];
}

async function listWarnings(cluster: Cluster, pod: Pod): Promise<readonly string[]> {
  const { name, namespace = 'default' } = pod.metadata;
  const events = await cluster.list({ apiVersion: 'v1', kind: 'Event' }, { namespace });
  const own = events as readonly (KubernetesObject & {
    readonly type?: string;
    readonly reason?: string;
    readonly message?: string;
    readonly involvedObject?: { readonly kind?: string; readonly name?: string };
  })[];
  return own
    .filter(({ type, involvedObject: about }) => type === 'Warning' && about?.kind === 'Pod' && about.name === name)
    .slice(-3)
    .map(({ reason, message }) => `${name}: ${reason ?? ''} ${message ?? ''}`);
}

function requireContainer({ ref, object }: Workload): void {
  const { container } = ref;
  if (container === undefined) return;
  const names = containersOf(podSpecOf(ref.kind, object)).map(({ name }) => name);
  if (names.includes(container)) return;
  const nearest = findNearest(container, names);
  const workload = formatWorkload({ ...ref, container: undefined });
  throw new SandbarError('NOT_FOUND', `${workload} has no container "${container}"`, {
    hint: nearest === undefined ? `it has ${names.join(', ')}` : `did you mean ${workload}/${nearest}?`,
  });
}

function podSpecOf(kind: WorkloadKind, object: KubernetesObject): PodSpec | undefined {
  return kind === 'Pod' ? (object['spec'] as PodSpec | undefined) : templateOf(kind, object)?.spec;
}

function templateOf(kind: WorkloadKind, object: KubernetesObject): PodTemplate | undefined {
  const spec = specOf(object);
  return (kind === 'CronJob' ? spec.jobTemplate?.spec : spec)?.template;
}

function containersOf(spec: PodSpec | undefined): readonly Container[] {
  return [...(spec?.containers ?? []), ...(spec?.initContainers ?? [])];
}

function specOf(object: KubernetesObject): WorkloadSpec {
  return object['spec'] ?? {};
}
