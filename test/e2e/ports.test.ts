/** Ports of the host that lead into the cluster, looked at with curl, sockets of this machine, and the kernel's tables. */
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { createServer, connect, type AddressInfo, type Server } from 'node:net';
import { text } from 'node:stream/consumers';
import { execa } from 'execa';
import { beforeAll, describe, expect, it } from 'vitest';
import type { ClusterStatus } from '../../src/operations/status.ts';
import type { PortListing } from '../../src/operations/port-list.ts';
import { findFreePort } from '../fixtures/free-port.ts';
import { TOOLBOX_IMAGE } from './fixtures/apps.ts';
import { balancer, whoApp } from './fixtures/ports.ts';
import { createSandbox, eventually } from './support.ts';

const sandbox = createSandbox('ports');

type Answer = { readonly pod: string; readonly from: string };

/** In sandbar.yaml from the start. */
let declared: number;

async function applyObjects(...objects: readonly object[]): Promise<void> {
  const list = { apiVersion: 'v1', kind: 'List', items: objects };
  await sandbox.mustKubectl(['apply', '-f', '-'], { stdin: JSON.stringify(list) });
}

/** Asks with curl; undefined where nobody answers. */
async function ask(port: number, host = '127.0.0.1'): Promise<Answer | undefined> {
  const { exitCode, stdout } = await execa('curl', ['-s', '-m', '2', `http://${host}:${String(port)}/`], {
    reject: false,
  });
  return exitCode === 0 ? (JSON.parse(stdout) as Answer) : undefined;
}

const untilAnswered = (port: number, host?: string): Promise<Answer> =>
  eventually(`an answer on ${host ?? ''}:${String(port)}`, () => ask(port, host), { timeoutMs: 30_000 });

const untilClosed = (port: number): Promise<true> =>
  eventually(`${String(port)} is closed`, async () => ((await isOpen(port)) ? undefined : true), { timeoutMs: 10_000 });

async function isOpen(port: number): Promise<boolean> {
  const socket = connect({ host: '127.0.0.1', port });
  try {
    await once(socket, 'connect');
    return true;
  } catch {
    return false;
  } finally {
    socket.destroy();
  }
}

/** Sends a datagram; undefined where no answer comes back. */
async function askDatagram(port: number, host = '127.0.0.1'): Promise<(Answer & { message: string }) | undefined> {
  const socket = createSocket('udp4');
  try {
    socket.send('hello', port, host);
    const [message] = (await once(socket, 'message', { signal: AbortSignal.timeout(2_000) })) as [Buffer];
    return JSON.parse(message.toString()) as Answer & { message: string };
  } catch {
    return undefined;
  } finally {
    socket.close();
  }
}

/** A port that nobody has just now. */
async function listen(port: number): Promise<Server> {
  const server = createServer().listen(port, '127.0.0.1');
  await once(server, 'listening');
  return server;
}

async function close(server: Server): Promise<void> {
  server.close();
  await once(server, 'close');
}

async function listed(): Promise<readonly PortListing[]> {
  return JSON.parse(await sandbox.must(['port', 'ls', '-o', 'json'])) as readonly PortListing[];
}

/** The port of this machine that a Service's port has been given. */
async function hostPortOf(service: string, port: number): Promise<number> {
  return eventually(`a port for ${service}`, async () => {
    const found = (await listed()).find(({ target }) => target === `service/${service}:${String(port)}`);
    return found?.state === 'open' ? found.hostPort : undefined;
  });
}

async function addressOf(service: string): Promise<string> {
  return eventually(`an address of ${service}`, async () => {
    const { status } = await sandbox.getObject('service', service);
    return (status['loadBalancer'] as { ingress?: { ip: string }[] }).ingress?.[0]?.ip;
  });
}

async function change(service: string, spec: object): Promise<void> {
  await sandbox.mustKubectl(['patch', 'service', service, '--type=merge', '-p', JSON.stringify({ spec })]);
}

