/** A reset under everything that keeps `kubectl delete` from coming to an end, looked at by clients that know nothing of it. */
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { CreateBucketCommand, ListObjectsV2Command, PutObjectCommand, S3Client } from '@aws-sdk/client-s3';
import { beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { readApi } from './api-state.ts';
import { apply, inContainer, recordNames } from './mounts.ts';
import { COMPONENTS, createSandbox, eventually, type Sandbox } from './support.ts';

const sandbox = createSandbox('reset');
const PAUSE = 'registry.k8s.io/pause:3.10.2';
const RESETS = Number(process.env['SANDBAR_RESETS'] ?? '5');

type Options = {
  readonly replicas?: number;
  readonly namespace?: string;
  readonly claim?: string;
  readonly command?: readonly string[];
};

function deployment(name: string, { replicas = 1, namespace = 'default', claim, command }: Options = {}): object {
  const container = {
    ...{ name: 'main', image: PAUSE },
    ...(command === undefined ? {} : { command }),
    ...(claim === undefined ? {} : { volumeMounts: [{ name: 'data', mountPath: '/data' }] }),
  };
  const volumes = claim === undefined ? [] : [{ name: 'data', persistentVolumeClaim: { claimName: claim } }];
  return {
    apiVersion: 'apps/v1',
    kind: 'Deployment',
    metadata: { name, namespace },
    spec: {
      replicas,
      selector: { matchLabels: { app: name } },
      template: { metadata: { labels: { app: name } }, spec: { containers: [container], volumes } },
    },
  };
}

function claim(name: string, namespace = 'default'): object {
  const spec = { accessModes: ['ReadWriteOnce'], resources: { requests: { storage: '1Gi' } } };
  return { apiVersion: 'v1', kind: 'PersistentVolumeClaim', metadata: { name, namespace }, spec };
}

const namespaceObject = (name: string): object => ({ apiVersion: 'v1', kind: 'Namespace', metadata: { name } });

const service = (name: string): object => ({
  apiVersion: 'v1',
  kind: 'Service',
  metadata: { name },
  spec: {
    type: 'NodePort',
    clusterIP: '10.96.99.99',
    selector: { app: name },
    ports: [{ port: 80, nodePort: 30_099 }],
  },
});

const boats = {
  apiVersion: 'apiextensions.k8s.io/v1',
  kind: 'CustomResourceDefinition',
  metadata: { name: 'boats.sandbar.test' },
  spec: {
    group: 'sandbar.test',
    scope: 'Namespaced',
    names: { plural: 'boats', singular: 'boat', kind: 'Boat' },
    versions: [
      {
        ...{ name: 'v1', served: true, storage: true },
        schema: { openAPIV3Schema: { type: 'object', 'x-kubernetes-preserve-unknown-fields': true } },
      },
    ],
  },
};

const boat = (name: string, namespace: string): object => ({
  apiVersion: 'sandbar.test/v1',
  kind: 'Boat',
  metadata: { name, namespace, finalizers: ['sandbar.test/never'] },
});

/** Nobody answers, and nothing may be created without an answer. */
const deadWebhook = {
  apiVersion: 'admissionregistration.k8s.io/v1',
  kind: 'ValidatingWebhookConfiguration',
  metadata: { name: 'dead' },
  webhooks: [
    {
      name: 'dead.sandbar.test',
      clientConfig: { service: { name: 'nobody', namespace: 'default' } },
      rules: [{ apiGroups: ['*'], apiVersions: ['*'], resources: ['*'], operations: ['*'] }],
      failurePolicy: 'Fail',
      sideEffects: 'None',
      admissionReviewVersions: ['v1'],
    },
  ],
};

const deadApiService = {
  apiVersion: 'apiregistration.k8s.io/v1',
  kind: 'APIService',
  metadata: { name: 'v1.dead.sandbar.test' },
  spec: {
    ...{ group: 'dead.sandbar.test', version: 'v1', insecureSkipTLSVerify: true },
    ...{ groupPriorityMinimum: 100, versionPriority: 100, service: { name: 'nobody', namespace: 'default' } },
  },
};

async function withObjects<T>(work: (client: S3Client) => Promise<T>): Promise<T> {
  const env = JSON.parse(await sandbox.must(['env', '-o', 'json'])) as Record<string, string>;
  const client = new S3Client({
    endpoint: env['AWS_ENDPOINT_URL_S3'] ?? '',
    region: env['AWS_REGION'] ?? '',
    forcePathStyle: true,
    credentials: {
      accessKeyId: env['AWS_ACCESS_KEY_ID'] ?? '',
      secretAccessKey: env['AWS_SECRET_ACCESS_KEY'] ?? '',
    },
  });
  try {
    return await work(client);
  } finally {
    client.destroy();
  }
}

const putObject = (Bucket: string): Promise<unknown> =>
  withObjects((client) => client.send(new PutObjectCommand({ Bucket, Key: 'a', Body: 'a' })));

const inAgent = (script: string): Promise<string> => inContainer(sandbox.containerName('agent'), script);

const bucketNames = async (): Promise<readonly string[]> =>
  (JSON.parse(await sandbox.must(['bucket', 'ls', '-o', 'json'])) as { name: string }[]).map(({ name }) => name);

const isGone = async (...args: readonly string[]): Promise<boolean> =>
  (await sandbox.kubectl(['get', ...args])).stderr.includes('not found');

/** When each container was started, by its id. */
async function starts(box: Sandbox): Promise<Readonly<Record<string, string>>> {
  const states = await Promise.all(COMPONENTS.map((component) => box.inspect(component)));
  return Object.fromEntries(states.map(({ Id, State }) => [Id, State.StartedAt]));
}

type Result = { readonly pods: number; readonly volumes: number; readonly buckets: number; readonly ms: number };

const reset = async (...args: readonly string[]): Promise<Result> =>
  JSON.parse(await sandbox.must(['reset', '--yes', '-o', 'json', ...args])) as Result;

let first: Readonly<Record<string, unknown>>;

beforeAll(async () => {
  await mkdir(join(sandbox.directory, 'src'));
  await writeFile(join(sandbox.directory, 'src', 'page.html'), 'mine');
  const declared = { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'declared' }, data: { color: 'blue' } };
  await writeFile(join(sandbox.directory, 'declared.yaml'), JSON.stringify(declared));
  await sandbox.writeConfig(
    [
      'objectStore: { buckets: [pictures] }',
      'manifests: [declared.yaml]',
      'mounts: { deployment/web: [./src:/app/src] }',
      '',
    ].join('\n'),
  );
  await sandbox.up();
  first = await readApi(sandbox);
});

