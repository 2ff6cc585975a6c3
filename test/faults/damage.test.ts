/** What a user deletes that a cluster cannot do without, and a datastore that cannot be read. */
import { readdir, truncate } from 'node:fs/promises';
import { afterEach, beforeAll, describe, expect, it } from 'vitest';
import { createSandbox } from '../e2e/support.ts';
import { Keeper, recordRecovery } from './keeper.ts';
import { isOwnMachine } from './machine.ts';

describe.skipIf(!isOwnMachine)('a cluster whose owner was careless', () => {
  const sandbox = createSandbox('careless');
  let keeper: Keeper;

  beforeAll(async () => {
    keeper = await Keeper.settle(sandbox);
    await sandbox.must(['snapshot', 'create', 'whole']);
  });

  afterEach(async () => {
    await sandbox.must(['snapshot', 'restore', 'whole', '--yes']);
    await keeper.untilServed();
  });

  const node = `node/sandbar-${sandbox.name}`;
  const careless: readonly (readonly [string, readonly (readonly string[])[]])[] = [
    [
      'the roles that Kubernetes brings',
      [['delete', 'clusterroles,clusterrolebindings', '-l', 'kubernetes.io/bootstrapping=rbac-defaults']],
    ],
    [
      'all roles and bindings',
      [
        ['delete', 'clusterroles,clusterrolebindings', '--all'],
        ['delete', 'roles,rolebindings', '--all', '--all-namespaces'],
      ],
    ],
    [
      'what is in kube-system',
      [
        [
          'delete',
          'all,configmaps,secrets,serviceaccounts,roles,rolebindings,endpointslices',
          '--all',
          '-n',
          'kube-system',
        ],
      ],
    ],
    ['the namespaces that may go', [['delete', 'namespace', 'kube-node-lease', 'sandbar-system']]],
    ['the node', [['delete', node]]],
    ['classes and priorities', [['delete', 'storageclasses,ingressclasses,priorityclasses', '--all']]],
  ];

  it.each(careless)('is whole again with the next up: %s deleted', async (what, deeds) => {
    for (const deed of deeds) await sandbox.kubectl([...deed, '--timeout=30s']);
    const startedAt = performance.now();
    await sandbox.up();
    await recordRecovery(`${what} deleted, then up`, (performance.now() - startedAt) / 1000);
    await expectUsable();
  });

  it.each(careless)('is as new with the next reset: %s deleted', async (what, deeds) => {
    for (const deed of deeds) await sandbox.kubectl([...deed, '--timeout=30s']);
    const startedAt = performance.now();
    await sandbox.must(['reset', '--yes']);
    await recordRecovery(`${what} deleted, then reset`, (performance.now() - startedAt) / 1000);
    expect(await sandbox.mustKubectl(['get', 'deployments,pods', '--all-namespaces', '--ignore-not-found'])).toBe('');
    await expectUsable();
  });

  /** Everything that a new Deployment needs works: scheduling, accounts, claims, names, the ingress. */
  async function expectUsable(): Promise<void> {
    expect((await sandbox.run(['status'])).exitCode).toBe(0);
    expect((await sandbox.up()).steps).toEqual([]);
    const roles = await sandbox.mustKubectl(['get', 'clusterroles', '-o', 'name']);
    for (const role of ['cluster-admin', 'view', 'edit', 'system:node-proxier']) expect(roles).toContain(`/${role}\n`);
    await keeper.deployAnother();
  }
});

describe.skipIf(!isOwnMachine)('a cluster whose datastore is cut short', () => {
  const sandbox = createSandbox('damaged');
  let keeper: Keeper;

  beforeAll(async () => {
    keeper = await Keeper.settle(sandbox);
  });

  async function damage(): Promise<void> {
    await sandbox.must(['stop']);
    const { Mountpoint: folder } = await sandbox.docker.getVolume(`sandbar-${sandbox.name}-datastore`).inspect();
    // The file is larger than what it holds: half of it may be of no account.
    await truncate(`${folder}/data/member/snap/db`, 64 * 1024);
  }

  async function damagedCopies(): Promise<readonly string[]> {
    const { Mountpoint: folder } = await sandbox.docker.getVolume(`sandbar-${sandbox.name}-datastore`).inspect();
    return (await readdir(folder)).filter((name) => name.startsWith('damaged-'));
  }

  it.each([['up'], ['start']])('is an error that names the way out, of %s', async (command) => {
    await damage();
    const { exitCode, stderr } = await sandbox.run([command]);
    expect(exitCode, stderr).toBe(1);
    expect(stderr).toContain('datastore');
    expect(stderr).toContain('sandbar reset --hard');
    await sandbox.must(['reset', '--hard', '--yes']);
    expect((await sandbox.run(['status'])).exitCode).toBe(0);
    expect((await damagedCopies()).length).toBeGreaterThan(0);
  });

  it('goes back to its last snapshot, where there is one, and keeps the damaged one', async () => {
    keeper = await Keeper.settle(sandbox);
    await sandbox.must(['snapshot', 'create', 'whole']);
    const before = await damagedCopies();
    await damage();
    const { exitCode, stderr } = await sandbox.run(['up']);
    expect(exitCode).toBe(1);
    expect(stderr).toContain('sandbar snapshot restore');
    const startedAt = performance.now();
    await sandbox.must(['snapshot', 'restore', 'whole', '--yes']);
    await recordRecovery('datastore cut short, then snapshot restore', (performance.now() - startedAt) / 1000);
    await keeper.untilServed();
    await keeper.expectNothingLost();
    expect((await damagedCopies()).length).toBeGreaterThan(before.length);
  });
});
