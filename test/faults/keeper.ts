/**
 * An app on a cluster that shows from outside whether every part works, and data of every kind that it must not lose:
 * an object, a file in a claim, an object of a bucket, and a live mount.
 */
import { randomBytes } from 'node:crypto';
import { mkdir, writeFile } from 'node:fs/promises';
import { get as httpGet } from 'node:http';
import { get as httpsGet } from 'node:https';
import { join } from 'node:path';
import { GetObjectCommand, PutObjectCommand, type S3Client } from '@aws-sdk/client-s3';
import { expect } from 'vitest';
import { TOOLBOX_IMAGE, ingress } from '../e2e/fixtures/apps.ts';
import { apply, listOf } from '../e2e/mounts.ts';
import { ROOT, eventually, type Sandbox } from '../e2e/support.ts';
import { connectS3 } from '../e2e/writers.ts';

const RESULTS = join(ROOT, '.sandbar', 'faults', 'recovery');
const REQUEST_TIMEOUT_MS = 2_000;
const STEADY_MS = 3_000;

/** Serves what is in its claim and in its mount, and whether it finds the cluster's names and the object store. */
const SERVER = `
  const { existsSync, readFileSync, writeFileSync } = require('node:fs');
  // The C library asks again only after 5 s.
  const resolver = new (require('node:dns').promises.Resolver)({ timeout: 500, tries: 1 });
  const lookup = async (name) => (await resolver.resolve4(name))[0];
  const endpoint = new URL(process.env.AWS_ENDPOINT_URL_S3);
  const askStore = async () => {
    const url = 'http://' + (await lookup(endpoint.hostname)) + ':' + endpoint.port + '/minio/health/ready';
    return (await fetch(url, { signal: AbortSignal.timeout(500) })).status;
  };
  if (!existsSync('/data/kept')) writeFileSync('/data/kept', process.env.TOKEN);
  const read = (path) => existsSync(path) ? readFileSync(path, 'utf8') : '';
  require('node:http').createServer(async (request, response) => {
    const name = await lookup('kubernetes.default.svc.cluster.local').catch(String);
    const store = await askStore().catch(String);
    response.end(JSON.stringify({ claim: read('/data/kept'), mount: read('/mounted/file.txt'), name, store }));
  }).listen(8080);
  process.on('SIGTERM', () => process.exit(0));
`;

/** One pod with all that the kubelet must not have forgotten. */
export type PodState = { readonly name: string; readonly containerId: string; readonly restarts: number };

export class Keeper {
  readonly #sandbox: Sandbox;
  readonly #token: string;
  #s3: S3Client | undefined;
  #ports = { api: NaN, http: NaN };

  /** A cluster with the app on it, as a user has it on an ordinary day. */
  static async settle(sandbox: Sandbox): Promise<Keeper> {
    await sandbox.writeConfig('objectStore: { buckets: [kept] }\n');
    await sandbox.up();
    await sandbox.must(['image', 'load', TOOLBOX_IMAGE]);
    const keeper = new Keeper(sandbox, randomBytes(8).toString('hex'));
    await keeper.#settle();
    return keeper;
  }

  private constructor(sandbox: Sandbox, token: string) {
    this.#sandbox = sandbox;
    this.#token = token;
  }

  async #settle(): Promise<void> {
    const sandbox = this.#sandbox;
    await mkdir(join(sandbox.directory, 'mounted'), { recursive: true });
    await writeFile(join(sandbox.directory, 'mounted', 'file.txt'), this.#token);
    await apply(sandbox, keptObject(this.#token), ...objects('keeper', this.#token));
    await sandbox.must(['mount', 'mounted', 'deployment/keeper:/mounted']);
    await sandbox.mustKubectl(['rollout', 'status', 'deployment/keeper', '--timeout=60s']);
    await this.connect();
    await this.#s3?.send(new PutObjectCommand({ Bucket: 'kept', Key: 'kept', Body: this.#token }));
    await this.untilServed();
  }

  /** Looks up ports and keys again, which may be others after the cluster was made anew. */
  async connect(): Promise<void> {
    this.#s3?.destroy();
    this.#s3 = await connectS3(this.#sandbox, {
      maxAttempts: 1,
      requestHandler: { requestTimeout: REQUEST_TIMEOUT_MS, throwOnRequestTimeout: true },
    });
    this.#ports = await this.#sandbox.ports();
  }

