import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { CONFIG_EXAMPLE, MOUNTS_EXAMPLE } from '../../src/config/documentation.ts';
import type { ConfigFlags } from '../../src/config/flags.ts';
import { loadConfig, resolveClusterName } from '../../src/config/load.ts';
import { CONFIG_SCHEMA, findSchemaAt, type JsonSchema } from '../../src/config/schema.ts';
import { formatDiagnostic } from '../../src/model/errors.ts';
import { formatWorkload } from '../../src/model/mounts.ts';
import type { Host } from '../../src/model/ports.ts';
import type { ClusterSpec } from '../../src/model/spec.ts';
import { fakeHost } from '../builders/host.ts';

const CERTIFICATE = readFileSync(new URL('./fixtures/ca.pem', import.meta.url), 'utf8');
const FILE = '/home/ada/app/sandbar.yaml';

type Input = {
  readonly text?: string;
  readonly files?: Readonly<Record<string, string>>;
  readonly flags?: ConfigFlags;
  readonly env?: Host['env'];
};

function load({ text, files = {}, flags = {}, env = {} }: Input) {
  return loadConfig(fakeHost({ ...(text === undefined ? {} : { [FILE]: text }), ...files }, { env }), flags);
}

async function problemsOf(input: Input): Promise<readonly string[]> {
  const loaded = await load(input);
  return loaded.kind === 'invalid' ? loaded.diagnostics.map(formatDiagnostic) : [];
}

async function specOf(input: Input): Promise<ClusterSpec> {
  const loaded = await load(input);
  if (loaded.kind === 'invalid') throw new Error(loaded.diagnostics.map(formatDiagnostic).join('\n'));
  return loaded.spec;
}

