/** A container that has every volume that snapshots are made of, for as long as something is done with them. */
import type { Readable, Writable } from 'node:stream';
import { SandbarError } from '../model/errors.ts';
import { containerName, LABELS, volumeName } from '../model/names.ts';
import type { Ports, Runtime } from '../model/ports.ts';
import { parseSnapshot, SNAPSHOTS_VOLUME, type Snapshot } from '../model/snapshots.ts';
import type { ContainerSpec } from '../model/resources.ts';
import { bareContainer, componentOf, type ClusterAccess } from './access.ts';

/** Where each volume lies in the worker. */
const PLACES = { claims: '/claims', 'object-store': '/objects', datastore: '/datastore' } as const;

/** Its paths of what a snapshot holds. */
export const LIVE = { volumes: '/claims/volumes', objects: '/objects', datastore: '/datastore' } as const;

const SNAPSHOTS = '/snapshots';

/** Beyond what is copied: folders, and a datastore that grows meanwhile. */
const RESERVE_BYTES = 64 * 2 ** 20;

export type Worker = {
  /** Whether the cluster has an object store with data. */
  readonly hasObjects: boolean;
  /** Runs a program and returns what it printed; an error with its words where it fails. */
  run(command: readonly string[], options?: RunOptions): Promise<string>;
  write(path: string, content: string): Promise<void>;
  /** Ends all programs that an interruption left running. */
  stopPrograms(): Promise<void>;
};

type RunOptions = {
  readonly stdin?: Readable;
  readonly output?: Writable;
  readonly signal?: AbortSignal;
  /** Whether what a program printed that failed in part will do. */
  readonly isEnough?: (stdout: string) => boolean;
};

/** Folder of a snapshot. */
export function folderOf(name: string): string {
  return `${SNAPSHOTS}/${name}`;
}

/** Folder of one that is being made or removed: whatever has such a name is nobody's any more when no command runs. */
export function partialFolderOf(name: string): string {
  return `${SNAPSHOTS}/.${name}.partial`;
}

/** Runs `work` with a worker, and removes it. One that is left over from a killed command goes first. */
export async function withWorker<T>(
  access: ClusterAccess,
  { runtime }: Ports,
  work: (worker: Worker) => Promise<T>,
): Promise<T> {
  const volumes = await runtime.listVolumes({ key: LABELS.cluster, value: access.name });
  const has = (volume: string): boolean => volumes.some(({ name }) => name === volumeName(access.name, volume));
  const labels = { [LABELS.cluster]: access.name, [LABELS.component]: 'agent', [LABELS.resource]: SNAPSHOTS_VOLUME };
  if (!has('snapshots')) await runtime.createVolume({ name: volumeName(access.name, 'snapshots'), labels });
  // The engine would make a volume that is missing, without the label by which it is found.
  const mounted = Object.entries(PLACES).filter(([volume]) => has(volume));
  const container = workerContainer(access, [...mounted, ['snapshots', SNAPSHOTS]]);
  const id = await runtime.createContainer(container, [], workerLabels(access.name, 'snapshots'));
  try {
    await runtime.startContainer(id);
    return await work(openWorker(runtime, id, { hasObjects: has('object-store') }));
  } finally {
    await runtime.removeContainer(id);
  }
}

/** Of a cluster that has none there is nothing to look for. */
export async function hasSnapshots(clusterName: string, runtime: Runtime): Promise<boolean> {
  const volumes = await runtime.listVolumes({ key: LABELS.cluster, value: clusterName });
  return volumes.some(({ name }) => name === volumeName(clusterName, 'snapshots'));
}

/** Every snapshot, the oldest first. What is half made or half removed is removed now. */
export async function listSnapshots(worker: Worker): Promise<readonly Snapshot[]> {
  await worker.run([
    'find',
    SNAPSHOTS,
    '-mindepth',
    '1',
    '-maxdepth',
    '1',
    '-name',
    '.*',
    '-exec',
    'rm',
    '-rf',
    '{}',
    '+',
  ]);
  const find = ['find', SNAPSHOTS, '-mindepth', '2', '-maxdepth', '2', '-name', 'snapshot.json'];
  const printed = await worker.run([...find, '-exec', 'cat', '{}', '+']);
  return printed
    .split('\n')
    .map(parseSnapshot)
    .filter((snapshot) => snapshot !== undefined)
    .toSorted((a, b) => (a.created < b.created ? -1 : 1));
}

