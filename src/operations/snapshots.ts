/** `snapshot create|ls|rm`: what a cluster holds at one moment, kept in a volume of its own. */
import { findNearest } from '../config/nearest.ts';
import { SandbarError } from '../model/errors.ts';
import type { Emit } from '../model/events.ts';
import { containerName, LABELS } from '../model/names.ts';
import type { Ports, Runtime } from '../model/ports.ts';
import type { ClusterSpec } from '../model/spec.ts';
import {
  defaultSnapshotName,
  keyIdOf,
  snapshotNameProblem,
  type Snapshot,
  type SnapshotImage,
} from '../model/snapshots.ts';
import {
  accessCluster,
  componentOf,
  requireRestored,
  withCluster,
  withClusterLock,
  type ClusterAccess,
} from './access.ts';
import { whileHeld } from './datastore.ts';
import { readStoredForm, type StoredForm } from './last-up.ts';
import { inPhase, together } from './phase.ts';
import {
  folderOf,
  hasSnapshots,
  listSnapshots,
  LIVE,
  measure,
  partialFolderOf,
  publish,
  requireSpace,
  withWorker,
  type Worker,
} from './snapshot-worker.ts';
import { accessStopped } from './start-over.ts';

export type SnapshotContext = { readonly ports: Ports; readonly emit: Emit; readonly signal: AbortSignal };

/** Parts that write to volumes, and stand still while these are copied. */
const WRITERS = ['agent', 'object-store'] as const;

/** Copies of everything with its modes, owners and times; blocks are shared where the file system can. */
export const COPY = ['cp', '-a', '--reflink=auto', '--sparse=auto'] as const;

/** Takes a snapshot of one moment: nobody writes to the datastore, to volumes or to buckets while it is copied. */
export async function createSnapshot(
  { spec, name: wished }: { readonly spec: ClusterSpec; readonly name: string | undefined },
  context: SnapshotContext,
): Promise<Snapshot> {
  const { ports } = context;
  const name = wished ?? defaultSnapshotName(ports.clock.now());
  requireName(name);
  return locked(spec.name, context, async () => {
    requireRestored(await ports.runtime.listContainers({ key: LABELS.cluster, value: spec.name }));
    const access = await thaw(await accessCluster(ports.runtime, spec.name), ports.runtime);
    const form = await readStoredForm(ports.runtime, spec);
    return withWorker(access, ports, async (worker) => {
      requireFree(name, await listSnapshots(worker));
      await worker.run(['mkdir', '-p', LIVE.volumes]);
      const images = await listImages(access, ports.runtime);
      const live = [LIVE.volumes, LIVE.datastore, ...(worker.hasObjects ? [LIVE.objects] : [])];
      await requireSpace(
        worker,
        (await measure(worker, live)).reduce((sum, bytes) => sum + bytes, 0),
      );
      return inPhase('snapshot', 'copying', context, async () => {
        const result = await cleanAfterFailure(name, worker, async () => {
          await copyHeld(name, { access, worker, context });
          const snapshot = await describe(name, worker, { spec, form, images, access, createdMs: ports.clock.now() });
          await publish(worker, snapshot);
          return snapshot;
        });
        return { result, text: `${name} is kept` };
      });
    });
  });
}

/** The oldest first. */
export async function findSnapshots(clusterName: string, context: SnapshotContext): Promise<readonly Snapshot[]> {
  const { ports } = context;
  return locked(clusterName, context, async () => {
    const access = await accessStopped(clusterName, ports);
    if (!(await hasSnapshots(clusterName, ports.runtime))) return [];
    return withWorker(access, ports, listSnapshots);
  });
}

/** Removes snapshots; nothing where one of them is not there. */
export async function removeSnapshots(
  { clusterName, names }: { readonly clusterName: string; readonly names: readonly string[] },
  context: SnapshotContext,
): Promise<void> {
  const { ports, signal } = context;
  await locked(clusterName, context, async () => {
    await withWorker(await accessStopped(clusterName, ports), ports, async (worker) => {
      const snapshots = await listSnapshots(worker);
      for (const name of names) getSnapshot(name, snapshots);
      for (const name of new Set(names)) {
        signal.throwIfAborted();
        await worker.run(['mv', '-T', folderOf(name), partialFolderOf(name)]);
        await worker.run(['rm', '-rf', partialFolderOf(name)]);
      }
    });
  });
}

/** Runs `work` while no other command works on the cluster, and its worker. */
export function locked<T>(
  clusterName: string,
  { ports, emit, signal }: SnapshotContext,
  work: () => Promise<T>,
): Promise<T> {
  return withClusterLock(clusterName, { host: ports.host, emit, signal }, work);
}

/** The snapshot of that name, or an error that names those that are there. */
export function getSnapshot(name: string, snapshots: readonly Snapshot[]): Snapshot {
  const found = snapshots.find((snapshot) => snapshot.name === name);
  if (found !== undefined) return found;
  const names = snapshots.map((snapshot) => snapshot.name);
  const nearest = findNearest(name, names);
  throw new SandbarError('NOT_FOUND', `there is no snapshot ${name}`, {
    hint:
      names.length === 0
        ? 'sandbar snapshot create makes one'
        : nearest === undefined
          ? `there ${names.length === 1 ? 'is' : 'are'} ${names.join(', ')}`
          : `did you mean ${nearest}?`,
  });
}

