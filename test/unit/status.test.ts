import { describe, expect, it } from 'vitest';
import { list } from '../../src/operations/status.ts';
import { SPEC } from '../builders/cluster.ts';
import { Machine } from '../builders/machine.ts';
import { Shell } from '../builders/shell.ts';

/** What the API server has as long as the cluster has the part. */
const OBJECTS = ['/apis/networking.k8s.io/v1/ingressclasses/sandbar', '/api/v1/namespaces/sandbar-system/services/s3'];

/** Components that are not ready, with what is told of each. */
async function problems(machine: Machine): Promise<readonly string[]> {
  const { components } = await machine.status();
  return components.filter(({ isReady }) => !isReady).map(({ component, detail }) => `${component}: ${detail}`);
}

describe('status', () => {
  it('finds nothing wrong with a cluster that has just come up, and says where it is', async () => {
    const machine = new Machine();
    await machine.up();
    expect(await machine.status()).toMatchObject({
      isReady: true,
      context: 'sandbar-dev',
      apiServer: 'https://127.0.0.1:6443',
      ingress: 'http://127.0.0.1:80',
      objectStore: 'http://127.0.0.1:9000',
    });
  });

  it.each(['agent', 'dns', 'ingress', 'object-store'])(
    'tells of %s when it is stopped, and when it is gone',
    async (component) => {
      const machine = new Machine();
      await machine.up();
      for (const path of OBJECTS) machine.cluster.answers.set(path, { status: 200, body: '{}' });
      await machine.runtime.stopContainer(`sandbar-dev-${component}`);
      expect(await problems(machine)).toContain(`${component}: it is exited`);
      await machine.runtime.removeContainer(`sandbar-dev-${component}`);
      expect(await problems(machine)).toContain(`${component}: its container is missing`);
      expect((await machine.status()).isReady).toBe(false);
    },
  );

  it('calls a cluster ready whose metrics are on their way, and not one that has lost them', async () => {
    const machine = new Machine();
    await machine.up();
    machine.cluster.answers.delete('/apis/metrics.k8s.io/v1beta1');
    expect(await problems(machine)).toEqual(['metrics: /apis/metrics.k8s.io/v1beta1: HTTP 404']);
    expect((await machine.status()).isReady).toBe(true);
    await machine.runtime.stopContainer('sandbar-dev-metrics');
    expect(await problems(machine)).toEqual(['metrics: it is exited']);
    expect((await machine.status()).isReady).toBe(false);
  });

  it('tells of every part when the control plane is gone', async () => {
    const machine = new Machine();
    await machine.up();
    await machine.runtime.removeContainer('sandbar-dev-control-plane');
    await machine.runtime.stopContainer('sandbar-dev-dns');
    expect(await problems(machine)).toEqual([
      'control-plane: its container is missing',
      'agent: the control plane is not running',
      'dns: it is exited',
      'ingress: the control plane is not running',
      'object-store: the control plane is not running',
      'metrics: the control plane is not running',
      'ports: the control plane is not running',
    ]);
  });

  it('misses no part that is switched off', async () => {
    const machine = new Machine();
    const spec = {
      ingress: { isEnabled: false },
      objectStore: { ...SPEC.objectStore, isEnabled: false },
      metrics: { isEnabled: false },
    };
    await machine.up({ spec });
    const { isReady, components } = await machine.status();
    expect(isReady).toBe(true);
    expect(components.map(({ component }) => component)).toEqual(['control-plane', 'agent', 'dns', 'ports']);
  });

  it('tells what a part answers instead of what it should', async () => {
    const machine = new Machine();
    await machine.up();
    machine.host.httpStatuses.set('http://127.0.0.1:80/', 502);
    machine.runtime.programs.set('sandbar-agent', () => ({ exitCode: 1, stderr: 'no answer from 10.96.0.10' }));
    expect(await problems(machine)).toEqual([
      'dns: no answer from 10.96.0.10',
      'ingress: http://127.0.0.1:80/: HTTP 502',
    ]);
  });

  it('does not call certificates trusted where it knows nobody who could trust them', async () => {
    const shell = new Shell(new Machine());
    await shell.lines('up');
    const { stdout } = await shell.run('status');
    expect(stdout).toContain('https://127.0.0.1:443 (sandbar knows no store of certificates here)');
  });

  it('of a cluster that is not there names those that are', async () => {
    const machine = new Machine();
    await expect(machine.status()).rejects.toMatchObject({ code: 'CLUSTER_NOT_FOUND', hint: 'sandbar up makes one' });
  });
});

describe('list', () => {
  it('tells of clusters that run, run in part, are stopped, or have only data', async () => {
    const machine = new Machine();
    const state = async (): Promise<string | undefined> => (await list(machine.runtime))[0]?.state;
    expect(await list(machine.runtime)).toEqual([]);
    await machine.up();
    expect(await list(machine.runtime)).toEqual([
      { name: 'dev', state: 'running', apiServer: 'https://127.0.0.1:6443' },
    ]);
    await machine.runtime.stopContainer('sandbar-dev-dns');
    expect(await state()).toBe('partly running');
    for (const name of machine.runtime.containers.keys()) await machine.runtime.stopContainer(name);
    expect(await state()).toBe('stopped');
    await machine.down();
    expect(await state()).toBe('down');
  });
});
