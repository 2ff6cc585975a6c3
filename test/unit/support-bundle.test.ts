import { generateKeyPairSync } from 'node:crypto';
import { Readable } from 'node:stream';
import { gunzipSync } from 'node:zlib';
import { beforeAll, describe, expect, it } from 'vitest';
import { redactJson, redactText, redactYaml, secretValues } from '../../src/diagnosis/redact.ts';
import type { KubernetesObject } from '../../src/model/resources.ts';
import { readMember, readTar } from '../../src/model/tar.ts';
import { writeSupportBundle } from '../../src/operations/support-bundle.ts';
import { fakeIdentity } from '../builders/cluster.ts';
import { nodeWith } from '../builders/diagnosis.ts';
import { Machine } from '../builders/machine.ts';
import { Shell } from '../builders/shell.ts';

const { privateKey } = generateKeyPairSync('ec', {
  namedCurve: 'P-256',
  privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
  publicKeyEncoding: { type: 'spki', format: 'pem' },
});
const PRIVATE_KEY = privateKey;
const KEY_LINE = PRIVATE_KEY.split('\n')[1] ?? '';

describe('redaction', () => {
  it.each([
    ['password=hunter2hunter2', 'password=<redacted>'],
    ['"dbPassword": "a \\"quoted\\" one", "port": 5', '"dbPassword": <redacted>, "port": 5'],
    ['Authorization: Bearer abc.def-123456', 'Authorization: <redacted> <redacted>'],
    ['sent Bearer abcdef123456 to it', 'sent Bearer <redacted> to it'],
    ['http://ada:s3cret@proxy.example:3128/', 'http://<redacted>@proxy.example:3128/'],
    ['https://token-only@git.example/x', 'https://<redacted>@git.example/x'],
    ['eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0xx.c2lnbmF0dXJl', '<redacted>'],
    ['{"log":"{\\"password\\":\\"hunter22\\",\\"port\\":1}"}', '{"log":"{\\"password\\":<redacted>,\\"port\\":1}"}'],
    ['Server=db;Pwd=x;AccountKey=y==', 'Server=db;Pwd=<redacted>;AccountKey=<redacted>'],
    ['serve --password hunter22 --port 80', 'serve --password <redacted> --port 80'],
    ['exec mysql -u root -phunter22 shop', 'exec mysql -u root -p<redacted> shop'],
    ['amqp://u:a/b@host', 'amqp://<redacted>@host'],
    ['docker run -p 80:80 web && mkdir -p /srv', 'docker run -p 80:80 web && mkdir -p /srv'],
    ['kube-secret app of shop', 'kube-secret app of shop'],
    ['secret "app" not found', 'secret "app" not found'],
    ['listening on https://127.0.0.1:6443', 'listening on https://127.0.0.1:6443'],
  ])('%s', (text, redacted) => {
    expect(redactText(text, [])).toBe(redacted);
  });

  it.each(['x', 'pass', '--pass', '://a', 'mysql ', '\\', 'password:\\'])('reads long text of "%s" once', (word) => {
    const startedAt = performance.now();
    redactText(word.repeat(20_000), []);
    expect(performance.now() - startedAt).toBeLessThan(2_000);
  });

  it('takes what follows -p where a client of a database is called', () => {
    expect(redactJson(['/usr/bin/mysql', '-p', 'hunter22', '-u', 'root'], [])).toEqual([
      '/usr/bin/mysql',
      '-p',
      '<redacted>',
      '-u',
      'root',
    ]);
    expect(redactJson(['mongosh', '-phunter22'], [])).toEqual(['mongosh', '-p<redacted>']);
    expect(redactJson(['mkdir', '-p', '/srv'], [])).toEqual(['mkdir', '-p', '/srv']);
  });

  it('takes private keys out, whosever they are', () => {
    expect(redactText(`before ${PRIVATE_KEY}after`, [])).toBe('before <redacted>\nafter');
  });

  it('takes known values out wherever they stand, in base64 and quoted too', () => {
    const known = secretValues(['open"sesame']);
    const base64 = Buffer.from('open"sesame').toString('base64');
    expect(redactText(`a open"sesame b ${base64} c open\\"sesame`, known)).toBe(
      'a <redacted> b <redacted> c <redacted>',
    );
  });

  it('leaves words alone that are too short to be secrets', () => {
    expect(redactText('true', secretValues(['true', '']))).toBe('true');
  });

  it('of YAML takes what stands below a key too', () => {
    const yaml = ['a:', '  token: |', '    line one', '    line two', '  other: 1', 'passwords:', '  - x', 'b: 2'];
    expect(redactYaml(yaml.join('\n'), [])).toBe(
      ['a:', '  token: <redacted>', '  other: 1', 'passwords: <redacted>', 'b: 2'].join('\n'),
    );
  });

  it('of JSON keeps names, and takes variables, headers and arguments', () => {
    const container = {
      env: [
        { name: 'COLOUR', value: 'blue-blue' },
        { name: 'KEY', valueFrom: { secretKeyRef: { name: 'app', key: 'k' } } },
      ],
      args: ['--db-password', 'hunter2', '--verbose', '--token=abc'],
      livenessProbe: { httpGet: { httpHeaders: [{ name: 'X-Key', value: 'zzz' }] } },
      secretName: 'app',
    };
    expect(redactJson(container, [])).toEqual({
      env: [
        { name: 'COLOUR', value: '<redacted>' },
        { name: 'KEY', valueFrom: { secretKeyRef: { name: 'app', key: 'k' } } },
      ],
      args: ['--db-password', '<redacted>', '--verbose', '--token=<redacted>'],
      livenessProbe: { httpGet: { httpHeaders: [{ name: 'X-Key', value: '<redacted>' }] } },
      secretName: 'app',
    });
  });
});

