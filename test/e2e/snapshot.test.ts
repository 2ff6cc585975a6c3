/** Snapshots of a cluster in use: taken, restored, carried to another one, and interrupted. */
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { CreateBucketCommand, GetObjectCommand, PutObjectCommand, S3Client } from '@aws-sdk/client-s3';
import { beforeAll, describe, expect, it } from 'vitest';
import type { Snapshot } from '../../src/model/snapshots.ts';
import { readApi } from './api-state.ts';
import { apply, inContainer } from './mounts.ts';
import { createSandbox, eventually } from './support.ts';

const sandbox = createSandbox('snapshot');
const PAUSE = 'registry.k8s.io/pause:3.10.2';

const claim = {
  apiVersion: 'v1',
  kind: 'PersistentVolumeClaim',
  metadata: { name: 'data' },
  spec: { accessModes: ['ReadWriteOnce'], resources: { requests: { storage: '1Gi' } } },
};

const podSpec = {
  containers: [{ name: 'main', image: PAUSE, volumeMounts: [{ name: 'data', mountPath: '/data' }] }],
  volumes: [{ name: 'data', persistentVolumeClaim: { claimName: 'data' } }],
};

const keeper = {
  apiVersion: 'apps/v1',
  kind: 'Deployment',
  metadata: { name: 'keeper' },
  spec: {
    selector: { matchLabels: { app: 'keeper' } },
    template: { metadata: { labels: { app: 'keeper' } }, spec: podSpec },
  },
};

const inAgent = (script: string): Promise<string> => inContainer(sandbox.containerName('agent'), script);
const inVolumes = (script: string): Promise<string> =>
  inAgent(`for volume in /var/lib/sandbar/volumes/*; do cd $volume && ${script}; done`);

async function withObjects<T>(work: (client: S3Client) => Promise<T>): Promise<T> {
  const env = JSON.parse(await sandbox.must(['env', '-o', 'json'])) as Record<string, string>;
  const [accessKeyId = '', secretAccessKey = ''] = [env['AWS_ACCESS_KEY_ID'], env['AWS_SECRET_ACCESS_KEY']];
  const client = new S3Client({
    endpoint: env['AWS_ENDPOINT_URL_S3'] ?? '',
    region: env['AWS_REGION'] ?? '',
    forcePathStyle: true,
    credentials: { accessKeyId, secretAccessKey },
  });
  try {
    return await work(client);
  } finally {
    client.destroy();
  }
}

const put = (Body: string): Promise<unknown> =>
  withObjects((client) => client.send(new PutObjectCommand({ Bucket: 'pictures', Key: 'a', Body })));

const read = (): Promise<string> =>
  withObjects(async (client) => {
    const { Body } = await client.send(new GetObjectCommand({ Bucket: 'pictures', Key: 'a' }));
    return (await Body?.transformToString()) ?? '';
  });

const list = async (): Promise<readonly Snapshot[]> =>
  JSON.parse(await sandbox.must(['snapshot', 'ls', '-o', 'json'])) as readonly Snapshot[];

const restore = (name: string): Promise<string> => sandbox.must(['snapshot', 'restore', name, '--yes']);

/** Containers that serve a command for a moment. */
async function leftovers(): Promise<readonly string[]> {
  const filters = { label: [`dev.sandbar.cluster=${sandbox.name}`] };
  const containers = await sandbox.docker.listContainers({ all: true, filters });
  return containers
    .filter(({ Labels }) => Labels['dev.sandbar.component'] === undefined)
    .map(({ Names }) => Names[0] ?? '');
}

/** What the moment of the snapshot was, in each of the three places. */
async function change(word: string): Promise<void> {
  await sandbox.mustKubectl(['create', 'configmap', word]);
  await inVolumes(`echo ${word} > file`);
  await put(word);
}

const configMaps = async (): Promise<readonly string[]> => {
  const { items } = await sandbox.getObject('configmaps');
  return items.map(({ metadata }) => metadata.name);
};

