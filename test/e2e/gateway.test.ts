/** The Gateway API: its definitions and class, and routes that clients on the host go through. */
import { once } from 'node:events';
import { request, type IncomingMessage, type IncomingHttpHeaders } from 'node:http';
import { connect as connectHttp2 } from 'node:http2';
import { request as requestTls } from 'node:https';
import { execa } from 'execa';
import { beforeAll, describe, expect, it } from 'vitest';
import { mintIdentity, mintRoot } from '../../src/adapters/pki.ts';
import { echoApp, echoScript, ingress, TOOLBOX_IMAGE } from './fixtures/apps.ts';
import { gateway, referenceGrant, route, type Backend, type Rule } from './fixtures/gateways.ts';
import { createSandbox, eventually, type KubernetesJson } from './support.ts';

const sandbox = createSandbox('gateway');
let httpPort: number;
let httpsPort: number;

const DEFINITIONS = [
  'gatewayclasses',
  'gateways',
  'httproutes',
  'grpcroutes',
  'referencegrants',
  'backendtlspolicies',
].map((resource) => `${resource}.gateway.networking.k8s.io`);

/** What the echo server says of a request that reached it. */
type Echo = {
  readonly name: string;
  readonly path: string;
  readonly host: string;
  readonly headers: Readonly<Record<string, string>>;
};

type Answer = { readonly status: number; readonly headers: IncomingHttpHeaders; readonly body: string };

type Wish = { readonly path?: string; readonly method?: string; readonly headers?: Readonly<Record<string, string>> };

async function applyObjects(...objects: readonly object[]): Promise<void> {
  const list = { apiVersion: 'v1', kind: 'List', items: objects };
  await sandbox.mustKubectl(['apply', '-f', '-'], { stdin: JSON.stringify(list) });
}

async function ask(host: string, { path = '/', method = 'GET', headers = {} }: Wish = {}): Promise<Answer> {
  const outgoing = request({ host: '127.0.0.1', port: httpPort, path, method, headers: { host, ...headers } }).end();
  return read(outgoing);
}

async function read(outgoing: ReturnType<typeof request>): Promise<Answer> {
  const [response] = (await once(outgoing, 'response')) as [IncomingMessage];
  const chunks: Buffer[] = [];
  for await (const chunk of response) chunks.push(chunk as Buffer);
  return { status: response.statusCode ?? 0, headers: response.headers, body: Buffer.concat(chunks).toString() };
}

/** Asks until the answer is the wanted one: the ingress watches, so this is a matter of milliseconds. */
async function until<T>(what: string, question: () => Promise<T>, holds: (answer: T) => boolean): Promise<T> {
  return eventually(what, async () => {
    const answer = await question();
    return holds(answer) ? answer : undefined;
  });
}

async function untilAnswered(host: string, wish: Wish = {}, status = 200): Promise<Answer> {
  return until(
    `${host} answers ${String(status)}`,
    () => ask(host, wish),
    (answer) => answer.status === status,
  );
}

const echoOf = ({ body }: Answer): Echo => JSON.parse(body) as Echo;

const conditionsOf = ({ conditions = [] }: { readonly conditions?: readonly Condition[] }): object =>
  Object.fromEntries(conditions.map(({ type, status, reason }) => [type, `${status} ${reason}`]));

type Condition = { readonly type: string; readonly status: string; readonly reason: string };

type GatewayStatus = {
  readonly addresses: readonly { readonly value: string }[];
  /** Absent until the ingress has seen it. */
  readonly listeners?: readonly {
    readonly name: string;
    readonly attachedRoutes: number;
    readonly conditions: readonly Condition[];
  }[];
};

async function statusOfGateway(name: string): Promise<GatewayStatus> {
  return (await sandbox.getObject('gateway', name)).status as unknown as GatewayStatus;
}

const conditionOf = ({ status }: KubernetesJson, type: string): string | undefined =>
  status.conditions.find((condition) => condition.type === type)?.status;

const certified = async (hostname: string) => {
  const request = {
    clusterName: 'tls',
    nodeName: hostname,
    controlPlaneAddress: '127.0.0.1',
    agentAddress: '127.0.0.1',
  };
  const identity = await mintIdentity(
    { ...request, apiServiceAddress: '127.0.0.1', rootCertificate: '' },
    await mintRoot('test'),
  );
  return { pair: identity.certificates['kubelet-serving'], ca: identity.ca.certificate };
};