  /** Each part that does not answer as it should, with what it said; empty when all is as on an ordinary day. */
  async complaints(): Promise<readonly string[]> {
    const all = await Promise.all([
      this.#ask(
        'API',
        async () => (await request(httpsGet, this.#ports.api, { path: '/readyz', host: 'localhost' })) === 'ok',
      ),
      this.#ask('app', async () =>
        this.#isServed(await request(httpGet, this.#ports.http, { path: '/', host: 'keeper.localhost' })),
      ),
      this.#ask('object store', async () => {
        const { Body: body } = await this.#s3!.send(new GetObjectCommand({ Bucket: 'kept', Key: 'kept' }));
        return (await body?.transformToString()) === this.#token;
      }),
    ]);
    const found = all.filter((complaint) => complaint !== undefined);
    if (found.length > 0) return found;
    // Through the API, which is pointless before it answers.
    const node = await this.#ask('node', async () => {
      const { stdout } = await this.#sandbox.kubectl([...READ, 'node', '-o', 'jsonpath={.items[*].status.conditions}']);
      return /"status":"True","type":"Ready"/.test(stdout);
    });
    const exec = await this.#ask('exec', async () => {
      const read = ['exec', '--request-timeout=2s', 'deployment/keeper', '--', 'cat', '/data/kept'];
      return (await this.#sandbox.kubectl(read)).stdout === this.#token;
    });
    return [node, exec].filter((complaint) => complaint !== undefined);
  }

  /**
   * Waits until every part answers as on an ordinary day, and goes on to: what is about to end, or is not yet known to
   * have ended, may answer for a moment. Returns when all had answered first, by `performance.now`.
   */
  async untilServed({ timeoutMs = 240_000 }: { readonly timeoutMs?: number } = {}): Promise<number> {
    let last: readonly string[] = [];
    let servedSince: number | undefined;
    const ask = async (): Promise<number | undefined> => {
      last = await this.complaints();
      servedSince = last.length > 0 ? undefined : (servedSince ?? performance.now());
      return servedSince !== undefined && performance.now() - servedSince > STEADY_MS ? servedSince : undefined;
    };
    try {
      return await eventually('served', ask, { timeoutMs });
    } catch (error) {
      throw new Error(`not served after ${String(timeoutMs / 1000)} s: ${last.join('; ')}`, { cause: error });
    }
  }

  /**
   * From the end of the deed until every part answers, with the repair where it takes one; nothing of what was there
   * before may be lost.
   */
  async recovers(
    fault: string,
    deed: () => Promise<unknown>,
    repair: () => Promise<unknown> = () => Promise.resolve(),
  ): Promise<void> {
    await deed();
    const endedAt = performance.now();
    await repair();
    await recordRecovery(fault, ((await this.untilServed()) - endedAt) / 1000);
    await this.expectNothingLost();
  }

  /** What a user finds: status says ready, every object and every byte is there, and `up` finds nothing to do. */
  async expectNothingLost(): Promise<void> {
    const sandbox = this.#sandbox;
    const { data } = await sandbox.getObject('configmap', 'kept');
    expect(data).toEqual({ token: this.#token });
    expect(await this.complaints()).toEqual([]);
    const status = await sandbox.run(['status']);
    expect(status.exitCode, status.stdout + status.stderr).toBe(0);
    expect((await sandbox.up()).steps).toEqual([]);
  }

  /** A second app of the same kind comes up, is served, and goes again. */
  async deployAnother(): Promise<void> {
    const sandbox = this.#sandbox;
    await sandbox.must(['image', 'load', TOOLBOX_IMAGE]);
    const list = objects('another', this.#token);
    await apply(sandbox, ...list);
    await sandbox.mustKubectl(['rollout', 'status', 'deployment/another', '--timeout=60s']);
    await eventually('another app is served', async () => {
      const text = await request(httpGet, this.#ports.http, { path: '/', host: 'another.localhost' }).catch(String);
      return text.includes(`"claim":"${this.#token}"`) || undefined;
    });
    await sandbox.mustKubectl(['delete', '--filename=-', '--wait'], { stdin: listOf(list) });
  }

  async pods(): Promise<readonly PodState[]> {
    const { items } = await this.#sandbox.getObject('pods', '--all-namespaces');
    return items
      .map(({ metadata, status }) => {
        const [container] = (status['containerStatuses'] ?? []) as readonly ContainerStatus[];
        return {
          name: metadata.name,
          containerId: container?.containerID ?? '',
          restarts: container?.restartCount ?? 0,
        };
      })
      .toSorted((a, b) => a.name.localeCompare(b.name));
  }

  #isServed(text: string): boolean {
    const { claim, mount, name, store } = JSON.parse(text) as Readonly<Record<string, unknown>>;
    return claim === this.#token && mount === this.#token && name === '10.96.0.1' && store === 200;
  }

  async #ask(part: string, question: () => Promise<boolean>): Promise<string | undefined> {
    try {
      return (await question()) ? undefined : `${part}: another answer`;
    } catch (error) {
      return `${part}: ${error instanceof Error ? error.message : String(error)}`;
    }
  }
}

/** Keeps what was measured, for docs/reliability.md. */
export async function recordRecovery(fault: string, seconds: number): Promise<void> {
  await mkdir(RESULTS, { recursive: true });
  const file = join(RESULTS, `${fault.replace(/[^a-z0-9]+/gi, '-').toLowerCase()}.json`);
  await writeFile(file, `${JSON.stringify({ fault, seconds: Math.round(seconds * 100) / 100 })}\n`);
}

type ContainerStatus = { readonly containerID?: string; readonly restartCount: number };

const READ = ['get', '--request-timeout=2s'];

function request(
  get: typeof httpGet | typeof httpsGet,
  port: number,
  { path, host }: { readonly path: string; readonly host: string },
): Promise<string> {
  return new Promise((resolve, reject) => {
    const options = { port, path, agent: false as const, headers: { host }, timeout: REQUEST_TIMEOUT_MS };
    const asked = get({ host: '127.0.0.1', rejectUnauthorized: false, ...options }, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
      response.on('end', () => {
        resolve(text);
      });
    });
    asked.on('error', reject);
    asked.on('timeout', () => asked.destroy(new Error('no answer')));
  });
}

