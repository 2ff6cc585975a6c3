/** What is really broken, and what `doctor` says of it; and the file that says all of it to somebody else. */
import { execFile } from 'node:child_process';
import { mkdir, readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { DockerRuntime } from '../../src/adapters/docker.ts';
import { environment, isDockerMissing, layerImage, provideTestImage, TEST_IMAGE } from '../fixtures/docker.ts';
import { createSandbox, eventually, type Sandbox } from './support.ts';

const run = promisify(execFile);

type Report = {
  readonly isHealthy: boolean;
  readonly checks: readonly {
    readonly id: string;
    readonly severity: string;
    readonly subject: string;
    readonly message: string;
    readonly cause?: string;
    readonly fix?: string;
    readonly isFixable: boolean;
  }[];
  readonly fixes?: readonly { readonly command: string; readonly isDone: boolean }[];
};

const LOCAL_IMAGE = 'sandbar-test/doctor:1';

/** What is wrong, one line each. Limits of this machine are not what is tested. */
function linesOf(report: Report): readonly string[] {
  return report.checks
    .filter(({ severity, id }) => severity !== 'ok' && !id.startsWith('machine.'))
    .map(({ severity, subject, message }) => `${severity} ${subject}: ${message}`);
}

async function examine(sandbox: Sandbox, ...flags: readonly string[]): Promise<Report & { readonly exitCode: number }> {
  const { stdout, stderr, exitCode } = await sandbox.run(['doctor', '-o', 'json', ...flags]);
  if (stdout === '') throw new Error(stderr);
  return { ...(JSON.parse(stdout) as Report), exitCode };
}

/** Asks until `isTold`: controllers and the kubelet take their time. The test's own limit ends it. */
async function examineUntil(
  sandbox: Sandbox,
  isTold: (lines: readonly string[]) => boolean,
): Promise<readonly string[]> {
  for (;;) {
    const lines = linesOf(await examine(sandbox));
    if (isTold(lines)) return lines;
  }
}

const shell = (script: string): readonly string[] => ['/bin/busybox', 'sh', '-c', script];

const pod = (name: string, container: object = {}, spec: object = {}): object => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name, namespace: 'broken' },
  spec: {
    terminationGracePeriodSeconds: 1,
    containers: [{ name: 'main', image: TEST_IMAGE, imagePullPolicy: 'IfNotPresent', ...container }],
    ...spec,
  },
});

const claimVolume = (claimName: string): object => ({
  volumes: [{ name: 'v', persistentVolumeClaim: { claimName } }],
});

/** Pod → what has to be said of it. */
const BROKEN: readonly (readonly [object, RegExp])[] = [
  [
    pod('nowhere', { image: 'nowhere.invalid/none:1' }),
    /^error pod broken\/nowhere: image nowhere.invalid\/none:1 is neither on the node nor in the Docker engine, and it cannot be pulled$/,
  ],
  [
    pod('never', { image: 'none:1', imagePullPolicy: 'Never' }),
    /^error pod broken\/never: image none:1 is neither on the node nor in the Docker engine, and imagePullPolicy is Never$/,
  ],
  [
    pod('local', { image: LOCAL_IMAGE, imagePullPolicy: 'Never' }),
    /^error pod broken\/local: image sandbar-test\/doctor:1 is in the Docker engine, but not on the node$/,
  ],
  [pod('name', { image: 'BAD//x' }), /^error pod broken\/name: "BAD\/\/x" is no name of an image$/],
  [
    pod('crash', { command: shell('echo no database; exit 3') }),
    /^error pod broken\/crash: container main ended with exit code 3(?:, after \d+ restarts?)?: no database$/,
  ],
  [
    pod('memory', {
      command: shell('x=1234567890; while true; do x=$x$x; done'),
      resources: { limits: { memory: '16Mi' } },
    }),
    /^error pod broken\/memory: container main was killed for using more memory than its limit of 16Mi/,
  ],
  [
    pod('command', { command: ['/bin/nope'] }),
    /^error pod broken\/command: container main cannot start: .*\/bin\/nope.* not found/,
  ],
  [
    pod('claim', {}, claimVolume('nope')),
    /^error pod broken\/claim: its volume "v" wants the claim "nope", and there is none of that name$/,
  ],
  [
    pod('class', {}, claimVolume('fast')),
    /^error pod broken\/class: its claim "fast" is not bound: there is no StorageClass "fast"$/,
  ],
  [
    pod('big', { resources: { requests: { cpu: '512' } } }),
    /^error pod broken\/big: it requests 512 cpu where [\d.]+ of \d+ is free$/,
  ],
  [
    pod('selector', {}, { nodeSelector: { disk: 'ssd' } }),
    /^error pod broken\/selector: its nodeSelector wants disk=ssd, which the node does not have$/,
  ],
  [
    pod('config', { envFrom: [{ configMapRef: { name: 'nope' } }] }),
    /^error pod broken\/config: container main wants the ConfigMap "nope", and there is none of that name$/,
  ],
  [
    pod('key', { env: [{ name: 'A', valueFrom: { configMapKeyRef: { name: 'app', key: 'zzz' } } }] }),
    /^error pod broken\/key: container main wants the key "zzz" of ConfigMap "app", which does not have it$/,
  ],
  [
    pod(
      'volume',
      { volumeMounts: [{ name: 's', mountPath: '/s' }] },
      { volumes: [{ name: 's', secret: { secretName: 'nope' } }] },
    ),
    /^error pod broken\/volume: its volume "s" wants the Secret "nope", and there is none of that name$/,
  ],
  [
    pod('probe', { readinessProbe: { httpGet: { path: '/healthz', port: 8080 }, periodSeconds: 2 } }),
    /^error pod broken\/probe: the readiness probe of container main fails, so it is not ready: .*connection refused$/,
  ],
  [
    pod('live', { livenessProbe: { exec: { command: ['/bin/busybox', 'false'] }, periodSeconds: 1 } }),
    /^error pod broken\/live: the liveness probe of container main fails, so it is restarted/,
  ],
  [
    pod(
      'init',
      {},
      { initContainers: [{ name: 'wait', image: TEST_IMAGE, command: shell('echo for db; exec sleep 9999') }] },
    ),
    /^warning pod broken\/init: init container wait has run for \d+ s and does not end: for db$/,
  ],
  [
    pod('port', { ports: [{ containerPort: 80, hostPort: 8099 }] }),
    /^error pod broken\/port: its hostPort 8099\/TCP is taken by pod broken\/owner$/,
  ],
];