describe('reset', () => {
  it('brings a cluster back from all that a user can do to it, at once, with everything running', async () => {
    const started = await starts(sandbox);
    const records = await recordNames(sandbox);
    const [record = ''] = records;
    const place = `/var/lib/sandbar/mounts/${record.replace(/^mount-/, '')}/page.html`;
    const token = (await sandbox.mustKubectl(['create', 'token', 'default'])).trim();
    const watch = await sandbox.startKubectl(['get', 'configmaps', '--watch-only', '--output-watch-events']);
    let watched = '';
    watch.child.stdout?.on('data', (chunk: string) => (watched += chunk));

    await apply(sandbox, namespaceObject('stuck'), claim('data'), boats, service('web'));
    await apply(sandbox, deployment('web', { replicas: 20 }), deployment('keeper', { claim: 'data' }));
    await apply(sandbox, deployment('crashing', { replicas: 2, command: ['/nothing'] }));
    await sandbox.mustKubectl(['wait', '--for=condition=Established', 'crd/boats.sandbar.test', '--timeout=30s']);
    await apply(sandbox, boat('dinghy', 'default'), boat('raft', 'stuck'));
    await sandbox.mustKubectl(['rollout', 'status', 'deployment/web', 'deployment/keeper', '--timeout=120s']);
    await inAgent('for volume in /var/lib/sandbar/volumes/*; do echo mine > $volume/file; done');
    await withObjects((client) => client.send(new CreateBucketCommand({ Bucket: 'own-bucket' })));
    for (const bucket of ['own-bucket', 'pictures']) await putObject(bucket);
    await sandbox.mustKubectl(['create', 'configmap', 'seen']);
    await eventually('the watch sees what is created', () => Promise.resolve(watched.includes('seen') || undefined));
    await sandbox.mustKubectl(['label', 'node', '--all', 'disk=fast']);
    await sandbox.mustKubectl(['taint', 'node', '--all', 'mine=yes:NoSchedule']);
    await sandbox.mustKubectl(['delete', 'clusterrole', 'view']);
    await sandbox.mustKubectl([
      'patch',
      'clusterrole',
      'admin',
      '--type=merge',
      '-p',
      '{"aggregationRule":null,"rules":[]}',
    ]);
    await sandbox.mustKubectl(['delete', 'clusterrolebinding', 'system:sandbar:dns', '--ignore-not-found']);
    await sandbox.mustKubectl(['delete', 'boat', 'dinghy', '--wait=false']);
    await sandbox.mustKubectl(['delete', 'namespace', 'stuck', '--wait=false']);
    await apply(sandbox, deadApiService);
    // Pods are being created while it is reset, by a controller that nothing slows down.
    await sandbox.mustKubectl(['scale', 'deployment/web', '--replicas=40']);
    await apply(sandbox, deadWebhook);

    const result = await reset();
    expect(result.pods).toBeGreaterThanOrEqual(21);
    expect(result).toMatchObject({ volumes: 1, buckets: 2 });
    expect(await readApi(sandbox)).toEqual(first);
    expect(await starts(sandbox)).toEqual(started);
    expect(await inAgent('ls /var/lib/sandbar/volumes')).toBe('');
    expect(await bucketNames()).toEqual(['pictures']);
    const objects = await withObjects((client) => client.send(new ListObjectsV2Command({ Bucket: 'pictures' })));
    expect(objects.KeyCount).toBe(0);
    await eventually('the watch sees it deleted', () => Promise.resolve(/DELETED\s+seen/.test(watched) || undefined));
    watch.child.kill();

    // The live mount was there all the time, and what it shows is the user's.
    expect(await recordNames(sandbox)).toEqual(records);
    expect(await inAgent(`cat ${place}`)).toBe('mine');
    expect(await readFile(join(sandbox.directory, 'src', 'page.html'), 'utf8')).toBe('mine');

    // A token of before is still one of the same account.
    const { api } = await sandbox.ports();
    const ca = join(sandbox.directory, 'ca.crt');
    const { data } = await sandbox.getObject('configmap', 'kube-root-ca.crt');
    await writeFile(ca, data['ca.crt'] ?? '');
    const server = [`--server=https://127.0.0.1:${String(api)}`, `--certificate-authority=${ca}`];
    const who = ['auth', 'whoami', '--kubeconfig=/dev/null', ...server, `--token=${token}`, '-o', 'json'];
    expect(await sandbox.mustKubectl(who)).toContain('system:serviceaccount:default:default');

    // The same names, addresses and ports can be had at once.
    await apply(
      sandbox,
      service('web'),
      claim('data'),
      deployment('web', { replicas: 3 }),
      deployment('keeper', { claim: 'data' }),
    );
    await sandbox.mustKubectl(['rollout', 'status', 'deployment/web', 'deployment/keeper', '--timeout=60s']);
    expect(await inAgent('ls /var/lib/sandbar/volumes/*')).toBe('');
  });

  it('a second time in a row changes nothing', async () => {
    await reset();
    expect(await reset()).toMatchObject({ pods: 0, volumes: 0, buckets: 1 });
    expect(await readApi(sandbox)).toEqual(first);
    expect(await sandbox.must(['up'])).toContain('nothing to change');
  });

  it('refuses without a terminal, and what it cannot keep', async () => {
    await sandbox.mustKubectl(['create', 'configmap', 'still-here']);
    expect(await sandbox.run(['reset'])).toMatchObject({
      exitCode: 2,
      stderr: expect.stringContaining('--yes') as string,
    });
    const wrong = await sandbox.run(['reset', '--keep', 'volume', '--yes']);
    expect(wrong).toMatchObject({ exitCode: 2, stderr: expect.stringContaining('did you mean volumes?') as string });
    const missing = await sandbox.run(['reset', '--keep', 'namespace/none', '--yes']);
    expect(missing).toMatchObject({ exitCode: 4, stderr: expect.stringContaining('no namespace none') as string });
    expect(await isGone('configmap', 'still-here')).toBe(false);
  });
});

