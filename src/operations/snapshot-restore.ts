/**
 * `snapshot restore`: a cluster is what it was at the moment of a snapshot.
 *
 * The order: the agent and the object store are stopped, volumes and buckets are replaced, then the datastore is, and
 * only then both are started. With the agent stopped no pod of before can write to a volume of the snapshot, and no pod
 * of the snapshot can start on a volume of before; and the kubelet, which would keep a pod running that is in both
 * states, starts it anew on what was restored.
 */
import { SandbarError } from '../model/errors.ts';
import { LABELS } from '../model/names.ts';
import type { Ports, Runtime } from '../model/ports.ts';
import type { ClusterSpec } from '../model/spec.ts';
import { keyIdOf, misfitOf, RESTORING_LABEL, sizeOf, type Snapshot, type SnapshotGround } from '../model/snapshots.ts';
import { componentOf, withCluster, type ClusterAccess } from './access.ts';
import { KEPT_NOTHING, resetDatastore } from './datastore.ts';
import { readStoredForm } from './last-up.ts';
import { inPhase, together } from './phase.ts';
import {
  folderOf,
  formatMiB,
  listSnapshots,
  LIVE,
  measure,
  requireSpace,
  withWorker,
  workerContainer,
  workerLabels,
  type Worker,
} from './snapshot-worker.ts';
import { COPY, getSnapshot, listImages, locked, thaw, type SnapshotContext } from './snapshots.ts';
import { accessStopped, startOver } from './start-over.ts';

export type RestoreRequest = {
  /** What the cluster is made from again. */
  readonly spec: ClusterSpec;
  readonly name: string;
  readonly confirm: ((question: string) => Promise<boolean>) | undefined;
  readonly timeoutMs: number | undefined;
  /** What `up` does, for who holds the cluster's lock. */
  readonly converge: () => Promise<unknown>;
};

type RestoreResult = {
  readonly cluster: string;
  readonly snapshot: string;
  /** Names of images that the snapshot's node had and this one has not. */
  readonly missingImages: readonly string[];
  readonly ms: number;
};

/** Runs again after any interruption: the snapshot itself is only read. */
export async function restoreSnapshot(request: RestoreRequest, context: SnapshotContext): Promise<RestoreResult> {
  const { ports } = context;
  const { spec } = request;
  const startedAt = ports.clock.now();
  return locked(spec.name, context, async () => {
    const access = await thaw(await accessStopped(spec.name, ports), ports.runtime);
    const snapshot = await withWorker(access, ports, async (worker) => {
      const found = getSnapshot(request.name, await listSnapshots(worker));
      await requireRestorable(found, await groundOf(spec, access, ports.runtime), worker);
      await confirmLoss(found, request);
      await whileMarked(access, found, ports.runtime, () => replace(found, { access, worker, request, context }));
      return found;
    });
    await request.converge();
    const missingImages = await findMissingImages(snapshot, access, ports);
    if (missingImages.length > 0) {
      context.emit({
        type: 'warning',
        text: `images that were on the node are not there any more: ${missingImages.join(', ')}`,
        hint: `sandbar image load ${missingImages.join(' ')}`,
      });
    }
    return { cluster: spec.name, snapshot: snapshot.name, missingImages, ms: ports.clock.now() - startedAt };
  });
}

async function replace(
  snapshot: Snapshot,
  {
    access,
    worker,
    request,
    context,
  }: {
    readonly access: ClusterAccess;
    readonly worker: Worker;
    readonly request: RestoreRequest;
    readonly context: SnapshotContext;
  },
): Promise<void> {
  const { ports, signal } = context;
  const folder = folderOf(snapshot.name);
  await inPhase('volumes', 'replacing them', context, async () => {
    const stopped = ['agent', 'object-store'].flatMap((component) => componentOf(access.containers, component) ?? []);
    await Promise.all(stopped.map(({ id }) => ports.runtime.stopContainer(id, { timeoutS: 0 })));
    await together(signal, [
      (ending) => worker.run([...COPY, `${folder}/datastore.db`, `${LIVE.datastore}/restore.db`], { signal: ending }),
      async (ending) => {
        await worker.run(['rm', '-rf', LIVE.volumes], { signal: ending });
        await worker.run([...COPY, `${folder}/volumes`, LIVE.volumes], { signal: ending });
      },
      async (ending) => {
        // A store that was not there then, or is not there now, is left as it is.
        if (!worker.hasObjects || snapshot.sizeBytes.objects === null) return;
        await worker.run(['find', LIVE.objects, '-mindepth', '1', '-delete'], { signal: ending });
        await worker.run([...COPY, `${folder}/objects/.`, LIVE.objects], { signal: ending });
      },
    ]);
    return { result: undefined, text: `${formatMiB(sizeOf(snapshot))} copied` };
  });
  signal.throwIfAborted();
  await together(signal, [
    () => restoreDatastore(access, request, context),
    // What is told to be restored is on the disk.
    (ending) => worker.run(['sync', '-f', LIVE.datastore], { signal: ending }),
  ]);
  await worker.run(['rm', '-f', `${LIVE.datastore}/restore.db`]);
}