/** Bytes that each of these paths takes on disk; about, where something is written to them meanwhile. */
export async function measure(worker: Worker, paths: readonly string[]): Promise<readonly number[]> {
  const parse = (stdout: string): readonly number[] => stdout.match(/^\d+(?=\t)/gm)?.map(Number) ?? [];
  // A file that vanishes while it counts is a failure to `du`, which prints the total all the same.
  const isEnough = (stdout: string): boolean => parse(stdout).length === paths.length;
  return parse(await worker.run(['du', '-s', '-B1', ...paths], { isEnough }));
}

/** Throws DISK_FULL where there is less room for snapshots and volumes. */
export async function requireSpace(worker: Worker, neededBytes: number): Promise<void> {
  const [, free = '0'] = (await worker.run(['df', '-B1', '--output=avail', SNAPSHOTS])).trim().split('\n');
  if (Number(free) >= neededBytes + RESERVE_BYTES) return;
  throw diskFull(
    `${formatMiB(neededBytes)} are needed where Docker keeps its data, ${formatMiB(Number(free))} are free`,
  );
}

/** Gives a folder that is whole its name, for good. */
export async function publish(worker: Worker, snapshot: Snapshot): Promise<void> {
  const partial = partialFolderOf(snapshot.name);
  await worker.write(`${partial}/snapshot.json`, `${JSON.stringify(snapshot)}\n`);
  await worker.run(['sync', '-f', SNAPSHOTS]);
  await worker.run(['mv', '-T', partial, folderOf(snapshot.name)]);
  await worker.run(['sync', '-f', SNAPSHOTS]);
}

export function formatMiB(bytes: number): string {
  return `${String(Math.ceil(bytes / 2 ** 20))} MiB`;
}

/** Labels of containers that are no part of the cluster, and serve it for a moment. */
export function workerLabels(clusterName: string, name: string): Readonly<Record<string, string>> {
  return { [LABELS.cluster]: clusterName, [LABELS.resource]: `container/${name}` };
}

export function workerContainer(
  { name: clusterName, containers }: ClusterAccess,
  volumes: readonly (readonly [string, string])[],
  name = 'snapshots',
): ContainerSpec {
  const agent = componentOf(containers, 'agent');
  if (agent === undefined) {
    throw new SandbarError('CLUSTER_NOT_RUNNING', `the agent of cluster "${clusterName}" is missing`, {
      hint: 'sandbar up makes it anew',
    });
  }
  const mounted = volumes.map(([volume, path]) => ({ volumeName: volumeName(clusterName, volume), path }));
  return {
    ...bareContainer({ name: containerName(clusterName, name), imageRef: agent.imageRef, volumes: mounted }),
    // What it takes to copy files with their owners, modes, capabilities and kinds.
    privileges: { level: 'none', capabilities: ['CHOWN', 'DAC_OVERRIDE', 'FOWNER', 'FSETID', 'MKNOD', 'SETFCAP'] },
    command: ['sleep', 'infinity'],
  };
}

function openWorker(runtime: Runtime, id: string, { hasObjects }: Pick<Worker, 'hasObjects'>): Worker {
  return {
    hasObjects,
    run: async (command, { isEnough, ...options } = {}) => {
      const { exitCode, stdout, stderr } = await runtime.exec(id, command, options);
      if (exitCode === 0 || (exitCode === 1 && isEnough?.(stdout) === true)) return stdout;
      if (/no space left|disk quota exceeded/i.test(stderr)) throw diskFull(stderr.trim());
      throw new SandbarError('COMMAND_FAILED', `${command.slice(0, 2).join(' ')} failed: ${stderr.trim().slice(-500)}`);
    },
    write: (path, content) => runtime.writeFile(id, { path, mode: 0o600, content }),
    stopPrograms: () => runtime.restartContainer(id, { timeoutS: 0 }),
  };
}

function diskFull(message: string): SandbarError {
  return new SandbarError('DISK_FULL', message, {
    hint: 'sandbar snapshot rm removes what is not needed, docker system prune what nothing uses',
  });
}
