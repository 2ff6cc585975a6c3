/** What apps do on a cluster: real workloads, looked at through kubectl, HTTP clients and the AWS SDK. */
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { request, type IncomingMessage } from 'node:http';
import { connect as connectHttp2 } from 'node:http2';
import { request as requestTls } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Duplex } from 'node:stream';
import { CoreV1Api, KubeConfig, Watch } from '@kubernetes/client-node';
import {
  CreateBucketCommand,
  DeleteObjectsCommand,
  GetObjectCommand,
  ListObjectsV2Command,
  ListObjectVersionsCommand,
  PutBucketVersioningCommand,
  PutObjectCommand,
  type S3Client,
} from '@aws-sdk/client-s3';
import { Upload } from '@aws-sdk/lib-storage';
import { getSignedUrl } from '@aws-sdk/s3-request-presigner';
import { execa } from 'execa';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { mintIdentity, mintRoot } from '../../src/adapters/pki.ts';
import { echoApp, echoScript, grpcService, ingress, toolboxPod, TOOLBOX_IMAGE } from './fixtures/apps.ts';
import { createSandbox, eventually, SANDBAR } from './support.ts';
import { connectS3 } from './writers.ts';

const sandbox = createSandbox('apps');
let httpPort: number;
let httpsPort: number;

const POD_TIMEOUT = '--timeout=60s';

/** Applies objects through kubectl's standard input. */
async function applyObjects(objects: readonly object[]): Promise<void> {
  const list = { apiVersion: 'v1', kind: 'List', items: objects };
  await sandbox.mustKubectl(['apply', '-f', '-'], { stdin: JSON.stringify(list) });
}

/** Runs a Node script in the toolbox pod and returns what it prints as JSON. */
async function inToolbox(script: string): Promise<unknown> {
  const stdout = await sandbox.mustKubectl(['exec', 'toolbox', '--', 'node', '--input-type=module', '-e', script]);
  return JSON.parse(stdout) as unknown;
}

/** A request to the ingress with this Host header; the connection goes to loopback as a browser's would. */
async function fetchThrough(host: string, path = '/'): Promise<{ status: number; body: string }> {
  const outgoing = request({ host: '127.0.0.1', port: httpPort, path, headers: { host } }).end();
  const [response] = (await once(outgoing, 'response')) as [IncomingMessage];
  const chunks: Buffer[] = [];
  for await (const chunk of response) chunks.push(chunk as Buffer);
  return { status: response.statusCode ?? 0, body: Buffer.concat(chunks).toString() };
}

/** Waits until the ingress has taken a change up: it watches, so this is a matter of milliseconds. */
async function untilServed(host: string, path = '/', status = 200): Promise<{ status: number; body: string }> {
  const deadline = Date.now() + 10_000;
  for (;;) {
    const answer = await fetchThrough(host, path);
    if (answer.status === status || Date.now() > deadline) return answer;
  }
}

const nameIn = (body: string): unknown => (JSON.parse(body) as { name: unknown }).name;

beforeAll(async () => {
  await sandbox.writeConfig('objectStore: { buckets: [pictures, { name: reports, versioning: true }] }\n');
  await sandbox.up();
  ({ http: httpPort, https: httpsPort } = await sandbox.ports());
  await sandbox.must(['image', 'load', TOOLBOX_IMAGE]);
  await applyObjects([
    echoScript(),
    ...echoApp('one'),
    ...echoApp('two', { replicas: 2, isHeadless: true }),
    toolboxPod('toolbox', {}, { envFrom: [{ secretRef: { name: 'object-store' } }] }),
  ]);
  await sandbox.mustKubectl(['rollout', 'status', 'deployment/one', 'deployment/two', POD_TIMEOUT]);
  await sandbox.mustKubectl(['wait', '--for=condition=Ready', 'pod/toolbox', POD_TIMEOUT]);
});

