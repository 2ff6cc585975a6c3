/** The registry that clusters share: images pushed by ordinary clients, copies of those of others, and what outlives a cluster. */
import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { request } from 'node:http';
import { createServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { execa } from 'execa';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { DockerRuntime } from '../../src/adapters/docker.ts';
import { environment, layerImage, provideTestImage } from '../fixtures/docker.ts';
import { createSandbox, eventually, type Sandbox } from './support.ts';

const first = createSandbox('registry');
const second = createSandbox('registry-two');
/** The second cluster is to share the registry of the first. */
const shared = { env: { SANDBAR_REGISTRY: first.registryName } };

const UPSTREAM = `sandbar-e2e-upstream-${String(process.pid)}`;
const LOCAL_IMAGE = `sandbar-test/message-${String(process.pid)}`;

let directory = '';
let host = '';
let upstream: Server;

/** An image whose file /message says this, under a name of a registry, and pushed to it as `docker push` does. */
async function push(name: string, message: string): Promise<void> {
  await layerImage(first.docker, `${LOCAL_IMAGE}:${message}`, [{ message }]);
  const [repo = '', tag = ''] = name.split(/:(?=[^:]*$)/);
  await first.docker.getImage(`${LOCAL_IMAGE}:${message}`).tag({ repo, tag });
  const output = await text(
    (await first.docker.getImage(name).push({ authconfig: { username: '', password: '' } })) as Readable,
  );
  expect(output).not.toContain('"error"');
  // The cluster must not get it in another way.
  await first.docker.getImage(name).remove();
}

/** What a new pod of the image prints, its /message unless told otherwise; the node asks the registry each time. */
async function runPod(
  sandbox: Sandbox,
  name: string,
  image: string,
  command: readonly string[] = ['/bin/busybox', 'cat', '/message'],
): Promise<string> {
  const container = { name: 'main', image, imagePullPolicy: 'Always', command };
  const pod = {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name },
    spec: { restartPolicy: 'Never', containers: [container] },
  };
  await sandbox.mustKubectl(['apply', '-f', '-'], { stdin: JSON.stringify(pod) });
  await sandbox.mustKubectl(['wait', `pod/${name}`, '--for=jsonpath={.status.phase}=Succeeded', '--timeout=30s']);
  return (await sandbox.mustKubectl(['logs', name])).trim();
}

/** Another registry: the same server in a container of its own, behind TLS of an authority that only `sandbar.yaml` names. */
async function startUpstream(): Promise<Server> {
  const images = JSON.parse(await first.must(['image', 'ls', '-o', 'json'])) as { name: string; ref: string }[];
  const container = await first.docker.createContainer({
    name: UPSTREAM,
    Image: images.find(({ name }) => name === 'registry')?.ref ?? '',
    ExposedPorts: { '5000/tcp': {} },
    HostConfig: { PortBindings: { '5000/tcp': [{ HostIp: '127.0.0.1', HostPort: '' }] }, Tmpfs: { '/run': '' } },
  });
  await container.start();
  const port = Number((await container.inspect()).NetworkSettings.Ports['5000/tcp']?.[0]?.HostPort);
  await push(`localhost:${String(port)}/shop/base:v1`, 'from-upstream');
  const [keyFile, caFile] = [join(directory, 'key.pem'), join(directory, 'ca.pem')];
  await execa('openssl', [
    ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2'],
    ...['-subj', '/CN=upstream', '-addext', 'subjectAltName=DNS:host.sandbar.internal'],
    ...['-keyout', keyFile, '-out', caFile],
  ]);
  const server = createServer({ key: await readFile(keyFile), cert: await readFile(caFile) }, (incoming, outgoing) => {
    const { method, url, headers } = incoming;
    const forwarded = request({ host: '127.0.0.1', port, method, path: url, headers }, (answer) => {
      outgoing.writeHead(answer.statusCode ?? 502, answer.headers);
      answer.pipe(outgoing);
    });
    incoming.pipe(forwarded);
  });
  server.listen(0, '0.0.0.0');
  await once(server, 'listening');
  return server;
}