const secret = (name: string, pair: { readonly certificate: string; readonly key: string }, namespace = 'default') => ({
  apiVersion: 'v1',
  kind: 'Secret',
  metadata: { name, namespace },
  type: 'kubernetes.io/tls',
  stringData: { 'tls.crt': pair.certificate, 'tls.key': pair.key },
});

const HTTP = { name: 'http', port: 80, hostname: '*.web.localhost' };

beforeAll(async () => {
  await sandbox.up();
  ({ http: httpPort, https: httpsPort } = await sandbox.ports());
  await sandbox.must(['image', 'load', TOOLBOX_IMAGE]);
  await sandbox.mustKubectl(['create', 'namespace', 'shop']);
  await applyObjects(echoScript(), ...echoApp('one'), ...echoApp('two'), gateway('web', [HTTP]));
  const timeout = '--timeout=60s';
  await sandbox.mustKubectl(['rollout', 'status', 'deployment/one', 'deployment/two', timeout]);
  await sandbox.mustKubectl(['wait', 'gatewayclass/sandbar', '--for=condition=Accepted', timeout]);
  await sandbox.mustKubectl(['wait', 'gateway/web', '--for=condition=Programmed', timeout]);
}, 180_000);

describe('definitions and class', () => {
  it('are of the version that the ingress is built with, and applying others meets no conflict', async () => {
    const { items } = await sandbox.getObject('crd', ...DEFINITIONS);
    const annotations = items.map(({ metadata }) => metadata.annotations);
    for (const found of annotations) {
      expect(found).toMatchObject({
        'gateway.networking.k8s.io/bundle-version': 'v1.4.0',
        'gateway.networking.k8s.io/channel': 'standard',
      });
    }
    expect(items.map((item) => conditionOf(item, 'Established'))).toEqual(DEFINITIONS.map(() => 'True'));
    expect(await sandbox.mustKubectl(['explain', 'httproute.spec.rules.matches.path'])).toContain('PathPrefix');
  });
});

