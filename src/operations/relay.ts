/** The relay of file events, for hosts whose file sharing delivers none: it watches the sources and tells the node. */
import { PassThrough } from 'node:stream';
import { SandbarError } from '../model/errors.ts';
import type { MountRecord } from '../model/mounts.ts';
import { containerName } from '../model/names.ts';
import type { Clock, Host, Ports } from '../model/ports.ts';
import { createEchoFilter, formatTouch, type FileChange } from '../mounts/events.ts';
import { accessCluster, withCluster } from './access.ts';
import { listRecords } from './mount-records.ts';

/** Reports changes below a source until the signal is aborted or the source has gone. */
export type WatchFiles = (
  source: string,
  options: {
    readonly excluded: readonly string[];
    readonly signal: AbortSignal;
    readonly onChange: (change: FileChange) => void;
  },
) => Promise<void>;

/** Between two looks at which mounts there are. */
const PAUSE_MS = 2_000;

/** How long the cluster may be away, as while its parts or the engine restart, before the relay ends. */
const PATIENCE_MS = 60_000;

/** Whoever only looks whether a relay runs holds its lock for a moment. */
const LOCK_PATIENCE_MS = 1_000;

/** How long a relay that was started may take until it holds its lock. */
const START_MS = 5_000;

/** Relays file events until no mount of the cluster needs it any more. Returns at once where another relay runs. */
export async function relay(
  request: { readonly clusterName: string; readonly signal: AbortSignal },
  ports: Ports,
  watchFiles: WatchFiles,
): Promise<void> {
  const { clusterName, signal } = request;
  const givesUp = new AbortController();
  const onWait = (): void => {
    const giveUp = (): void => givesUp.abort();
    ports.clock.sleep(LOCK_PATIENCE_MS, givesUp.signal).then(giveUp, giveUp);
  };
  try {
    await ports.host.withLock(
      lockName(clusterName),
      { onWait, signal: AbortSignal.any([signal, givesUp.signal]) },
      () => serve(request, ports, watchFiles),
    );
  } catch (error) {
    if (!givesUp.signal.aborted || signal.aborted) throw error;
  } finally {
    givesUp.abort();
  }
}

/** True while some process relays the cluster's file events. */
export async function isRelayRunning(host: Host, clusterName: string): Promise<boolean> {
  const stop = new AbortController();
  let isHeld = false;
  return new Promise((resolve, reject) => {
    const onWait = (): void => {
      isHeld = true;
      resolve(true);
      stop.abort();
    };
    host
      .withLock(lockName(clusterName), { onWait, signal: stop.signal }, () => Promise.resolve())
      .then(
        () => resolve(isHeld),
        (error: unknown) => {
          if (!isHeld) reject(error instanceof Error ? error : new Error(String(error)));
        },
      );
  });
}

/** Starts a relay where none runs; false where it does not come up. */
export async function ensureRelay(
  clusterName: string,
  { host, clock }: { readonly host: Host; readonly clock: Clock },
  startRelay: (clusterName: string) => Promise<void>,
): Promise<boolean> {
  if (await isRelayRunning(host, clusterName)) return true;
  await startRelay(clusterName);
  const deadline = clock.now() + START_MS;
  while (clock.now() < deadline) {
    await clock.sleep(100);
    if (await isRelayRunning(host, clusterName)) return true;
  }
  return false;
}

async function serve(
  request: { readonly clusterName: string; readonly signal: AbortSignal },
  ports: Ports,
  watchFiles: WatchFiles,
): Promise<void> {
  const { clock } = ports;
  let lastAnswerMs = clock.now();
  for (;;) {
    try {
      await runSession(request, ports, { watchFiles, onAnswer: () => (lastAnswerMs = clock.now()) });
      return;
    } catch (error) {
      request.signal.throwIfAborted();
      if (!(error instanceof SandbarError) || clock.now() - lastAnswerMs > PATIENCE_MS) throw error;
    }
    await clock.sleep(PAUSE_MS, request.signal);
  }
}

/** As long as the agent's container runs; returns when no mount needs the relay. */
async function runSession(
  { clusterName, signal }: { readonly clusterName: string; readonly signal: AbortSignal },
  ports: Ports,
  { watchFiles, onAnswer }: { readonly watchFiles: WatchFiles; readonly onAnswer: () => void },
): Promise<void> {
  const access = await accessCluster(ports.runtime, clusterName);
  const ended = new AbortController();
  const stop = AbortSignal.any([signal, ended.signal]);
  const touches = new PassThrough();
  const touching = ports.runtime
    .exec(containerName(clusterName, 'agent'), ['sandbar-agent', 'mounts', 'touch'], { stdin: touches, signal })
    .finally(() => ended.abort());
  const watches = watchSources(watchFiles, touches, stop);
  try {
    await withCluster(access, ports, async (cluster) => {
      let idleLooks = 0;
      while (!stop.aborted) {
        const records = (await listRecords(cluster)).filter(({ events }) => events === 'relayed');
        onAnswer();
        watches.watch(records);
        idleLooks = records.length === 0 ? idleLooks + 1 : 0;
        // Twice: a mount may just be waiting for its relay.
        if (idleLooks === 2) return;
        await ports.clock.sleep(PAUSE_MS, stop).catch(() => signal.throwIfAborted());
      }
    });
    if (ended.signal.aborted) throw new SandbarError('CLUSTER_NOT_RUNNING', 'the agent takes no file events any more');
  } finally {
    watches.close();
    touches.end();
    // Its failure is the session's end, which was noticed.
    await touching.catch(() => undefined);
  }
}

/** Keeps one watch for each record; changes that are news go to the node. */
function watchSources(
  watchFiles: WatchFiles,
  touches: PassThrough,
  signal: AbortSignal,
): { readonly watch: (records: readonly MountRecord[]) => void; readonly close: () => void } {
  const isNews = createEchoFilter();
  const stops = new Map<string, AbortController>();
  const start = (record: MountRecord, key: string): void => {
    const { id, source, excluded } = record;
    const stop = new AbortController();
    stops.set(key, stop);
    const onChange = (change: FileChange): void => {
      if (isNews(id, change) && !touches.writableEnded) touches.write(formatTouch(id, change));
    };
    watchFiles(source, { excluded, signal: AbortSignal.any([signal, stop.signal]), onChange })
      // A source that has gone, or could not be watched, is tried again at the next look.
      .catch(() => undefined)
      .finally(() => stops.delete(key));
  };
  const stopAllBut = (keys: ReadonlySet<string>): void => {
    for (const [key, stop] of stops) if (!keys.has(key)) stop.abort();
  };
  return {
    watch: (records) => {
      const wanted = new Map(records.map((record) => [keyOf(record), record]));
      stopAllBut(new Set(wanted.keys()));
      for (const [key, record] of wanted) if (!stops.has(key)) start(record, key);
    },
    close: () => stopAllBut(new Set()),
  };
}

function keyOf({ id, source, excluded }: MountRecord): string {
  return JSON.stringify([id, source, excluded]);
}

function lockName(clusterName: string): string {
  return `relay-${clusterName}`;
}
