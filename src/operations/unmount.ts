/** `unmount`: takes mounts away, and what only they needed. */
import path from 'node:path';
import { parseMountTarget } from '../config/mount-syntax.ts';
import { findNearest } from '../config/nearest.ts';
import { SandbarError } from '../model/errors.ts';
import { formatWorkload, recordObject, type MountRecord, type WorkloadRef } from '../model/mounts.ts';
import type { Clock, Cluster, Host } from '../model/ports.ts';
import { accessCluster, withCluster, withClusterLock } from './access.ts';
import { needsRollout, waitForAdmission } from './mount-pods.ts';
import { listRecords, removeUnusedMountContainers } from './mount-records.ts';
import type { MountDependencies } from './mounts.ts';
import { rollOut } from './mount-rollout.ts';
import { findWorkload, type Rollout, type Workload } from './mount-workloads.ts';

export type UnmountRequest = {
  readonly clusterName: string;
  /** Each a WORKLOAD:TARGET, an id or a source; or all there are. */
  readonly mounts: readonly string[] | 'all';
  /** Only mounts of workloads in this namespace; undefined: a workload that is named is in `default`. */
  readonly namespace: string | undefined;
  readonly timeoutMs: number | undefined;
  readonly signal: AbortSignal;
};

export type UnmountResult = {
  readonly removed: readonly MountRecord[];
  readonly rollouts: readonly { readonly workload: string; readonly rollout: Rollout }[];
};

/** Between two looks at what admission makes of a pod. */
const PAUSE_MS = 40;

const FORGETTING_MS = 15_000;

/**
 * Records go last: whoever is interrupted before finds them again. Pods keep what is mounted until their successors
 * have taken over.
 */
export async function unmount(
  request: UnmountRequest,
  { ports, emit }: Pick<MountDependencies, 'ports' | 'emit'>,
): Promise<UnmountResult> {
  const { clusterName, signal } = request;
  return withClusterLock(clusterName, { host: ports.host, emit, signal }, async () => {
    const access = await accessCluster(ports.runtime, clusterName);
    return withCluster(access, ports, async (cluster) => {
      const records = await listRecords(cluster);
      const leaving = await chooseRecords(request, records, ports.host);
      const rollouts = await leaveWorkloads(leaving, records, cluster, { request, ports, emit });
      for (const record of leaving) await cluster.remove(recordObject(record));
      const staying = records.filter((record) => !leaving.includes(record));
      await removeUnusedMountContainers(staying, { clusterName, runtime: ports.runtime });
      return { removed: leaving, rollouts };
    });
  });
}

type Leave = { readonly request: UnmountRequest } & Pick<MountDependencies, 'ports' | 'emit'>;

/** Every workload's pods are renewed once, however many of its mounts go. */
async function leaveWorkloads(
  leaving: readonly MountRecord[],
  records: readonly MountRecord[],
  cluster: Cluster,
  { request, ports, emit }: Leave,
): Promise<UnmountResult['rollouts']> {
  const { timeoutMs, signal } = request;
  const own = leaving.filter(({ target, parentId }) => target.kind === 'workload' && parentId === undefined);
  for (const child of orphansOf(leaving, records)) await cluster.apply(recordObject(child));
  for (const record of own) await cluster.apply(recordObject({ ...record, isWithheld: true }));
  for (const record of own) await waitUntilForgotten(cluster, record, { clock: ports.clock, signal });
  const rollouts: { readonly workload: string; readonly rollout: Rollout }[] = [];
  for (const [workload, gone] of await groupByWorkload(own, cluster)) {
    const isNeeded = async (): Promise<boolean> => {
      for (const record of gone) if (await needsRollout(cluster, record, 'unmounted')) return true;
      return false;
    };
    const rollout = await rollOut(workload, { cluster, ports, emit, timeoutMs, signal, isNeeded });
    rollouts.push({ workload: formatWorkload({ ...workload.ref, container: undefined }), rollout });
  }
  return rollouts;
}

/** Mounts that lay inside of one that goes, and now stand by themselves or inside of the next. */
function orphansOf(leaving: readonly MountRecord[], records: readonly MountRecord[]): readonly MountRecord[] {
  const parents = new Map(leaving.map(({ id, parentId }) => [id, parentId]));
  const heirOf = (id: string | undefined): string | undefined =>
    id !== undefined && parents.has(id) ? heirOf(parents.get(id)) : id;
  return records
    .filter(({ id, parentId }) => !parents.has(id) && parentId !== undefined && parents.has(parentId))
    .map((record) => ({ ...record, parentId: heirOf(record.parentId) }));
}