const ENCRYPTION_KEY = fakeIdentity().encryptionKey;

/** One for each place where secrets are; each is nowhere else. */
const CANARIES = {
  secret: 'canary-in-a-secret',
  secretInLog: 'canary-of-a-secret-in-a-log',
  environment: 'canary-in-the-env-of-a-pod',
  template: 'canary-in-the-env-of-a-template',
  applied: 'canary-in-last-applied',
  configMap: 'canary-in-a-configmap',
  argument: 'canary-in-an-argument',
  header: 'canary-in-a-header',
  event: 'canary-in-an-event',
  proxy: 'canary-of-the-proxy',
  invalid: 'canary-in-a-mistaken-file',
  docker: 'canary-in-dockers-env',
  bearer: 'canary-bearer-in-a-log',
  hostLog: 'canary-in-a-log-of-the-host',
  lastLine: 'canary-in-the-last-words',
};

const object = (kind: string, name: string, fields: object, apiVersion = 'v1'): KubernetesObject => ({
  apiVersion,
  kind,
  metadata: { name, namespace: 'shop' },
  ...fields,
});

async function startWithCanaries(): Promise<Shell> {
  const shell = new Shell(new Machine());
  const { machine } = shell;
  const { cluster, host, runtime } = machine;
  host.files.set('/home/ada/app/sandbar.yaml', {
    content: `name: dev\n# the proxy is http://ada:${CANARIES.proxy}@proxy.example:3128\n`,
    mode: 0o644,
    ageMs: 0,
  });
  const { exitCode, stderr } = await shell.run('up');
  expect(exitCode, stderr).toBe(0);
  runtime.programs.set('sandbar-agent', ({ args }) => ({ stdout: args[0] === 'mounts' ? '[]' : '' }));
  runtime.environment = [`PLAIN=${CANARIES.docker}`];
  runtime.containers
    .get('sandbar-dev-agent')
    ?.log.push(
      `failed with ${CANARIES.secretInLog}`,
      `Authorization: Bearer ${CANARIES.bearer}`,
      PRIVATE_KEY,
      `sealed with ${ENCRYPTION_KEY}`,
      'harmless',
    );
  host.files.set('/home/ada/.local/state/sandbar/logs/relay-dev.log', {
    content: `relaying\npassword: ${CANARIES.hostLog}\n`,
    mode: 0o600,
    ageMs: 0,
  });
  const encoded = (value: string): string => Buffer.from(value).toString('base64');
  const env = (value: string): object => ({ name: 'main', env: [{ name: 'PLAIN', value }] });
  const yaml = host.files.get('/home/ada/app/sandbar.yaml');
  if (yaml !== undefined) {
    const content = `${yaml.content}unknown:\n  apiToken: ${CANARIES.invalid}\n`;
    host.files.set('/home/ada/app/sandbar.yaml', { ...yaml, content });
  }
  const terminated = { exitCode: 1, finishedAt: new Date(machine.clock.now()).toISOString() };
  for (const one of [
    nodeWith() as KubernetesObject,
    object('Secret', 'app', { data: { a: encoded(CANARIES.secret), b: encoded(CANARIES.secretInLog) } }),
    object('ConfigMap', 'app', { data: { file: CANARIES.configMap } }),
    object('Pod', 'web', {
      metadata: {
        name: 'web',
        namespace: 'shop',
        annotations: { 'kubectl.kubernetes.io/last-applied-configuration': CANARIES.applied },
      },
      spec: {
        nodeName: 'sandbar-dev',
        containers: [
          {
            ...env(CANARIES.environment),
            args: ['--api-token', CANARIES.argument],
            readinessProbe: { httpGet: { httpHeaders: [{ name: 'X', value: CANARIES.header }] } },
          },
        ],
      },
      status: { phase: 'Running', containerStatuses: [{ name: 'main', restartCount: 2, state: { terminated } }] },
    }),
    object('Deployment', 'web', { spec: { template: { spec: { containers: [env(CANARIES.template)] } } } }, 'apps/v1'),
    object('Event', 'e', { message: `could not log in with password=${CANARIES.event}` }),
  ]) {
    cluster.objects.set(`${one.kind} ${one.metadata.name}`, one);
  }
  cluster.answers.set('/api/v1/namespaces/shop/pods/web/log?container=main&tailLines=3&previous=false', {
    status: 200,
    body: `token=${CANARIES.lastLine}\n`,
  });
  return shell;
}

