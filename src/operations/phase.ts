/** Work outside of any plan, told as a phase. */
import type { Emit } from '../model/events.ts';
import type { Clock } from '../model/ports.ts';

/** Runs `work`; its text says at the end what came of it. */
export async function inPhase<T>(
  phase: string,
  text: string,
  { emit, ports: { clock } }: { readonly emit: Emit; readonly ports: { readonly clock: Clock } },
  work: () => Promise<{ readonly result: T; readonly text: string }>,
): Promise<T> {
  const startedAt = clock.now();
  emit({ type: 'phase-started', phase, text });
  try {
    const { result, text: outcome } = await work();
    emit({ type: 'phase-finished', phase, text: outcome, ms: clock.now() - startedAt });
    return result;
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    emit({ type: 'phase-failed', phase, message, ms: clock.now() - startedAt });
    throw error;
  }
}

/** Works that run at the same time. When one fails, the signal tells the others; all have ended before it is thrown. */
export async function together<Results extends readonly unknown[]>(
  signal: AbortSignal,
  works: { readonly [Index in keyof Results]: (signal: AbortSignal) => Promise<Results[Index]> },
): Promise<Results> {
  const failed = new AbortController();
  const either = AbortSignal.any([signal, failed.signal]);
  const settled = await Promise.allSettled(
    works.map(async (work: (signal: AbortSignal) => Promise<unknown>) => {
      try {
        return await work(either);
      } catch (error) {
        failed.abort(error);
        throw error;
      }
    }),
  );
  if (either.aborted) throw either.reason;
  return settled.map((outcome) => (outcome as PromiseFulfilledResult<unknown>).value) as unknown as Results;
}

/** A point in time that works wait for which run beside the one that reaches it. */
export function milestone(): {
  readonly pass: () => void;
  readonly passed: Promise<void>;
  /** Runs `work` once it is passed; fails with the signal where that comes first. */
  readonly after: <T>(signal: AbortSignal, work: () => Promise<T>) => Promise<T>;
} {
  let pass = (): void => undefined;
  const passed = new Promise<void>((resolve) => (pass = resolve));
  return {
    pass: () => {
      pass();
    },
    passed,
    after: async (signal, work) => {
      signal.throwIfAborted();
      let stop = (): void => undefined;
      const stopped = new Promise<void>((resolve) => (stop = resolve));
      signal.addEventListener('abort', stop);
      await Promise.race([passed, stopped]);
      signal.removeEventListener('abort', stop);
      signal.throwIfAborted();
      return work();
    },
  };
}
