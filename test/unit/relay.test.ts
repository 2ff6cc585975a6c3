import { describe, expect, it } from 'vitest';
import { SandbarError } from '../../src/model/errors.ts';
import type { FileEvents } from '../../src/model/mounts.ts';
import { createEchoFilter, hasSeenProbe, isWatching, shownEvents, type FileChange } from '../../src/mounts/events.ts';
import { ensureRelay, isRelayRunning, relay, type WatchFiles } from '../../src/operations/relay.ts';
import { FakeClock } from '../fakes/fake-clock.ts';
import { MountMachine } from '../builders/mounts.ts';

const PAUSE_MS = 2_000;

/** Watches that report what a test says, by the source they are of. */
class Watches {
  readonly running = new Map<string, (change: FileChange) => void>();

  readonly watchFiles: WatchFiles = (source, { signal, onChange }) => {
    this.running.set(source, onChange);
    return new Promise((resolve) => {
      const end = (): void => {
        this.running.delete(source);
        resolve();
      };
      signal.addEventListener('abort', end);
    });
  };

  change(source: string, path: string, signature: string): void {
    this.running.get(source)?.({ path, signature });
  }
}

type Relay = {
  readonly machine: MountMachine;
  readonly watches: Watches;
  readonly advance: (ms: number) => Promise<void>;
  readonly ended: Promise<void>;
  readonly stop: () => void;
};

async function startRelay(...sources: readonly string[]): Promise<Relay> {
  const machine = await MountMachine.start();
  for (const source of sources) declare(machine, source, 'relayed');
  const clock = new FakeClock();
  const watches = new Watches();
  const controller = new AbortController();
  const ports = { ...machine.ports, clock };
  const ended = relay({ clusterName: 'dev', signal: controller.signal }, ports, watches.watchFiles);
  ended.catch(() => undefined);
  await clock.advance(0);
  return { machine, watches, ended, advance: (ms) => clock.advance(ms), stop: () => controller.abort() };
}

function declare(machine: MountMachine, source: string, events: FileEvents): void {
  machine.declare({
    id: source.replace(/.*\//, ''),
    source,
    sourceType: 'Directory',
    root: source,
    target: { kind: 'node' },
    isReadOnly: false,
    excluded: [],
    parentId: undefined,
    origin: 'command',
    events,
  });
}

describe('the relay', () => {
  it('tells the node of every change, and of nothing that has not changed since', async () => {
    const { machine, watches, advance, ended } = await startRelay('/work/src', '/work/lib');
    watches.change('/work/src', 'a.js', '1');
    // What the node does with it comes back as an event of the same file.
    watches.change('/work/src', 'a.js', '1');
    watches.change('/work/lib', 'a.js', '1');
    watches.change('/work/src', 'a.js', '2');
    watches.change('/work/src', 'deep/b.js', 'gone');
    watches.change('/work/src', 'a.js', 'gone');
    for (const source of ['/work/src', '/work/lib']) declare(machine, source, 'native');
    for (let round = 0; round < 3; round += 1) await advance(PAUSE_MS);
    await ended;
    expect(machine.touches.map((line) => JSON.parse(line) as unknown)).toEqual([
      { id: 'src', path: 'a.js' },
      { id: 'lib', path: 'a.js' },
      { id: 'src', path: 'a.js' },
      // Nothing can be raised on what is not there: their folders have changed.
      { id: 'src', path: 'deep' },
      { id: 'src', path: '.' },
    ]);
  });

  it('takes up mounts that come, leaves those that go, and ends when none needs it', async () => {
    const { machine, watches, advance, ended } = await startRelay('/work/src');
    expect([...watches.running.keys()]).toEqual(['/work/src']);
    declare(machine, '/work/lib', 'relayed');
    await advance(PAUSE_MS);
    expect([...watches.running.keys()]).toEqual(['/work/src', '/work/lib']);
    declare(machine, '/work/src', 'polling');
    await advance(PAUSE_MS);
    expect([...watches.running.keys()]).toEqual(['/work/lib']);
    declare(machine, '/work/lib', 'native');
    await advance(PAUSE_MS);
    await advance(PAUSE_MS);
    await ended;
    expect(await isRelayRunning(machine.host, 'dev')).toBe(false);
  });

  it('waits for a cluster that restarts, and ends when it stays away', async () => {
    const { machine, watches, advance, ended } = await startRelay('/work/src');
    await machine.runtime.stopContainer('sandbar-dev-control-plane');
    machine.cluster.list = () => Promise.reject(new SandbarError('CLUSTER_NOT_RUNNING', 'nothing answers'));
    await advance(PAUSE_MS);
    expect([...watches.running.keys()]).toEqual([]);
    let hasEnded = false;
    void ended.catch(() => (hasEnded = true));
    await advance(10_000);
    expect(hasEnded).toBe(false);
    for (let round = 0; round < 40; round += 1) await advance(PAUSE_MS);
    await expect(ended).rejects.toMatchObject({ code: 'CLUSTER_NOT_RUNNING' });
  });

  it('ends with its signal', async () => {
    const { watches, ended, stop } = await startRelay('/work/src');
    stop();
    await ended.catch(() => undefined);
    expect([...watches.running.keys()]).toEqual([]);
  });

  it('runs once for a cluster', async () => {
    const { machine, stop } = await startRelay('/work/src');
    const clock = new FakeClock({ isSelfAdvancing: true });
    expect(await isRelayRunning(machine.host, 'dev')).toBe(true);
    let started = 0;
    const start = (): Promise<void> => {
      started += 1;
      return Promise.resolve();
    };
    expect(await ensureRelay('dev', { host: machine.host, clock }, start)).toBe(true);
    expect(started).toBe(0);
    expect(await ensureRelay('other', { host: machine.host, clock }, start)).toBe(false);
    expect(started).toBe(1);
    stop();
  });
});

describe('what is known of events', () => {
  it('remembers a limited number of changes', () => {
    const isNews = createEchoFilter(2);
    const change = (path: string): boolean => isNews('src', { path, signature: '1' });
    expect([change('a'), change('b'), change('a'), change('c'), change('b'), change('a')]).toEqual([
      ...[true, true, false, true, false, true],
    ]);
  });

  it('takes the word of the watch only as a line of its own', () => {
    expect(['watch', 'watching', 'watching\n', 'not watching\n'].map(isWatching)).toEqual([false, true, true, false]);
    expect([0, 3, 1, 137].map(hasSeenProbe)).toEqual([true, false, undefined, undefined]);
  });

  it('is shown as it is', () => {
    const shown = (['native', 'relayed', 'polling', undefined] as const).map((events) => [
      shownEvents(events, { isRunning: true }),
      shownEvents(events, { isRunning: false }),
    ]);
    expect(shown).toEqual([
      ['native', 'native'],
      ['relayed', 'stopped'],
      ['polling', 'polling'],
      ['unknown', 'unknown'],
    ]);
  });
});