function keptObject(token: string): object {
  return { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'kept' }, data: { token } };
}

function objects(name: string, token: string): readonly object[] {
  const metadata = { name };
  const container = {
    name: 'main',
    image: TOOLBOX_IMAGE,
    imagePullPolicy: 'IfNotPresent',
    command: ['node', '-e', SERVER],
    env: [{ name: 'TOKEN', value: token }],
    envFrom: [{ secretRef: { name: 'object-store' } }],
    readinessProbe: { httpGet: { path: '/', port: 8080 }, periodSeconds: 1 },
    volumeMounts: [{ name: 'data', mountPath: '/data' }],
  };
  const template = {
    metadata: { labels: { app: name } },
    spec: {
      terminationGracePeriodSeconds: 1,
      containers: [container],
      volumes: [{ name: 'data', persistentVolumeClaim: { claimName: name } }],
    },
  };
  return [
    {
      apiVersion: 'v1',
      kind: 'PersistentVolumeClaim',
      metadata,
      spec: { accessModes: ['ReadWriteOnce'], resources: { requests: { storage: '1Mi' } } },
    },
    {
      apiVersion: 'apps/v1',
      kind: 'Deployment',
      metadata,
      spec: { strategy: { type: 'Recreate' }, selector: { matchLabels: { app: name } }, template },
    },
    {
      apiVersion: 'v1',
      kind: 'Service',
      metadata,
      spec: { selector: { app: name }, ports: [{ port: 80, targetPort: 8080 }] },
    },
    ingress(name, [{ host: `${name}.localhost`, paths: [{ path: '/', service: name }] }]),
  ];
}
