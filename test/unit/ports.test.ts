import { beforeEach, describe, expect, it } from 'vitest';
import { parsePublished } from '../../src/config/publish-syntax.ts';
import { readPublished } from '../../src/config/published.ts';
import { checkPublished, type OpenPort } from '../../src/diagnosis/published.ts';
import { containerSubnet, loadBalancerSubnet } from '../../src/components/context.ts';
import { formatPlan, plan } from '../../src/engine/plan.ts';
import {
  HOST_PORTS_ANNOTATION,
  PORT_LABEL,
  parseHostPorts,
  parsePortRecord,
  portRecordObject,
  type HostPort,
  type PortRecord,
} from '../../src/model/published.ts';
import type { KubernetesObject } from '../../src/model/resources.ts';
import { planPorts } from '../../src/operations/up-ports.ts';
import { Machine } from '../builders/machine.ts';
import { Shell } from '../builders/shell.ts';

const WEB: PortRecord = {
  hostPort: 8080,
  protocol: 'TCP',
  target: { namespace: 'default', kind: 'Service', name: 'web', port: '80' },
  origin: 'command',
};

describe('what a published port is written as', () => {
  it.each([
    ['8080:service/web:80', 8080, 'TCP', 'default Service web 80'],
    ['127.0.0.1:8080:svc/web:http', 8080, 'TCP', 'default Service web http'],
    ['localhost:5432:shop/statefulset/db:postgres', 5432, 'TCP', 'shop StatefulSet db postgres'],
    ['5353:dns/service/dns:53/udp', 5353, 'UDP', 'dns Service dns 53'],
    ['80:deployment.apps/web:8080/tcp', 80, 'TCP', 'default Deployment web 8080'],
    ['1:po/web-0:1', 1, 'TCP', 'default Pod web-0 1'],
  ])('%s', (text, hostPort, protocol, place) => {
    const parsed = parsePublished(text, { namespace: 'default' });
    expect(parsed).toMatchObject({ hostPort, protocol });
    expect('target' in parsed && Object.values(parsed.target).join(' ')).toBe(place);
  });

  it.each([
    ['service/web:80', /names no port of this machine/, 'for example 8080:service/web:80'],
    ['8080:web:80', /names no port of this machine/, /^the form is/],
    ['0.0.0.0:8080:service/web:80', /wants to listen on 0\.0\.0\.0/, 'write 8080:service/web:80'],
    ['[::1]:8080:service/web:80', /wants to listen on \[::1\]/, 'write 8080:service/web:80'],
    ['192.168.1.7:8080:service/web:80', /opened on 127\.0\.0\.1 only/, 'write 8080:service/web:80'],
    [':8080:service/web:80', /wants to listen on every address/, 'write 8080:service/web:80'],
    ['0:service/web:80', /"0" is no port/, /1 to 65535/],
    ['http:service/web:80', /"http" is no port/, /1 to 65535/],
    ['65536:service/web:80', /"65536" is no port/, /1 to 65535/],
    ['8080:servce/web:80', /servce is nothing that a port can lead to/, 'did you mean service?'],
    ['8080:job/web:80', /job is nothing/, /^(kinds|did you mean)/],
    ['8080:service/web', /does not say which of its ports/, 'for example service/web:80'],
    ['8080:service/web:0', /"0" is neither/, /^the form is/],
    ['8080:service/web:a_b', /"a_b" is neither/, /^the form is/],
    ['8080:service/web:80/sctp', /"sctp" is no protocol/, /\/udp/],
    ['8080:service/Web:80', /"Web" is not a name/, /^the form is/],
    ['8080:a/b/c/d:80', /names nothing/, /^the form is/],
  ])('is not %s', (text, problem, suggestion) => {
    expect(parsePublished(text, { namespace: 'default' })).toEqual({
      problem: expect.stringMatching(problem) as string,
      suggestion: typeof suggestion === 'string' ? suggestion : (expect.stringMatching(suggestion) as string),
    });
  });

  it('is named once in a file, and is none of the cluster itself', () => {
    const publish = ['8080:service/a:80', '8080/x', '8080:service/b:80', '8080:service/b:80/udp', '6443:service/c:1'];
    const { ports, problems } = readPublished({ publish, ports: { api: 6443 } });
    expect(ports.map(({ target, protocol }) => [target.name, protocol])).toEqual([
      ['a', 'TCP'],
      ['b', 'UDP'],
    ]);
    expect(problems.map(({ path, message }) => [path[1], message])).toEqual([
      [1, expect.stringMatching(/names no port/) as string],
      [2, 'port 8080 is published twice'],
      [4, 'port 6443 is ports.api already'],
    ]);
  });
});

