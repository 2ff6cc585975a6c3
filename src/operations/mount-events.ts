/** Proves that changes of a source raise file events in the node, and finds another way where they do not. */
import { join } from 'node:path';
import { SandbarError } from '../model/errors.ts';
import { recordObject, type FileEvents, type MountRecord } from '../model/mounts.ts';
import { containerName, LABELS } from '../model/names.ts';
import type { ApiAccess, Cluster, Ports } from '../model/ports.ts';
import { hasSeenProbe, isProbe, isWatching, probeNameOf, watchCommand } from '../mounts/events.ts';
import { listPlaced } from './mount-agent.ts';
import { listRecords } from './mount-records.ts';
import { ensureRelay } from './relay.ts';

/** Natively, an event takes milliseconds; what a file sharing delivers at all takes less than this. */
const NATIVE_TIMEOUT_S = 3;

/** A relay first notices that there is a mount for it. */
const RELAY_TIMEOUT_S = 6;

export type EventDependencies = {
  readonly ports: Ports;
  readonly cluster: Cluster;
  readonly clusterName: string;
  /** Starts a relay of its own process. */
  readonly startRelay: (clusterName: string) => Promise<void>;
  readonly signal: AbortSignal;
};

/**
 * How file events reach this mount, which is attached. Undefined where it cannot be proven, because the caller may
 * not write into the source. Leaves a record that says so in the cluster.
 */
export async function settleEvents(record: MountRecord, dependencies: EventDependencies): Promise<MountRecord> {
  const { ports, cluster, clusterName, startRelay } = dependencies;
  // What was proven of a source stays true of it; a relay may have ended.
  if (record.events === 'relayed') await ensureRelay(clusterName, ports, startRelay);
  if (record.events !== undefined) return record;
  const put = async (events: FileEvents): Promise<MountRecord> => {
    // Of the record as it is by now, and not at all where it has been removed meanwhile.
    await cluster.patch(recordObject(record), { data: { events } }).catch(ignoreMissing);
    return { ...record, events };
  };
  const isNative = await proveEvents(record, dependencies, NATIVE_TIMEOUT_S);
  if (isNative === undefined) return record;
  if (isNative) return put('native');
  // The relay looks for records that name it.
  const relayed = await put('relayed');
  const isRelaying =
    (await ensureRelay(clusterName, ports, startRelay)) &&
    (await proveEvents(record, dependencies, RELAY_TIMEOUT_S)) === true;
  return isRelaying ? relayed : put('polling');
}

/** The same for all mounts of a cluster of which it is not known yet, and a relay where one is needed. */
export async function settleAllEvents(
  clusterName: string,
  api: ApiAccess,
  dependencies: Pick<EventDependencies, 'ports' | 'startRelay' | 'signal'>,
): Promise<void> {
  const { ports, signal } = dependencies;
  const containers = await ports.runtime.listContainers({ key: LABELS.cluster, value: clusterName });
  if (!containers.some(({ labels }) => labels[LABELS.component] === 'mounts')) return;
  const cluster = ports.connectCluster(api);
  try {
    const unsettled = (await listRecords(cluster)).filter(({ events }) => events === undefined || events === 'relayed');
    if (unsettled.length === 0) return;
    const placed = await listPlaced(ports.runtime, clusterName);
    const attached = new Set(placed.filter(({ state }) => state === 'attached').map(({ id }) => id));
    for (const record of unsettled) {
      signal.throwIfAborted();
      if (attached.has(record.id)) await settleEvents(record, { ...dependencies, cluster, clusterName });
    }
  } finally {
    cluster.close();
  }
}

function ignoreMissing(error: unknown): void {
  if (!(error instanceof SandbarError && error.code === 'NOT_FOUND')) throw error;
}

/** Between two changes of the source: a relay may begin to watch only after the first. */
const PROBE_PAUSE_MS = 250;

/** Changes the source and watches the node meanwhile. */
async function proveEvents(
  record: MountRecord,
  { ports: { runtime, host, clock }, clusterName, signal }: EventDependencies,
  timeoutS: number,
): Promise<boolean | undefined> {
  const { id, source, sourceType } = record;
  const name = probeNameOf([host.processId, clock.now(), id]);
  const probe = join(source, name);
  const stop = new AbortController();
  const change = async (): Promise<void> => {
    while (!stop.signal.aborted) {
      if (sourceType === 'File') await host.touchFile(source);
      else {
        await host.removeFile(probe);
        await host.createFile(probe, '', 0o600);
      }
      await clock.sleep(PROBE_PAUSE_MS, stop.signal).catch(() => undefined);
    }
  };
  let output = '';
  let changing: Promise<void> | undefined;
  let failure: Error | undefined;
  const onOutput = (text: string): void => {
    output += text;
    if (changing !== undefined || !isWatching(output)) return;
    changing = change().catch((error: unknown) => {
      failure = error as Error;
      stop.abort(failure);
    });
  };
  if (sourceType === 'Directory') await removeProbes(source, host);
  try {
    const command = watchCommand(id, name, { timeoutS });
    const { exitCode, stderr } = await runtime.exec(containerName(clusterName, 'agent'), command, {
      signal: AbortSignal.any([signal, stop.signal]),
      onOutput,
    });
    const hasSeen = hasSeenProbe(exitCode);
    if (hasSeen !== undefined) return hasSeen;
    throw new SandbarError('COMMAND_FAILED', `file events of ${source} could not be watched: ${stderr.trim()}`, {
      hint: 'the same command tries again; sandbar logs agent shows more',
    });
  } catch (error) {
    if (failure === undefined) throw error;
    // A folder that the caller cannot write proves nothing, and is mounted all the same.
    if (failure instanceof SandbarError && failure.code === 'FILE_DENIED') return undefined;
    throw failure;
  } finally {
    stop.abort();
    await changing;
    if (sourceType === 'Directory') await removeProbe(probe, host);
  }
}

/** What an interrupted proof left. */
async function removeProbes(source: string, host: Ports['host']): Promise<void> {
  const entries = (await host.listDirectory(source)) ?? [];
  for (const { name } of entries) if (isProbe(name)) await removeProbe(join(source, name), host);
}

async function removeProbe(probe: string, host: Ports['host']): Promise<void> {
  try {
    await host.removeFile(probe);
  } catch (error) {
    // Where the folder cannot be written, there is none.
    if (!(error instanceof SandbarError && error.code === 'FILE_DENIED')) throw error;
  }
}