describe('ingress', () => {
  it('answers 404 for a host that no Ingress names', async () => {
    expect((await fetchThrough('nobody.localhost')).status).toBe(404);
  });

  it('serves an Ingress without a class at http://app.localhost on the host', async () => {
    await applyObjects([ingress('app', [{ host: 'app.localhost', paths: [{ path: '/', service: 'one' }] }])]);
    expect(nameIn((await untilServed('app.localhost')).body)).toBe('one');
    // curl knows that every name below localhost is this machine, as browsers do.
    const { stdout } = await execa('curl', ['--silent', `http://app.localhost:${String(httpPort)}/`]);
    expect(nameIn(stdout)).toBe('one');
  });

  it('follows path rules, the longest first, exact before prefix, by path elements', async () => {
    const paths = [
      { path: '/', service: 'one' },
      { path: '/two', service: 'two' },
      { path: '/two/exact', pathType: 'Exact', service: 'one' },
      { path: '/x', pathType: 'Exact', service: 'two' },
    ];
    await applyObjects([ingress('paths', [{ host: 'paths.localhost', paths }])]);
    await untilServed('paths.localhost');
    const served = async (path: string): Promise<unknown> => nameIn((await fetchThrough('paths.localhost', path)).body);
    expect(
      await Promise.all(['/', '/two', '/two/deeper', '/twofold', '/two/exact', '/x', '/x/deeper'].map(served)),
    ).toEqual(['one', 'two', 'two', 'one', 'one', 'two', 'one']);
  });

  it('sends what no rule matches to the default backend', async () => {
    const defaultBackend = { service: { name: 'two', port: { number: 80 } } };
    await applyObjects([ingress('fallback', [], { defaultBackend })]);
    expect(nameIn((await untilServed('whoever.localhost')).body)).toBe('two');
    expect(nameIn((await fetchThrough('app.localhost')).body)).toBe('one');
    await sandbox.mustKubectl(['delete', 'ingress', 'fallback']);
    expect((await untilServed('whoever.localhost', '/', 404)).status).toBe(404);
  });

  it('leaves an Ingress of another class alone', async () => {
    await applyObjects([
      ingress('other', [{ host: 'other.localhost', paths: [{ path: '/', service: 'one' }] }], {
        ingressClassName: 'nginx',
      }),
      ingress('own', [{ host: 'own.localhost', paths: [{ path: '/', service: 'one' }] }], {
        ingressClassName: 'sandbar',
      }),
    ]);
    expect((await untilServed('own.localhost')).status).toBe(200);
    expect((await fetchThrough('other.localhost')).status).toBe(404);
  });

  it("uses an Ingress's TLS secret", async () => {
    // Certificates of the right form; whose they are does not matter here.
    const identity = await mintIdentity(
      {
        clusterName: 'tls',
        nodeName: 'secure.localhost',
        controlPlaneAddress: '127.0.0.1',
        agentAddress: '127.0.0.1',
        apiServiceAddress: '127.0.0.1',
        rootCertificate: '',
      },
      await mintRoot('test'),
    );
    const pair = identity.certificates['kubelet-serving'];
    await applyObjects([
      {
        apiVersion: 'v1',
        kind: 'Secret',
        metadata: { name: 'tls' },
        type: 'kubernetes.io/tls',
        stringData: { 'tls.crt': pair.certificate, 'tls.key': pair.key },
      },
      ingress('secure', [{ host: 'secure.localhost', paths: [{ path: '/', service: 'one' }] }], {
        tls: [{ hosts: ['secure.localhost'], secretName: 'tls' }],
      }),
    ]);
    await untilServed('secure.localhost');
    const outgoing = requestTls({
      host: '127.0.0.1',
      port: httpsPort,
      servername: 'secure.localhost',
      headers: { host: 'secure.localhost' },
      ca: identity.ca.certificate,
    }).end();
    const [response] = (await once(outgoing, 'response')) as [IncomingMessage];
    response.resume();
    expect(response.statusCode).toBe(200);
  });

  it('lets WebSockets through', async () => {
    const outgoing = request({
      host: '127.0.0.1',
      port: httpPort,
      headers: {
        host: 'app.localhost',
        connection: 'Upgrade',
        upgrade: 'websocket',
        'sec-websocket-version': '13',
        'sec-websocket-key': randomBytes(16).toString('base64'),
      },
    }).end();
    const [response, socket] = (await once(outgoing, 'upgrade')) as [IncomingMessage, Duplex];
    expect(response.statusCode).toBe(101);
    const mask = randomBytes(4);
    const text = Buffer.from('hello');
    const masked = text.map((byte, index) => byte ^ (mask[index % 4] ?? 0));
    socket.write(Buffer.concat([Buffer.from([0x81, 0x80 | text.length]), mask, masked]));
    const [frame] = (await once(socket, 'data')) as [Buffer];
    socket.destroy();
    expect(frame.subarray(2).toString()).toBe('hello');
  });

  it('lets gRPC through, trailers and all', async () => {
    await applyObjects([
      grpcService('one-grpc', 'one'),
      ingress('grpc', [{ host: 'grpc.localhost', paths: [{ path: '/', service: 'one-grpc', port: 81 }] }]),
    ]);
    const call = async (): Promise<{ status: number; body: string; grpcStatus: unknown }> => {
      const session = connectHttp2(`https://127.0.0.1:${String(httpsPort)}`, {
        servername: 'grpc.localhost',
        rejectUnauthorized: false,
      });
      const stream = session.request({
        ':method': 'POST',
        ':path': '/echo.Echo/Say',
        ':authority': 'grpc.localhost',
        'content-type': 'application/grpc',
        te: 'trailers',
      });
      const chunks: Buffer[] = [];
      let grpcStatus: unknown;
      stream.on('data', (chunk: Buffer) => chunks.push(chunk));
      stream.on('trailers', (trailers: Readonly<Record<string, unknown>>) => {
        grpcStatus = trailers['grpc-status'];
      });
      stream.end(Buffer.from([0, 0, 0, 0, 2, 104, 105]));
      const [headers] = (await once(stream, 'response')) as [{ ':status': number }];
      await once(stream, 'close');
      session.close();
      return { status: headers[':status'], body: Buffer.concat(chunks).subarray(5).toString(), grpcStatus };
    };
    const deadline = Date.now() + 10_000;
    let answer = await call();
    while (answer.status !== 200 && Date.now() < deadline) answer = await call();
    expect(answer).toEqual({ status: 200, body: 'hi', grpcStatus: '0' });
  });
});