describe('the record of a port', () => {
  it('is read as it was written', () => {
    expect(parsePortRecord(portRecordObject(WEB))).toEqual(WEB);
  });

  it('is none where somebody has edited it into something else', () => {
    const object = portRecordObject(WEB);
    const data = { ...(object['data'] as object), kind: 'constructor' };
    expect(parsePortRecord({ ...object, data })).toBeUndefined();
    expect(parsePortRecord({ ...object, data: undefined })).toBeUndefined();
    const annotated = (text: string): KubernetesObject => ({
      ...object,
      metadata: { ...object.metadata, annotations: { [HOST_PORTS_ANNOTATION]: text } },
    });
    for (const text of ['{', '{}', '[1, null, {"port": "x"}]']) expect(parseHostPorts(annotated(text))).toEqual([]);
  });
});

describe('up', () => {
  it('makes what the file publishes, takes over what a command did, and removes what the file no longer names', () => {
    const record = (hostPort: number, origin: PortRecord['origin']): KubernetesObject =>
      portRecordObject({ ...WEB, hostPort, origin });
    const present = [record(1, 'file'), record(2, 'file'), record(3, 'command'), record(4, 'command')];
    const { resources, observed } = planPorts(
      [1, 3, 5].map((hostPort) => ({ ...WEB, hostPort })),
      present,
    );
    const steps = plan(resources, observed);
    expect(formatPlan(steps).split('\n').toSorted()).toEqual([
      'create object/ConfigMap/sandbar-system/port-5-tcp (missing)',
      'remove object/ConfigMap/sandbar-system/port-2-tcp (no longer wanted)',
      'update object/ConfigMap/sandbar-system/port-3-tcp (differs from what is wanted)',
    ]);
    expect(steps.some(({ losesData }) => losesData)).toBe(false);
  });

  it('keeps the upper half of the network from the engine', () => {
    expect(loadBalancerSubnet('172.30.4.0/24')).toBe('172.30.4.128/25');
    expect(containerSubnet('172.30.4.0/24')).toBe('172.30.4.0/25');
    expect(loadBalancerSubnet('10.0.0.64/26')).toBe('10.0.0.96/27');
    expect(loadBalancerSubnet('10.0.0.0/16')).toBe('10.0.128.0/17');
  });
});

describe('doctor', () => {
  const port = (changes: Partial<OpenPort>): OpenPort => ({
    hostPort: 8080,
    protocol: 'TCP',
    namespace: 'shop',
    target: 'service/web:80',
    origin: 'command',
    state: 'open',
    detail: '',
    ...changes,
  });
  it.each([
    ['taken', 'warning', /another program has it.*service\/web:80 in namespace shop/, /sandbar port rm 8080/],
    ['lost', 'warning', /there is no service\/web:80/, /sandbar port rm 8080/],
    ['unreachable', 'error', /nothing here reaches/, /Enable host networking/],
    ['waiting', 'error', /it is not open/, /sandbar up/],
    ['failed', 'error', /it is not open/, /sandbar up/],
  ])('tells of a port that is %s', (state, severity, message, fix) => {
    expect(checkPublished([port({}), port({ state })])).toMatchObject([
      { severity, message: expect.stringMatching(message) as string, fix: expect.stringMatching(fix) as string },
    ]);
  });

  it('names the Service whose own settings close it', () => {
    const [check] = checkPublished([port({ state: 'closed', origin: 'load-balancer', detail: 'ranges' })]);
    expect(check).toMatchObject({
      message: expect.stringMatching(/ranges/) as string,
      fix: 'sandbar kubectl -n shop edit service/web',
    });
  });
});