export function requireName(name: string): void {
  const problem = snapshotNameProblem(name);
  if (problem !== undefined) throw new SandbarError('USAGE', problem, { hint: 'for example before-upgrade' });
}

export function requireFree(name: string, snapshots: readonly Snapshot[]): void {
  if (!snapshots.some((snapshot) => snapshot.name === name)) return;
  throw new SandbarError('CONFLICT', `there is a snapshot ${name} already`, {
    hint: `choose another name, or remove it: sandbar snapshot rm ${name}`,
  });
}

/** What a killed command left frozen goes on. A cluster that the user has paused stands still as a whole. */
export async function thaw(access: ClusterAccess, runtime: Runtime): Promise<ClusterAccess> {
  const frozen = access.containers.filter(({ state }) => state === 'paused');
  const isPaused = componentOf(access.containers, 'control-plane')?.state === 'paused';
  if (frozen.length === 0 || isPaused) return access;
  await Promise.all(frozen.map(({ id }) => runtime.unpauseContainer(id)));
  const containers = access.containers.map((one) =>
    frozen.includes(one) ? { ...one, state: 'running' as const } : one,
  );
  return { ...access, containers };
}

/** Images on the node; of a node that does not run nothing is known. */
export async function listImages(
  { name, containers }: Pick<ClusterAccess, 'name' | 'containers'>,
  runtime: Runtime,
): Promise<readonly SnapshotImage[]> {
  if (componentOf(containers, 'agent')?.state !== 'running') return [];
  const { exitCode, stdout, stderr } = await runtime.exec(containerName(name, 'agent'), ['sandbar-images', 'list']);
  if (exitCode !== 0) throw new SandbarError('COMMAND_FAILED', `the node could not list its images: ${stderr.trim()}`);
  return (JSON.parse(stdout) as readonly SnapshotImage[]).map(({ name: image, id }) => ({ name: image, id }));
}

/** Leaves no half of a snapshot, whatever was interrupted. */
export async function cleanAfterFailure<T>(name: string, worker: Worker, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    await worker.stopPrograms();
    await worker.run(['rm', '-rf', partialFolderOf(name)]);
    throw error;
  }
}

async function copyHeld(
  name: string,
  {
    access,
    worker,
    context,
  }: { readonly access: ClusterAccess; readonly worker: Worker; readonly context: SnapshotContext },
): Promise<void> {
  const { ports, signal } = context;
  const partial = partialFolderOf(name);
  await worker.run(['mkdir', partial]);
  const writers = WRITERS.flatMap((component) => componentOf(access.containers, component) ?? []).filter(
    ({ state }) => state === 'running',
  );
  await withCluster(access, ports, (cluster) =>
    whileHeld(cluster, '/var/lib/etcd/snapshot.db', {
      signal,
      work: (lost) =>
        whileFrozen(writers, ports.runtime, () =>
          together(AbortSignal.any([signal, lost]), [
            (ending) => worker.run([...COPY, LIVE.volumes, `${partial}/volumes`], { signal: ending }),
            (ending) =>
              worker.hasObjects
                ? worker.run([...COPY, LIVE.objects, `${partial}/objects`], { signal: ending })
                : Promise.resolve(''),
            (ending) =>
              worker.run(['mv', `${LIVE.datastore}/snapshot.db`, `${partial}/datastore.db`], { signal: ending }),
          ]),
        ),
    }),
  );
}

/** Nothing is thawed before all is frozen or has failed to be; of several failures the first is told. */
async function whileFrozen<T>(
  containers: readonly { readonly id: string }[],
  runtime: Runtime,
  work: () => Promise<T>,
): Promise<T> {
  const thawAll = (): Promise<void> => forAll(containers, ({ id }) => runtime.unpauseContainer(id));
  let result: T;
  try {
    await forAll(containers, ({ id }) => runtime.pauseContainer(id));
    result = await work();
  } catch (error) {
    await thawAll().catch(() => undefined);
    throw error;
  }
  await thawAll();
  return result;
}

/** Each has ended before a failure is thrown. */
async function forAll<T>(items: readonly T[], deed: (item: T) => Promise<void>): Promise<void> {
  const settled = await Promise.allSettled(items.map(deed));
  const failed = settled.find((outcome) => outcome.status === 'rejected');
  if (failed !== undefined) throw failed.reason as Error;
}

async function describe(
  name: string,
  worker: Worker,
  facts: {
    readonly spec: ClusterSpec;
    readonly form: StoredForm;
    readonly access: ClusterAccess;
    readonly images: readonly SnapshotImage[];
    readonly createdMs: number;
  },
): Promise<Snapshot> {
  const { podSubnet, serviceSubnet } = facts.spec.network;
  const partial = partialFolderOf(name);
  const parts = [`${partial}/datastore.db`, `${partial}/volumes`, ...(worker.hasObjects ? [`${partial}/objects`] : [])];
  const [datastore = 0, volumes = 0, objects = null] = await measure(worker, parts);
  return {
    version: 1,
    name,
    created: new Date(facts.createdMs).toISOString(),
    cluster: facts.spec.name,
    kubernetes: facts.form.kubernetes,
    network: { podSubnet, serviceSubnet },
    images: facts.images,
    ...(facts.form.isEncrypted ? { keyId: keyIdOf(facts.access.identity) } : {}),
    sizeBytes: { datastore, volumes, objects },
  };
}
