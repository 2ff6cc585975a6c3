/** `reset`: a cluster becomes what it was right after `up`; its images and containers stay. */
import { formatKept, type Kept } from '../config/keep.ts';
import { SandbarError } from '../model/errors.ts';
import type { Emit } from '../model/events.ts';
import { LABELS, nodeName, type Component } from '../model/names.ts';
import type { Cluster, ContainerSummary, ObjectStore, Ports } from '../model/ports.ts';
import type { ClusterSpec } from '../model/spec.ts';
import { RESTORING_LABEL } from '../model/snapshots.ts';
import {
  accessCluster,
  componentOf,
  openObjectStore,
  withCluster,
  withClusterLock,
  type ClusterAccess,
} from './access.ts';
import { resetDatastore, type KeptKeys } from './datastore.ts';
import { inPhase, milestone, together } from './phase.ts';
import { describeKept, findKeptVolumes, killPods } from './reset-pods.ts';
import { accessStopped, startOver, wake } from './start-over.ts';

/** No pod is left that would need longer. */
const AGENT_STOP_S = 3;

export type ResetRequest = {
  /** What the cluster is made from again. */
  readonly spec: ClusterSpec;
  readonly kept: Kept;
  /** Puts the golden copy in place of the datastore while the control plane is stopped. */
  readonly isHard: boolean;
  readonly confirm: ((question: string) => Promise<boolean>) | undefined;
  readonly timeoutMs: number | undefined;
  readonly signal: AbortSignal;
  /** What `up` does, for who holds the cluster's lock. */
  readonly converge: () => Promise<unknown>;
};

export type ResetResult = {
  readonly cluster: string;
  /** Keys of the datastore that went, and that were put back. */
  readonly deleted: number;
  readonly restored: number;
  readonly pods: number;
  readonly volumes: number;
  readonly buckets: number;
  readonly kept: readonly string[];
  readonly ms: number;
};

/** Brings a running cluster back. Safe to run again after any interruption: what was not done is done then. */
export async function reset(request: ResetRequest, ports: Ports, emit: Emit): Promise<ResetResult> {
  const { spec, kept, isHard, signal } = request;
  requireCombination(request);
  const startedAt = ports.clock.now();
  return withClusterLock(spec.name, { host: ports.host, emit, signal }, async () => {
    if (!isHard) {
      // Reading files of containers is the engine's slowest answer: asked for before anybody is.
      const access = accessCluster(ports.runtime, spec.name);
      access.catch(() => undefined);
      await confirmLoss(request);
      return finish(await wash(await access, request, { ports, emit }));
    }
    await confirmLoss(request);
    await dropUnfinishedRestore(spec.name, ports);
    return finish(await washHard(request, { ports, emit }));
  });

  async function finish(washed: Washed): Promise<ResetResult> {
    await request.converge();
    return { cluster: spec.name, ...washed, kept: formatKept(kept), ms: ports.clock.now() - startedAt };
  }
}

export type Washed = Pick<ResetResult, 'deleted' | 'restored' | 'pods' | 'volumes' | 'buckets'>;

type Context = { readonly ports: Ports; readonly emit: Emit };

/** Datastore, pods and buckets at the same time: nobody writes meanwhile. */
async function wash(access: ClusterAccess, request: ResetRequest, context: Context): Promise<Washed> {
  requireRunning(access, request);
  return withCluster(access, context.ports, async (cluster) => {
    const keys = await describeKept(cluster, request.kept);
    const held = milestone();
    const back = milestone();
    const [{ deleted, restored }, { pods, volumes }, buckets] = await together(request.signal, [
      (signal) =>
        bringBack(cluster, keys, { ...context, onHeld: held.pass, onBack: back.pass, signal }).finally(back.pass),
      // What is refused before the hold must have changed nothing.
      (signal) =>
        held.after(signal, async () => {
          const keptVolumes = await findKeptVolumes(cluster, request.kept);
          const options = { ...context, clusterName: access.name, keptVolumes, until: back.passed, signal };
          return killPods(request.kept, options);
        }),
      (signal) => held.after(signal, () => wipeBuckets(access, { ...request, signal }, context)),
    ]);
    return { deleted, restored, pods, volumes, buckets };
  });
}

/** The same with a control plane that is stopped meanwhile; parts that are missing have nothing that could stay. */
async function washHard(request: ResetRequest, context: Context): Promise<Washed> {
  const waiting = { ...context, timeoutMs: request.timeoutMs, signal: request.signal };
  const access = await accessStopped(request.spec.name, context.ports);
  const [agent] = await Promise.all([wake('agent', access, waiting), wake('object-store', access, waiting)]);
  const [back, ended] = [milestone(), milestone()];
  const [, { pods, volumes }, buckets] = await together(request.signal, [
    (signal) =>
      startOver(access, { ...waiting, signal })
        .then(back.pass)
        .finally(ended.pass),
    (signal) =>
      agent === undefined
        ? Promise.resolve({ pods: 0, volumes: 0 })
        : killPods(request.kept, {
            ...context,
            clusterName: access.name,
            keptVolumes: [],
            until: ended.passed,
            signal,
          }),
    // Only then it is certain that there is something to start over from.
    (signal) => back.after(signal, () => wipeBuckets(access, { ...request, signal }, context)),
  ]);
  if (agent !== undefined) await restartWithoutNode(agent, access, context.ports);
  return { deleted: 0, restored: 0, pods, volumes, buckets };
}

