/** TLS through the ingress, as clients have it that know nothing of Sandbar: curl, OpenSSL, Node, gRPC, a browser, pods. */
import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdir, readFile, stat, writeFile } from 'node:fs/promises';
import type { IncomingMessage } from 'node:http';
import { connect as connectHttp2 } from 'node:http2';
import { request } from 'node:https';
import { delimiter, join } from 'node:path';
import { connect as connectTls } from 'node:tls';
import { credentials, makeGenericClientConstructor } from '@grpc/grpc-js';
import { execa } from 'execa';
import { beforeAll, describe, expect, it } from 'vitest';
import { WebSocket } from 'ws';
import { createTar } from '../../src/model/tar.ts';
import { findFreePort } from '../fixtures/free-port.ts';
import { echoApp, echoScript, grpcService, ingress, toolboxPod, TOOLBOX_IMAGE } from './fixtures/apps.ts';
import { withBrowser } from './gallery.ts';
import { createSandbox, eventually, SANDBAR } from './support.ts';

const sandbox = createSandbox('tls');
const isRoot = process.getuid?.() === 0;
/** What curl ends with when it does not trust a certificate. */
const UNTRUSTED = '60';

let port: number;
let authority: string;
/** Path of the root's certificate. */
let rootPath: string;
let root: string;

beforeAll(async () => {
  // Not those that browsers take for granted: where these are taken, pods have to find the same ones.
  const [http, https] = await Promise.all([findFreePort(), findFreePort()]);
  await sandbox.writeConfig(`ports: ${JSON.stringify({ http, https })}\nobjectStore: { enabled: false }\n`);
  await sandbox.up();
  ({ https: port } = await sandbox.ports());
  authority = `app.localhost:${String(port)}`;
  rootPath = (await sandbox.must(['trust', '--print'])).trim();
  root = await readFile(rootPath, 'utf8');
  await sandbox.must(['image', 'load', TOOLBOX_IMAGE]);
  await apply([
    echoScript(),
    ...echoApp('one'),
    toolboxPod('toolbox'),
    ingress('app', [{ host: 'app.localhost', paths: [{ path: '/', service: 'one' }] }], {
      tls: [{ hosts: ['app.localhost'] }],
    }),
    grpcService('one-grpc', 'one'),
    ingress('grpc', [{ host: 'grpc.localhost', paths: [{ path: '/', service: 'one-grpc', port: 81 }] }]),
  ]);
  await sandbox.mustKubectl(['rollout', 'status', 'deployment/one', '--timeout=60s']);
  await sandbox.mustKubectl(['wait', '--for=condition=Ready', 'pod/toolbox', '--timeout=60s']);
  await eventually('the app answers', async () => ((await statusOf('app.localhost')) === 200 ? true : undefined));
});

async function apply(objects: readonly object[]): Promise<void> {
  const list = { apiVersion: 'v1', kind: 'List', items: objects };
  await sandbox.mustKubectl(['apply', '-f', '-'], { stdin: JSON.stringify(list) });
}

/** Status of a GET by a client that trusts the root alone. */
async function statusOf(host: string): Promise<number | undefined> {
  const asked = request({ host: '127.0.0.1', port, servername: host, headers: { host }, ca: root, agent: false }).end();
  const [response] = (await once(asked, 'response')) as [IncomingMessage];
  response.resume();
  return response.statusCode;
}

/** Certificates as they are sent for a name, the leaf first. */
async function chainOf(servername: string): Promise<readonly X509Certificate[]> {
  const socket = connectTls({ host: '127.0.0.1', port, servername, ca: root });
  await once(socket, 'secureConnect');
  const leaf = socket.getPeerCertificate(true);
  socket.destroy();
  return [leaf, leaf.issuerCertificate].map(({ raw }) => new X509Certificate(raw));
}