describe('the configuration', () => {
  it('has a default for everything', async () => {
    expect(await specOf({})).toEqual({
      name: 'dev',
      kubernetes: {
        version: '1.36',
        isVersionNamed: false,
        auditPolicy: undefined,
        isEncrypted: false,
        admission: { enabled: [], disabled: [], configuration: {} },
        featureGates: {},
        apiServerArguments: {},
        controllerManagerArguments: {},
        schedulerArguments: {},
        kubeletArguments: {},
        kubeletConfiguration: {},
      },
      network: { subnet: undefined, podSubnet: '10.244.0.0/16', serviceSubnet: '10.96.0.0/16' },
      ports: {
        api: { port: 6443, isFixed: false },
        http: { port: 80, isFixed: false },
        https: { port: 443, isFixed: false },
        objectStore: { port: 9000, isFixed: false },
        objectStoreConsole: { port: 9001, isFixed: false },
      },
      ingress: { isEnabled: true },
      gatewayApi: { isEnabled: true },
      networkPolicy: { isEnabled: true },
      objectStore: { isEnabled: true, region: 'us-east-1', buckets: [] },
      metrics: { isEnabled: true },
      caCertificates: [],
      mirrors: [],
      registry: { name: 'sandbar-registry', port: { port: 5001, isFixed: false }, mirrors: [] },
      manifests: [],
      mounts: [],
      publish: [],
      proxy: { httpProxy: '', httpsProxy: '', noProxy: '' },
      projectDirectory: undefined,
    });
  });

  it('takes a version by its minor number, quoted or not, and knows which there are', async () => {
    for (const version of ['1.35', '"1.35"', 'v1.35', '1.35.4']) {
      expect((await specOf({ text: `kubernetes: { version: ${version} }` })).kubernetes.version).toBe('1.35');
    }
    expect(await problemsOf({ text: 'kubernetes: { version: 1.34 }' })).toEqual([
      'sandbar.yaml:1:24: there is no Kubernetes 1.34 in this Sandbar (there are 1.36, 1.35)',
    ]);
  });

  it('has an audit policy of its own, or takes that of a file', async () => {
    const files = { '/home/ada/app/policy.yaml': 'kind: Policy\nrules: []\n', '/home/ada/app/pod.yaml': 'kind: Pod\n' };
    const policyOf = async (written: string): Promise<string | undefined> =>
      (await specOf({ text: `kubernetes: { auditLog: ${written} }`, files })).kubernetes.auditPolicy;
    expect(JSON.parse((await policyOf('true')) ?? '')).toMatchObject({ kind: 'Policy' });
    expect(await policyOf('./policy.yaml')).toBe('kind: Policy\nrules: []\n');
    expect(await policyOf('false')).toBeUndefined();
    expect(await problemsOf({ text: 'kubernetes: { auditLog: pod.yaml }', files })).toEqual([
      'sandbar.yaml:1:25: pod.yaml is no audit policy (kind: Policy of audit.k8s.io/v1 is needed; true takes the default one)',
    ]);
    expect(await problemsOf({ text: 'kubernetes: { auditLog: polcy.yaml }', files })).toEqual([
      'sandbar.yaml:1:25: polcy.yaml does not exist (did you mean policy.yaml?)',
    ]);
  });

  it('refuses admission plugins that contradict each other, or the cluster', async () => {
    const text =
      'kubernetes: { admissionPlugins: { enable: [PodSecurity], disable: [PodSecurity, NodeRestriction, x] } }';
    expect(await problemsOf({ text })).toEqual([
      'sandbar.yaml:1:68: PodSecurity is both enabled and disabled (leave one of both out)',
      'sandbar.yaml:1:81: NodeRestriction cannot be disabled: it keeps the node to its own pods',
      'sandbar.yaml:1:98: "x" is not the name of an admission plugin (for example AlwaysPullImages)',
    ]);
  });

  it('takes the example of its own guide', async () => {
    const spec = await specOf({
      text: CONFIG_EXAMPLE,
      files: {
        '/home/ada/app/corp.pem': CERTIFICATE,
        '/home/ada/app/k8s/b.yaml': 'apiVersion: v1\nkind: ConfigMap\nmetadata: { name: b }\n',
        '/home/ada/app/k8s/a.yaml': 'apiVersion: v1\nkind: ConfigMap\nmetadata: { name: a }\n',
      },
    });
    expect(spec.ports.http).toEqual({ port: 8080, isFixed: true });
    expect(spec.objectStore.buckets).toEqual([
      { name: 'pictures', hasVersioning: false },
      { name: 'reports', hasVersioning: true },
    ]);
    expect(spec.mirrors).toEqual([{ registry: 'docker.io', endpoints: ['https://mirror.example:5000'] }]);
    expect(spec.manifests.map(({ path }) => path)).toEqual(['/home/ada/app/k8s/a.yaml', '/home/ada/app/k8s/b.yaml']);
    expect(spec.caCertificates).toEqual([{ path: '/home/ada/app/corp.pem', content: CERTIFICATE }]);
    expect(spec.kubernetes.apiServerArguments).toEqual({ 'event-ttl': '24h' });
  });

  it('reports every problem at once, each at its place', async () => {
    const text = `name: Dev_1
kubernets: {}
buckets: [a]
kubernetes:
  featureGates: { Foo: "true", bar: true }
  apiServerArguments: { etcd-servers: x, --foo: 1 }
network: { subnet: 10.244.0.0/24, services: 8.8.0.0/16 }
ports: { api: 70000, http: 80, https: 80 }
objectStore: { buckets: [Pictures, {nme: x}, ok-ok, ok-ok] }
caCertificates: [./corp.pem]
mirrors: { docker.io: [ftp://x] }
manifests: [k8s/*.yaml, sandbr.yaml]
`;
    expect(await problemsOf({ text })).toEqual([
      'sandbar.yaml:1:7: cluster name "Dev_1" is not usable: up to 32 lower-case letters, digits and inner hyphens (for example dev-1)',
      'sandbar.yaml:2:1: unknown key kubernets (did you mean kubernetes?)',
      'sandbar.yaml:3:1: unknown key buckets (did you mean objectStore.buckets?)',
      'sandbar.yaml:5:24: kubernetes.featureGates.Foo must be true or false, not "true"',
      'sandbar.yaml:5:32: "bar" is not the name of a feature gate (their names are like InPlacePodVerticalScaling)',
      'sandbar.yaml:6:25: --etcd-servers cannot be set: the datastore is part of the control plane',
      'sandbar.yaml:6:42: "--foo" is not a flag\'s name (write foo: value)',
      'sandbar.yaml:7:20: network.subnet 10.244.0.0/24 overlaps network.pods 10.244.0.0/16 (the default) (take subnets that share no address)',
      'sandbar.yaml:7:45: network.services 8.8.0.0/16 is not in a private range: hosts there could not be reached any more (for example 10.96.0.0/16)',
      'sandbar.yaml:8:15: ports.api must be at most 65535, not 70000',
      'sandbar.yaml:8:39: ports.https and ports.http are both 80 (leave one out, and the next free port is taken)',
      'sandbar.yaml:9:26: bucket name "Pictures" breaks S3\'s rules: it has lower-case letters, digits, dots and hyphens (for example pictures)',
      'sandbar.yaml:9:36: objectStore.buckets[1] has no name',
      'sandbar.yaml:9:37: unknown key nme in objectStore.buckets[1] (did you mean name?)',
      'sandbar.yaml:9:53: bucket ok-ok is declared twice',
      'sandbar.yaml:10:18: ./corp.pem does not exist (looked for /home/ada/app/corp.pem)',
      'sandbar.yaml:11:24: mirrors["docker.io"][0] "ftp://x" is not an http or https URL (for example https://x)',
      'sandbar.yaml:12:13: no file matches k8s/*.yaml (looked in /home/ada/app)',
      'sandbar.yaml:12:25: sandbr.yaml does not exist (did you mean sandbar.yaml?)',
    ]);
  });

  it.each<[string, string, string]>([
    ['a list at the top', '- a', '1:1: the file must be a mapping of keys to values, not a list'],
    ['a key twice', 'name: a\nname: b', '2:1: map keys must be unique'],
    ['a tab', 'ports:\n\thttp: 80', '2:1: tabs are not allowed as indentation'],
    [
      'an alias without anchor',
      'name: *nobody',
      '1:1: unresolved alias (the anchor must be set before the alias): nobody',
    ],
    ['variables in braces', 'ports: { http: ${X} }', '1:17: unexpected flow-map-start at node end'],
    ['a text for a section', 'ports: 80', '1:8: ports must be a mapping of keys to values, not 80'],
    ['a missing variable', 'name: ${X:?say who}', '1:7: variable X is required: say who'],
    ['a lone dollar', 'name: a$', '1:7: "a$" has a $ that names no variable'],
    [
      'IPv6 pods',
      'network: { pods: "fd00::/48" }',
      '1:18: network.pods "fd00::/48" is not an IPv4 subnet: IPv6 is not supported',
    ],
    [
      'a subnet in the middle',
      'network: { pods: 10.1.2.3/16 }',
      '1:18: network.pods 10.1.2.3/16 is not the start of its subnet (write 10.1.0.0/16)',
    ],
    ['a tiny subnet', 'network: { subnet: 10.0.0.0/29 }', '1:20: network.subnet 10.0.0.0/29 is too small'],
    ['a huge subnet', 'network: { services: 172.0.0.0/11 }', '1:22: network.services 172.0.0.0/11 is too large'],
    [
      'overlapping defaults',
      'network: { pods: 10.96.0.0/16 }',
      '1:18: network.pods 10.96.0.0/16 overlaps network.services 10.96.0.0/16 (the default)',
    ],
    ['a broken port', 'ports: { http: "80" }', '1:16: ports.http must be a whole number, not "80"'],
    [
      'an IP as bucket',
      'objectStore: { buckets: [192.168.1.1] }',
      '1:26: bucket name "192.168.1.1" breaks S3\'s rules: it is not like an IP address',
    ],
    [
      'a reserved bucket',
      'objectStore: { buckets: [xn--a] }',
      '1:26: bucket name "xn--a" breaks S3\'s rules: xn-- at the start is reserved',
    ],
    [
      'buckets without store',
      'objectStore: { enabled: false, buckets: [abc] }',
      '1:41: objectStore.buckets needs the object store',
    ],
    [
      'the Gateway API without the ingress',
      'ingress: { enabled: false }\ngatewayApi: true',
      '2:13: gatewayApi needs the ingress',
    ],
    [
      'an owned kubelet flag',
      'kubernetes: { kubeletArguments: { node-ip: 1.2.3.4 } }',
      "1:35: --node-ip cannot be set: the node's name and address are fixed",
    ],
    [
      'another form of what is stored',
      'kubernetes: { apiServerArguments: { storage-media-type: application/json } }',
      '1:37: --storage-media-type cannot be set: a reset reads what the datastore holds',
    ],
    [
      'a flag that wants a file',
      'kubernetes: { apiServerArguments: { egress-selector-config-file: /x } }',
      '1:37: --egress-selector-config-file cannot be set: it names a file',
    ],
    [
      'an owned kubelet field',
      'kubernetes: { kubeletConfiguration: { clusterDNS: [] } }',
      "1:39: clusterDNS cannot be set: the cluster's network sets it",
    ],
    [
      'a URL as registry',
      'mirrors: { "https://docker.io": [] }',
      '1:12: "https://docker.io" is not a registry\'s host',
    ],
    [
      'a registry to copy from in upper case',
      'registry: { mirrors: [Quay.io] }',
      '1:23: "Quay.io" is not a registry\'s host as image names have it (for example quay.io)',
    ],
    [
      'a mirror on loopback',
      'mirrors: { docker.io: [http://localhost:5000] }',
      '1:24: mirrors["docker.io"][0] "http://localhost:5000" means the node itself there, not this machine (write http://host.sandbar.internal:5000)',
    ],
    [
      'credentials in a mirror',
      'mirrors: { docker.io: [http://a:b@c] }',
      '1:24: mirrors["docker.io"][0] has credentials',
    ],
    [
      'a manifest from the web',
      'manifests: [https://x/y.yaml]',
      '1:13: manifests[0] https://x/y.yaml is a URL, not a file',
    ],
  ])('refuses %s', async (_, text, expected) => {
    const problems = await problemsOf({ text });
    expect(problems).toHaveLength(1);
    expect(problems[0]).toContain(`sandbar.yaml:${expected}`);
  });

  it('lets harmless flags through as they were written', async () => {
    const text =
      'kubernetes: { apiServerArguments: { v: 4, profiling: false, event-ttl: 1.10, runtime-config: api/all=true, audit-log-path: "-" } }';
    const { kubernetes } = await specOf({ text });
    expect(kubernetes.apiServerArguments).toEqual({
      v: '4',
      profiling: 'false',
      'event-ttl': '1.10',
      'runtime-config': 'api/all=true',
      'audit-log-path': '-',
    });
  });

  it('takes an empty section for none, anchors from x- keys, and nulls of the kubelet for what they are', async () => {
    const text =
      'ingress:\nx-b: &b [abc]\nobjectStore: { buckets: *b }\nkubernetes: { kubeletConfiguration: { reservedMemory: null } }';
    const spec = await specOf({ text });
    expect(spec.ingress.isEnabled).toBe(true);
    expect(spec.objectStore.buckets).toEqual([{ name: 'abc', hasVersioning: false }]);
    expect(spec.kubernetes.kubeletConfiguration).toEqual({ reservedMemory: null });
  });

  it('gives variables the type of their place and warns of those that are not set', async () => {
    const text =
      'name: ${N}\nports: { http: "${PORT}" }\nobjectStore: { enabled: "${S3:-false}" }\nmirrors: { "docker.io": ["http://m${UNSET}"] }';
    const loaded = await load({ text, env: { N: '123', PORT: '8080' } });
    expect(loaded).toMatchObject({
      kind: 'valid',
      spec: { name: '123', ports: { http: { port: 8080 } }, objectStore: { isEnabled: false } },
    });
    expect(loaded.warnings.map(formatDiagnostic)).toEqual([
      'sandbar.yaml:4:26: variable UNSET is not set: mirrors["docker.io"][0] gets an empty text in its place (set UNSET, or write ${UNSET:-default})',
    ]);
  });

  it('refuses whatever its own patterns refuse', async () => {
    // Patterns are for editors; the rules must not be more lenient than they are.
    const patterned = [...patternsIn(CONFIG_SCHEMA, [])];
    expect(patterned.length).toBeGreaterThan(4);
    for (const path of patterned) {
      expect(findSchemaAt(path)?.pattern).toBeDefined();
      const value = path.reduceRight<unknown>((inner, key) => (key === 0 ? [inner] : { [key]: inner }), '!');
      expect(await problemsOf({ text: JSON.stringify(value) }), path.join('.')).toHaveLength(1);
    }
  });
});