describe('an HTTPRoute', () => {
  const hostnames = ['app.web.localhost'];
  const to = (...backends: readonly Backend[]): Pick<Rule, 'backends'> => ({ backends });

  it('chooses by path, header, method and query', async () => {
    const path = (type: string, value: string): object => ({ path: { type, value } });
    await applyObjects(
      route(
        'HTTPRoute',
        { name: 'app' },
        {
          hostnames,
          rules: [
            {
              matches: [path('PathPrefix', '/two'), { headers: [{ name: 'x-to', value: 'two' }] }],
              ...to({ name: 'two' }),
            },
            { matches: [{ method: 'PUT' }, { queryParams: [{ name: 'to', value: 'two' }] }], ...to({ name: 'two' }) },
            { matches: [path('Exact', '/two/one')], ...to({ name: 'one' }) },
            to({ name: 'one' }),
          ],
        },
      ),
    );
    await untilAnswered('app.web.localhost');
    const named = async (wish: Wish): Promise<string> => echoOf(await ask('app.web.localhost', wish)).name;
    expect(await named({})).toBe('one');
    expect(await named({ path: '/two/three' })).toBe('two');
    expect(await named({ path: '/twofold' })).toBe('one');
    expect(await named({ path: '/two/one' })).toBe('one');
    expect(await named({ headers: { 'x-to': 'two' } })).toBe('two');
    expect(await named({ method: 'PUT' })).toBe('two');
    expect(await named({ path: '/?to=two' })).toBe('two');
    expect((await ask('app.elsewhere.localhost')).status).toBe(404);
    const { stdout } = await execa('curl', ['--silent', `http://app.web.localhost:${String(httpPort)}/`]);
    expect(echoOf({ status: 200, headers: {}, body: stdout }).name).toBe('one');
  });

  it('changes headers, redirects, and rewrites', async () => {
    const prefix = (value: string): object => ({ path: { type: 'PathPrefix', value } });
    const rewrite = { hostname: 'inside.example', path: { type: 'ReplacePrefixMatch', replacePrefixMatch: '/new' } };
    await applyObjects(
      route(
        'HTTPRoute',
        { name: 'filters' },
        {
          hostnames: ['filters.web.localhost'],
          rules: [
            {
              matches: [prefix('/headers')],
              filters: [
                {
                  type: 'RequestHeaderModifier',
                  requestHeaderModifier: { set: [{ name: 'x-set', value: 'a' }], remove: ['x-gone'] },
                },
                { type: 'ResponseHeaderModifier', responseHeaderModifier: { add: [{ name: 'x-back', value: 'b' }] } },
              ],
              ...to({ name: 'one' }),
            },
            {
              matches: [prefix('/away')],
              filters: [
                {
                  type: 'RequestRedirect',
                  requestRedirect: { scheme: 'https', hostname: 'other.example', statusCode: 301 },
                },
              ],
            },
            {
              matches: [prefix('/old')],
              filters: [{ type: 'URLRewrite', urlRewrite: rewrite }],
              ...to({ name: 'one' }),
            },
          ],
        },
      ),
    );
    const headers = await untilAnswered('filters.web.localhost', { path: '/headers', headers: { 'x-gone': '1' } });
    expect(headers.headers['x-back']).toBe('b');
    expect(echoOf(headers).headers).toMatchObject({ 'x-set': 'a' });
    expect(echoOf(headers).headers).not.toHaveProperty('x-gone');
    const away = await ask('filters.web.localhost', { path: '/away/x' });
    expect([away.status, away.headers.location]).toEqual([301, 'https://other.example/away/x']);
    const rewritten = await ask('filters.web.localhost', { path: '/old/x?y=1' });
    expect(echoOf(rewritten)).toMatchObject({ host: 'inside.example', path: '/new/x?y=1' });
  });

  it('shares requests by weight', async () => {
    const backends = [
      { name: 'one', weight: 3 },
      { name: 'two', weight: 1 },
    ];
    await applyObjects(
      route('HTTPRoute', { name: 'weights' }, { hostnames: ['weights.web.localhost'], rules: [{ backends }] }),
    );
    await untilAnswered('weights.web.localhost');
    const answers = await Promise.all(Array.from({ length: 80 }, () => ask('weights.web.localhost')));
    const first = answers.filter((answer) => echoOf(answer).name === 'one').length;
    expect(first).toBeGreaterThanOrEqual(56);
    expect(first).toBeLessThanOrEqual(64);
  });

  it('reaches into another namespace only where a ReferenceGrant lets it, and is let in where a listener says so', async () => {
    await applyObjects(
      gateway('open', [{ name: 'open', port: 80, hostname: '*.open.localhost', from: 'All' }]),
      ...['open', 'web'].map((name) =>
        route(
          'HTTPRoute',
          { name, namespace: 'shop' },
          {
            parent: { name, namespace: 'default' },
            hostnames: [`shop.${name}.localhost`],
            rules: [{ backends: [{ name: 'one', namespace: 'default' }] }],
          },
        ),
      ),
    );
    await untilAnswered('shop.open.localhost', {}, 500);
    await applyObjects(referenceGrant('default', { kind: 'HTTPRoute', namespace: 'shop' }, 'Service'));
    expect(echoOf(await untilAnswered('shop.open.localhost')).name).toBe('one');
    expect((await ask('shop.web.localhost')).status).toBe(404);
    const refused = await sandbox.getObject('httproute', 'web', '-n', 'shop');
    const { parents } = refused.status as unknown as { parents: readonly { conditions: readonly Condition[] }[] };
    expect(conditionsOf(parents[0] ?? {})).toMatchObject({ Accepted: 'False NotAllowedByListeners' });
  });
});