async function stopUpstream(): Promise<void> {
  upstream.closeAllConnections();
  upstream.close();
  await first.docker.getContainer(UPSTREAM).remove({ force: true, v: true });
}

const config = (registry: string): Promise<string> =>
  first.writeConfig(
    [
      `caCertificates: [${join(directory, 'ca.pem')}]`,
      `mirrors: { registry.test: ["https://host.sandbar.internal:${String((upstream.address() as AddressInfo).port)}"] }`,
      `registry: ${registry}`,
    ].join('\n'),
  );

describe('the registry', () => {
  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), 'sandbar-registry-'));
    const runtime = new DockerRuntime(environment);
    await provideTestImage(runtime);
    await runtime.close();
    await first.must(['image', 'build', 'registry']);
    upstream = await startUpstream();
    await config('{}');
    const { events } = await first.up(['--no-object-store']);
    const result = events.find((event) => event.type === 'result')?.['result'] as { registry: string };
    host = result.registry;
  });

  afterAll(async () => {
    await first.docker
      .getContainer(UPSTREAM)
      .remove({ force: true, v: true })
      .catch(() => undefined);
    upstream.close();
    for (const { RepoTags: tags } of await first.docker.listImages()) {
      for (const tag of tags ?? []) if (tag.startsWith(LOCAL_IMAGE)) await first.docker.getImage(tag).remove();
    }
    await rm(directory, { recursive: true, force: true });
  });

  it('takes what docker pushes, and pods run it under the same name, anew after each push', async () => {
    await push(`${host}/shop/app:dev`, 'one');
    expect(await runPod(first, 'one', `${host}/shop/app:dev`)).toBe('one');
    await push(`${host}/shop/app:dev`, 'two');
    expect(await runPod(first, 'two', `${host}/shop/app:dev`)).toBe('two');
  });

  it('takes what another client pushes', async () => {
    const url = `http://${host}/v2`;
    const accept = { accept: 'application/vnd.docker.distribution.manifest.v2+json' };
    const pulled = await fetch(`${url}/shop/app/manifests/dev`, { headers: accept });
    const manifest = await pulled.text();
    const { config: settings, layers } = JSON.parse(manifest) as {
      config: { digest: string };
      layers: { digest: string }[];
    };
    for (const { digest } of [settings, ...layers]) {
      const mounted = await fetch(`${url}/copy/blobs/uploads/?mount=${digest}&from=shop/app`, { method: 'POST' });
      expect(mounted.status).toBe(201);
    }
    const contentType = pulled.headers.get('content-type') ?? '';
    const put = await fetch(`${url}/copy/manifests/v1`, {
      method: 'PUT',
      body: manifest,
      headers: { 'content-type': contentType },
    });
    expect(put.status).toBe(201);
    expect(await runPod(first, 'copy', `${host}/copy:v1`)).toBe('two');
  });

  it('says of an image that was not pushed that it is not found', async () => {
    const pod = { name: 'main', image: `${host}/shop/absent:dev` };
    const object = { apiVersion: 'v1', kind: 'Pod', metadata: { name: 'absent' }, spec: { containers: [pod] } };
    await first.mustKubectl(['apply', '-f', '-'], { stdin: JSON.stringify(object) });
    const said = await eventually('an event of the pull that failed', async () => {
      const events = await first.mustKubectl(['get', 'events']);
      return /Failed to pull image "[^"]*absent.*/.exec(events)?.[0];
    });
    expect(said).toMatch(/shop\/absent:dev: not found/);
  });

  it('tells tools where it is, as KEP-1755 has it, and answers under these names', async () => {
    const { data } = await first.getObject('configmap', 'local-registry-hosting', '-n', 'kube-public');
    const hosting = data['localRegistryHosting.v1'] ?? '';
    const field = (name: string): string => new RegExp(`^${name}: "(.*)"$`, 'm').exec(hosting)?.[1] ?? '';
    expect([field('host'), field('hostFromContainerRuntime')]).toEqual([host, host]);
    const inCluster = field('hostFromClusterNetwork');
    const asking = ['/bin/busybox', 'wget', '-qO-', `http://${inCluster}/v2/_catalog`];
    const answer = await runPod(first, 'asking', `${host}/shop/app:dev`, asking);
    expect(JSON.parse(answer)).toMatchObject({ repositories: ['copy', 'shop/app'] });
    expect(await runPod(first, 'by-service', `${inCluster}/shop/app:dev`)).toBe('two');
  });

  it('is told of a registry to keep copies of while everything runs', async () => {
    const before = await first.containerIds();
    await config('{ mirrors: [registry.test] }');
    const { steps } = await first.up(['--no-object-store']);
    expect(steps.map(({ id }) => id)).toEqual(['update object/ConfigMap/sandbar-system/registry-hosts']);
    expect(await first.containerIds()).toEqual(before);
    expect(await runPod(first, 'cached', 'registry.test/shop/base:v1')).toBe('from-upstream');
  });

  it('serves a second cluster too that comes up while it is made anew, and stays for it when the first one goes', async () => {
    await first.docker.getContainer(first.registryName).remove({ force: true });
    // As one user has them; the sandboxes of tests have locks of their own.
    const env = { ...shared.env, XDG_STATE_HOME: join(directory, 'state') };
    await Promise.all([first, second].map((sandbox) => sandbox.up(['--no-object-store'], { env })));
    expect(await runPod(first, 'beside', `${host}/shop/app:dev`)).toBe('two');
    expect(await runPod(second, 'app', `${host}/shop/app:dev`)).toBe('two');
    await first.must(['down', '--volumes', '--yes']);
    expect(await runPod(second, 'again', `${host}/shop/app:dev`)).toBe('two');
  });

  it('keeps images and copies when the last cluster goes, and serves copies while their registry is away', async () => {
    await stopUpstream();
    await second.must(['down', '--volumes', '--yes']);
    const left = await first.docker.listContainers({
      all: true,
      filters: { label: [`dev.sandbar.registry=${first.registryName}`] },
    });
    expect(left).toEqual([]);
    await first.up(['--no-object-store']);
    expect(await runPod(first, 'app', `${host}/shop/app:dev`)).toBe('two');
    expect(await runPod(first, 'cached', 'registry.test/shop/base:v1')).toBe('from-upstream');
  });

  it('shows what it holds, frees what no tag leads to, and is brought back by up', async () => {
    const show = async () =>
      JSON.parse(await first.must(['registry', '-o', 'json'])) as {
        readonly sizeBytes: number;
        readonly images: readonly { readonly name: string; readonly tag: string }[];
        readonly caches: readonly { readonly registry: string; readonly images: readonly object[] }[];
      };
    const shown = await show();
    expect(shown.images.map(({ name, tag }) => `${name}:${tag}`)).toEqual(['copy:v1', 'shop/app:dev']);
    expect(shown.caches).toMatchObject([{ registry: 'registry.test', images: [{ name: 'shop/base', tag: 'v1' }] }]);
    const { freedBytes } = JSON.parse(await first.must(['registry', 'prune', '-o', 'json'])) as { freedBytes: number };
    expect(freedBytes).toBeGreaterThan(0);
    expect((await show()).sizeBytes).toBe(shown.sizeBytes - freedBytes);
    expect(await runPod(first, 'pruned', `${host}/shop/app:dev`)).toBe('two');

    await first.docker.getContainer(first.registryName).remove({ force: true });
    const status = await first.run(['status']);
    expect(status.stdout).toMatch(/✖ registry +it is not on the cluster's network/);
    await first.up(['--no-object-store']);
    expect(await runPod(first, 'repaired', `${host}/shop/app:dev`)).toBe('two');
    expect((await first.run(['status'])).exitCode).toBe(0);
  });
});
