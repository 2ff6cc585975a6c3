/** `snapshot export|import`: a snapshot as one file, a compressed tar. */
import { pipeline, Readable, Writable } from 'node:stream';
import { promisify } from 'node:util';
import { constants, createGunzip, createGzip } from 'node:zlib';
import { SandbarError } from '../model/errors.ts';
import type { ClusterSpec } from '../model/spec.ts';
import {
  memberProblem,
  misfitOf,
  parseSnapshot,
  sizeOf,
  type Snapshot,
  type SnapshotGround,
} from '../model/snapshots.ts';
import { readMember, readTar, TAR_END, tarPadding } from '../model/tar.ts';
import { accessStopped } from './start-over.ts';
import { inPhase } from './phase.ts';
import {
  folderOf,
  formatMiB,
  listSnapshots,
  partialFolderOf,
  publish,
  requireSpace,
  withWorker,
} from './snapshot-worker.ts';
import { groundOf, requireWhole } from './snapshot-restore.ts';
import { cleanAfterFailure, getSnapshot, locked, requireFree, requireName, type SnapshotContext } from './snapshots.ts';

/** Name of the folder of an import, whose own name is not known yet; none that a snapshot can have. */
const IMPORT = '_import';

const pipe = promisify(pipeline);

/** Where an export goes: a file that must not be there unless `isForced`, or a stream. */
export type ExportTarget =
  | { readonly kind: 'file'; readonly path: string; readonly isForced: boolean }
  | { readonly kind: 'stream'; readonly stream: NodeJS.WritableStream };

/** Writes a snapshot out as one file, for another machine or for good. */
export async function exportSnapshot(
  { clusterName, name, target }: { readonly clusterName: string; readonly name: string; readonly target: ExportTarget },
  context: SnapshotContext,
): Promise<void> {
  const { ports, signal } = context;
  if (target.kind === 'file' && !target.isForced && (await ports.host.hasFile(target.path))) {
    throw new SandbarError('CONFLICT', `${target.path} is there already`, { hint: 'add --force to replace it' });
  }
  await locked(clusterName, context, async () => {
    await withWorker(await accessStopped(clusterName, ports), ports, async (worker) => {
      const snapshot = getSnapshot(name, await listSnapshots(worker));
      await inPhase('export', 'writing it out', context, async () => {
        // What is inside is mostly databases and images: more effort costs minutes and gains little.
        const zip = createGzip({ level: constants.Z_BEST_SPEED });
        // Both ends tell of it; without a listener it would end the process before one of them listens.
        zip.on('error', () => undefined);
        const parts = ['snapshot.json', 'datastore.db', 'volumes'];
        const all = snapshot.sizeBytes.objects === null ? parts : [...parts, 'objects'];
        const format = ['--format=posix', '--xattrs', '--numeric-owner'];
        const reading = worker
          .run(['tar', '-c', ...format, '-C', folderOf(name), ...all], { output: zip, signal })
          .then(
            () => zip.end(),
            (error: unknown) => {
              // That the other end has failed, it tells itself.
              if (zip.destroyed) return;
              // It must not take this for the whole.
              zip.destroy(error as Error);
              throw error;
            },
          );
        const writing =
          target.kind === 'file' ? ports.host.writeStream(target.path, zip) : pipe(zip, keptOpen(target.stream));
        const [read, written] = await Promise.allSettled([reading, writing]);
        if (read.status === 'rejected') throw read.reason;
        if (written.status === 'rejected') throw written.reason;
        return { result: undefined, text: `${formatMiB(sizeOf(snapshot))} read` };
      });
    });
  });
}