describe('a Gateway', () => {
  it('says where it answers, and refuses ports that nothing listens on', async () => {
    await applyObjects(
      gateway('ports', [
        { name: 'alternate', port: 8080, hostname: '*.alternate.localhost' },
        { name: 'other', port: 1234 },
      ]),
      route(
        'HTTPRoute',
        { name: 'alternate' },
        {
          parent: { name: 'ports' },
          hostnames: ['a.alternate.localhost'],
          rules: [{ backends: [{ name: 'one' }] }],
        },
      ),
    );
    const status = await until(
      'the Gateway has a status',
      () => statusOfGateway('ports'),
      ({ listeners }) => listeners?.length === 2,
    );
    expect(conditionsOf(status.listeners?.[0] ?? {})).toMatchObject({
      Accepted: 'True Accepted',
      Programmed: 'True Programmed',
    });
    expect(conditionsOf(status.listeners?.[1] ?? {})).toMatchObject({ Accepted: 'False PortUnavailable' });
    const { NetworkSettings } = await sandbox.inspect('ingress');
    const address = NetworkSettings.Networks[`sandbar-${sandbox.name}`]?.IPAddress;
    expect(status.addresses).toEqual([{ type: 'IPAddress', value: address }]);
    if (process.platform !== 'linux') return;
    const { stdout } = await execa('curl', [
      ...['--silent', '--retry', '20', '--retry-delay', '0', '--fail', '--retry-all-errors'],
      ...['--header', 'host: a.alternate.localhost', `http://${address ?? ''}:8080/`],
    ]);
    expect(JSON.parse(stdout)).toMatchObject({ name: 'one' });
    expect((await ask('a.alternate.localhost')).status).toBe(404);
  });

  it('terminates TLS with a Secret, of another namespace where that is granted, and without one for names of its own', async () => {
    const [own, granted] = await Promise.all([certified('secure.localhost'), certified('granted.localhost')]);
    const https = { port: 443, protocol: 'HTTPS' };
    await applyObjects(
      secret('own', own.pair),
      secret('granted', granted.pair, 'shop'),
      gateway('tls', [
        { name: 'own', ...https, hostname: 'secure.localhost', certificate: { name: 'own' } },
        {
          name: 'granted',
          ...https,
          hostname: 'granted.localhost',
          certificate: { name: 'granted', namespace: 'shop' },
        },
        { name: 'minted', ...https, hostname: '*.minted.localhost', certificate: { name: 'own' } },
      ]),
      route(
        'HTTPRoute',
        { name: 'tls' },
        {
          parent: { name: 'tls' },
          hostnames: ['secure.localhost', 'granted.localhost', 'a.minted.localhost'],
          rules: [{ backends: [{ name: 'one' }] }],
        },
      ),
      route(
        'GRPCRoute',
        { name: 'grpc' },
        {
          parent: { name: 'tls', sectionName: 'own' },
          hostnames: ['secure.localhost'],
          rules: [
            { matches: [{ method: { service: 'echo.Echo', method: 'Say' } }], backends: [{ name: 'one', port: 81 }] },
          ],
        },
      ),
    );
    const askTls = async (servername: string, ca: string): Promise<number | string> => {
      const outgoing = requestTls({
        host: '127.0.0.1',
        port: httpsPort,
        servername,
        ca,
        headers: { host: servername },
        agent: false,
      });
      return read(outgoing.end()).then(
        ({ status }) => status,
        (error: unknown) => String(error),
      );
    };
    const served = (name: string, ca: string): Promise<number | string> =>
      until(
        `${name} answers`,
        () => askTls(name, ca),
        (answer) => answer === 200,
      );
    expect(await served('secure.localhost', own.ca)).toBe(200);
    const { listeners } = await statusOfGateway('tls');
    expect(conditionsOf(listeners?.[1] ?? {})).toMatchObject({ ResolvedRefs: 'False RefNotPermitted' });
    expect(await askTls('granted.localhost', granted.ca)).not.toBe(200);
    await applyObjects(referenceGrant('shop', { kind: 'Gateway', namespace: 'default' }, 'Secret'));
    expect(await served('granted.localhost', granted.ca)).toBe(200);
    const { data } = await sandbox.getObject('configmap', 'kube-root-ca.crt');
    expect(await askTls('a.minted.localhost', data['ca.crt'] ?? '')).toBe(200);

    expect(await callGrpc('/echo.Echo/Say', own.ca)).toEqual({ status: 200, body: 'hi', grpcStatus: '0' });
    expect((await callGrpc('/echo.Echo/Shout', own.ca)).body).not.toBe('hi');
  });
});

/** A unary call as a gRPC client sends it. */
async function callGrpc(path: string, ca: string): Promise<{ status: number; body: string; grpcStatus: unknown }> {
  const session = connectHttp2(`https://127.0.0.1:${String(httpsPort)}`, { servername: 'secure.localhost', ca });
  const stream = session.request({
    ':method': 'POST',
    ':path': path,
    ':authority': 'secure.localhost',
    'content-type': 'application/grpc',
    te: 'trailers',
  });
  const chunks: Buffer[] = [];
  let grpcStatus: unknown;
  stream.on('data', (chunk: Buffer) => chunks.push(chunk));
  stream.on('trailers', (trailers: Readonly<Record<string, unknown>>) => (grpcStatus = trailers['grpc-status']));
  stream.end(Buffer.from([0, 0, 0, 0, 2, 104, 105]));
  const [headers] = (await once(stream, 'response')) as [{ ':status': number }];
  await once(stream, 'close');
  session.close();
  return { status: headers[':status'], body: Buffer.concat(chunks).subarray(5).toString(), grpcStatus };
}