describe('certificates of names below localhost', () => {
  it('satisfy curl and Node, each for its name alone and for a browser short enough', async () => {
    const { stdout } = await execa('curl', ['--silent', '--cacert', rootPath, `https://${authority}/`]);
    expect(JSON.parse(stdout)).toMatchObject({ name: 'one' });
    const [leaf, issuer] = await chainOf('app.localhost');
    const [other] = await chainOf('deeper.other.localhost');
    expect([leaf?.subjectAltName, other?.subjectAltName]).toEqual(['DNS:app.localhost', 'DNS:deeper.other.localhost']);
    expect(issuer?.checkIssued(new X509Certificate(root))).toBe(true);
    const days = (Date.parse(leaf?.validTo ?? '') - Date.parse(leaf?.validFrom ?? '')) / 86_400_000;
    expect(days).toBeLessThan(398);
    // The same again, not another at each handshake.
    expect((await chainOf('APP.localhost'))[0]?.serialNumber).toBe(leaf?.serialNumber);
  });

  it('hold for an address, where a client sends no name', async () => {
    const { stdout } = await execa('curl', [
      ...['--silent', '--output', '/dev/null', '--write-out', '%{http_code}'],
      ...['--cacert', rootPath, `https://127.0.0.1:${String(port)}/`],
    ]);
    expect(stdout).toBe('404');
  });

  it('are all that the key in the ingress can sign for', async () => {
    const folder = join(sandbox.home, 'stolen');
    await mkdir(folder, { recursive: true });
    for (const file of ['authority.crt', 'authority.key']) {
      await execa('docker', ['cp', `${sandbox.containerName('ingress')}:/etc/sandbar/${file}`, join(folder, file)]);
    }
    const openssl = (...args: string[]) => execa('openssl', args, { cwd: folder, reject: false });
    const verdictOn = async (name: string): Promise<string> => {
      await writeFile(join(folder, 'names'), `subjectAltName=${name}\n`);
      await openssl(...'req -newkey rsa:2048 -nodes -keyout leaf.key -subj /O=thief -out leaf.csr'.split(' '));
      await openssl(
        ...'x509 -req -in leaf.csr -CA authority.crt -CAkey authority.key -CAcreateserial -extfile names -out leaf.crt'.split(
          ' ',
        ),
      );
      const { all } = await execa(
        'openssl',
        ['verify', '-CAfile', rootPath, '-untrusted', 'authority.crt', '-purpose', 'sslserver', 'leaf.crt'],
        { cwd: folder, reject: false, all: true },
      );
      return all;
    };
    expect(await verdictOn('DNS:any.localhost')).toContain('leaf.crt: OK');
    for (const name of ['DNS:example.com', 'DNS:localhost.example.com', 'IP:10.0.0.1']) {
      expect(await verdictOn(name)).toContain('permitted subtree violation');
    }
    // The root's own key is nowhere but here.
    expect((await stat(rootPath.replace(/crt$/, 'key'))).mode & 0o777).toBe(0o600);
  });

  it('are the same to a second cluster, and come to one that was made before there were any', async () => {
    const before = await sandbox.getObject('namespace', 'kube-system');
    const container = sandbox.docker.getContainer(sandbox.containerName('control-plane'));
    const { stdout } = await execa('docker', ['cp', `${container.id}:/etc/sandbar/identity.json`, '-'], {
      encoding: 'buffer',
    });
    const text = Buffer.from(stdout).toString();
    const identity = JSON.parse(text.slice(text.indexOf('{'), text.lastIndexOf('}') + 1)) as {
      ca: unknown;
      ingressAuthority?: unknown;
      request: { rootCertificate?: string };
    };
    const { ingressAuthority, request: asked, ...rest } = identity;
    expect(ingressAuthority).toBeDefined();
    const { rootCertificate, ...older } = asked;
    expect(rootCertificate).toBe(root);
    const file = { path: 'identity.json', mode: 0o600, content: JSON.stringify({ ...rest, request: older }) };
    await container.putArchive(createTar([file]), { path: '/etc/sandbar' });

    const { steps } = await sandbox.up();
    expect(steps.map(({ id }) => id)).toContain('create container/ingress');
    expect(steps.filter(({ losesData }) => losesData)).toEqual([]);
    await eventually('the app answers again', async () => {
      const status = await statusOf('app.localhost').catch(() => undefined);
      return status === 200 || undefined;
    });
    expect((await sandbox.getObject('namespace', 'kube-system')).metadata.uid).toBe(before.metadata.uid);
    expect((await sandbox.up()).steps).toEqual([]);
  });
});