describe('reset --keep', () => {
  beforeEach(async () => {
    await reset();
    await apply(sandbox, namespaceObject('shop'));
    await apply(
      sandbox,
      claim('data', 'shop'),
      deployment('db', { namespace: 'shop', claim: 'data' }),
      deployment('web'),
    );
    await sandbox.mustKubectl(['rollout', 'status', '-n', 'shop', 'deployment/db', '--timeout=60s']);
    await inAgent('for volume in /var/lib/sandbar/volumes/*; do echo mine > $volume/file; done');
  });

  const podsOfShop = async (): Promise<unknown> => {
    const { items } = await sandbox.getObject('pods', '-n', 'shop');
    return items.map(({ metadata, status }) => [metadata.uid, status['containerStatuses']]);
  };
  const dataOfClaims = (): Promise<string> => inAgent('cat /var/lib/sandbar/volumes/*/file');

  it('keeps a namespace with its pods, which go on, and its volumes', async () => {
    const pods = await podsOfShop();
    await reset('--keep', 'namespace/shop');
    expect(await podsOfShop()).toEqual(pods);
    expect(await dataOfClaims()).toBe('mine\n');
    expect(await isGone('deployment', 'web')).toBe(true);
  });

  it('keeps claims with what is in them', async () => {
    await reset('--keep', 'volumes');
    expect(await isGone('deployment', 'db', '-n', 'shop')).toBe(true);
    await apply(sandbox, deployment('db', { namespace: 'shop', claim: 'data' }));
    await sandbox.mustKubectl(['rollout', 'status', '-n', 'shop', 'deployment/db', '--timeout=60s']);
    expect(await dataOfClaims()).toBe('mine\n');
  });

  it('keeps buckets', async () => {
    await putObject('pictures');
    await reset('--keep', 'buckets');
    const objects = await withObjects((client) => client.send(new ListObjectsV2Command({ Bucket: 'pictures' })));
    expect(objects.KeyCount).toBe(1);
  });

  it('keeps mounts that were made by command, which go otherwise', async () => {
    await mkdir(join(sandbox.directory, 'notes'), { recursive: true });
    await sandbox.must(['mount', './notes']);
    const records = await recordNames(sandbox);
    await reset('--keep', 'mounts');
    expect(await recordNames(sandbox)).toEqual(records);
    await reset();
    expect(await recordNames(sandbox)).toHaveLength(records.length - 1);
  });
});