describe('definitions and class, once made', () => {
  const uids = async (): Promise<readonly string[]> => {
    const { items } = await sandbox.getObject('crd', ...DEFINITIONS);
    const { metadata } = await sandbox.getObject('gatewayclass', 'sandbar');
    return [...items.map((item) => item.metadata.uid), metadata.uid];
  };

  it('stay in a reset, which removes Gateways and routes, and serve new ones at once', async () => {
    const before = await uids();
    await sandbox.must(['reset', '--yes']);
    expect(await uids()).toEqual(before);
    expect((await sandbox.getObject('gateways,httproutes,grpcroutes,referencegrants', '-A')).items).toEqual([]);
    await applyObjects(echoScript(), ...echoApp('one'), gateway('web', [HTTP]));
    await applyObjects(
      route(
        'HTTPRoute',
        { name: 'again' },
        { hostnames: ['again.web.localhost'], rules: [{ backends: [{ name: 'one' }] }] },
      ),
    );
    await sandbox.mustKubectl(['rollout', 'status', 'deployment/one', '--timeout=60s']);
    expect(echoOf(await untilAnswered('again.web.localhost')).name).toBe('one');
  });

  it('are made again by `up` when they were deleted', async () => {
    await sandbox.mustKubectl(['delete', 'gatewayclass/sandbar', 'crd/grpcroutes.gateway.networking.k8s.io']);
    const { events } = await sandbox.up();
    const notice = events.find(({ type, text }) => type === 'notice' && text?.startsWith('made again'));
    expect(notice?.text).toContain('GatewayClass sandbar');
    expect(notice?.text).toContain('grpcroutes.gateway.networking.k8s.io');
    await sandbox.mustKubectl(['wait', 'gatewayclass/sandbar', '--for=condition=Accepted', '--timeout=60s']);
    await sandbox.getObject('grpcroutes', '-A');
  });

  it("give way to a user's own, which `up` leaves and a reset takes away", async () => {
    const name = 'gateways.gateway.networking.k8s.io';
    const { spec } = await sandbox.getObject('crd', name);
    const annotations = {
      'api-approved.kubernetes.io': 'https://github.com/kubernetes-sigs/gateway-api/pull/3328',
      'gateway.networking.k8s.io/bundle-version': 'v1.9.0',
    };
    const names = { ...(spec['names'] as object), shortNames: ['gw'] };
    const own = {
      apiVersion: 'apiextensions.k8s.io/v1',
      kind: 'CustomResourceDefinition',
      metadata: { name, annotations },
      spec: { ...spec, names },
    };
    await sandbox.mustKubectl(['apply', '--server-side', '-f', '-'], { stdin: JSON.stringify(own) });
    const { steps } = await sandbox.up();
    expect(steps).toEqual([]);
    const version = async (): Promise<string | undefined> =>
      (await sandbox.getObject('crd', name)).metadata.annotations?.['gateway.networking.k8s.io/bundle-version'];
    expect(await version()).toBe('v1.9.0');
    await sandbox.must(['reset', '--yes']);
    expect(await version()).toBe('v1.4.0');
  });

  it('go with `gatewayApi: false`, and Ingresses are served as before', async () => {
    await sandbox.writeConfig('gatewayApi: false\n');
    await sandbox.up();
    await until(
      'the definitions are gone',
      () => sandbox.kubectl(['get', 'crd', '-o', 'name']),
      ({ stdout }) => !stdout.includes('gateway.networking.k8s.io'),
    );
    await applyObjects(
      echoScript(),
      ...echoApp('one'),
      ingress('app', [{ host: 'app.localhost', paths: [{ path: '/', service: 'one' }] }]),
    );
    await sandbox.mustKubectl(['rollout', 'status', 'deployment/one', '--timeout=60s']);
    expect(echoOf(await untilAnswered('app.localhost')).name).toBe('one');
    expect(await sandbox.must(['logs', 'ingress'])).not.toContain('gateway');
  });
});
