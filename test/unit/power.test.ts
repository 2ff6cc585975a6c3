import { beforeEach, describe, expect, it } from 'vitest';
import { list } from '../../src/operations/status.ts';
import { planPause, planResume, planStop } from '../../src/engine/power.ts';
import type { ContainerState } from '../../src/model/resources.ts';
import { desiredFor, observe } from '../builders/cluster.ts';
import { SandbarError } from '../../src/model/errors.ts';
import { COMPONENTS, LABELS } from '../../src/model/names.ts';
import type { Cluster, Labels } from '../../src/model/ports.ts';
import { RESTORING_LABEL } from '../../src/model/snapshots.ts';
import { Machine, dyingCaller } from '../builders/machine.ts';
import { MountMachine } from '../builders/mounts.ts';
import { Shell } from '../builders/shell.ts';
import type { FakeContainer } from '../fakes/fake-runtime.ts';

const NAMES = COMPONENTS.map((component) => `sandbar-dev-${component}`);

describe('power', () => {
  let machine: Machine;
  let shell: Shell;

  beforeEach(async () => {
    machine = new Machine();
    machine.host.files.set('/home/ada/app/package.json', { content: '{}', mode: 0o644, ageMs: 0 });
    shell = new Shell(machine);
    await shell.lines('up', '--no-registry');
    machine.runtime.calls.length = 0;
  });

  const states = (): readonly string[] => [...machine.runtime.containers.values()].map(({ state }) => state);
  const all = (state: string): readonly string[] => NAMES.map(() => state);
  const fail = async (...argv: readonly string[]): Promise<string> => {
    const { exitCode, stderr } = await shell.run(...argv);
    expect(exitCode).toBe(4);
    return stderr;
  };

  it('stops every container once, and brings each back with what it was', async () => {
    const ids = machine.containerIds();
    expect((await shell.lines('stop'))[0]).toMatch(/^cluster dev is stopped \(/);
    expect(states()).toEqual(all('exited'));
    const calls = machine.runtime.calls.length;
    expect(await shell.lines('stop')).toEqual(['cluster dev is stopped already', '  sandbar start brings it back']);
    expect(machine.runtime.calls).toHaveLength(calls);
    expect((await list(machine.runtime)).map(({ state }) => state)).toEqual(['stopped']);
    expect((await shell.lines('start'))[0]).toMatch(/^cluster dev is ready/);
    expect(states()).toEqual(all('running'));
    expect(machine.containerIds()).toEqual(ids);
    expect((await shell.lines('start'))[0]).toBe('cluster dev is up: nothing to change');
  });

  it('starts a cluster with what up was given last', async () => {
    await shell.lines('up', '--bucket', 'pictures', '--api-port', '7443');
    await shell.lines('stop');
    expect((await shell.lines('start'))[0]).toMatch(/^cluster dev is ready/);
    expect(machine.runtime.containers.get('sandbar-dev-control-plane')?.spec.ports).toEqual([
      { hostPort: 7443, containerPort: 6443 },
    ]);
  });

  it('starts beside a port that was taken meanwhile, and says so', async () => {
    await shell.lines('stop');
    machine.host.listeners.set(80, 'nginx (pid 411)');
    const { stderr, exitCode } = await shell.run('start');
    expect(exitCode).toBe(0);
    expect(stderr).toContain('port 80 is used by nginx (pid 411): ingress is on 8080');
    expect(machine.runtime.containers.get('sandbar-dev-ingress')?.spec.ports[0]?.hostPort).toBe(8080);
  });

  it('starts nothing where there is no cluster', async () => {
    expect(await fail('start', '--name', 'shop')).toContain('there is no cluster "shop"');
    for (const verb of ['stop', 'pause', 'resume', 'restart']) {
      expect(await fail(verb, '--name', 'shop')).toContain('there is dev: choose with --name');
    }
  });

  it('brings back what is down, from its data', async () => {
    await shell.lines('up', '--no-registry', '--bucket', 'pictures');
    await shell.lines('down');
    expect(await fail('stop')).toContain('cluster "dev" is down');
    await shell.lines('start');
    expect(states()).toEqual(all('running'));
    expect(machine.identitiesMade).toBe(1);
    expect(await machine.objectStore.listBuckets()).toMatchObject([{ name: 'pictures' }]);
  });

  it('freezes the control plane last, and lets it go on last', async () => {
    await shell.lines('pause');
    expect(states()).toEqual(all('paused'));
    expect(machine.runtime.calls.at(-1)).toBe('pause sandbar-dev-control-plane');
    expect((await shell.lines('pause'))[0]).toBe('cluster dev is paused already');
    expect((await list(machine.runtime)).map(({ state }) => state)).toEqual(['paused']);
    await shell.lines('resume');
    expect(states()).toEqual(all('running'));
    expect(machine.runtime.calls.at(-1)).toBe('resume sandbar-dev-control-plane');
    expect((await shell.lines('resume'))[0]).toBe('cluster dev is running already');
    expect(machine.runtime.calls).toHaveLength(2 * NAMES.length);
  });

  it('leaves a sign of life of the node that nobody reads before the cluster goes on', async () => {
    const path = '/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/sandbar-dev';
    const metadata = { name: 'sandbar-dev', namespace: 'kube-node-lease' };
    const spec = { renewTime: '2026-05-01T12:00:00.123456Z' };
    const lease = { apiVersion: 'coordination.k8s.io/v1', kind: 'Lease', metadata, spec };
    await machine.cluster.apply(lease);
    machine.cluster.answers.set(path, { status: 200, body: JSON.stringify(lease) });
    await shell.lines('pause');
    const renewed = machine.cluster.objects.get('coordination.k8s.io/v1 Lease kube-node-lease sandbar-dev');
    expect(renewed?.['spec']).toEqual({ renewTime: '2026-05-01T12:00:00.124000Z' });
  });

  it('lets up and start resume what is paused', async () => {
    for (const verb of [['up', '--no-registry'], ['start']]) {
      await shell.lines('pause');
      machine.runtime.calls.length = 0;
      await shell.lines(...verb);
      expect(machine.runtime.calls.toSorted()).toEqual(NAMES.map((name) => `resume ${name}`).toSorted());
    }
  });

  it('stops and removes what is paused', async () => {
    await shell.lines('pause');
    await shell.lines('stop');
    expect(machine.runtime.calls.filter((call) => call.startsWith('resume'))).toHaveLength(NAMES.length);
    expect(states()).toEqual(all('exited'));
    await shell.lines('start');
    await shell.lines('pause');
    await shell.lines('down');
    expect(states()).toEqual([]);
  });

  it('says what to do in every other command', async () => {
    const others = [['kubeconfig'], ['bucket', 'ls'], ['mounts'], ['mount', '.', 'deployment/web:/app']];
    for (const [verb, state, fix] of [
      ['pause', 'paused', 'sandbar resume'],
      ['stop', 'stopped', 'sandbar start'],
    ] as const) {
      await shell.lines(verb);
      for (const argv of [...others, ['restart']]) {
        expect(await fail(...argv)).toBe(`✖ cluster "dev" is ${state}\n  fix: ${fix}\n`);
      }
      const { stdout, exitCode } = await shell.run('status');
      expect(stdout).toMatch(new RegExp(`^cluster dev is ${state}: ${fix}`));
      expect(exitCode).toBe(1);
    }
    for (const verb of ['pause', 'resume']) expect(await fail(verb)).toContain('fix: sandbar start');
  });

  it('restarts one component, or all, and asks for each part then', async () => {
    const asked: string[] = [];
    const get = machine.cluster.get.bind(machine.cluster);
    machine.cluster.get = (path) => {
      asked.push(path);
      return get(path);
    };
    await shell.lines('restart', 'dns');
    expect(machine.runtime.calls).toEqual(['stop sandbar-dev-dns', 'start sandbar-dev-dns']);
    expect(asked).toContain('/api/v1/nodes/sandbar-dev/proxy/healthz');
    const metrics = '/apis/metrics.k8s.io/v1beta1';
    await shell.lines('restart', 'metrics');
    expect(asked).toContain(metrics);
    machine.runtime.calls.length = asked.length = 0;
    const result = (await shell.json('restart')) as { readonly steps: readonly string[] };
    expect(result).toMatchObject({ cluster: 'dev', state: 'running' });
    expect(result.steps.toSorted()).toEqual(COMPONENTS.map((name) => `restart container/${name}`).toSorted());
    expect(machine.runtime.calls).toHaveLength(2 * NAMES.length);
    expect(asked).not.toContain(metrics);
    expect(states()).toEqual(all('running'));
  });

  it('does not take what the node said before its restart for a sign of life', async () => {
    const path = '/api/v1/nodes/sandbar-dev';
    const say = (status: string, atMs: number): void => {
      const lastHeartbeatTime = new Date(Math.floor(atMs / 1000) * 1000).toISOString();
      const conditions = [{ type: 'Ready', status, lastHeartbeatTime }];
      machine.cluster.answers.set(path, { status: 200, body: JSON.stringify({ status: { conditions } }) });
    };
    const { clock } = machine;
    await clock.advance(60_000);
    const beforeMs = clock.now() - 10_000;
    say('True', beforeMs);
    const restartedMs = clock.now();
    const get = machine.cluster.get.bind(machine.cluster);
    machine.cluster.get = (asked) => {
      if (asked === path && clock.now() > restartedMs + 400) say('True', clock.now());
      return get(asked);
    };
    await shell.lines('restart', 'agent');
    expect(clock.now()).toBeGreaterThan(restartedMs + 400);

    // Its clock was set back: until it has caught up, every sign of life is older than the start.
    machine.cluster.get = get;
    machine.runtime.containers.get('sandbar-dev-agent')!.startedMs = clock.now() + 3_600_000;
    say('True', clock.now());
    expect((await shell.run('status')).stdout).toContain('✔ agent');
  });

  /** A container that served for a moment, and is left over. */
  const leaveOver = async (name: string, labels: Labels = {}): Promise<FakeContainer> => {
    const { spec } = machine.runtime.containers.get('sandbar-dev-dns')!;
    const own = { [LABELS.cluster]: 'dev', [LABELS.resource]: `container/${name}`, ...labels };
    const left = { ...spec, name: `sandbar-dev-${name}`, networkName: 'none', ports: [] };
    await machine.runtime.createContainer(left, [], own);
    return machine.runtime.containers.get(left.name)!;
  };

  it('leaves alone what served for a moment, but ends it', async () => {
    const left = await leaveOver('identity-reader-411');
    await shell.lines('restart');
    expect(left.state).toBe('created');
    await machine.runtime.startContainer(left.id);
    await shell.lines('pause');
    expect(left.state).toBe('running');
    await shell.lines('stop');
    expect(left.state).toBe('exited');
  });

  it('starts nothing on volumes of two moments', async () => {
    await leaveOver('restoring', { [RESTORING_LABEL]: 'before' });
    const agent = machine.runtime.containers.get('sandbar-dev-agent')!;
    await machine.runtime.stopContainer(agent.id);
    const refusal = /the restore of snapshot before was interrupted\n {2}fix: sandbar snapshot restore before finishes/;
    for (const argv of [['restart'], ['restart', 'agent'], ['start'], ['snapshot', 'create']]) {
      expect((await shell.run(...argv)).stderr).toMatch(refusal);
    }
    await shell.lines('pause');
    expect((await shell.run('resume')).stderr).toMatch(refusal);
    expect(agent.state).toBe('exited');
  });

  it.each([
    ['is refused', () => Promise.reject(new SandbarError('KUBERNETES_FAILED', 'a webhook does not answer'))],
    ['is none', () => Promise.reject(new RangeError('Invalid time value'))],
  ])('freezes the cluster where the sign of life of the node %s', async (_, patch) => {
    const limits: unknown[] = [];
    machine.cluster.patch = (...[, , options]: Parameters<Cluster['patch']>) => {
      limits.push(options);
      return patch();
    };
    const path = '/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/sandbar-dev';
    const body = JSON.stringify({ spec: { renewTime: '2026-05-01T12:00:00.123456Z' } });
    machine.cluster.answers.set(path, { status: 200, body });
    await shell.lines('pause');
    expect(states()).toEqual(all('paused'));
    expect(limits).toEqual([{ timeoutMs: 200 }]);
  });

  it('has no container to restart where the cluster has none', async () => {
    expect(await fail('restart', 'mounts')).toContain('cluster "dev" has no container of mounts');
    await shell.lines('up', '--no-ingress', '--yes');
    expect(await fail('restart', 'ingress')).toContain('there are agent, control-plane, dns, metrics, object-store');
  });

  it('starts what has ended beside parts that run', async () => {
    await machine.runtime.stopContainer('sandbar-dev-dns');
    await shell.lines('restart', 'dns');
    expect(states()).toEqual(all('running'));
  });

  it('stops a cluster that has lost its control plane', async () => {
    await machine.runtime.removeContainer('sandbar-dev-control-plane');
    await shell.lines('stop');
    expect(new Set(states())).toEqual(new Set(['exited']));
  });

  it.each(['stop', 'pause', 'resume', 'restart'])('finishes %s when its process was killed anywhere', async (verb) => {
    for (let atChange = 1; atChange <= 5; atChange += 1) {
      for (const isCarriedOut of [true, false]) {
        if (verb === 'resume') await shell.lines('pause');
        await new Promise<void>((resolve) => {
          machine.wrapRuntime = (runtime) => dyingCaller(runtime, { atChange, isCarriedOut, onDeath: resolve });
          void shell.run(verb);
        });
        machine.restartCommandLine();
        await shell.lines(verb);
        expect(new Set(states()).size).toBe(1);
        await shell.lines('start');
        expect(states()).toEqual(all('running'));
      }
    }
  });

  it('starts with what up was given meanwhile', async () => {
    const started = await Promise.all([shell.run('up', '--no-ingress', '--yes'), shell.run('start')]);
    expect(started.map(({ exitCode }) => exitCode)).toEqual([0, 0]);
    expect([...machine.runtime.containers.keys()]).not.toContain('sandbar-dev-ingress');
  });

  it('takes turns with other commands', async () => {
    await Promise.all([shell.run('stop'), shell.run('start'), shell.run('pause')]);
    await shell.lines('start');
    expect(states()).toEqual(all('running'));
  });
});

describe('plans of power', () => {
  const { docker } = desiredFor();
  const containers = docker.filter(({ kind }) => kind === 'container');
  const observedAs = (containerState: ContainerState) =>
    new Map(containers.map((resource) => [resource.id, observe(resource, { containerState })]));
  const others = containers.map(({ id }) => id).filter((id) => id !== 'container/control-plane');

  it('freeze the control plane, and let it go on, when all others are done', () => {
    const frozen = planPause(observedAs('running')).find(({ id }) => id === 'pause container/control-plane');
    expect(frozen?.dependsOn).toEqual(others.map((id) => `pause ${id}`));
    const resumed = planResume(observedAs('paused'), []).find(({ id }) => id === 'resume container/control-plane');
    expect(resumed?.dependsOn).toEqual(others.map((id) => `resume ${id}`));
  });

  it('let what is frozen go on before it is to end', () => {
    const steps = planStop(observedAs('paused'));
    expect(steps.find(({ id }) => id === 'stop container/agent')?.dependsOn).toEqual(['resume container/agent']);
  });
});

describe('power with mounts', () => {
  it('ends, freezes and restarts their containers too, and says of one that does not come back', async () => {
    const machine = await MountMachine.start();
    machine.workload('Deployment', 'web', { replicas: 1 });
    const shell = new Shell(machine);
    await shell.lines('mount', '.', 'deployment/web:/app');
    const mount = [...machine.runtime.containers.values()].find(({ spec }) => spec.name.includes('-mount-'))!;
    for (const [verb, state, back] of [
      ['stop', 'exited', 'start'],
      ['pause', 'paused', 'resume'],
    ] as const) {
      await shell.lines(verb);
      expect(mount.state).toBe(state);
      await shell.lines(back);
      expect(mount.state).toBe('running');
    }
    machine.runtime.calls.length = 0;
    await shell.lines('restart', 'mounts');
    expect(machine.runtime.calls).toEqual([`stop ${mount.spec.name}`, `start ${mount.spec.name}`]);
    const [{ id }] = (await shell.json('mounts')) as [{ readonly id: string }];
    machine.attachProblem = 'it is a socket';
    machine.placed.set(id, { state: 'failed', detail: 'it is a socket' });
    const { stderr, exitCode } = await shell.run('restart', 'mounts');
    expect(exitCode).toBe(0);
    expect(stderr).toContain('/home/ada/app is not mounted (failed): it is a socket');
  });

  it.each(['restart', 'start'])('lets %s go on without a folder that is gone, and says so', async (verb) => {
    const machine = await MountMachine.start();
    machine.workload('Deployment', 'web', { replicas: 1 });
    const shell = new Shell(machine);
    await shell.lines('mount', '.', 'deployment/web:/app');
    const mount = [...machine.runtime.containers.values()].find(({ spec }) => spec.name.includes('-mount-'))!;
    machine.host.files.clear();
    machine.runtime.missingFolders.add('/home/ada/app');
    if (verb === 'start') await shell.lines('stop');
    machine.runtime.calls.length = 0;
    const { stderr, exitCode } = await shell.run(verb);
    expect(stderr).toMatch(/! \/home\/ada\/app is gone: its mount web-app-\w+ is stale until it is back/);
    expect(exitCode).toBe(0);
    expect(machine.runtime.calls).not.toContain(`start ${mount.spec.name}`);
    expect(machine.runtime.calls).toContain('start sandbar-dev-agent');
  });
});