beforeAll(async () => {
  declared = await findFreePort();
  await sandbox.writeConfig(`publish: ['${String(declared)}:service/who:http']\n`);
  await sandbox.up();
  await sandbox.must(['image', 'load', TOOLBOX_IMAGE]);
  const who = balancer('who', { http: 80, dns: 53 }, { type: 'ClusterIP' });
  await applyObjects(whoApp('who', { replicas: 2 }), who);
  await sandbox.mustKubectl(['rollout', 'status', 'deployment/who', '--timeout=60s']);
});

describe('a Service of type LoadBalancer', () => {
  it('answers at its address and on 127.0.0.1, over TCP and UDP, and is shown where one would look', async () => {
    const [http, dns] = [await findFreePort(), await findFreePort()];
    await applyObjects(balancer('first', { http, dns }));
    expect((await untilAnswered(http)).pod).toMatch(/^who-/);
    expect(await askDatagram(dns)).toMatchObject({ message: 'hello' });
    const address = await addressOf('first');
    const { stdout } = await execa('docker', [
      'network',
      'inspect',
      `sandbar-${sandbox.name}`,
      '-f',
      '{{json .IPAM.Config}}',
    ]);
    const [{ Subnet: subnet, IPRange: containers }] = JSON.parse(stdout) as [{ Subnet: string; IPRange: string }];
    expect(containers).toBe(subnet.replace('/24', '/25'));
    expect(Number(address.split('.')[3])).toBeGreaterThanOrEqual(128);
    expect((await untilAnswered(http, address)).pod).toMatch(/^who-/);
    expect(await askDatagram(dns, address)).toMatchObject({ message: 'hello' });
    const status = JSON.parse(await sandbox.must(['status', '-o', 'json'])) as ClusterStatus;
    expect(status.ports.filter(({ target }) => target.startsWith('service/first:'))).toEqual(
      [http, dns]
        .map((port, index) => ({
          hostPort: port,
          protocol: index === 0 ? 'TCP' : 'UDP',
          namespace: 'default',
          target: `service/first:${String(port)}`,
          origin: 'load-balancer',
          state: 'open',
          detail: '',
          address: `${address}:${String(port)}`,
        }))
        .toSorted((a, b) => a.hostPort - b.hostPort),
    );
    await sandbox.mustKubectl(['delete', 'service', 'first']);
    await untilClosed(http);
  });

  it('listens on 127.0.0.1 alone, in a container that may do nothing else', async () => {
    const { HostConfig, Config } = await sandbox.inspect('ports');
    expect(HostConfig).toMatchObject({
      NetworkMode: 'host',
      ReadonlyRootfs: true,
      CapDrop: ['ALL'],
      Privileged: false,
    });
    expect(HostConfig.CapAdd).toEqual(['NET_BIND_SERVICE']);
    expect(Config.Env.filter((variable) => !variable.startsWith('PATH='))).toEqual([]);
    const hex = declared.toString(16).toUpperCase().padStart(4, '0');
    const tables = await Promise.all(['/proc/net/tcp', '/proc/net/tcp6'].map((file) => readFile(file, 'utf8')));
    const listening = tables.flatMap((table) => [...table.matchAll(/: ([0-9A-F]+):([0-9A-F]{4}) \S+ 0A /g)]);
    expect(listening.filter(([, , port]) => port === hex).map(([, address]) => address)).toEqual(['0100007F']);
  });

  it('shows pods the client itself at its address with externalTrafficPolicy Local, and the node else', async () => {
    const http = await findFreePort();
    await applyObjects(balancer('source', { http }, { externalTrafficPolicy: 'Local' }));
    const address = await addressOf('source');
    const gateway = address.replace(/\.\d+$/, '.1');
    await eventually('the host itself is seen', async () =>
      (await ask(http, address))?.from === gateway ? true : undefined,
    );
    expect((await untilAnswered(http)).from).toBe('10.244.0.1');
    await change('source', { externalTrafficPolicy: 'Cluster' });
    await eventually('the node is seen', async () =>
      (await ask(http, address))?.from === '10.244.0.1' ? true : undefined,
    );
    await sandbox.mustKubectl(['delete', 'service', 'source']);
  });

  it('keeps a client with its pod under sessionAffinity ClientIP, on both ways', async () => {
    const http = await findFreePort();
    await applyObjects(balancer('sticky', { http }, { sessionAffinity: 'ClientIP' }));
    const address = await addressOf('sticky');
    await untilAnswered(http, address);
    for (const host of ['127.0.0.1', address]) {
      const pods = new Set<string>();
      for (let count = 0; count < 8; count += 1) pods.add((await untilAnswered(http, host)).pod);
      expect(pods.size, host).toBe(1);
    }
    await sandbox.mustKubectl(['delete', 'service', 'sticky']);
  });

  it('takes the next free port where its own is taken, keeps that, and gives all back with the Service', async () => {
    const http = await findFreePort();
    const program = await listen(http);
    await applyObjects(balancer('one', { http }));
    const one = await hostPortOf('one', http);
    expect(one).toBeGreaterThan(http);
    await close(program);
    await applyObjects(balancer('two', { http }));
    const two = await hostPortOf('two', http);
    expect([one, two]).toEqual([one, http]);
    expect((await untilAnswered(one)).pod).toMatch(/^who-/);
    expect(await addressOf('one')).not.toBe(await addressOf('two'));
    await sandbox.mustKubectl(['delete', 'service', 'one', 'two']);
    await Promise.all([untilClosed(one), untilClosed(two)]);
  });

  it('obeys loadBalancerSourceRanges on 127.0.0.1 too, and says so', async () => {
    const http = await findFreePort();
    await applyObjects(balancer('ranged', { http }, { loadBalancerSourceRanges: ['10.0.0.0/8'] }));
    const closed = await eventually('it is refused', async () =>
      (await listed()).find(({ target, state }) => target === `service/ranged:${String(http)}` && state === 'closed'),
    );
    expect(closed.detail).toBe('loadBalancerSourceRanges does not have 127.0.0.1/32');
    expect(await isOpen(http)).toBe(false);
    expect(await ask(http, await addressOf('ranged'))).toBeUndefined();
    await change('ranged', { loadBalancerSourceRanges: ['127.0.0.0/8', '172.16.0.0/12'] });
    await untilAnswered(http);
    await untilAnswered(http, await addressOf('ranged'));
    await sandbox.mustKubectl(['delete', 'service', 'ranged']);
  });

  it('loses address, port and every trace when its type changes, and has no node port unless it wants one', async () => {
    const http = await findFreePort();
    await applyObjects(balancer('changing', { http }, { allocateLoadBalancerNodePorts: false }));
    await untilAnswered(http);
    expect((await sandbox.getObject('service', 'changing')).spec['ports']).not.toMatchObject([
      { nodePort: expect.anything() as unknown },
    ]);
    await change('changing', { type: 'ClusterIP' });
    await untilClosed(http);
    await eventually('no trace is left', async () => {
      const { metadata, status } = await sandbox.getObject('service', 'changing');
      const isClear = metadata.annotations?.['sandbar.dev/host-ports'] === undefined;
      return isClear && JSON.stringify(status['loadBalancer']) === '{}' ? true : undefined;
    });
    await sandbox.mustKubectl(['delete', 'service', 'changing']);
  });

  it('gets the address that it asks for, or says why not', async () => {
    const { Networks: networks } = (await sandbox.inspect('agent')).NetworkSettings;
    const gateway = networks[`sandbar-${sandbox.name}`]?.Gateway ?? '';
    const wished = gateway.replace(/\.\d+$/, '.200');
    const ports = [await findFreePort(), await findFreePort()] as const;
    await applyObjects(balancer('wished', { http: ports[0] }, { loadBalancerIP: wished }));
    expect(await addressOf('wished')).toBe(wished);
    await applyObjects(balancer('late', { http: ports[1] }, { loadBalancerIP: wished }));
    const late = await eventually('it is refused', async () =>
      (await listed()).find(({ target, state }) => target.startsWith('service/late:') && state === 'closed'),
    );
    expect(late.detail).toBe(`spec.loadBalancerIP ${wished} is that of default/wished`);
    await sandbox.mustKubectl(['delete', 'service', 'wished', 'late']);
  });
});