describe('reset --hard', () => {
  it('starts over with the golden copy, and revisions that rise', async () => {
    await apply(sandbox, claim('data'), deployment('keeper', { claim: 'data' }));
    await sandbox.mustKubectl(['rollout', 'status', 'deployment/keeper', '--timeout=60s']);
    const revisionOf = async (): Promise<number> => {
      const { metadata } = JSON.parse(await sandbox.mustKubectl(['get', '--raw', '/api/v1/namespaces'])) as {
        metadata: { resourceVersion: string };
      };
      return Number(metadata.resourceVersion);
    };
    const before = await revisionOf();
    await reset('--hard');
    expect(await revisionOf()).toBeGreaterThan(before);
    const isSameObject = ({ metadata }: { metadata: { labels?: Readonly<Record<string, string>> } }): boolean =>
      metadata.labels?.['sandbar.dev/mount'] === undefined;
    const now = await readApi(sandbox, { isSameObject });
    // The kubelet's own, which it makes a moment later.
    const namesOf = (api: Readonly<Record<string, unknown>>): readonly string[] =>
      Object.keys(api).filter((name) => !name.startsWith('CSINode '));
    expect(namesOf(now)).toEqual(namesOf(first));
    expect(await inAgent('ls /var/lib/sandbar/volumes')).toBe('');
    await apply(sandbox, deployment('keeper'));
    await sandbox.mustKubectl(['rollout', 'status', 'deployment/keeper', '--timeout=60s']);
  });
});