/** On the live control plane, so that watchers see it happen; one that cannot read its datastore starts over before. */
async function restoreDatastore(
  access: ClusterAccess,
  { timeoutMs }: RestoreRequest,
  context: SnapshotContext,
): Promise<void> {
  const { ports, signal } = context;
  await withCluster(access, ports, async (cluster) => {
    const isAnswering = (await cluster.get('/readyz', { timeoutMs: 2_000 })).status === 200;
    if (!isAnswering) await startOver(access, { ...context, timeoutMs });
    await inPhase('datastore', 'bringing it back', context, async () => {
      const wish = { from: 'snapshot', keep: KEPT_NOTHING } as const;
      const { deleted, restored } = await resetDatastore(cluster, wish, { signal });
      return { result: undefined, text: `${String(deleted)} keys deleted, ${String(restored)} put back` };
    });
  });
}

/** From here to the end the parts of the cluster may be of different moments, which a container tells that is never started. */
async function whileMarked(
  access: ClusterAccess,
  { name }: Snapshot,
  runtime: Runtime,
  work: () => Promise<void>,
): Promise<void> {
  const labels = { ...workerLabels(access.name, 'restoring'), [RESTORING_LABEL]: name };
  const id = await runtime.createContainer(workerContainer(access, [], 'restoring'), [], labels);
  await work();
  await runtime.removeContainer(id);
}

/** What a snapshot has to fit: the control plane that is there reads it first, whatever `up` makes of it then. */
export async function groundOf(
  { name, kubernetes, network }: ClusterSpec,
  { identity }: ClusterAccess,
  runtime: Runtime,
): Promise<SnapshotGround> {
  const form = await readStoredForm(runtime, { name, kubernetes });
  return { cluster: name, kubernetes: form.kubernetes, network, keyId: keyIdOf(identity) };
}

async function requireRestorable(snapshot: Snapshot, ground: SnapshotGround, worker: Worker): Promise<void> {
  const { name, sizeBytes } = snapshot;
  const misfit = misfitOf(snapshot, ground);
  if (misfit !== undefined) {
    throw new SandbarError('SNAPSHOT_INVALID', `snapshot ${name} does not fit this cluster: ${misfit.problem}`, {
      hint: misfit.fix,
    });
  }
  await Promise.all([requireWhole(snapshot, folderOf(name), worker), worker.run(['mkdir', '-p', LIVE.volumes])]);
  const live = [LIVE.volumes, ...(worker.hasObjects ? [LIVE.objects] : [])];
  const freed = (await measure(worker, live)).reduce((sum, bytes) => sum + bytes, 0);
  await requireSpace(worker, sizeBytes.datastore + Math.max(0, sizeOf(snapshot) - freed));
}

/** Throws where a part of a snapshot is missing. */
export async function requireWhole(snapshot: Snapshot, folder: string, worker: Worker): Promise<void> {
  const parts = ['datastore.db', 'volumes', ...(snapshot.sizeBytes.objects === null ? [] : ['objects'])];
  const printed = await worker.run(['find', folder, '-mindepth', '1', '-maxdepth', '1', '-printf', '%f\n']);
  const missing = parts.filter((part) => !printed.split('\n').includes(part));
  if (missing.length === 0) return;
  throw new SandbarError('SNAPSHOT_INVALID', `snapshot ${snapshot.name} lacks ${missing.join(', ')}`, {
    hint: `sandbar snapshot rm ${snapshot.name} removes what is left of it`,
  });
}

async function confirmLoss({ name, created }: Snapshot, { spec, confirm }: RestoreRequest): Promise<void> {
  const question = [
    `this puts snapshot ${name} of ${created} in place of what cluster "${spec.name}" holds now`,
    '  goes:  every object, the data of claims, every bucket',
    '  stays: images, snapshots, the folders of mounts',
  ].join('\n');
  if (confirm === undefined) throw new SandbarError('CONFIRMATION_NEEDED', question, { hint: 'add --yes to agree' });
  if (!(await confirm(question))) throw new SandbarError('INTERRUPTED', 'nothing was restored', { exitCode: 1 });
}

async function findMissingImages(
  snapshot: Snapshot,
  access: ClusterAccess,
  { runtime }: Ports,
): Promise<readonly string[]> {
  const containers = await runtime.listContainers({ key: LABELS.cluster, value: access.name });
  const present = await listImages({ name: access.name, containers }, runtime);
  return snapshot.images.map(({ name }) => name).filter((name) => !present.some((image) => image.name === name));
}
