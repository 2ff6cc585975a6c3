import { describe, expect, it } from 'vitest';
import { SandbarError } from '../../src/model/errors.ts';
import { doctor } from '../../src/operations/doctor.ts';
import { nodeWith } from '../builders/diagnosis.ts';
import { Machine } from '../builders/machine.ts';
import { Shell } from '../builders/shell.ts';

type Report = {
  readonly isHealthy: boolean;
  readonly checks: readonly {
    readonly id: string;
    readonly severity: string;
    readonly subject: string;
    readonly message: string;
    readonly isFixable: boolean;
  }[];
  readonly fixes?: readonly { readonly command: string; readonly isDone: boolean; readonly message?: string }[];
};

/** A cluster made by the command line itself, so that the kubeconfig and the record are there. */
async function start(): Promise<Shell> {
  const shell = new Shell(new Machine());
  const { stderr, exitCode } = await shell.run('up');
  expect(exitCode, stderr).toBe(0);
  shell.machine.runtime.programs.set('sandbar-agent', ({ args }) => ({ stdout: args[0] === 'mounts' ? '[]' : '' }));
  shell.machine.cluster.objects.set('node', nodeWith());
  return shell;
}

async function examine(
  shell: Shell,
  ...flags: readonly string[]
): Promise<Report & { readonly lines: readonly string[] }> {
  const report = (await shell.json('doctor', ...flags)) as Report;
  const found = report.checks.filter(({ severity }) => severity !== 'ok');
  return { ...report, lines: found.map(({ severity, subject, message }) => `${severity} ${subject}: ${message}`) };
}

describe('doctor', () => {
  it('finds nothing wrong with a cluster that has just come up, in one line', async () => {
    const shell = await start();
    expect((await examine(shell)).lines).toEqual([]);
    const { stdout, exitCode } = await shell.run('doctor');
    expect(exitCode).toBe(0);
    expect(stdout).toMatch(/^cluster dev: nothing is wrong\n✔ fine: engine, memory, .*object-store.*\n$/);
    expect((await shell.run('doctor', '--verbose')).stdout).toContain('✔ dns: it does its work');
  });

  it('tells of a stopped part and ends with 1; --fix starts it and says so', async () => {
    const shell = await start();
    await shell.machine.runtime.stopContainer('sandbar-dev-dns');
    const { stdout, exitCode } = await shell.run('doctor');
    expect(exitCode).toBe(1);
    expect(stdout).toContain('✖ dns: it is stopped (exit code 137: killed, by hand or for want of memory)');
    expect(stdout).toContain('fix: sandbar up (doctor --fix does it)');
    const fixed = await examine(shell, '--fix');
    expect(fixed.fixes).toEqual([{ command: 'sandbar up', isDone: true }]);
    expect(fixed.lines).toEqual([]);
    expect(shell.machine.runtime.containers.get('sandbar-dev-dns')?.state).toBe('running');
  });

  it('lets metrics begin, also after a restart of the API server, before it warns of them', async () => {
    const shell = await start();
    const { machine } = shell;
    machine.cluster.answers.delete('/apis/metrics.k8s.io/v1beta1');
    expect((await examine(shell)).lines).toEqual([]);
    await machine.clock.advance(20_000);
    const warning = 'warning metrics: it runs, but does not do its work: /apis/metrics.k8s.io/v1beta1: HTTP 404';
    expect((await examine(shell)).lines).toEqual([warning]);
    await machine.runtime.restartContainer('sandbar-dev-control-plane');
    expect((await examine(shell)).lines).toEqual([]);
  });

  it('tells of a container that is gone once', async () => {
    const shell = await start();
    await shell.machine.runtime.removeContainer('sandbar-dev-dns');
    expect((await examine(shell)).lines).toEqual(['error dns: its container is missing']);
  });

  it('says what can be checked while the API does not answer', async () => {
    const shell = await start();
    shell.machine.cluster.isDown = true;
    const { lines, isHealthy } = await examine(shell);
    expect(isHealthy).toBe(false);
    expect(lines).toEqual(['error control-plane: it runs, but does not do its work: the API server does not answer']);
  });

  it('loads an image that a pod lacks and the engine has', async () => {
    const shell = await start();
    const { runtime, cluster } = shell.machine;
    runtime.images.set('shop:1', {});
    const waiting = { name: 'main', state: { waiting: { reason: 'ErrImageNeverPull' } } };
    cluster.objects.set('pod', {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name: 'web', namespace: 'shop' },
      spec: { nodeName: 'sandbar-dev', containers: [{ name: 'main', image: 'shop:1' }] },
      status: { phase: 'Pending', containerStatuses: [waiting] },
    });
    runtime.programs.set('sandbar-images', ({ args }) => {
      return { stdout: args[0] === 'list' ? '[]' : args[0] === 'missing' ? '[]' : '' };
    });
    expect((await examine(shell)).lines).toEqual([
      'error pod shop/web: image shop:1 is in the Docker engine, but not on the node',
    ]);
    expect((await examine(shell, '--fix')).fixes).toEqual([{ command: 'sandbar image load shop:1', isDone: true }]);
  });

  it('does not say done of a repair that fails, and leaves with 1', async () => {
    const shell = await start();
    await shell.machine.runtime.stopContainer('sandbar-dev-ingress');
    shell.machine.runtime.foreignPorts.add(80);
    const { fixes, isHealthy } = await examine(shell, '--fix');
    expect(isHealthy).toBe(false);
    expect(fixes).toEqual([expect.objectContaining({ isDone: false, message: 'port 80 is in use' })]);
  });

  it('tells where nobody may watch files any more', async () => {
    const shell = await start();
    const said = 'tail: inotify cannot be used, reverting to polling: Too many open files';
    shell.machine.runtime.programs.set('cat', () => ({ stdout: '128\n65536\n' }));
    shell.machine.runtime.programs.set('sh', ({ args }) => ({ stdout: args.join(' ').includes('tail') ? said : '' }));
    expect((await examine(shell)).lines).toEqual([
      'error inotify instances: all 128 of root are taken: what watches files in a container, of a pod too, fails or is slow',
    ]);
    shell.machine.runtime.programs.set('sh', () => ({}));
    expect((await examine(shell)).lines).toEqual([]);
  });

  it('tells of a kubeconfig that lost its context', async () => {
    const shell = await start();
    shell.machine.host.files.delete('/home/ada/.kube/config');
    expect((await examine(shell)).lines).toEqual([
      'warning kubeconfig: there is no context sandbar-dev: kubectl cannot find the cluster',
    ]);
    expect((await examine(shell, '--fix')).lines).toEqual([]);
  });

  it('works before there is a cluster, and without an engine', async () => {
    const shell = new Shell(new Machine());
    expect((await examine(shell)).isHealthy).toBe(true);
    expect(shell.machine.runtime.calls).toEqual([]);
    const request = {
      clusterName: 'dev',
      signal: new AbortController().signal,
      foresee: () => Promise.reject(new Error('nobody asks')),
    };
    const missing = new SandbarError('DOCKER_MISSING', 'no Docker engine answers', { hint: 'start it' });
    expect(await doctor(request, () => Promise.reject(missing))).toMatchObject({
      isHealthy: false,
      checks: [{ message: 'no Docker engine answers', fix: 'start it' }],
    });
  });
});
