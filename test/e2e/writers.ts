/** Clients that write without a pause, and remember what was acknowledged. */
import { PutObjectCommand, S3Client, type S3ClientConfig } from '@aws-sdk/client-s3';
import { Agent, request } from 'node:https';
import { parse } from 'yaml';
import { eventually, type Sandbox } from './support.ts';

export type Writer = {
  /** Names of what the server said to have written. */
  readonly acknowledged: ReadonlySet<string>;
  /** True once after a write has failed. */
  takeRefusal(): true | undefined;
  stop(): Promise<void>;
};

/** Creates ConfigMaps as fast as the API server takes them, over a few connections, and goes on when one breaks. */
export async function startWriting(sandbox: Sandbox): Promise<Writer> {
  const { clusters, users } = parse(await sandbox.must(['kubeconfig'])) as {
    clusters: { cluster: Readonly<Record<string, string>> }[];
    users: { user: Readonly<Record<string, string>> }[];
  };
  const { cluster } = clusters[0]!;
  const { user } = users[0]!;
  const decode = (text: string | undefined): Buffer => Buffer.from(text ?? '', 'base64');
  const agent = new Agent({
    keepAlive: true,
    ca: decode(cluster['certificate-authority-data']),
    cert: decode(user['client-certificate-data']),
    key: decode(user['client-key-data']),
  });
  const url = `${cluster['server'] ?? ''}/api/v1/namespaces/default/configmaps`;
  const create = (name: string): Promise<number> =>
    new Promise((resolve) => {
      const body = JSON.stringify({ metadata: { name, labels: { test: 'writes' } }, data: { name } });
      const outgoing = request(url, { method: 'POST', agent, headers: { 'content-type': 'application/json' } });
      outgoing.on('error', () => {
        resolve(0);
      });
      outgoing.on('response', (response) => {
        response.resume().on('close', () => {
          resolve(response.complete ? (response.statusCode ?? 0) : 0);
        });
      });
      outgoing.end(body);
    });

  const writer = writeThrough(async (name) => (await create(name)) === 201);
  return {
    ...writer,
    stop: async () => {
      await writer.stop();
      agent.destroy();
    },
  };
}

/** Puts objects into a bucket as fast as the object store takes them; each holds its own name. */
export async function startPutting(sandbox: Sandbox, bucket: string): Promise<Writer> {
  const client = await connectS3(sandbox, { maxAttempts: 1 });
  const put = (name: string): Promise<boolean> =>
    client.send(new PutObjectCommand({ Bucket: bucket, Key: name, Body: name })).then(
      () => true,
      () => false,
    );
  const writer = writeThrough(put);
  return {
    ...writer,
    stop: async () => {
      await writer.stop();
      client.destroy();
    },
  };
}

/** A client of the cluster's object store, as `sandbar env` describes it. */
export async function connectS3(sandbox: Sandbox, settings: S3ClientConfig = {}): Promise<S3Client> {
  const variables = JSON.parse(await sandbox.must(['env', '-o', 'json'])) as Readonly<Record<string, string>>;
  return new S3Client({
    endpoint: variables['AWS_ENDPOINT_URL_S3'] ?? '',
    region: variables['AWS_REGION'] ?? '',
    forcePathStyle: true,
    credentials: {
      accessKeyId: variables['AWS_ACCESS_KEY_ID'] ?? '',
      secretAccessKey: variables['AWS_SECRET_ACCESS_KEY'] ?? '',
    },
    ...settings,
  });
}

/** Waits until so many more writes were acknowledged. */
export async function untilMore(writer: Writer, count: number): Promise<void> {
  const enough = writer.acknowledged.size + count;
  await eventually('more writes', () => Promise.resolve(writer.acknowledged.size > enough || undefined));
}

/** Writes one after the other, four at a time, whatever becomes of each. */
function writeThrough(write: (name: string) => Promise<boolean>): Writer {
  const acknowledged = new Set<string>();
  let count = 0;
  let isRefused = false;
  let isStopped = false;
  const goOn = async (): Promise<void> => {
    while (!isStopped) {
      const name = `write-${String((count += 1))}`;
      if (await write(name)) acknowledged.add(name);
      else isRefused = true;
    }
  };
  const writers = Promise.all([goOn(), goOn(), goOn(), goOn()]);
  return {
    acknowledged,
    takeRefusal: () => {
      const wasRefused = isRefused;
      isRefused = false;
      return wasRefused || undefined;
    },
    stop: async () => {
      isStopped = true;
      await writers;
    },
  };
}
