/** What the control plane does to its datastore on request. Its answers come line by line while it works. */
import { SandbarError } from '../model/errors.ts';
import type { Cluster } from '../model/ports.ts';

/** What a reset of the datastore leaves as it is. */
export type KeptKeys = {
  /** Keys of the datastore, such as `/registry/configmaps/default/one`. */
  readonly keys: readonly string[];
  readonly namespaces: readonly string[];
  /** Claims, volumes, and the namespaces that they are in. */
  readonly hasVolumes: boolean;
};

type ResetLine =
  | { readonly phase: 'held' }
  | { readonly phase: 'back' }
  | { readonly phase: 'done'; readonly deleted: number; readonly restored: number }
  | { readonly phase: 'failed'; readonly message: string };

type RepairLine =
  | { readonly phase: 'done'; readonly repaired: readonly string[] }
  | { readonly phase: 'failed'; readonly message: string };

/** How long a large datastore may take to be written to a slow disk. */
const WRITE_OUT_MS = 120_000;

export const KEPT_NOTHING: KeptKeys = { keys: [], namespaces: [], hasVolumes: false };

/**
 * Brings the datastore back to the golden copy, or to what lies in `restore.db`. Every other write is refused from
 * `onHeld` on; `onBack` comes when it is back, just before writes are let in again; an older control plane does not tell
 * it. Once begun it goes on to its end, whoever listens.
 */
export async function resetDatastore(
  cluster: Cluster,
  request: { readonly from: 'golden' | 'snapshot'; readonly keep: KeptKeys },
  {
    onHeld,
    onBack,
    signal,
  }: { readonly onHeld?: () => void; readonly onBack?: () => void; readonly signal: AbortSignal },
): Promise<{ readonly deleted: number; readonly restored: number }> {
  let last: ResetLine | undefined;
  const { status } = await cluster.post('/sandbar/reset', request, {
    onLine: (line) => {
      last = parseLine(line);
      if (last?.phase === 'held') onHeld?.();
      if (last?.phase === 'back') onBack?.();
    },
    signal,
  });
  if (last?.phase === 'done') return last;
  throw refusal(status, last?.phase === 'failed' ? last.message : undefined);
}

/**
 * Runs `work` while every write waits and the datastore lies written out at `snapshotPath`, in the control plane's
 * container. Writes go on when it ends, however it does; its signal tells it that they went on before.
 */
export async function whileHeld<T>(
  cluster: Cluster,
  snapshotPath: string,
  { work, signal }: { readonly work: (signal: AbortSignal) => Promise<T>; readonly signal: AbortSignal },
): Promise<T> {
  const release = new AbortController();
  const lost = new AbortController();
  let failed: string | undefined;
  let hold = (): void => undefined;
  const held = new Promise<void>((resolve) => (hold = resolve));
  const ended = cluster
    .post(
      '/sandbar/hold',
      { snapshotPath },
      {
        onLine: (line) => {
          const answer = parseLine(line);
          if (answer?.phase === 'held') hold();
          if (answer?.phase === 'failed') failed = answer.message;
        },
        signal: AbortSignal.any([signal, release.signal]),
        firstLineMs: WRITE_OUT_MS,
      },
    )
    .then(
      ({ status }) => refusal(status, failed),
      (error: unknown) => error,
    )
    .then((why) => {
      lost.abort(why);
    });
  try {
    await Promise.race([held, ended]);
    lost.signal.throwIfAborted();
    const result = await work(lost.signal);
    lost.signal.throwIfAborted();
    return result;
  } finally {
    release.abort();
    await ended;
  }
}

/** Makes again what every cluster has and a user deleted; returns its names. */
export async function repairDatastore(cluster: Cluster, signal: AbortSignal): Promise<readonly string[]> {
  let last: RepairLine | undefined;
  const onLine = (line: string): void => {
    last = parseLine(line) as RepairLine | undefined;
  };
  const { status } = await cluster.post('/sandbar/repair', {}, { onLine, signal });
  if (last?.phase === 'done') return last.repaired;
  throw refusal(status, last?.message);
}

function refusal(status: number, message: string | undefined): SandbarError {
  if (status === 404) {
    return new SandbarError('CONFLICT', 'the control plane that runs is of an older Sandbar, which has no reset', {
      hint: 'sandbar up brings it up to date',
    });
  }
  if (status === 409) {
    return new SandbarError('GOLDEN_COPY_MISSING', message ?? 'the cluster has no copy of its first state', {
      hint: 'sandbar reset --hard makes the datastore anew',
    });
  }
  return new SandbarError(
    'KUBERNETES_FAILED',
    `the control plane could not do it: ${message ?? `it answered ${String(status)}`}`,
    { hint: 'sandbar logs control-plane shows more; run the same command again' },
  );
}

function parseLine(line: string): ResetLine | undefined {
  try {
    return JSON.parse(line) as ResetLine;
  } catch {
    // Not the control plane's own words: the status tells.
    return undefined;
  }
}