async function unpack(archive: string | undefined): Promise<ReadonlyMap<string, string>> {
  const files = new Map<string, string>();
  const bytes = gunzipSync(Buffer.from(archive ?? '', 'latin1'));
  for await (const member of readTar(Readable.from([bytes]))) {
    files.set(member.path.replace(/^sandbar-dev\//, ''), (await readMember(member)).toString());
  }
  return files;
}

describe('support-bundle', () => {
  let shell: Shell;
  let files: ReadonlyMap<string, string>;

  beforeAll(async () => {
    shell = await startWithCanaries();
    const written: (string | Buffer)[] = [];
    const { host } = shell.machine;
    const write = host.writeFileAtomically.bind(host);
    host.writeFileAtomically = async (path, content, mode) => {
      if (path.endsWith('.tar.gz')) written.push(content);
      await write(path, content, mode);
    };
    const { exitCode, stdout } = await shell.run('support-bundle', 'out.tar.gz');
    expect(stdout).toMatch(/^✔ wrote \/home\/ada\/app\/out\.tar\.gz \(\d+ files, \d+ KiB\)$/m);
    expect(exitCode).toBe(0);
    files = await unpack(Buffer.from(written[0] ?? '').toString('latin1'));
  });

  it('holds what is needed to understand a cluster', () => {
    expect([...files.keys()]).toEqual(
      expect.arrayContaining([
        'versions.json',
        'doctor.json',
        'plan.json',
        'sandbar.yaml',
        'docker/sandbar-dev-agent.json',
        'logs/sandbar-dev-agent.log',
        'host-logs/relay-dev.log',
        'kubernetes/Pod.json',
        'kubernetes/Event.json',
        'kubernetes/ConfigMap.json',
      ]),
    );
    expect(files.get('logs/sandbar-dev-agent.log')).toContain('harmless');
    expect(files.get('sandbar.yaml')).toContain('@proxy.example:3128');
    expect(files.get('sandbar.yaml')).toContain('apiToken: <redacted>');
    expect(files.get('kubernetes/ConfigMap.json')).toContain('"file"');
    expect(files.get('doctor.json')).toContain('container main ended with exit code 1');
  });

  it.each(Object.entries(CANARIES))('has no secret of this kind: %s', (_, canary) => {
    const leaks = [...files].filter(
      ([, content]) => content.includes(canary) || content.includes(Buffer.from(canary).toString('base64')),
    );
    expect(leaks.map(([path]) => path)).toEqual([]);
  });

  it('has neither keys nor credentials of the cluster', () => {
    const all = [...files.values()].join('\n');
    const secrets = [KEY_LINE, 'secret-value', 'key of ca', 'key of admin', ENCRYPTION_KEY];
    for (const secret of secrets) expect(all).not.toContain(secret);
    expect([...files.keys()].filter((path) => path.includes('Secret'))).toEqual([]);
  });

  it('replaces no file', async () => {
    const { exitCode, stderr } = await shell.run('support-bundle', 'out.tar.gz');
    expect(exitCode).toBe(1);
    expect(stderr).toContain('/home/ada/app/out.tar.gz is there already');
  });

  it('is written with parts of the cluster down, and says what it lacks', async () => {
    const { machine } = shell;
    machine.cluster.isDown = true;
    machine.runtime.containers.delete('sandbar-dev-control-plane');
    const { stdout, exitCode } = await shell.run('support-bundle', 'down.tar.gz');
    expect(exitCode).toBe(0);
    expect(stdout).toContain('! without kubernetes/: the control plane of cluster "dev" is missing');
  });

  it('without the API has no objects, since nobody knows what has to stay out of them', async () => {
    const whole = await startWithCanaries();
    whole.machine.cluster.list = () => Promise.reject(new Error('the server does not answer'));
    const request = {
      clusterName: 'dev',
      file: '/home/ada/app/x.tar.gz',
      versions: {},
      diagnose: () => Promise.resolve({}),
      plan: () => Promise.resolve({}),
      readConfig: () => Promise.resolve(undefined),
    };
    const { contents, missing } = await writeSupportBundle(request, whole.machine.ports);
    expect(contents.filter((path) => path.startsWith('kubernetes/'))).toEqual([]);
    expect(missing).toEqual([{ what: 'kubernetes/', reason: 'the server does not answer' }]);
  });
});