/** Without pods: controllers make theirs anew. */
const withoutPods = (api: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>> =>
  Object.fromEntries(
    Object.entries(api).filter(
      ([name]) => !/^(?:Pod|Endpoints|EndpointSlice|Deployment|ReplicaSet) default/.test(name),
    ),
  );

beforeAll(async () => {
  await sandbox.up(['--bucket', 'pictures']);
  await apply(sandbox, claim, keeper);
  await sandbox.mustKubectl(['rollout', 'status', 'deployment/keeper', '--timeout=60s']);
  await inVolumes('mkdir -p folder && chown 1000:2000 folder && chmod 2750 folder && ln -s /nowhere link');
  await change('before');
});

describe('snapshot', () => {
  it('keeps objects, volumes and buckets of one moment, and puts them back', async () => {
    await sandbox.must(['snapshot', 'create', 'first']);
    const api = await readApi(sandbox);
    const ids = await sandbox.containerIds();
    await change('later');
    await inVolumes('rm -r folder link');
    await withObjects((client) => client.send(new CreateBucketCommand({ Bucket: 'more' })));
    await sandbox.mustKubectl(['delete', 'deployment/keeper', 'pvc/data', 'configmap/before', '--wait=false']);

    await restore('first');
    expect(await configMaps()).not.toContain('later');
    expect(withoutPods(await readApi(sandbox))).toEqual(withoutPods(api));
    expect(await inVolumes('cat file; stat -c "%u:%g %a" folder; readlink link')).toBe(
      'before\n1000:2000 2750\n/nowhere\n',
    );
    expect(await read()).toBe('before');
    const buckets = JSON.parse(await sandbox.must(['bucket', 'ls', '-o', 'json'])) as { name: string }[];
    expect(buckets.map(({ name }) => name)).toEqual(['pictures']);
    await sandbox.mustKubectl(['rollout', 'status', 'deployment/keeper', '--timeout=60s']);
    expect(await sandbox.containerIds()).toEqual(ids);
    expect(await leftovers()).toEqual([]);
    expect(await inAgent('ls /var/lib/sandbar')).not.toContain('restore');
  });

  it('holds writes back while it copies, and loses none', async () => {
    // 64 MiB to copy, while somebody writes all the time.
    await inVolumes('head -c 67108864 /dev/urandom > large');
    const over = new AbortController();
    const created: string[] = [];
    const writing = (async () => {
      for (let number = 0; !over.signal.aborted; number += 1) {
        await sandbox.mustKubectl(['create', 'configmap', `written-${String(number)}`]);
        created.push(`written-${String(number)}`);
      }
    })();
    await eventually('somebody writes', () => Promise.resolve(created.length > 1 || undefined));
    await sandbox.must(['snapshot', 'create', 'busy']);
    over.abort();
    await writing;
    expect(await configMaps()).toEqual(expect.arrayContaining(created));
    await restore('busy');
    const kept = (await configMaps()).filter((name) => name.startsWith('written-'));
    // One moment: all that was written up to it, and nothing after.
    expect(kept.length).toBeGreaterThan(1);
    expect(kept.length).toBeLessThanOrEqual(created.length);
    expect(kept.toSorted()).toEqual(created.slice(0, kept.length).toSorted());
  });

  it('lists, refuses a name that is taken, and removes', async () => {
    expect((await list()).map(({ name }) => name)).toEqual(['first', 'busy']);
    expect(await sandbox.run(['snapshot', 'create', 'first'])).toMatchObject({ exitCode: 1 });
    const missing = await sandbox.run(['snapshot', 'restore', 'frist', '--yes']);
    expect(missing).toMatchObject({ exitCode: 4, stderr: expect.stringContaining('did you mean first?') as string });
    expect(await sandbox.run(['snapshot', 'restore', 'first'])).toMatchObject({ exitCode: 2 });
    await sandbox.must(['snapshot', 'rm', 'busy']);
    expect((await list()).map(({ name }) => name)).toEqual(['first']);
    expect(await sandbox.must(['up', '--bucket', 'pictures'])).toContain('nothing to change');
  });

  it('goes out as a file and comes back whole', async () => {
    const file = join(sandbox.directory, 'first.tar.gz');
    await sandbox.must(['snapshot', 'export', 'first', 'first.tar.gz']);
    expect((await stat(file)).mode & 0o777).toBe(0o600);
    expect(await sandbox.run(['snapshot', 'export', 'first', 'first.tar.gz'])).toMatchObject({ exitCode: 1 });
    await sandbox.must(['snapshot', 'rm', 'first']);
    await sandbox.must(['snapshot', 'import', 'first.tar.gz', 'again']);
    await inVolumes('rm -r *; echo other > file');
    await restore('again');
    expect(await inVolumes('cat file; stat -c "%u:%g %a" folder; readlink link')).toBe(
      'before\n1000:2000 2750\n/nowhere\n',
    );
    expect(await read()).toBe('before');
  });

  it('interrupted by Ctrl-C, leaves a cluster that runs and nothing of the snapshot', async () => {
    await inVolumes('head -c 268435456 /dev/urandom > large');
    const { exitCode } = await sandbox.run(['snapshot', 'create', 'broken', '-o', 'ndjson'], {
      onLine: (line, kill) => {
        if (line.includes('"phase-started"')) kill('SIGINT');
      },
    });
    expect(exitCode).toBe(130);
    expect((await list()).map(({ name }) => name)).toEqual(['again']);
    expect(await leftovers()).toEqual([]);
    await sandbox.must(['status']);
    await sandbox.mustKubectl(['create', 'configmap', 'after-interruption']);
  });

  it('killed, freezes nothing for longer than until the next command', async () => {
    const isFrozen = async (): Promise<true | undefined> =>
      (await sandbox.inspect('agent')).State.Paused ? true : undefined;
    const running = sandbox.start(['snapshot', 'create', 'broken']);
    await eventually('the agent stands still', isFrozen, { timeoutMs: 30_000 });
    running.child.kill('SIGKILL');
    await running.ended;
    // Writes go on by themselves: the request has ended with its connection.
    await sandbox.mustKubectl(['create', 'configmap', 'after-kill']);
    await sandbox.must(['up', '--bucket', 'pictures']);
    expect(await isFrozen()).toBeUndefined();
    await sandbox.must(['status']);
    expect((await list()).map(({ name }) => name)).toEqual(['again']);
    expect(await leftovers()).toEqual([]);
  });

  it('killed while it restores, is said by every other command and finished by the next restore', async () => {
    const running = sandbox.start(['snapshot', 'restore', 'again', '--yes']);
    const hasBegun = async (): Promise<true | undefined> =>
      (await sandbox.inspect('agent')).State.Running ? undefined : true;
    await eventually('the agent is stopped', hasBegun, { timeoutMs: 30_000 });
    running.child.kill('SIGKILL');
    await running.ended;
    const refused = await sandbox.run(['up', '--bucket', 'pictures']);
    expect(refused.exitCode).toBe(1);
    expect(refused.stderr).toContain('sandbar snapshot restore again finishes it');
    await restore('again');
    expect(await inVolumes('cat file')).toBe('before\n');
    expect(await leftovers()).toEqual([]);
    await sandbox.mustKubectl(['rollout', 'status', 'deployment/keeper', '--timeout=60s']);
  });

  it('survives down, and goes with down --volumes', async () => {
    await sandbox.must(['down']);
    await sandbox.up(['--bucket', 'pictures']);
    expect((await list()).map(({ name }) => name)).toEqual(['again']);
    await sandbox.must(['down', '--volumes', '--yes']);
    const filters = { label: [`dev.sandbar.cluster=${sandbox.name}`] };
    expect((await sandbox.docker.listVolumes({ filters })).Volumes).toEqual([]);
  });
});
