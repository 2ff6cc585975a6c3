/** Whether every part of a cluster works, asked of clients that know nothing of Sandbar. */
import { CreateBucketCommand, PutObjectCommand, S3Client } from '@aws-sdk/client-s3';
import type { HostPorts, Subject } from './subject.ts';

/** A DNS question for kube-dns.kube-system.svc.cluster.local, type A. No byte of it is a line feed, at which bash would cut. */
const QUESTION = [
  '000101000001000000000000',
  ...['kube-dns', 'kube-system', 'svc', 'cluster', 'local'].map(
    (label) => label.length.toString(16).padStart(2, '0') + Buffer.from(label).toString('hex'),
  ),
  '0000010001',
].join('');

/** Asks the cluster's DNS service from the node with nothing but a shell; prints the answer in hexadecimal. */
const ASK_DNS = [
  'exec 3<>/dev/udp/10.96.0.10/53',
  `printf '${QUESTION.replace(/../g, String.raw`\x$&`)}' >&3`,
  'timeout 1 dd bs=512 count=1 status=none <&3 | od -An -v -tx1',
].join('; ');

// The SDK's advice to its own developers is not ours to print.
process.env['AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED'] ??= 'true';

const OBJECT = { Bucket: 'bench', Key: 'bench', Body: 'bench' };

/** Resolves when every part has been seen to work; the parts are asked side by side, each until it does. */
export async function verify(subject: Subject, ports: HostPorts): Promise<void> {
  await Promise.all([
    subject.until('node Ready', async () => ((await isNodeReady(subject)) ? true : undefined)),
    subject.until('default ServiceAccount', () => subject.kubectl(['get', 'serviceaccount', 'default'])),
    subject.until('DNS', async () => ((await isNameAnswered(subject)) ? true : undefined)),
    subject.until('ingress', async () => {
      // No Ingress is there yet: its own answer to a host that nobody declared.
      const { status } = await fetch(`http://127.0.0.1:${String(ports.http)}/`);
      return status === 404 ? true : undefined;
    }),
    putObject(subject, ports),
  ]);
}

async function isNodeReady(subject: Subject): Promise<boolean> {
  type Node = { status: { conditions: { type: string; status: string }[] } };
  const { stdout } = await subject.kubectl(['get', 'nodes', '-o', 'json']);
  const { items } = JSON.parse(stdout) as { items: Node[] };
  const isReady = ({ status }: Node): boolean =>
    status.conditions.some((condition) => condition.type === 'Ready' && condition.status === 'True');
  return items.length === 1 && items.every(isReady);
}

async function isNameAnswered(subject: Subject): Promise<boolean> {
  const dump = (await subject.exec('agent', ['bash', '-c', ASK_DNS])) ?? '';
  const answer = Buffer.from(dump.replaceAll(/\s/g, ''), 'hex');
  // No error, one answer, which ends with the address of that Service.
  return (
    answer.length > 12 && (answer[3]! & 15) === 0 && answer[7] === 1 && answer.subarray(-4).join('.') === '10.96.0.10'
  );
}

/** With the keys that the cluster holds for its pods. */
async function putObject(subject: Subject, ports: HostPorts): Promise<void> {
  const keys = await subject.until('Secret object-store', async () => {
    const { stdout } = await subject.kubectl(['get', 'secret', 'object-store', '-o', 'json']);
    const { data } = JSON.parse(stdout) as { data: Record<string, string> };
    return Object.fromEntries(
      Object.entries(data).map(([key, value]) => [key, Buffer.from(value, 'base64').toString()]),
    );
  });
  const client = new S3Client({
    endpoint: `http://127.0.0.1:${String(ports.objectStore)}`,
    region: keys['AWS_REGION'] ?? '',
    forcePathStyle: true,
    credentials: {
      accessKeyId: keys['AWS_ACCESS_KEY_ID'] ?? '',
      secretAccessKey: keys['AWS_SECRET_ACCESS_KEY'] ?? '',
    },
  });
  try {
    await subject.until('object store', async () => {
      await client.send(new CreateBucketCommand({ Bucket: OBJECT.Bucket })).catch((error: unknown) => {
        if (!(error instanceof Error && error.name === 'BucketAlreadyOwnedByYou')) throw error;
      });
      return client.send(new PutObjectCommand(OBJECT));
    });
  } finally {
    client.destroy();
  }
}
