/** Namespaces that are being deleted: what is put into one goes with it. */
import { SandbarError } from '../model/errors.ts';
import type { Clock, Cluster } from '../model/ports.ts';

const PAUSE_MS = 100;
/** A namespace takes 5 s at least, and as long as its pods need to end. */
const ENDING_MS = 60_000;

/** Returns when none of these namespaces is on its way out. */
export async function untilEnded(
  cluster: Cluster,
  names: ReadonlySet<string>,
  { clock, signal }: { readonly clock: Clock; readonly signal: AbortSignal },
): Promise<void> {
  const deadline = clock.now() + ENDING_MS;
  for (;;) {
    const namespaces = await cluster.list({ apiVersion: 'v1', kind: 'Namespace' }, {});
    const ending = namespaces.find(
      ({ metadata }) => names.has(metadata.name) && metadata.deletionTimestamp !== undefined,
    );
    if (ending === undefined) return;
    if (clock.now() >= deadline) {
      throw new SandbarError(
        'CONFLICT',
        `namespace ${ending.metadata.name} is being deleted, and does not come to its end`,
        {
          hint: 'sandbar doctor says what keeps it, sandbar reset takes it away',
        },
      );
    }
    await clock.sleep(PAUSE_MS, signal);
  }
}
