import { describe, expect, it } from 'vitest';
import { observeDocker, type DockerObservation } from '../../src/engine/observe.ts';
import type { SandbarEvent } from '../../src/model/events.ts';
import { preflight } from '../../src/operations/preflight.ts';
import { settlePorts, settleSubnet } from '../../src/operations/settle.ts';
import { SPEC } from '../builders/cluster.ts';
import { Machine } from '../builders/machine.ts';
import { FakeHost } from '../fakes/fake-host.ts';
import { FakeRuntime } from '../fakes/fake-runtime.ts';

const MIB = 2 ** 20;

async function look(host: FakeHost): Promise<readonly SandbarEvent[]> {
  const events: SandbarEvent[] = [];
  await preflight(new FakeRuntime(), host, (event) => events.push(event));
  return events;
}

describe('the disk', () => {
  it.each([
    [800, 'DISK_FULL'],
    [1023, 'DISK_FULL'],
  ])('with %i MiB free is an error before anything is created', async (free, code) => {
    const machine = new Machine();
    machine.host.freeBytes = free * MIB;
    const failure = machine.up();
    await expect(failure).rejects.toMatchObject({
      code,
      exitCode: 3,
      message: `only ${String(free)} MiB are free on the disk of /var/lib/docker`,
    });
    await expect(failure).rejects.toHaveProperty('hint', expect.stringContaining('docker system prune'));
    expect(machine.runtime.calls).toEqual([]);
  });

  it('that is getting full is a warning, and one with room is none', async () => {
    const host = new FakeHost();
    host.freeBytes = 2048 * MIB;
    expect(await look(host)).toMatchObject([{ type: 'warning', text: expect.stringContaining('2048 MiB') as string }]);
    host.freeBytes = 6000 * MIB;
    expect(await look(host)).toEqual([]);
  });

  it('does not keep a cluster from answering that is as it should be', async () => {
    const machine = new Machine();
    await machine.up();
    machine.host.freeBytes = 10 * MIB;
    expect(await machine.planned()).toBe('');
    await machine.down();
  });
});

describe('the inotify limits', () => {
  it('are an error where a node cannot work, with the command that raises them', async () => {
    const machine = new Machine();
    machine.host.inotifyLimits = { maxUserInstances: 32, maxUserWatches: 8192 };
    const failure = machine.up();
    await expect(failure).rejects.toMatchObject({ code: 'HOST_LIMIT', exitCode: 3 });
    await expect(failure).rejects.toHaveProperty('hint', expect.stringContaining('sysctl -w fs.inotify'));
    expect(machine.runtime.calls).toEqual([]);
  });

  it('are a warning where few pods fit, and nothing where there are none', async () => {
    const host = new FakeHost();
    host.inotifyLimits = { maxUserInstances: 100, maxUserWatches: 8192 };
    expect(await look(host)).toMatchObject([
      { type: 'warning', text: expect.stringContaining('100 instances') as string },
    ]);
    host.inotifyLimits = undefined;
    expect(await look(host)).toEqual([]);
  });
});

describe('the engine', () => {
  it('with too little memory is an error, and with little a warning', async () => {
    const machine = new Machine();
    machine.runtime.engine = { ...machine.runtime.engine, memoryBytes: 600 * MIB };
    await expect(machine.up()).rejects.toMatchObject({ code: 'HOST_LIMIT', exitCode: 3 });
    expect(machine.runtime.calls).toEqual([]);
    machine.runtime.engine = { ...machine.runtime.engine, memoryBytes: 1024 * MIB };
    await machine.up();
    expect(machine.events).toContainEqual(
      expect.objectContaining({ type: 'warning', text: expect.stringContaining('1024 MiB of memory') as string }),
    );
  });

  it('that copies every layer whole is a warning', async () => {
    const machine = new Machine();
    machine.runtime.engine = { ...machine.runtime.engine, storageDriver: 'vfs' };
    await machine.up();
    expect(machine.events).toContainEqual(
      expect.objectContaining({ type: 'warning', text: expect.stringContaining('vfs') as string }),
    );
  });
});

async function dockerOf(runtime = new FakeRuntime()): Promise<DockerObservation> {
  return observeDocker(runtime, SPEC.name);
}