function* patternsIn(schema: JsonSchema, path: readonly (string | number)[]): Iterable<readonly (string | number)[]> {
  if (schema.pattern !== undefined) yield path;
  for (const [key, inner] of Object.entries(schema.properties ?? {})) yield* patternsIn(inner, [...path, key]);
  if (schema.items !== undefined) yield* patternsIn(schema.items, [...path, 0]);
}

describe('flags and environment', () => {
  it('win over the file, and are named where they are wrong', async () => {
    const text = 'name: file\nports: { http: 1, https: 2 }\nobjectStore: { buckets: [abc] }';
    const spec = await specOf({
      text,
      env: { SANDBAR_NAME: 'variable' },
      flags: {
        httpPort: '8080',
        bucket: ['def'],
        featureGate: ['Foo=true', 'Bar=false'],
        ingress: false,
        objectStore: true,
      },
    });
    expect(spec.name).toBe('variable');
    expect(spec.ports).toMatchObject({ http: { port: 8080, isFixed: true }, https: { port: 2, isFixed: true } });
    expect(spec.objectStore.buckets.map(({ name }) => name)).toEqual(['abc', 'def']);
    expect(spec.kubernetes.featureGates).toEqual({ Foo: true, Bar: false });
    expect(spec.ingress.isEnabled).toBe(false);
    expect(spec.objectStore.isEnabled).toBe(true);
    const registryOf = async (text: string) =>
      (await specOf({ text, env: { SANDBAR_REGISTRY: 'own' } })).registry?.name;
    expect(await Promise.all(['', 'registry: true', 'registry: { port: 5002 }'].map(registryOf))).toEqual([
      'own',
      'own',
      'own',
    ]);
    expect(await registryOf('registry: false')).toBeUndefined();

    const flags: ConfigFlags = {
      name: 'Big',
      httpsPort: 'abc',
      apiPort: '0',
      bucket: ['x'],
      featureGate: ['Foo'],
      subnet: '1.2.3.4',
    };
    expect(await problemsOf({ text, flags })).toEqual([
      '--feature-gate: kubernetes.featureGates.Foo must be true or false, not ""',
      '--api-port: ports.api must be at least 1, not 0',
      '--https-port: ports.https must be a whole number, not "abc"',
      '--name: cluster name "Big" is not usable: up to 32 lower-case letters, digits and inner hyphens (for example big)',
      '--subnet: network.subnet "1.2.3.4" is not an IPv4 subnet: an address, a slash and a prefix length are needed (for example 172.30.0.0/24)',
      '--bucket: bucket name "x" breaks S3\'s rules: it has 3 to 63 characters (for example pictures)',
    ]);
  });

  it('fill in the proxy, with the cluster itself left out of it', async () => {
    const { proxy } = await specOf({
      env: {
        HTTP_PROXY: 'localhost:3128',
        https_proxy: 'http://user:pass@proxy.example:8080/',
        NO_PROXY: '.corp, 10.0.0.0/8',
      },
      flags: { subnet: '172.30.5.0/24' },
    });
    expect(proxy).toEqual({
      httpProxy: 'http://host.sandbar.internal:3128',
      httpsProxy: 'http://user:pass@proxy.example:8080',
      noProxy:
        '.corp,10.0.0.0/8,localhost,127.0.0.1,::1,host.sandbar.internal,.svc,.cluster.local,10.244.0.0/16,10.96.0.0/16,172.30.5.0/24',
    });
    expect(await problemsOf({ env: { HTTP_PROXY: 'ftp://x' } })).toEqual([
      'HTTP_PROXY: "ftp://x" is not the URL of a proxy (for example http://proxy.example:3128)',
    ]);
  });

  it('add the certificates that a node would lack', async () => {
    const own = await specOf({
      env: { NODE_EXTRA_CA_CERTS: '/etc/corp.pem' },
      files: { '/etc/corp.pem': CERTIFICATE },
    });
    expect(own.caCertificates).toEqual([{ path: '/etc/corp.pem', content: CERTIFICATE }]);

    const bundle = '/etc/ssl/certs/ca-certificates.crt';
    const local = '/usr/local/share/ca-certificates/corp/root.crt';
    const system = { env: { SSL_CERT_FILE: bundle, NODE_EXTRA_CA_CERTS: bundle } };
    const files = { [bundle]: CERTIFICATE };
    expect((await specOf({ ...system, files })).caCertificates).toEqual([]);
    const added = await specOf({ ...system, files: { ...files, [local]: CERTIFICATE } });
    expect(added.caCertificates).toEqual([{ path: local, content: CERTIFICATE }]);

    const missing = await load({ env: { SSL_CERT_FILE: '/nowhere.pem' } });
    expect(missing.warnings.map(formatDiagnostic)).toEqual(['SSL_CERT_FILE: /nowhere.pem does not exist: ignored']);
  });
});