/** The kubelet makes its Node as it starts, and only then: what starts over without one needs it to start as well. */
async function restartWithoutNode({ id }: ContainerSummary, access: ClusterAccess, ports: Ports): Promise<void> {
  await withCluster(access, ports, async (cluster) => {
    const { status } = await cluster.get(`/api/v1/nodes/${nodeName(access.name)}`);
    if (status === 404) await ports.runtime.restartContainer(id, { timeoutS: AGENT_STOP_S });
  });
}

async function bringBack(
  cluster: Cluster,
  keep: KeptKeys,
  context: Context & { readonly onHeld: () => void; readonly onBack: () => void; readonly signal: AbortSignal },
): Promise<{ readonly deleted: number; readonly restored: number }> {
  return inPhase('datastore', 'bringing it back', context, async () => {
    const result = await resetDatastore(cluster, { from: 'golden', keep }, context);
    return { result, text: `${String(result.deleted)} keys deleted, ${String(result.restored)} put back` };
  });
}

/** Removes every bucket with all versions of what is in it; says of those that nobody may empty, and goes on. */
async function wipeBuckets(
  access: ClusterAccess,
  { kept, signal }: Pick<ResetRequest, 'kept' | 'signal'>,
  context: Context,
): Promise<number> {
  if (kept.hasBuckets || componentOf(access.containers, 'object-store') === undefined) return 0;
  return inPhase('buckets', 'removing them', context, async () => {
    const store = await openObjectStore(access, context.ports);
    let removed = 0;
    for (const { name } of await store.listBuckets()) {
      signal.throwIfAborted();
      if (await isRemoved(store, name, context.emit)) removed += 1;
    }
    return { result: removed, text: `${String(removed)} removed` };
  });
}

async function isRemoved(store: ObjectStore, bucketName: string, emit: Emit): Promise<boolean> {
  try {
    await store.removeBucket(bucketName, { isForced: true });
    return true;
  } catch (error) {
    if (!(error instanceof SandbarError) || error.code !== 'CONFLICT') throw error;
    emit({
      type: 'warning',
      text: `bucket ${bucketName} stays: ${error.message}`,
      ...(error.hint && { hint: error.hint }),
    });
    return false;
  }
}

/** A reset asks the parts that run; what does not run is brought up by another command. */
function requireRunning({ name, containers }: ClusterAccess, { spec, kept }: ResetRequest): void {
  const needed: readonly Component[] = [
    'control-plane',
    'agent',
    ...(spec.objectStore.isEnabled && !kept.hasBuckets ? (['object-store'] as const) : []),
  ];
  for (const component of needed) {
    const state = componentOf(containers, component)?.state ?? 'missing';
    if (state === 'running') continue;
    throw new SandbarError('CLUSTER_NOT_RUNNING', `${component} of cluster "${name}" is ${state}`, {
      hint: `${state === 'paused' ? 'sandbar resume' : state === 'missing' ? 'sandbar up' : 'sandbar start'}, then sandbar reset again`,
    });
  }
}

function requireCombination({ isHard, kept }: ResetRequest): void {
  if (!isHard) return;
  const refused = formatKept({ ...kept, hasBuckets: false });
  if (refused.length === 0) return;
  throw new SandbarError('USAGE', `--hard puts a whole datastore in place and cannot keep ${refused.join(', ')}`, {
    hint: 'leave one of both out; buckets can be kept',
  });
}

/** A container that is left over from a restore that was interrupted: what it was to bring back is not wanted any more. */
async function dropUnfinishedRestore(clusterName: string, { runtime }: Ports): Promise<void> {
  const containers = await runtime.listContainers({ key: LABELS.cluster, value: clusterName });
  const leftover = containers.filter(({ labels }) => labels[RESTORING_LABEL] !== undefined);
  for (const { id } of leftover) await runtime.removeContainer(id);
}

async function confirmLoss({ spec, kept, confirm }: ResetRequest): Promise<void> {
  const { namespaces } = kept;
  const goes = [
    `every object that is not of the first start${namespaces.length === 0 ? '' : ` or in ${namespaces.join(', ')}`}`,
    ...(kept.hasVolumes ? [] : ['the data of claims']),
    ...(kept.hasBuckets ? [] : ['every bucket']),
    ...(kept.hasMounts ? [] : ['mounts made by command']),
    ...(kept.hasPorts ? [] : ['ports published by command']),
  ];
  const stays = [...formatKept(kept), 'images, snapshots, the folders of mounts'];
  const question = `this resets cluster "${spec.name}"\n  goes:  ${goes.join(', ')}\n  stays: ${stays.join(', ')}`;
  if (confirm === undefined) {
    throw new SandbarError('CONFIRMATION_NEEDED', question, { hint: 'add --yes to agree' });
  }
  if (!(await confirm(question))) throw new SandbarError('INTERRUPTED', 'nothing was reset', { exitCode: 1 });
}