describe('the subnet', () => {
  it('is the first that neither a network nor a route has', async () => {
    const runtime = new FakeRuntime();
    runtime.networks.set('a', { id: 'a', name: 'a', labels: {}, subnets: ['172.30.0.0/23'] });
    const host = new FakeHost();
    host.routes = ['172.30.2.0/24', '0.0.0.0/0'];
    expect(await settleSubnet(SPEC, await dockerOf(runtime), host)).toBe('172.30.3.0/24');
  });

  it('stays as the cluster has it, unless the user names another', async () => {
    const machine = new Machine();
    machine.host.routes = ['172.30.0.0/24'];
    await machine.up();
    machine.host.routes = [];
    expect((await machine.up()).context.subnet).toBe('172.30.1.0/24');
    const named = await machine.up({ spec: { network: { ...SPEC.network, subnet: '10.9.8.0/24' } } });
    expect(named.context.subnet).toBe('10.9.8.0/24');
    expect(named.plan.map(({ id }) => id)).toContain('remove network');
    expect(named.plan.every(({ losesData }) => !losesData)).toBe(true);
  });

  it('is an error that names the network which has it', async () => {
    const runtime = new FakeRuntime();
    runtime.networks.set('work', { id: 'w', name: 'work', labels: {}, subnets: ['10.9.0.0/16'] });
    const spec = { ...SPEC, network: { ...SPEC.network, subnet: '10.9.8.0/24' } };
    await expect(settleSubnet(spec, await dockerOf(runtime), new FakeHost())).rejects.toMatchObject({
      code: 'SUBNET_IN_USE',
      message: 'subnet 10.9.8.0/24 overlaps with 10.9.0.0/16 of Docker network work',
    });
  });

  it('is an error where none is left', async () => {
    const host = new FakeHost();
    host.routes = ['172.16.0.0/12'];
    await expect(settleSubnet(SPEC, await dockerOf(), host)).rejects.toMatchObject({
      code: 'SUBNET_IN_USE',
      hint: expect.stringContaining('network.subnet') as string,
    });
  });
});

describe('the ports', () => {
  it('are the usual ones, or the next free, and it is said which', async () => {
    const host = new FakeHost();
    host.listeners.set(80, 'nginx (pid 411)').set(8080, 'java (pid 5)').set(6443, 'kube-apiserver (pid 6)');
    const { ports, notices } = await settlePorts(SPEC, await dockerOf(), host);
    expect(ports).toEqual({ api: 6444, http: 8081, https: 443, objectStore: 9000, objectStoreConsole: 9001 });
    expect(notices).toEqual([
      'port 6443 is used by kube-apiserver (pid 6): control-plane is on 6444',
      'port 80 is used by nginx (pid 411): ingress is on 8081',
    ]);
  });

  it('are no two the same', async () => {
    const host = new FakeHost();
    host.listeners.set(9000, 'a');
    const { ports } = await settlePorts(SPEC, await dockerOf(), host);
    expect(new Set(Object.values(ports)).size).toBe(5);
  });

  it('that the user names are an error where another has them', async () => {
    const host = new FakeHost();
    host.listeners.set(8088, 'nginx (pid 411)');
    const spec = { ...SPEC, ports: { ...SPEC.ports, http: { port: 8088, isFixed: true } } };
    await expect(settlePorts(spec, await dockerOf(), host)).rejects.toMatchObject({
      code: 'PORT_IN_USE',
      exitCode: 3,
      message: 'port 8088 is used by nginx (pid 411)',
      hint: 'stop it, or set ports.http in sandbar.yaml',
    });
  });

  it('stay as the cluster has them, whoever has the usual ones by now', async () => {
    const machine = new Machine();
    machine.host.listeners.set(80, 'nginx (pid 411)');
    expect((await machine.up()).context.ports.http).toBe(8080);
    machine.host.listeners.delete(80);
    expect((await machine.up()).context.ports.http).toBe(8080);
    // Its own container listens there; to look whether the port is free would find that out.
    machine.host.listeners.set(8080, 'docker-proxy (pid 7)');
    expect((await machine.up()).plan).toEqual([]);
  });

  it('of what is switched off are asked of nobody', async () => {
    const host = new FakeHost();
    host.listeners.set(80, 'nginx (pid 411)');
    const spec = { ...SPEC, ingress: { isEnabled: false } };
    expect((await settlePorts(spec, await dockerOf(), host)).notices).toEqual([]);
  });
});