describe('mounts', () => {
  const FOLDERS = { '/home/ada/app/src/main.ts': '', '/home/ada/app/data/x': '', '/home/ada/Data: 2026/x': '' };
  const withMounts = (lines: string, files: Readonly<Record<string, string>> = FOLDERS): Input => ({
    text: `mounts:\n${lines}`,
    files,
  });
  const mountsOf = async (lines: string, files?: Readonly<Record<string, string>>) =>
    (await specOf(withMounts(lines, files))).mounts.map((mount) => {
      const { source, target, isReadOnly, excluded } = mount;
      const place = target.kind === 'workload' ? `${formatWorkload(target.workload)}:${target.path}` : 'node';
      const notes = [...(isReadOnly ? ['ro'] : []), ...excluded.map((path) => `without ${path}`)];
      return [source, place, ...notes].join(' ');
    });

  it('are read in both of the syntaxes of Compose', async () => {
    const loaded = await load({ text: MOUNTS_EXAMPLE, files: FOLDERS });
    expect(loaded).toMatchObject({ kind: 'valid', warnings: [] });
    const spec = await specOf({ text: MOUNTS_EXAMPLE, files: FOLDERS });
    expect(spec.projectDirectory).toBe('/home/ada/app');
    expect(spec.mounts).toEqual([
      {
        source: '/home/ada/app/src',
        writtenSource: './src',
        target: {
          kind: 'workload',
          workload: { namespace: 'default', kind: 'Deployment', name: 'web', container: undefined },
          path: '/app/src',
        },
        isReadOnly: false,
        excluded: ['node_modules'],
        createsSource: true,
      },
      {
        source: '/home/ada/Data: 2026',
        writtenSource: '~/Data: 2026',
        target: {
          kind: 'workload',
          workload: { namespace: 'default', kind: 'Job', name: 'import', container: undefined },
          path: '/data',
        },
        isReadOnly: true,
        excluded: [],
        createsSource: false,
      },
    ]);
  });

  it('have variables, anchors, a file, and exclude in the deepest mount around a path', async () => {
    const lines = `
  deployment/web: &web
    - "\${SOURCE:-./src}:/app"
    - ./data:/app/data/
    - ./src/main.ts:/etc/main.ts:ro
    - /app/data/cache
    - { type: volume, target: /app/node_modules }
  shop/sts/web/main:
    - { type: bind, source: src, target: /app, exclude: [a, /app/b/], bind: { propagation: rprivate, selinux: z } }
  deploy/other: *web`;
    expect(await mountsOf(lines)).toEqual([
      '/home/ada/app/src deployment/web:/app without node_modules',
      '/home/ada/app/data deployment/web:/app/data without cache',
      '/home/ada/app/src/main.ts deployment/web:/etc/main.ts ro',
      '/home/ada/app/src shop/statefulset/web/main:/app without a without b',
      '/home/ada/app/src deployment/other:/app without node_modules',
      '/home/ada/app/data deployment/other:/app/data without cache',
      '/home/ada/app/src/main.ts deployment/other:/etc/main.ts ro',
    ]);
  });

  it('are reported with all that is wrong with them, each at its place', async () => {
    const lines = `  deploymint/web: [./src:/app]
  deployment/web:
    - data:/app
    - ./src:app
    - type: bnd
      source: ./src
      target: /app
      readonly: true
    - { type: tmpfs, target: /tmp }
    - { type: bind, target: /x }
    - { type: volume, source: db, target: /y }
    - { source: ./src }
    - ./src:/ok
    - ./data:/ok/
    - /elsewhere
    - ./src:/usr/bin
    - /etc:/host
    - { type: bind, source: ./scr, target: /z, bind: { create_host_path: false, propagation: shared } }
    - { type: bind, source: ./scr, target: /z, bind: { create_host_path: false } }
    - { type: bind, source: ./src/main.ts, target: /f, exclude: [x, '*', ..] }
    - ./src/main.ts/below:/g
    - 'C:src:/h'
    - 5
  deploy/web:
    - ./data:/ok
`;
    expect(await problemsOf(withMounts(lines))).toEqual([
      'sandbar.yaml:2:3: "deploymint/web" names no workload: deploymint is not a kind that has pods (did you mean deployment?)',
      'sandbar.yaml:4:7: "data:/app" wants a volume named data, which only Compose has (write ./data:/app for a folder, or give the workload a PersistentVolumeClaim)',
      'sandbar.yaml:5:7: target "app" is not an absolute path in the container (for example /app)',
      'sandbar.yaml:6:13: unknown type bnd (did you mean bind?)',
      'sandbar.yaml:9:7: unknown key readonly in mounts["deployment/web"][2] (did you mean read_only?)',
      'sandbar.yaml:10:15: type tmpfs is no mount of a folder or a file (give the workload an emptyDir with medium: Memory)',
      'sandbar.yaml:11:7: mounts["deployment/web"][4] has no source',
      'sandbar.yaml:12:31: volumes with a name, as db, are only in Compose (write type: bind for a folder, or give the workload a PersistentVolumeClaim)',
      'sandbar.yaml:13:7: mounts["deployment/web"][6] has no type',
      'sandbar.yaml:13:7: mounts["deployment/web"][6] has no target',
      'sandbar.yaml:15:7: deployment/web has two mounts at /ok',
      "sandbar.yaml:16:7: /elsewhere is in no mount of deployment/web: the container has the image's own content there anyway (leave it out, or give the workload an emptyDir or a claim)",
      'sandbar.yaml:17:7: target /usr/bin would hide a system path of the container (name a folder of the application, for example /app)',
      'sandbar.yaml:18:7: /etc is a system folder (mount a folder of your own, for example one below /home/ada)',
      'sandbar.yaml:19:94: mode shared cannot be had: what is mounted below the source later is not passed on (leave it out)',
      'sandbar.yaml:20:29: ./scr does not exist (did you mean ./src?)',
      'sandbar.yaml:21:69: "*" is a pattern, not a path (a path below /f, for example node_modules)',
      'sandbar.yaml:21:74: ".." contains .. (a path below /f, for example node_modules)',
      'sandbar.yaml:22:7: ./src/main.ts/below cannot be: /home/ada/app/src/main.ts is a file',
      'sandbar.yaml:23:7: C:src is a path of Windows (write the path that it has on this system)',
      'sandbar.yaml:24:7: "5" has no target (the form is SOURCE:TARGET[:MODE], for example ./src:/app/src:ro)',
      'sandbar.yaml:26:7: deployment/web has two mounts at /ok',
    ]);
  });

  it('make a source that is missing, and say so', async () => {
    const loaded = await load(withMounts('  deployment/web: [./scr:/app]\n'));
    expect(loaded.warnings.map(formatDiagnostic)).toEqual([
      'sandbar.yaml:2:20: ./scr does not exist: up makes it, as a folder (did you mean ./src?)',
    ]);
    expect(loaded).toMatchObject({
      kind: 'valid',
      spec: { mounts: [{ source: '/home/ada/app/scr', writtenSource: './scr', createsSource: true }] },
    });
  });

  it('follow symbolic links, but not out of the folder of the file unless that is written', async () => {
    const host = fakeHost({ '/srv/shared/x': '', '/home/ada/.ssh/id': '', [FILE]: '' });
    for (const [link, target] of [
      ['/home/ada/app/inside', '/home/ada/app/real'],
      ['/home/ada/app/outside', '/srv/shared'],
      ['/home/ada/app/dangling', '/srv/missing'],
      ['/home/ada/keys', '/home/ada/.ssh'],
    ] as const) {
      host.links.set(link, target);
    }
    host.files.set('/home/ada/app/real/x', { content: '', mode: 0o644, ageMs: 0 });
    const sourceOf = async (source: string): Promise<string> => {
      host.files.set(FILE, { content: `mounts: { pod/a: ["${source}:/app"] }`, mode: 0o644, ageMs: 0 });
      const loaded = await loadConfig(host, {});
      if (loaded.kind === 'valid') return loaded.spec.mounts.map((mount) => mount.source).join(' ');
      return loaded.diagnostics.map(({ message }) => message).join('; ');
    };
    expect(await sourceOf('./inside')).toBe('/home/ada/app/real');
    expect(await sourceOf('./inside/new')).toBe('/home/ada/app/real/new');
    expect(await sourceOf('./outside')).toBe('a symbolic link leads out of /home/ada/app, to /srv/shared');
    expect(await sourceOf('./outside/new')).toBe('a symbolic link leads out of /home/ada/app, to /srv/shared/new');
    expect(await sourceOf('../app/outside')).toBe('/srv/shared');
    expect(await sourceOf('/home/ada/app/outside')).toBe('/srv/shared');
    expect(await sourceOf('./dangling')).toBe('./dangling is a symbolic link to nothing');
    expect(await sourceOf('~/keys')).toBe('/home/ada/.ssh holds credentials (~/.ssh)');
    expect(await sourceOf('~')).toBe('/home/ada is a home folder, which holds credentials');
    expect(await sourceOf('.')).toBe('/home/ada/app');
  });
});