describe('many resets', () => {
  /** How much there is of all that pods take. In one program: each one that counts is there itself. */
  async function traces(): Promise<Readonly<Record<string, number>>> {
    const lines = [
      'mounts $(wc -l < /proc/$(pidof sandbar-kubelet)/mountinfo)',
      'folders $(ls /var/lib/kubelet/pods | wc -l)',
      'bundles $(ls /run/containerd/io.containerd.runtime.v2.task/k8s.io | wc -l)',
      'shims $(cat /proc/[0-9]*/comm 2>/dev/null | grep -c containerd-shim)',
      'agents $(cat /proc/[0-9]*/comm 2>/dev/null | grep -c sandbar)',
      'namespaces $(ls /run/netns | wc -l)',
      'chains $(iptables-save | grep -c "^:")',
      'leases $(find /run/cni /var/lib/cni -type f 2>/dev/null | wc -l)',
    ];
    const printed = await inAgent(lines.map((line) => `echo ${line}`).join('; '));
    return Object.fromEntries(
      printed
        .trim()
        .split('\n')
        .map((line) => [line.split(' ')[0] ?? '', Number(line.split(' ')[1])]),
    );
  }

  async function consumption(): Promise<readonly { files: number; residentMiB: number }[]> {
    const pids = [(await sandbox.inspect('control-plane')).State.Pid, (await sandbox.inspect('agent')).State.Pid];
    return Promise.all(
      pids.map(async (pid) => {
        const files = (await readdir(`/proc/${String(pid)}/fd`)).length;
        const status = await readFile(`/proc/${String(pid)}/status`, 'utf8');
        return { files, residentMiB: Number(/VmRSS:\s+(\d+)/.exec(status)?.[1] ?? 0) / 1024 };
      }),
    );
  }

  it(
    `leave nothing behind after ${String(RESETS)} of them`,
    async () => {
      const cycle = async (): Promise<void> => {
        await apply(
          sandbox,
          claim('data'),
          deployment('web', { replicas: 5 }),
          deployment('keeper', { claim: 'data' }),
        );
        await sandbox.mustKubectl(['rollout', 'status', 'deployment/web', 'deployment/keeper', '--timeout=60s']);
        await reset();
      };
      // Some of it is made once, with the first pods.
      await cycle();
      const areGone = ({ folders, bundles, shims }: Readonly<Record<string, number>>): boolean =>
        folders === 0 && bundles === 0 && shims === 0;
      const before = await eventually('the first pods have left the node', async () => {
        const now = await traces();
        return areGone(now) ? now : undefined;
      });
      const usedBefore = await consumption();
      for (let round = 0; round < RESETS; round += 1) await cycle();
      let now: Readonly<Record<string, number>> = {};
      await eventually('the last pods have left the node', async () => {
        now = await traces();
        const isSame = (name: string): boolean => now[name] === before[name];
        return areGone(now) && isSame('chains') && isSame('agents') ? now : undefined;
      });
      expect(now).toEqual(before);
      const used = await consumption();
      for (const [index, { files, residentMiB }] of used.entries()) {
        expect(files).toBeLessThanOrEqual((usedBefore[index]?.files ?? 0) + 10);
        expect(residentMiB).toBeLessThan((usedBefore[index]?.residentMiB ?? 0) * 1.5 + 50);
      }
    },
    RESETS * 20_000 + 120_000,
  );
});