describe('DNS', () => {
  const lookUp = (expression: string): Promise<unknown> =>
    inToolbox(`import dns from 'node:dns/promises'; console.log(JSON.stringify(await (${expression})))`);

  it('knows Services by short and by full name, through the search domains', async () => {
    const clusterIp = await sandbox.mustKubectl(['get', 'service', 'one', '-o', 'jsonpath={.spec.clusterIP}']);
    for (const name of ['one', 'one.default', 'one.default.svc.cluster.local']) {
      expect(await lookUp(`dns.lookup('${name}')`)).toMatchObject({ address: clusterIp });
    }
  });

  it("gives a headless Service's pods, and SRV records for its ports", async () => {
    const stdout = await sandbox.mustKubectl([
      'get',
      'pods',
      '-l',
      'app=two',
      '-o',
      'jsonpath={.items[*].status.podIP}',
    ]);
    const addresses = (await lookUp(`dns.resolve4('two.default.svc.cluster.local')`)) as string[];
    expect(addresses.sort()).toEqual(stdout.split(' ').sort());
    const records = (await lookUp(`dns.resolveSrv('_http._tcp.two.default.svc.cluster.local')`)) as { port: number }[];
    expect(records.map(({ port }) => port)).toEqual([8080, 8080]);
  });

  it('says that a name is not there', async () => {
    const code = await lookUp(`dns.resolve4('nobody.default.svc.cluster.local').catch((error) => error.code)`);
    expect(code).toBe('ENOTFOUND');
  });

  it('asks upstream for names outside of the cluster', async () => {
    // Docker's own resolver is the upstream; it knows the containers by name, wherever the test runs.
    const answer = await lookUp(`dns.resolve4('sandbar-${sandbox.name}-object-store')`);
    expect(answer).toEqual([expect.stringMatching(/^172\./)]);
  });

  it('has the host as host.sandbar.internal', async () => {
    const { createServer } = await import('node:http');
    const server = createServer((_request, response) => response.end('from the host')).listen(0, '0.0.0.0');
    await once(server, 'listening');
    const { port } = server.address() as { port: number };
    const body = await inToolbox(
      `console.log(JSON.stringify(await (await fetch('http://host.sandbar.internal:${String(port)}')).text()))`,
    );
    server.close();
    expect(body).toBe('from the host');
  });
});