describe('finding the file', () => {
  const found = async (files: Readonly<Record<string, string>>, workingDirectory: string) =>
    (await loadConfig(fakeHost(files, { workingDirectory }), {})).file;

  it('looks upwards as far as the repository or the home directory', async () => {
    const files = { '/home/ada/app/sandbar.yml': '', '/home/ada/app/src/deep/x': '', '/home/sandbar.yaml': '' };
    expect(await found(files, '/home/ada/app/src/deep')).toBe('/home/ada/app/sandbar.yml');
    expect(await found({ '/home/sandbar.yaml': '', '/home/ada/x': '' }, '/home/ada')).toBeUndefined();
    expect(await found({ '/srv/sandbar.yaml': '', '/srv/app/.git/HEAD': '' }, '/srv/app')).toBeUndefined();
    expect(await found({ '/srv/sandbar.yaml': '', '/srv/app/x': '' }, '/srv/app')).toBe('/srv/sandbar.yaml');
  });

  it('wants the file that was named', async () => {
    expect(await problemsOf({ flags: { file: 'other.yaml' } })).toEqual([
      '--file: other.yaml does not exist (looked for /home/ada/app/other.yaml)',
    ]);
    const spec = await specOf({ env: { SANDBAR_FILE: '../x.yaml' }, files: { '/home/ada/x.yaml': 'name: x' } });
    expect(spec.name).toBe('x');
  });
});