const OTHERS: readonly object[] = [
  ...['broken', 'small', 'stuck'].map((name) => ({ apiVersion: 'v1', kind: 'Namespace', metadata: { name } })),
  { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'app', namespace: 'broken' }, data: { a: 'b' } },
  {
    apiVersion: 'v1',
    kind: 'PersistentVolumeClaim',
    metadata: { name: 'fast', namespace: 'broken' },
    spec: { storageClassName: 'fast', accessModes: ['ReadWriteOnce'], resources: { requests: { storage: '1Gi' } } },
  },
  {
    apiVersion: 'v1',
    kind: 'ResourceQuota',
    metadata: { name: 'few', namespace: 'small' },
    spec: { hard: { pods: '0' } },
  },
  {
    apiVersion: 'apps/v1',
    kind: 'Deployment',
    metadata: { name: 'web', namespace: 'small' },
    spec: {
      selector: { matchLabels: { app: 'web' } },
      template: { metadata: { labels: { app: 'web' } }, spec: { containers: [{ name: 'main', image: TEST_IMAGE }] } },
    },
  },
  {
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: { name: 'held', namespace: 'stuck', finalizers: ['example.com/never'] },
  },
  {
    apiVersion: 'apiregistration.k8s.io/v1',
    kind: 'APIService',
    metadata: { name: 'v1.metrics.example.com' },
    spec: {
      group: 'metrics.example.com',
      version: 'v1',
      groupPriorityMinimum: 100,
      versionPriority: 100,
      insecureSkipTLSVerify: true,
      service: { name: 'metrics', namespace: 'broken' },
    },
  },
];

/** Apart from the others: it would keep their namespace from going. */
const WEBHOOK = {
  apiVersion: 'admissionregistration.k8s.io/v1',
  kind: 'ValidatingWebhookConfiguration',
  metadata: { name: 'gate' },
  webhooks: [
    {
      name: 'gate.example.com',
      sideEffects: 'None',
      admissionReviewVersions: ['v1'],
      clientConfig: { service: { name: 'gate', namespace: 'broken' } },
      rules: [{ apiGroups: ['batch'], apiVersions: ['v1'], operations: ['CREATE'], resources: ['jobs'] }],
    },
  ],
};

async function apply(sandbox: Sandbox, objects: readonly object[]): Promise<void> {
  const stdin = objects.map((object) => JSON.stringify(object)).join('\n---\n');
  await sandbox.mustKubectl(['apply', '-f', '-'], { stdin });
}