describe('volumes', () => {
  const claim = (name: string, storageClassName?: string): object => ({
    apiVersion: 'v1',
    kind: 'PersistentVolumeClaim',
    metadata: { name },
    spec: {
      accessModes: ['ReadWriteOnce'],
      resources: { requests: { storage: '64Mi' } },
      ...(storageClassName === undefined ? {} : { storageClassName }),
    },
  });
  const podWith = (name: string, claimName: string): object =>
    toolboxPod(
      name,
      { volumes: [{ name: 'data', persistentVolumeClaim: { claimName } }] },
      { volumeMounts: [{ name: 'data', mountPath: '/data' }] },
    );
  const get = async (...args: string[]): Promise<string> => await sandbox.mustKubectl(['get', ...args]);
  const ready = (name: string) => sandbox.mustKubectl(['wait', '--for=condition=Ready', `pod/${name}`, POD_TIMEOUT]);

  it('are made when a pod wants them, outlive it, and go with their claim', async () => {
    await applyObjects([claim('data')]);
    await sandbox.mustKubectl(['wait', '--for=jsonpath={.status.phase}=Pending', 'pvc/data', POD_TIMEOUT]);
    await applyObjects([podWith('writer', 'data')]);
    await ready('writer');
    await sandbox.mustKubectl(['exec', 'writer', '--', 'sh', '-c', 'echo kept > /data/file']);
    await sandbox.mustKubectl(['delete', 'pod', 'writer', '--wait']);
    await applyObjects([podWith('reader', 'data')]);
    await ready('reader');
    expect(await sandbox.mustKubectl(['exec', 'reader', '--', 'cat', '/data/file'])).toBe('kept\n');

    const volume = await get('pvc', 'data', '-o', 'jsonpath={.spec.volumeName}');
    await sandbox.mustKubectl(['delete', 'pod/reader', 'pvc/data', '--wait']);
    await sandbox.mustKubectl(['wait', '--for=delete', `pv/${volume}`, POD_TIMEOUT]);
  });

  it('stay where the reclaim policy says so', async () => {
    await applyObjects([
      {
        apiVersion: 'storage.k8s.io/v1',
        kind: 'StorageClass',
        metadata: { name: 'kept' },
        provisioner: 'sandbar.dev/local-volume',
        reclaimPolicy: 'Retain',
        volumeBindingMode: 'WaitForFirstConsumer',
      },
      claim('kept', 'kept'),
      podWith('keeper', 'kept'),
    ]);
    await ready('keeper');
    const volume = await get('pvc', 'kept', '-o', 'jsonpath={.spec.volumeName}');
    await sandbox.mustKubectl(['delete', 'pod/keeper', 'pvc/kept', '--wait']);
    await sandbox.mustKubectl(['wait', '--for=jsonpath={.status.phase}=Released', `pv/${volume}`, POD_TIMEOUT]);
    await sandbox.mustKubectl(['delete', 'pv', volume]);
  });
});