describe('through TLS go', () => {
  it('HTTP/2, chosen by both sides', async () => {
    const session = connectHttp2(`https://127.0.0.1:${String(port)}`, { servername: 'app.localhost', ca: root });
    const stream = session.request({ ':path': '/', ':authority': 'app.localhost' });
    const [headers] = (await once(stream, 'response')) as [{ ':status': number }];
    expect([session.alpnProtocol, headers[':status']]).toEqual(['h2', 200]);
    session.destroy();
  });

  it('WebSockets', async () => {
    const socket = new WebSocket(`wss://${authority}/`, {
      ca: root,
      // Not every resolver knows that names below `localhost` are this machine.
      lookup: (_name, _options, found) => found(null, [{ address: '127.0.0.1', family: 4 }]),
    });
    await once(socket, 'open');
    socket.send('hello');
    const [message] = (await once(socket, 'message')) as [Buffer];
    socket.close();
    expect(message.toString()).toBe('hello');
  });

  it('gRPC, to a backend that speaks HTTP/2 without TLS', async () => {
    const asIs = (value: Buffer): Buffer => value;
    const Echo = makeGenericClientConstructor(
      {
        Say: {
          path: '/echo.Echo/Say',
          requestStream: false,
          responseStream: false,
          requestSerialize: asIs,
          requestDeserialize: asIs,
          responseSerialize: asIs,
          responseDeserialize: asIs,
        },
      },
      'Echo',
    );
    const client = new Echo(`127.0.0.1:${String(port)}`, credentials.createSsl(Buffer.from(root)), {
      'grpc.ssl_target_name_override': 'grpc.localhost',
      'grpc.default_authority': 'grpc.localhost',
    });
    const answer = await new Promise<string>((resolve, reject) => {
      const say = client['Say'] as (message: Buffer, done: (error: Error | null, reply?: Buffer) => void) => void;
      say.call(client, Buffer.from('hi'), (error, reply) => {
        if (error === null) resolve(String(reply));
        else reject(error);
      });
    });
    client.close();
    expect(answer).toBe('hi');
  });
});

describe('in pods', () => {
  const inToolbox = (...command: string[]): Promise<string> =>
    sandbox.mustKubectl(['exec', 'toolbox', '--', ...command]);

  it("the host's URLs lead to the ingress, and the file beside every pod's token makes them trusted", async () => {
    const address = await sandbox.mustKubectl([
      ...['get', 'service', 'ingress', '--namespace', 'sandbar-system'],
      ...['-o', 'jsonpath={.spec.clusterIP}'],
    ]);
    expect(await inToolbox('getent', 'hosts', 'any.app.localhost')).toMatch(new RegExp(`^${address} `));
    expect(await inToolbox('getent', 'hosts', 'localhost')).not.toContain(address);
    const script = `fetch('https://${authority}/').then(async (r) => console.log(r.status, (await r.json()).host))`;
    const trusting = 'NODE_EXTRA_CA_CERTS=/var/run/secrets/kubernetes.io/serviceaccount/ca.crt';
    expect(await inToolbox('env', trusting, 'node', '-e', script)).toBe(`200 ${authority}\n`);
    const distrusting = `fetch('https://${authority}/').catch((error) => console.log(error.cause.code))`;
    expect(await inToolbox('node', '-e', distrusting)).toMatch(/SELF_SIGNED|UNABLE_TO/);
  });

  it('a name that only ends in the same letters is asked of others', async () => {
    const look = `require('dns').lookup('app.localhost.default.svc.cluster.local', (error) => console.log(error.code))`;
    expect(await inToolbox('node', '-e', look)).toBe('ENOTFOUND\n');
  });
});