/** Returns once new pods no longer get the mount: one with a mount whose folder is gone would never start. */
async function waitUntilForgotten(
  cluster: Cluster,
  record: MountRecord,
  { clock, signal }: { readonly clock: Clock; readonly signal: AbortSignal },
): Promise<void> {
  // A Pod of its own name is not made anew by anybody.
  if (record.target.kind === 'workload' && record.target.workload.kind === 'Pod') return;
  const deadline = clock.now() + FORGETTING_MS;
  while (await isAdmitted(cluster, record, { clock, signal })) {
    if (clock.now() >= deadline) {
      throw new SandbarError('TIMED_OUT', `new pods still get the mount ${record.id}`, {
        hint: 'sandbar logs control-plane shows more; the same command goes on',
      });
    }
    await clock.sleep(PAUSE_MS, signal);
  }
}

/** Asked without patience, so that the time is over at once where a pod is created without the mount. */
async function isAdmitted(
  cluster: Cluster,
  record: MountRecord,
  { clock, signal }: { readonly clock: Clock; readonly signal: AbortSignal },
): Promise<boolean> {
  try {
    await waitForAdmission(cluster, record, { clock, signal, timeoutMs: 0 });
    return true;
  } catch (error) {
    // Where there is no namespace, there are no pods.
    if (error instanceof SandbarError && ['TIMED_OUT', 'NOT_FOUND'].includes(error.code)) return false;
    throw error;
  }
}

/** Workloads that are gone have no pods to renew. */
async function groupByWorkload(
  records: readonly MountRecord[],
  cluster: Cluster,
): Promise<ReadonlyMap<Workload, readonly MountRecord[]>> {
  const groups = new Map<string, { readonly ref: WorkloadRef; readonly records: MountRecord[] }>();
  for (const record of records) {
    if (record.target.kind !== 'workload') continue;
    const ref = { ...record.target.workload, container: undefined };
    const group = groups.get(formatWorkload(ref)) ?? { ref, records: [] };
    group.records.push(record);
    groups.set(formatWorkload(ref), group);
  }
  const found = new Map<Workload, readonly MountRecord[]>();
  for (const { ref, records: gone } of groups.values()) {
    const object = await findWorkload(cluster, ref);
    if (object !== undefined) found.set({ ref, object }, gone);
  }
  return found;
}

async function chooseRecords(
  { mounts, namespace }: UnmountRequest,
  records: readonly MountRecord[],
  host: Host,
): Promise<readonly MountRecord[]> {
  const candidates = records.filter(
    ({ target }) => namespace === undefined || (target.kind === 'workload' && target.workload.namespace === namespace),
  );
  if (mounts === 'all') return candidates;
  const chosen = new Set<MountRecord>();
  for (const text of mounts) {
    const found = await findRecords(text, candidates, { namespace: namespace ?? 'default', host });
    if (found.length === 0) throw unknownMount(text, candidates);
    for (const record of found) chosen.add(record);
  }
  return [...chosen];
}

async function findRecords(
  text: string,
  records: readonly MountRecord[],
  { namespace, host }: { readonly namespace: string; readonly host: Host },
): Promise<readonly MountRecord[]> {
  const byId = records.filter(({ id }) => id === text);
  if (byId.length > 0) return byId;
  const parsed = parseMountTarget(text, { namespace });
  if ('target' in parsed && parsed.target.kind === 'workload') {
    const { workload, path: targetPath } = parsed.target;
    return records.filter(
      ({ target }) => target.kind === 'workload' && target.path === targetPath && isNamed(target.workload, workload),
    );
  }
  // A source may be gone meanwhile: then it is known by its path alone.
  const wanted = path.resolve(host.workingDirectory, text);
  const real = await host.resolvePath(wanted);
  return records.filter(({ source }) => source === wanted || source === real);
}

function isNamed(workload: WorkloadRef, wanted: WorkloadRef): boolean {
  const { namespace, kind, name, container } = wanted;
  if (workload.namespace !== namespace || workload.kind !== kind || workload.name !== name) return false;
  return container === undefined || workload.container === container;
}

function unknownMount(text: string, records: readonly MountRecord[]): SandbarError {
  const names = records.flatMap(({ id, source, target }) => [
    id,
    source,
    ...(target.kind === 'workload' ? [`${formatWorkload(target.workload)}:${target.path}`] : []),
  ]);
  const nearest = findNearest(text, names);
  return new SandbarError('NOT_FOUND', `nothing is mounted as "${text}"`, {
    hint:
      nearest === undefined
        ? records.length === 0
          ? 'there are no mounts'
          : `sandbar mounts lists them; there ${records.length === 1 ? 'is' : 'are'} ${records.map(({ id }) => id).join(', ')}`
        : `did you mean ${nearest}?`,
  });
}