describe('object store', () => {
  let client: S3Client;

  beforeAll(async () => {
    client = await connectS3(sandbox);
  });

  it('has the declared buckets, and makes, lists and removes others by command', async () => {
    await sandbox.must(['bucket', 'create', 'scratch']);
    const names = JSON.parse(await sandbox.must(['bucket', 'ls', '-o', 'json'])) as { name: string }[];
    expect(names.map(({ name }) => name).sort()).toEqual(['pictures', 'reports', 'scratch']);
    await client.send(new PutObjectCommand({ Bucket: 'scratch', Key: 'a', Body: 'a' }));
    const refused = await sandbox.run(['bucket', 'rm', 'scratch']);
    expect(refused.exitCode).not.toBe(0);
    expect(refused.stderr).toContain('--force');
    await sandbox.must(['bucket', 'rm', 'scratch', '--force']);
    expect(await sandbox.must(['bucket', 'ls'])).not.toContain('scratch');
  });

  it('puts, gets and lists', async () => {
    await client.send(new PutObjectCommand({ Bucket: 'pictures', Key: 'a/ü b.txt', Body: 'hello' }));
    const got = await client.send(new GetObjectCommand({ Bucket: 'pictures', Key: 'a/ü b.txt' }));
    expect(await got.Body?.transformToString()).toBe('hello');
    const listed = await client.send(new ListObjectsV2Command({ Bucket: 'pictures', Prefix: 'a/' }));
    expect(listed.Contents?.map(({ Key }) => Key)).toEqual(['a/ü b.txt']);
  });

  it('takes an upload in parts', async () => {
    const Body = randomBytes(12 * 2 ** 20);
    await new Upload({ client, params: { Bucket: 'pictures', Key: 'large', Body }, partSize: 5 * 2 ** 20 }).done();
    const got = await client.send(new GetObjectCommand({ Bucket: 'pictures', Key: 'large' }));
    expect(Buffer.from((await got.Body?.transformToByteArray()) ?? []).equals(Body)).toBe(true);
  });

  it('honours presigned URLs', async () => {
    const put = await getSignedUrl(client, new PutObjectCommand({ Bucket: 'pictures', Key: 'signed' }));
    expect((await fetch(put, { method: 'PUT', body: 'by URL' })).status).toBe(200);
    const get = await getSignedUrl(client, new GetObjectCommand({ Bucket: 'pictures', Key: 'signed' }));
    expect(await (await fetch(get)).text()).toBe('by URL');
    expect((await fetch(get.replace(/Signature=\w{4}/, 'Signature=0000'))).status).toBe(403);
  });

  it('keeps versions where a bucket is declared so', async () => {
    for (const Body of ['first', 'second']) {
      await client.send(new PutObjectCommand({ Bucket: 'reports', Key: 'r', Body }));
    }
    const { Versions: versions = [] } = await client.send(new ListObjectVersionsCommand({ Bucket: 'reports' }));
    const bodies = await Promise.all(
      versions.map(async ({ VersionId }) => {
        const got = await client.send(new GetObjectCommand({ Bucket: 'reports', Key: 'r', VersionId }));
        return got.Body?.transformToString();
      }),
    );
    expect(bodies.sort()).toEqual(['first', 'second']);
    await client.send(new CreateBucketCommand({ Bucket: 'own' }));
    await client.send(
      new PutBucketVersioningCommand({ Bucket: 'own', VersioningConfiguration: { Status: 'Enabled' } }),
    );
    await client.send(
      new DeleteObjectsCommand({ Bucket: 'pictures', Delete: { Objects: [{ Key: 'signed' }, { Key: 'large' }] } }),
    );
  });

  it('is there for pods by the Secret alone', async () => {
    const result = await inToolbox(`
      import { createRequire } from 'node:module';
      const { S3Client, PutObjectCommand, GetObjectCommand } = createRequire('/app/package.json')('@aws-sdk/client-s3');
      const client = new S3Client({ forcePathStyle: true });
      await client.send(new PutObjectCommand({ Bucket: 'pictures', Key: 'from-pod', Body: process.env.HOSTNAME }));
      const got = await client.send(new GetObjectCommand({ Bucket: 'pictures', Key: 'from-pod' }));
      console.log(JSON.stringify([process.env.AWS_ENDPOINT_URL_S3, await got.Body.transformToString()]));`);
    expect(result).toEqual(['http://s3.sandbar-system.svc.cluster.local:9000', 'toolbox']);
    const got = await client.send(new GetObjectCommand({ Bucket: 'pictures', Key: 'from-pod' }));
    expect(await got.Body?.transformToString()).toBe('toolbox');
  });

  it("exports its access to the host's shell", async () => {
    const script = `eval "$(${process.execPath} ${SANDBAR} env)" && echo "$AWS_ENDPOINT_URL_S3 $AWS_REGION \${#AWS_SECRET_ACCESS_KEY}"`;
    const { stdout } = await execa('sh', ['-c', script], { env: sandbox.env });
    expect(stdout).toMatch(/^http:\/\/127\.0\.0\.1:\d+ us-east-1 40$/);
  });
});

