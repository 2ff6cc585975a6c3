/** As many pods as a node may have. */
import { beforeAll, describe, expect, it } from 'vitest';
import { TOOLBOX_IMAGE } from '../e2e/fixtures/apps.ts';
import { apply, workload } from '../e2e/mounts.ts';
import { createSandbox, eventually } from '../e2e/support.ts';
import { recordRecovery } from './keeper.ts';
import { isOwnMachine } from './machine.ts';

const PODS = 110;

describe.skipIf(!isOwnMachine)('a cluster with 110 pods', () => {
  const sandbox = createSandbox('many');

  beforeAll(async () => {
    await sandbox.up();
    await sandbox.must(['image', 'load', TOOLBOX_IMAGE]);
    await apply(sandbox, workload('Deployment', 'many', { replicas: PODS }));
    await untilRunning();
  });

  async function untilRunning(): Promise<void> {
    const countReady = async (): Promise<true | undefined> => {
      const { stdout } = await sandbox.kubectl(['get', 'deployment', 'many', '-o', 'jsonpath={.status.readyReplicas}']);
      return stdout === String(PODS) || undefined;
    };
    await eventually('110 pods are ready', countReady, { timeoutMs: 400_000 });
  }

  it('is stopped and started, and has them all again', async () => {
    await sandbox.must(['stop']);
    const startedAt = performance.now();
    await sandbox.must(['start']);
    await untilRunning();
    await recordRecovery('start with 110 pods, until all are ready', (performance.now() - startedAt) / 1000);
  });

  it('is reset, and as new', async () => {
    const startedAt = performance.now();
    await sandbox.must(['reset', '--yes']);
    await recordRecovery('reset with 110 pods', (performance.now() - startedAt) / 1000);
    expect(await sandbox.mustKubectl(['get', 'deployments,pods', '--all-namespaces', '--ignore-not-found'])).toBe('');
    expect((await sandbox.up()).steps).toEqual([]);
  });
});
