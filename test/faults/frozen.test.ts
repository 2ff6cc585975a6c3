/** A laptop that sleeps, a network that goes away: what a cluster cannot notice or not help, and must outlast. */
import { setTimeout as delay } from 'node:timers/promises';
import { beforeAll, describe, expect, it } from 'vitest';
import { inContainer } from '../e2e/mounts.ts';
import { COMPONENTS, createSandbox, type ComponentName } from '../e2e/support.ts';
import { Keeper } from './keeper.ts';
import { isOwnMachine, run } from './machine.ts';

/** Longer than the node's lease of 40 s, after which a node that says nothing counts as lost. */
const SLEEP_MS = 90_000;
/** Longer than every connection waits for an answer. */
const OFFLINE_MS = 20_000;

describe.skipIf(!isOwnMachine)('a cluster', () => {
  const sandbox = createSandbox('asleep');
  let keeper: Keeper;

  beforeAll(async () => {
    keeper = await Keeper.settle(sandbox);
  });

  /** Pods and containers that only went on: nothing was evicted, replaced or restarted. */
  async function running(): Promise<unknown> {
    const starts = COMPONENTS.map(async (component) => (await sandbox.inspect(component)).State.StartedAt);
    return { pods: await keeper.pods(), starts: await Promise.all(starts) };
  }

  it('goes on where it was after it was frozen for 90 s', async () => {
    const before = await running();
    const containers = (await run('docker', 'ps', '--quiet')).trim().split('\n');
    await run('docker', 'pause', ...containers);
    await delay(SLEEP_MS);
    await keeper.recovers('frozen for 90 s', () => run('docker', 'unpause', ...containers));
    expect(await running()).toEqual(before);
  });

  it('goes on after its network was down for 20 s', async () => {
    const before = await running();
    const { Id: id } = (await sandbox.docker.getNetwork(`sandbar-${sandbox.name}`).inspect()) as {
      readonly Id: string;
    };
    const bridge = `br-${id.slice(0, 12)}`;
    await run('ip', 'link', 'set', bridge, 'down');
    await delay(OFFLINE_MS);
    expect(await keeper.complaints()).not.toEqual([]);
    await keeper.recovers('network of the cluster down for 20 s', () => run('ip', 'link', 'set', bridge, 'up'));
    expect(await running()).toEqual(before);
  });

  it('works while the machine has no way to the world, and after it has one again', async () => {
    const before = await running();
    await run('ip', 'route', 'delete', 'default');
    await keeper.expectNothingLost();
    await keeper.recovers('no way to the world', () => run('ip', 'route', 'add', 'default', 'via', '192.0.2.1'));
    expect(await running()).toEqual(before);
  });

  // One is in the host's network, off which nobody can take it.
  it.each(COMPONENTS.filter((component) => component !== 'ports'))(
    'is repaired by up after %s was taken off its network',
    async (component: ComponentName) => {
      const network = `sandbar-${sandbox.name}`;
      const takeOff = async (): Promise<void> => {
        await run('docker', 'network', 'disconnect', '--force', network, sandbox.containerName(component));
        const status = await sandbox.run(['status']);
        expect(status.exitCode).toBe(1);
        expect(status.stdout).toMatch(new RegExp(`✖ ${component}`));
      };
      await keeper.recovers(`${component} off its network, then up`, takeOff, () => sandbox.up());
    },
  );

  it('has its service addresses again with a restart of the agent after the rules of iptables in it were removed', async () => {
    const flush = async (): Promise<void> => {
      await inContainer(sandbox.containerName('agent'), 'for t in nat filter mangle; do iptables -t $t -F; done');
      const status = await sandbox.run(['status']);
      expect(status.exitCode).toBe(1);
      expect(status.stdout).toMatch(/✖ dns/);
    };
    const repair = (): Promise<string> => sandbox.must(['restart', 'agent']);
    await keeper.recovers('iptables of the node flushed, then restart agent', flush, repair);
  });

  it('is served on all the same after the rules of iptables of the machine were removed', async () => {
    for (const table of ['nat', 'filter']) await run('iptables', '--table', table, '--flush');
    await keeper.untilServed();
    await keeper.expectNothingLost();
  });
});