describe("a cluster's name", () => {
  const nameIn = (text: string, flags: ConfigFlags = {}, env: Host['env'] = {}) =>
    resolveClusterName(fakeHost({ [FILE]: text }, { env }), flags);

  it('comes from the flag, the variable, the file or the default, whatever else is wrong', async () => {
    expect(await nameIn('name: file')).toEqual({ name: 'file' });
    expect(await nameIn('name: file\nbroken: true\nports: 5')).toEqual({ name: 'file' });
    expect(await nameIn('ports: {}')).toEqual({ name: 'dev' });
    expect(await nameIn('')).toEqual({ name: 'dev' });
    expect(await nameIn('name: file', {}, { SANDBAR_NAME: 'variable' })).toEqual({ name: 'variable' });
    expect(await nameIn('{{{', { name: 'flag' }, { SANDBAR_NAME: 'variable' })).toEqual({ name: 'flag' });
  });

  it('is refused at its place', async () => {
    expect(await nameIn('\nname: A B')).toMatchObject({ diagnostics: [{ file: 'sandbar.yaml', line: 2, column: 7 }] });
    expect(await nameIn('', { name: '-' })).toMatchObject({ diagnostics: [{ file: '--name' }] });
    expect(await nameIn('{{{')).toMatchObject({ diagnostics: [{ file: 'sandbar.yaml', line: 1 }] });
  });
});