describe.skipIf(isDockerMissing)('doctor', () => {
  const sandbox = createSandbox('doctor');
  const runtime = new DockerRuntime(environment);

  beforeAll(async () => {
    await provideTestImage(runtime);
    await layerImage(await runtime.client(), LOCAL_IMAGE, [{ 'etc/doctor': 'ill' }]);
  });
  afterAll(async () => {
    await sandbox.docker.getImage(LOCAL_IMAGE).remove({ force: true });
    await runtime.close();
  });

  it('looks at the machine alone before there is a cluster', async () => {
    const { checks, exitCode } = await examine(sandbox);
    expect(exitCode).toBe(0);
    expect(checks.map(({ id }) => id)).toEqual(expect.arrayContaining(['machine.engine', 'machine.memory', 'cluster']));
    expect(await sandbox.containerIds()).toEqual({});
  });

  it('finds nothing wrong with a new cluster', async () => {
    await sandbox.up();
    // Nobody waits for metrics; until they are served, doctor says that they are not.
    await eventually('metrics', async () => {
      const { exitCode } = await sandbox.kubectl(['top', 'nodes']);
      return exitCode === 0 ? true : undefined;
    });
    const report = await examine(sandbox);
    expect(linesOf(report)).toEqual([]);
    expect(report.exitCode).toBe(0);
    expect((await sandbox.must(['doctor'])).trimEnd().split('\n').at(-1)).toMatch(
      /^✔ fine: .*control-plane, agent, dns/,
    );
  });

  describe('explains', () => {
    let lines: readonly string[] = [];

    beforeAll(async () => {
      await sandbox.must(['image', 'load', TEST_IMAGE]);
      await apply(sandbox, OTHERS);
      await apply(sandbox, [WEBHOOK]);
      await apply(sandbox, [pod('owner', { ports: [{ containerPort: 80, hostPort: 8099 }] })]);
      await sandbox.mustKubectl(['wait', '-n', 'broken', 'pod/owner', '--for=condition=Ready', '--timeout=60s']);
      await apply(
        sandbox,
        BROKEN.map(([object]) => object),
      );
      await sandbox.mustKubectl(['delete', 'namespace', 'stuck', '--wait=false']);
      lines = await examineUntil(
        sandbox,
        (found) =>
          BROKEN.every(([, line]) => found.some((one) => line.test(one))) &&
          found.some((one) => one.includes('namespace stuck')),
      );
    });

    it.each(BROKEN.map(([object, line]) => [(object as { metadata: { name: string } }).metadata.name, line] as const))(
      'the pod %s',
      (name, line) => {
        expect(lines.filter((one) => one.includes(`pod broken/${name}:`))).toEqual([expect.stringMatching(line)]);
      },
    );

    it.each([
      ['a quota', /^error deployment small\/web: its pods are refused: exceeded quota: few/],
      [
        'a webhook that nobody answers',
        /^error webhook gate: it blocks requests for jobs: service broken\/gate has no ready endpoint$/,
      ],
      ['an API service that nobody answers', /^error API service v1.metrics.example.com: nobody answers for it/],
      ['a namespace that does not go', /^error namespace stuck: it was deleted and does not go: /],
    ])('%s', (_, line) => {
      expect(lines).toContainEqual(expect.stringMatching(line));
    });

    it('nothing else', () => {
      expect(lines).toHaveLength(BROKEN.length + 4);
    });

    it('in seconds, and ends with 1', async () => {
      const { exitCode, stdout } = await sandbox.run(['doctor']);
      expect(exitCode).toBe(1);
      expect(stdout).toContain('fix: sandbar image load sandbar-test/doctor:1 (doctor --fix does it)');
    });

    it('what an image was missing for until --fix has loaded it', async () => {
      const { fixes } = await examine(sandbox, '--fix');
      expect(fixes).toEqual([{ command: `sandbar image load ${LOCAL_IMAGE}`, isDone: true }]);
      await sandbox.mustKubectl(['wait', '-n', 'broken', 'pod/local', '--for=condition=Ready', '--timeout=120s']);
      expect(linesOf(await examine(sandbox)).filter((line) => line.includes('broken/local'))).toEqual([]);
    });

    it('a node that takes no pods', async () => {
      const node = `sandbar-${sandbox.name}`;
      await sandbox.mustKubectl(['cordon', node]);
      await apply(sandbox, [pod('cordoned')]);
      await examineUntil(
        sandbox,
        (found) =>
          found.includes(`warning node ${node}: it is cordoned: no new pod starts`) &&
          found.includes('error pod broken/cordoned: the node is cordoned'),
      );
      await sandbox.mustKubectl(['uncordon', node]);
      await sandbox.mustKubectl(['taint', 'node', node, 'gpu=yes:NoSchedule']);
      await apply(sandbox, [pod('tainted')]);
      await examineUntil(sandbox, (found) =>
        found.includes("error pod broken/tainted: it does not tolerate the node's taint gpu=yes:NoSchedule"),
      );
      await sandbox.mustKubectl(['taint', 'node', node, 'gpu-']);
    });
  });

  describe('of broken parts', () => {
    const container = (component: Parameters<Sandbox['containerName']>[0]) =>
      sandbox.docker.getContainer(sandbox.containerName(component));

    beforeAll(async () => {
      await sandbox.mustKubectl(['delete', 'apiservice', 'v1.metrics.example.com']);
      await sandbox.mustKubectl(['delete', 'validatingwebhookconfiguration', 'gate']);
      await sandbox.mustKubectl([
        'patch',
        'configmap',
        'held',
        '-n',
        'stuck',
        '--type=merge',
        '-p',
        '{"metadata":{"finalizers":null}}',
      ]);
      await sandbox.mustKubectl(['delete', 'namespace', 'broken', 'small', '--wait', '--timeout=120s']);
      await sandbox.mustKubectl(['wait', 'namespace/stuck', '--for=delete', '--timeout=60s']);
      await examineUntil(sandbox, (lines) => lines.length === 0);
    });

    it.each([
      ['stopped', 'dns', () => container('dns').stop(), /^error dns: it is stopped \(exit code \d+/],
      [
        'removed',
        'ingress',
        () => container('ingress').remove({ force: true }),
        /^error ingress: its container is missing$/,
      ],
      ['paused', 'object-store', () => container('object-store').pause(), /^error object-store: it is paused$/],
      ['stopped', 'agent', () => container('agent').stop({ t: 1 }), /^error agent: it is stopped/],
      ['stopped', 'control-plane', () => container('control-plane').stop(), /^error control-plane: it is stopped/],
    ] as const)('one that is %s is told of (%s), and --fix brings it back', async (_, _component, breakIt, line) => {
      await breakIt();
      const broken = await examine(sandbox);
      expect(broken.exitCode).toBe(1);
      expect(linesOf(broken)).toContainEqual(expect.stringMatching(line));
      const { fixes } = await examine(sandbox, '--fix');
      expect(fixes).toEqual([{ command: 'sandbar up', isDone: true }]);
      await examineUntil(sandbox, (lines) => lines.length === 0);
    });

    it('a Node object that was deleted comes back', async () => {
      const node = `sandbar-${sandbox.name}`;
      await sandbox.mustKubectl(['delete', 'node', node]);
      expect(linesOf(await examine(sandbox))).toContain(
        `error node ${node}: its Node object was deleted: no pod can start`,
      );
      expect((await examine(sandbox, '--fix')).fixes).toEqual([{ command: 'sandbar up', isDone: true }]);
      await examineUntil(sandbox, (lines) => lines.length === 0);
    });

    it('a kubeconfig of an older cluster is made right', async () => {
      await sandbox.mustKubectl(['config', 'set-cluster', `sandbar-${sandbox.name}`, '--server=https://127.0.0.1:1']);
      expect(linesOf(await examine(sandbox))).toEqual([
        expect.stringContaining('is stale: it has https://127.0.0.1:1'),
      ]);
      expect((await examine(sandbox, '--fix')).isHealthy).toBe(true);
    });
  });

  it('what a support bundle holds is no secret', async () => {
    const canaries = [
      'canary-of-a-secret-value',
      'canary-of-an-environment',
      'canary-of-a-configmap',
      'canary-of-a-log',
    ];
    const [secret, variable, data, logged] = canaries;
    await apply(sandbox, [
      { apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'broken' } },
      { apiVersion: 'v1', kind: 'Secret', metadata: { name: 'app', namespace: 'broken' }, stringData: { key: secret } },
      { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'app', namespace: 'broken' }, data: { key: data } },
      pod('canary', {
        env: [{ name: 'PLAIN', value: variable }],
        command: shell(`echo token=${logged ?? ''} ${secret ?? ''}; exit 1`),
      }),
    ]);
    await examineUntil(sandbox, (lines) =>
      lines.some((line) => line.startsWith('error pod broken/canary: container main ended')),
    );
    const file = join(sandbox.directory, 'bundle.tar.gz');
    await sandbox.must(['support-bundle', file]);
    expect((await sandbox.run(['support-bundle', file])).exitCode).toBe(1);
    const folder = join(sandbox.directory, 'bundle');
    await mkdir(folder);
    await run('tar', ['-xzf', file, '-C', folder]);
    const paths = (await readdir(folder, { recursive: true, withFileTypes: true }))
      .filter((entry) => entry.isFile())
      .map((entry) => join(entry.parentPath, entry.name));
    const all = (await Promise.all(paths.map((path) => readFile(path, 'utf8')))).join('\n');
    expect(all).toContain('"canary"');
    expect(all).toContain('container main ended with exit code 1');
    const env = await sandbox.must(['env']);
    const keys = [...env.matchAll(/(?:ACCESS_KEY_ID|SECRET_ACCESS_KEY)='?([^'\n]+)/g)].map(([, value = '']) => value);
    expect(keys).toHaveLength(2);
    for (const one of [...canaries, ...keys, 'PRIVATE KEY']) {
      expect(all.includes(one), one).toBe(false);
      expect(all.includes(Buffer.from(one).toString('base64')), `${one} in base64`).toBe(false);
    }
  });
});