describe('sandbar port', () => {
  it('publishes Services, workloads and pods, by number and by name, and takes them away again', async () => {
    const pods = await sandbox.mustKubectl([
      'get',
      'pods',
      '-l',
      'app=who',
      '-o',
      'jsonpath={.items[0].metadata.name}',
    ]);
    const headless = balancer('headless', { http: 80 }, { type: 'ClusterIP', clusterIP: 'None' });
    await applyObjects(headless);
    for (const target of ['service/who:80', 'deployment/who:http', `pod/${pods}:8080`, 'svc/headless:http']) {
      const port = await findFreePort();
      await sandbox.must(['port', 'add', String(port), target]);
      expect((await untilAnswered(port)).pod, target).toMatch(/^who-/);
      await sandbox.must(['port', 'rm', String(port)]);
      expect(await isOpen(port)).toBe(false);
    }
    const port = await findFreePort();
    await sandbox.must(['port', 'add', `127.0.0.1:${String(port)}:deployment/who:dns/udp`]);
    expect(await askDatagram(port)).toMatchObject({ message: 'hello' });
    await sandbox.must(['port', 'rm', `${String(port)}/udp`]);
    expect(await askDatagram(port)).toBeUndefined();
  });

  it('refuses what cannot be, with what would be right', async () => {
    const program = await listen(0);
    const { port: taken } = program.address() as AddressInfo;
    const free = String(await findFreePort());
    const refusals: readonly (readonly [readonly string[], number, RegExp])[] = [
      [[free, 'service/woh:80'], 4, /no Service "woh"[^]*did you mean service\/who\?/],
      [[free, 'service/who:8080'], 4, /service\/who has no port 8080[^]*http = 80/],
      [[free, 'service/who:53'], 4, /is of UDP[^]*service\/who:53\/udp/],
      [[free, 'deployment/who:web'], 4, /no port named web/],
      [[free, 'pod/who:80', '-n', 'nowhere'], 4, /no namespace "nowhere"/],
      [[`0.0.0.0:${free}`, 'service/who:80'], 2, /on 127\.0\.0\.1 only/],
      [[`[::]:${free}`, 'service/who:80'], 2, /on 127\.0\.0\.1 only/],
      [['service/who:80'], 2, /for example 8080:service\/who:80/],
      [
        [String(taken), 'service/who:80'],
        3,
        new RegExp(`port ${String(taken)} is used by .*pid ${String(process.pid)}`),
      ],
    ];
    for (const [args, exitCode, message] of refusals) {
      const result = await sandbox.run(['port', 'add', ...args]);
      expect([args, result.exitCode], result.stderr).toEqual([args, exitCode]);
      expect(result.stderr).toMatch(message);
    }
    await close(program);
    expect((await listed()).map(({ origin }) => origin)).toEqual(['file']);
  });

  it('leads elsewhere when it is asked to, and ends the connections to where it led', async () => {
    await applyObjects(whoApp('other', { replicas: 1 }));
    await sandbox.mustKubectl(['rollout', 'status', 'deployment/other', '--timeout=60s']);
    const port = await findFreePort();
    await sandbox.must(['port', 'add', String(port), 'deployment/who:8080']);
    const client = connect({ host: '127.0.0.1', port });
    await once(client, 'connect');
    const ended = once(client, 'close');
    client.on('error', () => undefined).resume();
    const output = JSON.parse(
      await sandbox.must(['port', 'add', String(port), 'deployment/other:8080', '-o', 'json']),
    ) as object;
    expect(output).toMatchObject({ change: 'replaced', target: 'deployment/other:8080' });
    await ended;
    expect((await untilAnswered(port)).pod).toMatch(/^other-/);
    expect(await sandbox.must(['port', 'add', String(port), 'deployment/other:8080'])).toMatch(/nothing was changed/);
    await sandbox.must(['port', 'rm', String(port)]);
  });

  it('outlives its pods, a scale to nothing and back, and the end of either container that serves it', async () => {
    const [port, balanced] = [await findFreePort(), await findFreePort()];
    await sandbox.must(['port', 'add', String(port), 'deployment/who:http']);
    await applyObjects(balancer('lasting', { http: balanced }));
    const first = await untilAnswered(port);
    await untilAnswered(balanced);
    await sandbox.mustKubectl(['delete', 'pod', '-l', 'app=who', '--wait=false']);
    const next = await eventually('a successor answers', async () => {
      const answer = await ask(port);
      return answer === undefined || answer.pod === first.pod ? undefined : answer;
    });
    expect(next.pod).toMatch(/^who-/);
    await sandbox.mustKubectl(['scale', 'deployment/who', '--replicas=0']);
    await eventually('nobody answers', async () => ((await ask(port)) === undefined ? true : undefined));
    await sandbox.mustKubectl(['scale', 'deployment/who', '--replicas=1']);
    await untilAnswered(port);
    const container = (name: 'agent' | 'ports') => sandbox.docker.getContainer(sandbox.containerName(name));
    const ends: readonly (readonly [string, () => Promise<unknown>])[] = [
      [
        'the ports container is killed',
        async () => {
          const client = connect({ host: '127.0.0.1', port });
          await once(client, 'connect');
          await container('ports').kill();
          await container('ports').start();
          await untilAnswered(port);
          // Over the connection from before.
          client.write('GET / HTTP/1.0\r\n\r\n');
          expect(await text(client)).toContain('"pod":"who-');
        },
      ],
      [
        'the process in the agent is killed',
        () => execa('docker', ['exec', sandbox.containerName('agent'), 'sh', '-c', 'kill -9 $(pidof sandbar-kubelet)']),
      ],
      ['the agent is restarted', () => container('agent').restart({ t: 3 })],
      [
        'both end at once and come back in any order, as with the engine',
        async () => {
          await Promise.all([container('agent').kill(), container('ports').kill()]);
          await container('ports').start();
          await container('agent').start();
        },
      ],
    ];
    for (const [what, end] of ends) {
      await end();
      expect((await untilAnswered(port)).pod, what).toMatch(/^who-/);
      expect((await untilAnswered(balanced)).pod, what).toMatch(/^who-/);
      expect(await hostPortOf('lasting', balanced), what).toBe(balanced);
    }
    await sandbox.must(['stop']);
    expect(await isOpen(port)).toBe(false);
    await sandbox.must(['start']);
    await untilAnswered(port);
    await untilAnswered(balanced);
    await sandbox.must(['port', 'rm', String(port)]);
    await sandbox.mustKubectl(['delete', 'service', 'lasting']);
  });

  it('has what sandbar.yaml publishes, opens it once it is free, and closes what the file no longer names', async () => {
    await untilAnswered(declared);
    const program = await listen(0);
    const { port } = program.address() as AddressInfo;
    await sandbox.writeConfig(
      `publish: ['${String(declared)}:service/who:http', '${String(port)}:deployment/who:8080']\n`,
    );
    const { events } = await sandbox.up();
    const warning = events.find(({ type }) => type === 'warning');
    expect(warning?.['text']).toBe(`port ${String(port)} is not open: another program has it`);
    const doctor = await sandbox.run(['doctor']);
    expect(doctor.stdout).toContain(`port ${String(port)}`);
    await close(program);
    await untilAnswered(port);
    await sandbox.writeConfig(`publish: ['${String(declared)}:service/who:http']\n`);
    await sandbox.up();
    await untilClosed(port);
    expect((await listed()).map(({ hostPort }) => hostPort)).toEqual([declared]);
  });

  it('keeps over a reset what the file publishes, and what a command did when asked to', async () => {
    const port = await findFreePort();
    await sandbox.must(['port', 'add', String(port), 'service/who:http']);
    await sandbox.must(['reset', '--yes', '--keep', 'ports']);
    expect((await listed()).map(({ hostPort, state }) => [hostPort, state]).toSorted()).toEqual(
      [declared, port].map((kept) => [kept, 'lost']).toSorted(),
    );
    await sandbox.must(['reset', '--yes']);
    expect((await listed()).map(({ hostPort }) => hostPort)).toEqual([declared]);
    await untilClosed(port);
    await applyObjects(whoApp('who', { replicas: 1 }), balancer('who', { http: 80 }, { type: 'ClusterIP' }));
    await untilAnswered(declared);
  });
});