describe('images', () => {
  const imageRef = 'sandbar-e2e/layers:latest';

  /** The toolbox image with one more layer on top. */
  async function addLayer(content: string): Promise<string> {
    const container = await sandbox.docker.createContainer({ Image: TOOLBOX_IMAGE, Cmd: ['true'] });
    const directory = await mkdtemp(join(tmpdir(), 'sandbar-layer-'));
    await writeFile(join(directory, 'layer.txt'), content);
    await execa('tar', ['--create', '--file', join(directory, 'layer.tar'), '--directory', directory, 'layer.txt']);
    await container.putArchive(await readFile(join(directory, 'layer.tar')), { path: '/' });
    const { Id } = (await container.commit({ repo: 'sandbar-e2e/layers', tag: 'latest' })) as { Id: string };
    await container.remove();
    await rm(directory, { recursive: true });
    return Id;
  }

  afterAll(async () => {
    await sandbox.docker.getImage(imageRef).remove({ force: true });
  });

  it('are loaded with only the layers that the node lacks, and run under the same id', async () => {
    const load = async (): Promise<{ layersSent: number; id: string }> => {
      const stdout = await sandbox.must(['image', 'load', imageRef, '-o', 'json']);
      const [loaded] = JSON.parse(stdout) as [{ layersSent: number; id: string }];
      return loaded;
    };
    const firstId = await addLayer('first');
    expect(await load()).toMatchObject({ layersSent: 1 });
    expect(await load()).toMatchObject({ layersSent: 0 });
    const secondId = await addLayer('second');
    expect(secondId).not.toBe(firstId);
    expect(await load()).toMatchObject({ layersSent: 1 });

    await applyObjects([toolboxPod('layers', {}, { image: imageRef })]);
    await sandbox.mustKubectl(['wait', '--for=condition=Ready', 'pod/layers', POD_TIMEOUT]);
    expect(await sandbox.mustKubectl(['exec', 'layers', '--', 'cat', '/layer.txt'])).toBe('second');
    const stdout = await sandbox.mustKubectl([
      'get',
      'pod',
      'layers',
      '-o',
      'jsonpath={.status.containerStatuses[0].imageID}',
    ]);
    expect(stdout).toContain(secondId.replace('sha256:', ''));
  });

  it('that the engine does not have are refused by name', async () => {
    const refused = await sandbox.run(['image', 'load', 'sandbar-e2e/nobody:1']);
    expect(refused.exitCode).toBe(4);
    expect(refused.stderr).toContain('sandbar-e2e/nobody:1');
  });
});