describe('sandbar port', () => {
  let shell: Shell;
  /** What the agent says of a record that it finds. */
  let answer: HostPort;

  beforeEach(async () => {
    const machine = new Machine();
    await machine.up();
    shell = new Shell(machine);
    const { cluster } = machine;
    const namespaces = ['default', 'shop'].map((name) => ({ apiVersion: 'v1', kind: 'Namespace', metadata: { name } }));
    const service = {
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { name: 'web', namespace: 'default' },
      spec: {
        ports: [
          { name: 'http', port: 80 },
          { port: 53, protocol: 'UDP' },
        ],
      },
    };
    for (const object of [...namespaces, service]) await cluster.apply(object);
    answer = { port: 8080, protocol: 'TCP', hostPort: 8080, state: 'open' };
    const [apply, patch] = [cluster.apply.bind(cluster), cluster.patch.bind(cluster)];
    const tell = async (object: Parameters<typeof cluster.patch>[0]): Promise<void> => {
      if (!object.metadata.name.startsWith('port-')) return;
      await patch(object, { metadata: { annotations: { [HOST_PORTS_ANNOTATION]: JSON.stringify([answer]) } } });
      if (answer.state === 'open') machine.host.listeners.set(8080, 'sandbar-ports');
    };
    cluster.apply = async (object) => {
      await apply(object);
      await tell(object);
    };
    cluster.patch = async (object, change) => {
      const patched = await patch(object, change);
      await tell(object);
      return patched;
    };
    const remove = cluster.remove.bind(cluster);
    cluster.remove = async (object) => {
      machine.host.listeners.delete(8080);
      await remove(object);
    };
  });

  const records = (): readonly string[] =>
    [...shell.machine.cluster.objects.values()]
      .filter(({ metadata }) => metadata.labels?.[PORT_LABEL] !== undefined)
      .map(({ metadata }) => metadata.name);

  it('publishes, tells what there is, and takes away', async () => {
    expect(await shell.lines('port', 'add', '8080', 'service/web:http')).toEqual([
      '127.0.0.1:8080 leads to service/web:http',
    ]);
    expect(await shell.lines('port', 'add', '8080:svc/web:http')).toEqual([
      '127.0.0.1:8080 leads to service/web:http already: nothing was changed',
    ]);
    expect(await shell.json('port', 'add', '8080', 'service/web:80')).toMatchObject({ change: 'replaced' });
    expect(await shell.json('port', 'ls')).toMatchObject([
      { hostPort: 8080, target: 'service/web:80', origin: 'command', state: 'open' },
    ]);
    expect((await shell.lines('status')).at(-1)).toMatch(/^port +127\.0\.0\.1:8080 → service\/web:80$/);
    expect(await shell.lines('port', 'rm', '8080')).toEqual(['127.0.0.1:8080 is no longer published']);
    expect(records()).toEqual([]);
    expect(await shell.lines('port', 'ls')).toEqual(['no ports: sandbar port add 8080 service/NAME:80 publishes one']);
  });

  it('leaves nothing behind of what could not be opened, and keeps what there was', async () => {
    answer = { port: 8080, protocol: 'TCP', state: 'taken' };
    shell.machine.host.listeners.set(8080, 'nginx (pid 411)');
    const taken = await shell.run('port', 'add', '8080', 'service/web:80');
    expect(taken).toMatchObject({ exitCode: 3 });
    expect(taken.stderr).toMatch(/port 8080 is used by nginx \(pid 411\)[^]*sandbar port add 8081 service\/web:80/);
    expect(records()).toEqual([]);
  });

  it('says of an engine in a network of its own that nothing is reached through it', async () => {
    answer = { port: 8090, protocol: 'TCP', hostPort: 8090, state: 'open' };
    const { exitCode, stderr } = await shell.run('port', 'add', '8090', 'service/web:80');
    expect([exitCode, stderr]).toEqual([3, expect.stringMatching(/Enable host networking/)]);
    expect(records()).toEqual([]);
  });

  it.each([
    [['8080', 'service/wbe:80'], 4, /did you mean service\/web\?/],
    [['8080', 'service/web:81'], 4, /it has http = 80, 53\/udp/],
    [['8080', 'service/web:htp'], 4, /did you mean service\/web:http\?/],
    [['8080', 'service/web:53'], 4, /write service\/web:53\/udp/],
    [['8080', 'service/web:80', '-n', 'shop'], 4, /it is in namespace default/],
    [['8080', 'service/web:80', '-n', 'shp'], 4, /did you mean shop\?/],
    [['8080', 'deployment/web:80'], 4, /lists none/],
  ])('refuses %j', async (args, exitCode, message) => {
    const result = await shell.run('port', 'add', ...args);
    expect([result.exitCode, result.stderr]).toEqual([exitCode, expect.stringMatching(message)]);
    expect(records()).toEqual([]);
  });

  it('does not call a port closed that stays open', async () => {
    await shell.lines('port', 'add', '8080', 'service/web:80');
    const { host, cluster } = shell.machine;
    const remove = cluster.remove.bind(cluster);
    cluster.remove = async (object) => {
      await remove(object);
      host.listeners.set(8080, 'sandbar-ports (pid 77)');
    };
    const { exitCode, stdout, stderr } = await shell.run('port', 'rm', '8080');
    expect([exitCode, stdout]).toEqual([5, '']);
    expect(stderr).toMatch(/port 8080 is no longer published, but sandbar-ports \(pid 77\) still listens there/);
    expect(records()).toEqual([]);
  });

  it('takes away only what was published', async () => {
    expect((await shell.run('port', 'rm', '9000')).stderr).toMatch(/port 9000 is not published/);
    expect((await shell.run('port', 'rm')).stderr).toMatch(/no port is named/);
    expect((await shell.run('port', 'rm', 'web')).stderr).toMatch(/"web" is no port/);
    expect(await shell.lines('port', 'rm', '--all')).toEqual(['no port is published: nothing was changed']);
  });
});