describe('sandbar trust', () => {
  const database = (): string => join(sandbox.home, '.pki/nssdb');

  /** Runs a script where the system's store is a copy that nobody else sees, with this command line as `sandbar`. */
  async function withOwnStore(script: string): Promise<string> {
    const prepared = `
      mkdir -p "$HOME/local" && cp -r /usr/local/share/ca-certificates/. "$HOME/local"
      mount -t tmpfs none /usr/local/share/ca-certificates
      mount -t tmpfs none /etc/ssl/certs
      cp -r "$HOME/local/." /usr/local/share/ca-certificates
      update-ca-certificates >/dev/null 2>&1`;
    const { stdout } = await execa('unshare', ['--mount', 'sh', '-euc', `${prepared}\n${script}`], {
      cwd: sandbox.directory,
      env: sandbox.env,
      extendEnv: false,
    });
    return stdout;
  }

  beforeAll(async () => {
    if (!isInstalled('certutil')) {
      await execa('apt-get', ['update', '--quiet']);
      await execa('apt-get', ['install', '--yes', '--no-install-recommends', 'libnss3-tools']);
    }
    await mkdir(database(), { recursive: true });
    await execa('certutil', ['-N', '-d', `sql:${database()}`, '--empty-password']);
  });

  /** What Chromium makes of the app, with the home directory of the sandbox. */
  const browse = (): Promise<string> =>
    withBrowser(
      async (browser) => {
        const page = await browser.newPage();
        const response = await page.goto(`https://${authority}/`).catch((error: unknown) => String(error));
        return typeof response === 'string' ? response : `${String(response?.status())} ${await page.content()}`;
      },
      { ...process.env, HOME: sandbox.home, XDG_DATA_HOME: undefined },
    );

  it.skipIf(!isRoot)('makes the system and browsers trust the root, once, and takes back just that', async () => {
    expect(await browse()).toContain('ERR_CERT_AUTHORITY_INVALID');
    const sandbar = `"${process.execPath}" "${SANDBAR}"`;
    const curl = `curl --silent --output /dev/null --write-out '%{http_code} ' https://${authority}/`;
    const printed = await withOwnStore(`
      unset SSL_CERT_FILE SSL_CERT_DIR CURL_CA_BUNDLE
      state() { find /usr/local/share/ca-certificates /etc/ssl/certs -type f -exec sha256sum {} + | sort; }
      before=$(state)
      ${curl} || echo "$?"
      ${sandbar} trust -o json
      ${curl}; echo
      ${sandbar} status -o json
      SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt ${sandbar} up -o json
      ${sandbar} trust --remove -o json
      test "$before" = "$(state)"
      ${curl} || echo "$?"
      ${sandbar} trust --remove -o json
      ${sandbar} trust >&2
      ${sandbar} trust -o json`);
    const [refused, added, accepted, status, up, removed, refusedAgain, nothing, again] = printed.trim().split('\n');
    const changes = (text = '{}'): unknown =>
      (JSON.parse(text) as { stores: { kind: string; isTrusted: boolean; change: string }[] }).stores.map(
        ({ kind, isTrusted, change }) => `${kind} ${String(isTrusted)} ${change}`,
      );
    expect([refused, accepted, refusedAgain]).toEqual([`000 ${UNTRUSTED}`, '200 ', `000 ${UNTRUSTED}`]);
    expect(changes(added)).toEqual(['system true added', 'browser true added']);
    expect(JSON.parse(status ?? '')).toMatchObject({ trust: [{ isTrusted: true }, { isTrusted: true }] });
    // A root that this machine trusts is no reason to make the node anew.
    expect(JSON.parse(up ?? '')).toMatchObject({ steps: [] });
    expect(changes(removed)).toEqual(['system false removed', 'browser false removed']);
    expect(changes(nothing)).toEqual(['system false none', 'browser false none']);
    expect(changes(again)).toEqual(['system true none', 'browser true none']);
    // The system's store was the namespace's own; the database is the sandbox'.
    expect(await browse()).toMatch(/^200 .*"name":"one"/);
  });
});

function isInstalled(program: string): boolean {
  return (process.env['PATH'] ?? '').split(delimiter).some((folder) => existsSync(join(folder, program)));
}