describe('clients', () => {
  it('kubectl logs, exec with standard input, attach, cp, debug and port-forward work', async () => {
    expect(await sandbox.mustKubectl(['logs', 'deployment/one'])).toContain('one listens');
    const stdout = await sandbox.mustKubectl(['exec', '-i', 'toolbox', '--', 'cat'], { stdin: 'through stdin' });
    expect(stdout).toBe('through stdin');

    await applyObjects([toolboxPod('attached', {}, { command: ['cat'], stdin: true, stdinOnce: true })]);
    await sandbox.mustKubectl(['wait', '--for=condition=Ready', 'pod/attached', POD_TIMEOUT]);
    expect(await sandbox.mustKubectl(['attach', '-i', 'attached'], { stdin: 'attached\n' })).toContain('attached');

    const directory = await mkdtemp(join(tmpdir(), 'sandbar-cp-'));
    await writeFile(join(directory, 'out'), 'copied');
    await sandbox.mustKubectl(['cp', join(directory, 'out'), 'toolbox:/tmp/in']);
    await sandbox.mustKubectl(['cp', 'toolbox:/tmp/in', join(directory, 'back')]);
    expect(await readFile(join(directory, 'back'), 'utf8')).toBe('copied');
    await rm(directory, { recursive: true });

    const debug = ['debug', 'toolbox', `--image=${TOOLBOX_IMAGE}`, '--image-pull-policy=IfNotPresent', '--target=main'];
    await sandbox.mustKubectl([...debug, '--container=debugger', '--', 'cat', '/proc/1/comm']);
    const seen = await eventually('what the debugging container prints', async () => {
      const { exitCode, stdout: printed } = await sandbox.kubectl(['logs', 'toolbox', '--container=debugger']);
      return exitCode === 0 && printed !== '' ? printed : undefined;
    });
    expect(seen).toBe('sleep\n');

    let forwarded: Promise<unknown> | undefined;
    await sandbox.kubectl(['port-forward', 'deployment/one', '0:8080'], {
      onLine: (line, kill) => {
        const port = /127\.0\.0\.1:(\d+)/.exec(line)?.[1];
        if (port === undefined) return;
        forwarded = fetch(`http://127.0.0.1:${port}/`)
          .then((response) => response.text())
          .then(nameIn)
          .finally(() => {
            kill('SIGTERM');
          });
      },
    });
    expect(await forwarded).toBe('one');
  });

  it("sandbar kubectl is kubectl: files, standard input and exit codes are the host's", async () => {
    const version = JSON.parse(await sandbox.must(['kubectl', 'version', '-o', 'json'])) as {
      clientVersion: { gitVersion: string };
      serverVersion: { gitVersion: string };
    };
    expect(version.clientVersion.gitVersion).toBe(version.serverVersion.gitVersion);
    const map = { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'by-stdin' } };
    await sandbox.must(['kubectl', 'apply', '-f', '-'], { stdin: JSON.stringify(map) });
    const missing = await sandbox.run(['kubectl', 'get', 'configmap', 'nobody']);
    expect(missing.exitCode).toBe(1);
    expect(missing.stderr).toContain('"nobody" not found');
    const exited = await sandbox.run(['kubectl', 'exec', 'toolbox', '--', 'sh', '-c', 'exit 7']);
    expect(exited.exitCode).toBe(7);
  });

  it('the JavaScript client lists and watches', async () => {
    const config = new KubeConfig();
    config.loadFromFile(sandbox.kubeconfig);
    const pods = await config
      .makeApiClient(CoreV1Api)
      .listNamespacedPod({ namespace: 'default', labelSelector: 'app=two' });
    expect(pods.items).toHaveLength(2);
    const seen = new Promise<string>((resolve, reject) => {
      const watch = new Watch(config).watch(
        '/api/v1/namespaces/default/configmaps',
        {},
        (type: string, object: { metadata: { name: string } }) => {
          if (type === 'ADDED' && object.metadata.name === 'watched') resolve(type);
        },
        reject,
      );
      watch
        .then(() => sandbox.mustKubectl(['create', 'configmap', 'watched']))
        .catch((error: unknown) => {
          reject(error instanceof Error ? error : new Error(String(error)));
        });
    });
    expect(await seen).toBe('ADDED');
  });
});
