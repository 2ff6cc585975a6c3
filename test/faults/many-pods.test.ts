/** As many pods as a node may have. */
import { beforeAll, describe, expect, it } from 'vitest';
import { TOOLBOX_IMAGE } from '../e2e/fixtures/apps.ts';
import { apply, workload } from '../e2e/mounts.ts';
import { createSandbox, eventually, type KubernetesJson } from '../e2e/support.ts';
import { recordRecovery } from './keeper.ts';
import { isOwnMachine } from './machine.ts';

const PODS = 110;

type ContainerStatus = {
  readonly ready: boolean;
  readonly state: { readonly running?: { readonly startedAt: string } };
};

describe.skipIf(!isOwnMachine)('a cluster with 110 pods', () => {
  const sandbox = createSandbox('many');

  beforeAll(async () => {
    await sandbox.up();
    await sandbox.must(['image', 'load', TOOLBOX_IMAGE]);
    await apply(sandbox, workload('Deployment', 'many', { replicas: PODS }));
    await untilRunning(0);
  });

  /** Waits until every pod runs, and has not run for longer than `since`: what the API remembers is not enough. */
  async function untilRunning(since: number): Promise<void> {
    const areReady = async (): Promise<true | undefined> => {
      const { exitCode, stdout } = await sandbox.kubectl(['get', 'pods', '-o', 'json']);
      if (exitCode !== 0) return undefined;
      const { items } = JSON.parse(stdout) as KubernetesJson;
      const running = items.filter(({ status }) => {
        const [container] = (status['containerStatuses'] ?? []) as readonly ContainerStatus[];
        // In whole seconds.
        return container?.ready === true && Date.parse(container.state.running?.startedAt ?? '') >= since - 1000;
      });
      return running.length === PODS || undefined;
    };
    await eventually('110 pods are ready', areReady, { timeoutMs: 400_000 });
  }

  it('is stopped and started, and has them all again', async () => {
    await sandbox.must(['stop']);
    const startedAt = Date.now();
    await sandbox.must(['start']);
    await untilRunning(startedAt);
    await recordRecovery('start with 110 pods, until all are ready', (Date.now() - startedAt) / 1000);
  });

  it('is reset, and as new', async () => {
    const startedAt = performance.now();
    await sandbox.must(['reset', '--yes']);
    await recordRecovery('reset with 110 pods', (performance.now() - startedAt) / 1000);
    expect(await sandbox.mustKubectl(['get', 'deployments,pods', '--all-namespaces', '--ignore-not-found'])).toBe('');
    expect((await sandbox.up()).steps).toEqual([]);
  });
});
