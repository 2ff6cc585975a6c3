/** What dies by itself comes back by itself: nobody calls the command line meanwhile. */
import { beforeAll, describe, expect, it } from 'vitest';
import { COMPONENTS, createSandbox, eventually, type ComponentName } from '../e2e/support.ts';
import { inContainer } from '../e2e/mounts.ts';
import { Keeper } from './keeper.ts';
import {
  crashEngine,
  inEngine,
  isOwnMachine,
  killProcess,
  powerOff,
  powerOn,
  restartEngine,
  untilEngineAnswers,
} from './machine.ts';

describe.skipIf(!isOwnMachine)('a cluster', () => {
  const sandbox = createSandbox('alone');
  let keeper: Keeper;

  beforeAll(async () => {
    keeper = await Keeper.settle(sandbox);
  });

  const startedAt = async (component: ComponentName): Promise<string> =>
    (await sandbox.inspect(component)).State.StartedAt;

  it.each(COMPONENTS)('is whole again after the process of %s was killed', async (component) => {
    const before = await startedAt(component);
    const pods = await keeper.pods();
    await keeper.recovers(`process of ${component} killed`, async () => {
      await killProcess((await sandbox.inspect(component)).State.Pid);
    });
    expect(await startedAt(component)).not.toBe(before);
    if (component !== 'agent') expect(await keeper.pods()).toEqual(pods);
  });

  it.each(['sandbar-kubelet', 'containerd', 'sandbar-kubelet and containerd'])(
    'goes on with the pods that run when %s is killed in the node',
    async (programs) => {
      const pods = await keeper.pods();
      const agent = sandbox.containerName('agent');
      const pidsOf = async (): Promise<readonly string[]> => {
        const stdout = await inContainer(agent, `pidof ${programs.replace(' and ', ' ')} || true`);
        return stdout.trim().split(' ').filter(Boolean).toSorted();
      };
      const before = await pidsOf();
      expect(before).toHaveLength(programs.split(' and ').length);
      await keeper.recovers(`${programs} killed in the node`, async () => {
        await inContainer(agent, `kill -KILL ${before.join(' ')}`);
        await eventually('other processes', async () => {
          const now = await pidsOf();
          return (now.length === before.length && now.every((pid) => !before.includes(pid))) || undefined;
        });
      });
      expect(await keeper.pods()).toEqual(pods);
    },
  );

  it('is whole again after every process of it was killed at once', async () => {
    await keeper.recovers('every container killed at once', async () => {
      const pids = await Promise.all(COMPONENTS.map(async (component) => (await sandbox.inspect(component)).State.Pid));
      await inEngine('kill', '-KILL', ...pids.map(String));
    });
  });

  it('is whole again after the engine was restarted', async () => {
    const before = await sandbox.containerIds();
    await keeper.recovers('engine restarted', restartEngine);
    expect(await sandbox.containerIds()).toEqual(before);
  });

  it('is whole again with the next up after the engine and its containerd have crashed', async () => {
    const before = await sandbox.containerIds();
    const crash = async (): Promise<void> => {
      await crashEngine();
      await untilEngineAnswers();
      // Docker takes its own cleaning up after the crash for a wish that these containers stay stopped.
      expect((await sandbox.run(['status'])).exitCode).toBe(1);
    };
    await keeper.recovers('engine crashed, then up', crash, () => sandbox.up());
    expect(await sandbox.containerIds()).toEqual(before);
  });

  it('is whole again after the power failed', async () => {
    const before = await sandbox.containerIds();
    await powerOff();
    await keeper.recovers('power failed', powerOn);
    expect(await sandbox.containerIds()).toEqual(before);
  });
});
