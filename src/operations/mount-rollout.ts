/** Renews a workload's pods once, where its mounts ask for it, and waits for the new ones. */
import { SandbarError } from '../model/errors.ts';
import type { Emit } from '../model/events.ts';
import { formatWorkload } from '../model/mounts.ts';
import type { Cluster, Ports } from '../model/ports.ts';
import { listPods, rollWorkload } from './mount-pods.ts';
import { explainPods, planRollout, type Rollout, type Workload } from './mount-workloads.ts';

/** New pods may have to pull an image. */
const PODS_MS = 120_000;

export type RolloutRequest = {
  readonly cluster: Cluster;
  readonly ports: Ports;
  readonly emit: Emit;
  readonly timeoutMs: number | undefined;
  readonly signal: AbortSignal;
  /** Whether pods run that are not as they should be. */
  readonly isNeeded: () => Promise<boolean>;
};

/** New pods are as they should be from now on: those that are not are replaced by such. */
export async function rollOut(workload: Workload, request: RolloutRequest): Promise<Rollout> {
  const { cluster, isNeeded } = request;
  if (!(await isNeeded())) return { kind: 'none' };
  const planned = planRollout(workload, await listPods(cluster, workload.ref));
  if (planned !== 'roll') return planned;
  await renewPods(workload, request);
  return { kind: 'rolled', pods: (await listPods(cluster, workload.ref)).length };
}

async function renewPods({ ref }: Workload, request: RolloutRequest): Promise<void> {
  const { cluster, emit, ports, signal, timeoutMs = PODS_MS } = request;
  const phase = formatWorkload({ ...ref, container: undefined });
  const startedMs = ports.clock.now();
  emit({ type: 'phase-started', phase, text: 'waiting for its new pods' });
  try {
    await rollWorkload(cluster, ref, { clock: ports.clock, signal, timeoutMs });
    emit({ type: 'phase-finished', phase, text: 'its pods are new', ms: ports.clock.now() - startedMs });
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    emit({ type: 'phase-failed', phase, message, ms: ports.clock.now() - startedMs });
    if (!(error instanceof SandbarError) || error.code !== 'TIMED_OUT') throw error;
    throw new SandbarError('TIMED_OUT', error.message, {
      details: await explainPods(cluster, await listPods(cluster, ref)),
      hint: `${error.hint ?? 'sandbar kubectl describe pods shows more'}; --timeout waits longer`,
      cause: error,
    });
  }
}