/** Takes a snapshot over from a file. Nothing of it is kept unless it is whole, and fits this cluster. */
export async function importSnapshot(
  { spec, path, name }: { readonly spec: ClusterSpec; readonly path: string; readonly name: string | undefined },
  context: SnapshotContext,
): Promise<Snapshot> {
  const { ports, signal } = context;
  if (name !== undefined) requireName(name);
  const file = await ports.host.openStream(path);
  if (file === undefined) throw new SandbarError('NOT_FOUND', `there is no file ${path}`);
  try {
    return await locked(spec.name, context, async () => {
      const access = await accessStopped(spec.name, ports);
      const ground = await groundOf(spec, access, ports.runtime);
      return withWorker(access, ports, async (worker) => {
        const present = await listSnapshots(worker);
        const partial = partialFolderOf(IMPORT);
        return inPhase('import', 'reading it', context, async () => {
          const result = await cleanAfterFailure(IMPORT, worker, async () => {
            await worker.run(['mkdir', partial]);
            const archive = checkMembers(unzip(file), path, async (found) => {
              requireFit(found, ground, path);
              requireFree(name ?? found.name, present);
              await requireSpace(worker, sizeOf(found));
            });
            const unpack = ['tar', '-x', '--numeric-owner', '--xattrs', '--xattrs-include=*', '-C', partial];
            await worker.run(unpack, { stdin: Readable.from(archive.members, { objectMode: false }), signal });
            const found = archive.snapshot() ?? fail(path, 'it has no snapshot.json');
            await requireWhole(found, partial, worker);
            const snapshot = { ...found, name: name ?? found.name };
            await worker.run(['mv', '-T', partial, partialFolderOf(snapshot.name)]);
            await publish(worker, snapshot);
            return snapshot;
          });
          return { result, text: `${formatMiB(sizeOf(result))} kept as ${result.name}` };
        });
      });
    });
  } finally {
    file.destroy();
  }
}

/** Passes an archive on, and stops at the first member that may not be in one. What snapshot it is comes first. */
function checkMembers(
  source: AsyncIterable<Uint8Array>,
  path: string,
  onSnapshot: (snapshot: Snapshot) => Promise<void>,
): { readonly members: AsyncGenerator<Uint8Array>; readonly snapshot: () => Snapshot | undefined } {
  let snapshot: Snapshot | undefined;
  async function* members(): AsyncGenerator<Uint8Array> {
    for await (const member of readTar(source)) {
      const leads = member.kind === 'hardlink' ? memberProblem(member.linkPath) : undefined;
      const problem = memberProblem(member.path) ?? leads;
      if (problem !== undefined) fail(path, problem);
      yield* member.headers;
      if (snapshot === undefined) {
        const content = member.path === 'snapshot.json' ? await readMember(member) : Buffer.alloc(0);
        snapshot = parseSnapshot(content.toString('utf8'));
        if (snapshot === undefined) fail(path, 'it does not begin with a snapshot.json of this version');
        await onSnapshot(snapshot);
        yield content;
      } else {
        yield* member.content;
      }
      yield tarPadding(member.size);
    }
    yield TAR_END;
  }
  return { members: explained(members(), path), snapshot: () => snapshot };
}

/** What is no archive at all, or ends too early, is the file's own failure. */
async function* explained(members: AsyncGenerator<Uint8Array>, path: string): AsyncGenerator<Uint8Array> {
  try {
    yield* members;
  } catch (error) {
    if (error instanceof SandbarError) throw error;
    fail(path, error instanceof Error ? error.message : String(error));
  }
}

function unzip(file: Readable): Readable {
  // Whoever reads the result sees the failure there.
  return pipeline(file, createGunzip(), () => undefined);
}

function requireFit(snapshot: Snapshot, ground: SnapshotGround, path: string): void {
  const misfit = misfitOf(snapshot, ground);
  if (misfit === undefined) return;
  throw new SandbarError('SNAPSHOT_INVALID', `the snapshot in ${path} does not fit this cluster: ${misfit.problem}`, {
    hint: misfit.fix,
  });
}

function fail(path: string, reason: string): never {
  throw new SandbarError('SNAPSHOT_INVALID', `${path} cannot be imported: ${reason}`, {
    hint: 'export it again: sandbar snapshot export NAME FILE',
  });
}

/** A stream that is not ours to end, as standard output is. */
function keptOpen(stream: NodeJS.WritableStream): Writable {
  return new Writable({ write: (chunk: Buffer, _encoding, done) => void stream.write(chunk, done) });
}
