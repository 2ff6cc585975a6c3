import { describe, expect, it } from 'vitest';
import { apply } from '../../src/engine/apply.ts';
import type { SandbarEvent } from '../../src/model/events.ts';
import type { Plan, Step } from '../../src/model/resources.ts';

const step = (id: string, ...dependsOn: string[]): Step => ({
  id,
  verb: 'remove',
  owner: 'network',
  cause: 'test',
  dependsOn,
  losesData: false,
  observed: { id, kind: 'volume', owner: 'network', ref: id, fingerprint: {} },
});

/** Runs a plan whose steps last until they are released; records what happened in order. */
function runner(plan: Plan, options: { concurrency?: number; failing?: readonly string[] } = {}) {
  const log: string[] = [];
  const events: SandbarEvent[] = [];
  const abort = new AbortController();
  const releases = new Map<string, () => void>();
  const result = apply(plan, {
    runStep: async ({ id }) => {
      log.push(`start ${id}`);
      await new Promise<void>((resolve) => releases.set(id, resolve));
      if (options.failing?.includes(id) === true) throw new Error(`${id} broke`);
      log.push(`end ${id}`);
    },
    emit: (event) => events.push(event),
    clock: { now: () => 0, sleep: () => Promise.resolve() },
    concurrency: options.concurrency ?? 4,
    signal: abort.signal,
  });
  const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
  return { log, events, abort, result, settle, release: (id: string) => releases.get(id)?.() };
}

describe('apply', () => {
  it('starts a step only after those it depends on', async () => {
    const run = runner([step('a'), step('b', 'a')]);
    await run.settle();
    expect(run.log).toEqual(['start a']);
    run.release('a');
    await run.settle();
    run.release('b');
    expect(await run.result).toEqual([]);
    expect(run.log).toEqual(['start a', 'end a', 'start b', 'end b']);
  });

  it('runs no more steps at a time than the limit says', async () => {
    const run = runner([step('a'), step('b'), step('c')], { concurrency: 2 });
    await run.settle();
    expect(run.log).toEqual(['start a', 'start b']);
    run.release('a');
    await run.settle();
    expect(run.log).toContain('start c');
    run.release('b');
    run.release('c');
    await run.result;
  });

  it('skips what depends on a failed step, runs the rest, and reports every failure', async () => {
    const run = runner([step('a'), step('b', 'a'), step('c')], { failing: ['a'] });
    await run.settle();
    run.release('a');
    run.release('c');
    const failures = await run.result;
    expect(failures.map((failure) => failure.step.id)).toEqual(['a']);
    expect(run.log).toEqual(['start a', 'start c', 'end c']);
    expect(run.events).toContainEqual({ type: 'step-skipped', stepId: 'b', owner: 'network', blockedBy: 'a' });
  });

  it('starts nothing new after an abort and lets running steps end', async () => {
    const run = runner([step('a'), step('b', 'a')]);
    await run.settle();
    run.abort.abort();
    run.release('a');
    await run.result;
    expect(run.log).toEqual(['start a', 'end a']);
  });

  it('refuses a plan that is out of order', async () => {
    const run = runner([step('b', 'a'), step('a')]);
    await expect(run.result).rejects.toThrow('stands before "a"');
  });
});
