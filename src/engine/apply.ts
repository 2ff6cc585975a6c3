/** Runs a plan's steps as parallel as their dependencies allow. Carries no decisions: those are in the plan. */
import type { Emit } from '../model/events.ts';
import type { Step } from '../model/resources.ts';
import type { Clock } from '../model/ports.ts';

export type StepFailure = { readonly step: Step; readonly error: unknown };

export type ApplyOptions<S extends Step> = {
  /** Calls `report` with what it does or waits for, where that changes. */
  readonly runStep: (step: S, report: (text: string) => void) => Promise<void>;
  readonly emit: Emit;
  readonly clock: Clock;
  readonly concurrency: number;
  readonly signal: AbortSignal;
};

/**
 * Applies steps in dependency order. A step whose dependency failed is skipped; the others go on, so that one run shows
 * every failure. After an abort nothing new starts. Returns the failures, in the order in which they happened.
 */
export async function apply<S extends Step>(
  plan: readonly S[],
  options: ApplyOptions<S>,
): Promise<readonly StepFailure[]> {
  const failures: StepFailure[] = [];
  const outcomes = new Map<string, Promise<boolean>>();
  const acquire = limit(options.concurrency);
  for (const step of plan) {
    const needed = step.dependsOn.map((id) => {
      const outcome = outcomes.get(id);
      if (outcome === undefined) throw new Error(`step "${step.id}" stands before "${id}", which it needs`);
      return { id, outcome };
    });
    outcomes.set(step.id, run(step, needed));
  }
  await Promise.all(outcomes.values());
  return failures;

  async function run(step: S, needed: readonly { id: string; outcome: Promise<boolean> }[]): Promise<boolean> {
    for (const { id, outcome } of needed) {
      if (!(await outcome)) {
        options.emit({ type: 'step-skipped', stepId: step.id, owner: step.owner, blockedBy: id });
        return false;
      }
    }
    // A wait takes no place among those that work: it would hold up what it waits for.
    const release = step.verb === 'wait' ? () => undefined : await acquire();
    const startedAt = options.clock.now();
    const { id: stepId, owner } = step;
    try {
      options.signal.throwIfAborted();
      options.emit({ type: 'step-started', stepId, owner, text: step.id });
      await options.runStep(step, (text) => {
        options.emit({ type: 'step-progress', stepId, owner, text });
      });
      options.emit({ type: 'step-finished', stepId, owner, text: step.id, ms: options.clock.now() - startedAt });
      return true;
    } catch (error) {
      failures.push({ step, error });
      const message = error instanceof Error ? error.message : String(error);
      options.emit({ type: 'step-failed', stepId, owner, message, ms: options.clock.now() - startedAt });
      return false;
    } finally {
      release();
    }
  }
}

/** At most `places` holders at a time; the returned function gives the place back. */
function limit(places: number): () => Promise<() => void> {
  let free = places;
  const waiting: (() => void)[] = [];
  const release = (): void => {
    const next = waiting.shift();
    if (next === undefined) free += 1;
    else next();
  };
  return async () => {
    if (free > 0) free -= 1;
    else await new Promise<void>((resolve) => waiting.push(resolve));
    return release;
  };
}
