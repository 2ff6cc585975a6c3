/**
 * Commands that are killed at every change of the engine, each time one change later, until a run comes to its end; and
 * commands that are called at once.
 */
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { openEngineProxy, type EngineProxy, type Interruption } from '../e2e/engine-proxy.ts';
import { createSandbox, type RunResult } from '../e2e/support.ts';
import { Keeper } from './keeper.ts';
import { isOwnMachine } from './machine.ts';

type How = { readonly signal: NodeJS.Signals } & Pick<Interruption, 'moment'>;

const HOWS: readonly How[] = [
  { signal: 'SIGKILL', moment: 'before' },
  { signal: 'SIGKILL', moment: 'after' },
  { signal: 'SIGINT', moment: 'during' },
];

describe.skipIf(!isOwnMachine)('a command that is interrupted at every change of the engine', () => {
  const sandbox = createSandbox('stepwise');
  let keeper: Keeper;
  let proxy: EngineProxy;

  beforeAll(async () => {
    keeper = await Keeper.settle(sandbox);
    proxy = await openEngineProxy(join(sandbox.home, 'engine.sock'), '/run/docker.sock');
  });

  beforeEach(() => sandbox.up());

  afterAll(() => proxy.close());

  async function interrupted(args: readonly string[], { signal, moment }: How, atChange: number): Promise<RunResult> {
    const { child, ended } = sandbox.start(args, { env: { DOCKER_HOST: proxy.address } });
    proxy.interrupt({ atChange, moment, act: () => child.kill(signal) });
    const result = await ended;
    proxy.interrupt(undefined);
    return result;
  }

  /** How many runs it took, the last of which nothing interrupted. `between` runs after each interruption. */
  async function untilDone(
    commandOf: (attempt: number) => readonly string[],
    how: How,
    between: () => Promise<unknown> = () => Promise.resolve(),
  ): Promise<number> {
    for (let atChange = 1; atChange < 60; atChange += 1) {
      const { exitCode, stderr } = await interrupted(commandOf(atChange), how, atChange);
      if (exitCode === 0) return atChange;
      expect(exitCode, stderr).toBe(how.signal === 'SIGKILL' ? -1 : 130);
      if (how.signal === 'SIGINT') expect(stderr).toContain('interrupted');
      await between();
    }
    throw new Error(`${commandOf(0).join(' ')} never came to its end`);
  }

  async function expectWhole(): Promise<void> {
    await keeper.untilServed();
    await keeper.expectNothingLost();
  }

  it.each(HOWS)('stop, start: by $signal $moment', async (how) => {
    expect(await untilDone(() => ['stop'], how)).toBeGreaterThan(1);
    expect((await sandbox.run(['status'])).exitCode).not.toBe(0);
    expect(await untilDone(() => ['start'], how)).toBeGreaterThan(1);
    await expectWhole();
  });

  it.each(HOWS)('pause, resume: by $signal $moment', async (how) => {
    expect(await untilDone(() => ['pause'], how)).toBeGreaterThan(1);
    expect(await untilDone(() => ['resume'], how)).toBeGreaterThan(1);
    await expectWhole();
  });

  it.each(HOWS)('restart: by $signal $moment', async (how) => {
    expect(await untilDone(() => ['restart'], how)).toBeGreaterThan(1);
    await expectWhole();
  });

  it.each(HOWS)('snapshot create: by $signal $moment', async (how) => {
    const { signal, moment } = how;
    const name = (attempt: number): string => `${signal}-${moment}-${String(attempt)}`.toLowerCase();
    const attempts = await untilDone(
      (attempt) => ['snapshot', 'create', name(attempt)],
      how,
      async () => {
        // Nobody is left waiting: writes go on, whatever else a killed command has left behind.
        await sandbox.mustKubectl([
          'annotate',
          '--overwrite',
          'configmap',
          'kept',
          `at=${name(0)}`,
          '--request-timeout=10s',
        ]);
      },
    );
    expect(attempts).toBeGreaterThan(1);
    await expectWhole();
    const names = JSON.parse(await sandbox.must(['snapshot', 'ls', '-o', 'json'])) as { readonly name: string }[];
    expect(names.map((snapshot) => snapshot.name)).toContain(name(attempts));
  });

  it.each(HOWS)('snapshot restore: by $signal $moment', async (how) => {
    const name = `whole-${how.signal}-${how.moment}`.toLowerCase();
    await sandbox.must(['snapshot', 'create', name]);
    await sandbox.mustKubectl(['delete', 'configmap', 'kept']);
    expect(await untilDone(() => ['snapshot', 'restore', name, '--yes'], how)).toBeGreaterThan(1);
    await expectWhole();
  });

  it.each(HOWS)('reset: by $signal $moment', async (how) => {
    await sandbox.must(['snapshot', 'create', `before-${how.signal}-${how.moment}`.toLowerCase()]);
    expect(await untilDone(() => ['reset', '--yes'], how)).toBeGreaterThan(1);
    await expectClean();
    expect(await untilDone(() => ['reset', '--hard', '--yes'], how)).toBeGreaterThan(1);
    await expectClean();
    await sandbox.must(['snapshot', 'restore', `before-${how.signal}-${how.moment}`.toLowerCase(), '--yes']);
    await expectWhole();
  });

  /** As it was after its first `up`. */
  async function expectClean(): Promise<void> {
    expect((await sandbox.run(['status'])).exitCode).toBe(0);
    for (const kinds of ['deployments,pods,pvc', 'pv', 'configmaps --field-selector=metadata.name=kept']) {
      expect(await sandbox.mustKubectl(['get', '-A', '--ignore-not-found', ...kinds.split(' ')])).toBe('');
    }
    expect((await sandbox.up()).steps).toEqual([]);
  }
});

describe.skipIf(!isOwnMachine)('two commands at once', () => {
  const sandbox = createSandbox('together');
  let keeper: Keeper;
  const commands = [
    ['up'],
    ['stop'],
    ['start'],
    ['pause'],
    ['resume'],
    ['restart'],
    ['snapshot', 'create'],
    ['reset', '--yes'],
    ['down'],
  ] as const;
  const pairs = commands.flatMap((first, index) => commands.slice(index).map((second) => [first, second] as const));

  beforeAll(async () => {
    keeper = await Keeper.settle(sandbox);
    await sandbox.must(['snapshot', 'create', 'whole']);
  });

  it.each(pairs)('take turns: %j and %j', async (first, second) => {
    const outcomes = await Promise.all([first, second].map((command) => sandbox.run(command)));
    // Whoever comes second may find that there is nothing to be done it to: that is told with its fix.
    for (const { exitCode, stderr } of outcomes) {
      expect([0, 4], stderr).toContain(exitCode);
      if (exitCode !== 0) expect(stderr).toContain('fix: ');
    }
    await sandbox.up();
    expect((await sandbox.run(['status'])).exitCode).toBe(0);
    if ([first, second].some(([verb]) => verb === 'reset')) {
      await sandbox.must(['snapshot', 'restore', 'whole', '--yes']);
    }
    await keeper.connect();
    await keeper.untilServed();
    await keeper.expectNothingLost();
  });
});
