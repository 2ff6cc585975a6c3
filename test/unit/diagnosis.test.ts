import { X509Certificate } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { diagnose } from '../../src/diagnosis/diagnose.ts';
import type { Objects } from '../../src/diagnosis/kubernetes.ts';
import { checkCertificates, readyzProblem } from '../../src/diagnosis/parts.ts';
import { mintIdentity, mintRoot } from '../../src/adapters/pki.ts';
import { fakeIdentity } from '../builders/cluster.ts';
import { ago, eventOf, findings, nodeWith, NOW_MS, partWith, snapshotWith, worldOf } from '../builders/diagnosis.ts';

const inWorld = (objects: Partial<Objects>): readonly string[] => findings(snapshotWith({ world: worldOf(objects) }));

const DAY_MS = 86_400_000;

const meta = (name: string, more: object = {}) => ({ name, creationTimestamp: ago(600), ...more });

it('of a cluster that is well there is nothing to say', () => {
  expect(findings(snapshotWith())).toEqual([]);
  expect(diagnose(snapshotWith()).map(({ subject }) => subject)).toContain('object-store');
});

describe('without a cluster', () => {
  it('only the machine is looked at', () => {
    const snapshot = snapshotWith({}, { cluster: undefined });
    expect(findings(snapshot)).toEqual([]);
    expect(diagnose(snapshot).at(-1)?.message).toBe('there is no cluster "dev" yet: sandbar up makes it');
  });

  it('without an engine that is all there is to say', () => {
    const machine = {
      message: 'no Docker engine answers at /var/run/docker.sock',
      hint: 'sudo systemctl start docker',
    };
    expect(diagnose(snapshotWith({}, { machine }))).toEqual([
      { id: 'machine.engine', severity: 'error', subject: 'engine', message: machine.message, fix: machine.hint },
    ]);
  });

  it('says what up would refuse, and what it would warn of', () => {
    const refusal = { message: 'port 8088 is used by nginx (pid 411)', hint: 'stop it' };
    const foreseen = { drift: [], notices: ['port 80 is used'], refusal, networks: undefined };
    expect(findings(snapshotWith({}, { foreseen }))).toEqual([
      'error sandbar up: it would refuse: port 8088 is used by nginx (pid 411)',
      'warning sandbar up: port 80 is used',
    ]);
    expect(findings(snapshotWith({}, { cluster: undefined, foreseen: { ...foreseen, refusal: undefined } }))).toEqual(
      [],
    );
  });
});

describe('a part', () => {
  it.each([
    [{ state: 'missing' }, 'its container is missing'],
    [{ state: 'paused' }, 'it is paused'],
    [{ state: 'created' }, 'it was never started'],
    [{ state: 'exited', exitCode: 137 }, 'it is stopped (exit code 137: killed, by hand or for want of memory)'],
    [{ state: 'restarting', exitCode: 1 }, 'it ends with exit code 1 and is started again and again'],
    [{ problem: 'no answer from 10.96.0.10' }, 'it runs, but does not do its work: no answer from 10.96.0.10'],
  ] as const)('%j: %s', (changes, message) => {
    expect(findings(snapshotWith({ parts: [partWith(changes)] }))).toEqual([`error dns: ${message}`]);
  });

  it('that ended tells its last line, and up starts it', () => {
    const parts = [partWith({ state: 'exited', exitCode: 1, lastLine: 'no such directive' })];
    expect(diagnose(snapshotWith({ parts }))).toContainEqual(
      expect.objectContaining({ cause: 'no such directive', fix: 'sandbar up', repair: { kind: 'up' } }),
    );
  });

  it('that may watch no more files says how to let it', () => {
    const parts = [partWith({ state: 'restarting', lastLine: 'create watcher: too many open files' })];
    expect(diagnose(snapshotWith({ parts }))).toContainEqual(
      expect.objectContaining({ id: 'part.inotify', fix: expect.stringContaining('sysctl -w fs.inotify') as string }),
    );
  });

  it('whose datastore is damaged is not started again', () => {
    const parts = [partWith({ component: 'control-plane', state: 'restarting', exitCode: 65, lastLine: 'bad page' })];
    const [check] = diagnose(snapshotWith({ parts })).filter(({ severity }) => severity === 'error');
    expect(check).toMatchObject({ message: 'its datastore is damaged, so it cannot start', cause: 'bad page' });
    expect(check?.fix).toContain('sandbar reset --hard');
    expect(check?.repair).toBeUndefined();
  });

  it('that nobody waits for is told of when it has had its time', () => {
    const metrics = (secondsAgo: number) =>
      findings(
        snapshotWith({
          parts: [
            partWith({ component: 'metrics', problem: 'HTTP 404', startedMs: NOW_MS - secondsAgo * 1000 }),
            partWith({ problem: 'no answer', startedMs: NOW_MS - 1000 }),
          ],
        }),
      );
    const dns = 'error dns: it runs, but does not do its work: no answer';
    expect(metrics(10)).toEqual([dns]);
    expect(metrics(20)).toEqual(['warning metrics: it runs, but does not do its work: HTTP 404', dns]);
  });

  it('that only waits for the API is not told of', () => {
    const parts = [
      partWith({ component: 'control-plane', state: 'exited' }),
      ...['agent', 'dns'].map((component) => partWith({ component, problem: 'the control plane is not running' })),
    ];
    expect(findings(snapshotWith({ parts, world: undefined }))).toEqual([
      'error control-plane: it is stopped (exit code 0)',
    ]);
  });
});

describe('the API server', () => {
  it('names the checks of its readiness that fail', () => {
    const body = '[+]ping ok\n[-]etcd failed: reason withheld\n[-]poststarthook/rbac failed: x\nreadyz check failed\n';
    expect(readyzProblem({ status: 500, body })).toBe('/readyz: etcd, poststarthook/rbac fail');
    expect(readyzProblem({ status: 0, body: '' })).toBe('the API server does not answer');
    expect(readyzProblem({ status: 200, body: 'ok' })).toBeUndefined();
  });
});

describe('certificates', () => {
  it('are told of before they end, and after', async () => {
    const identity = await mintIdentity(fakeIdentity().request, await mintRoot('test'));
    const endMs = Date.parse(new X509Certificate(identity.certificates.admin.certificate).validTo);
    const severityAt = (ms: number): string => checkCertificates(identity, ms).severity;
    expect([endMs - 90 * DAY_MS, endMs - 3 * DAY_MS, endMs + 3 * DAY_MS].map(severityAt)).toEqual([
      'ok',
      'warning',
      'error',
    ]);
  });
});

describe('the machine around', () => {
  it('with another clock than the engine says by how much', () => {
    const clock = { nodeMs: NOW_MS - 90_000, hostMs: NOW_MS };
    const node = snapshotWith().cluster?.node;
    expect(node && findings(snapshotWith({ node: { ...node, clock } }))).toEqual([
      "warning clock: the engine's clock is 90 s behind this machine's",
    ]);
  });

  it('with a disk of its own for the engine is told of that', () => {
    const node = snapshotWith().cluster?.node;
    expect(node && findings(snapshotWith({ node: { ...node, freeDiskBytes: 2 ** 29 } }))).toEqual([
      'error disk: only 512 MiB are free on the disk of container sandbar-dev-agent',
    ]);
  });

  it('that finds names which pods do not find is told of; without the internet there is nothing to find', () => {
    const node = snapshotWith().cluster?.node;
    if (node === undefined) throw new Error('there is a node');
    const resolving = (engine: boolean) => ({ node: { ...node, resolves: { engine, cluster: false } } });
    expect(findings(snapshotWith(resolving(true)))).toEqual([
      'error dns: pods find no names of the internet, although the engine does',
    ]);
    expect(findings(snapshotWith(resolving(false)))).toEqual([]);
  });

  it.each([
    ['172.30.0.0/25', 'error network: this machine sends 172.30.0.0/25, part of'],
    ['10.96.12.0/24', 'warning network: pods cannot reach 10.96.12.0/24 of this machine'],
  ])('with a route %s into the cluster', (route, line) => {
    expect(findings(snapshotWith({ routes: [route] }))).toEqual([expect.stringContaining(line)]);
  });

  it('with a route into the pods names the keys that set their subnets', () => {
    const found = diagnose(snapshotWith({ routes: ['10.244.3.0/24'] })).find(({ id }) => id === 'network.route');
    expect(found?.fix).toContain('set network.pods and network.services in sandbar.yaml');
  });

  it('with a wider route, as most VPNs bring, is left alone', () => {
    expect(findings(snapshotWith({ routes: ['172.16.0.0/12', '10.0.0.0/8', '0.0.0.0/0'] }))).toEqual([]);
  });

  it('has a kubeconfig that finds the cluster, or is told why not', () => {
    const wanted = snapshotWith().cluster?.kubeconfig.wanted;
    if (wanted === undefined) throw new Error('there is access');
    expect(findings(snapshotWith({ kubeconfig: { found: undefined, wanted } }))).toEqual([
      'warning kubeconfig: there is no context sandbar-dev: kubectl cannot find the cluster',
    ]);
    const found = { ...wanted, server: 'https://127.0.0.1:7443', ca: 'another' };
    expect(findings(snapshotWith({ kubeconfig: { found, wanted } }))).toEqual([
      'error kubeconfig: context sandbar-dev is stale: it has https://127.0.0.1:7443, the API server is at https://127.0.0.1:6443, its certificate authority is that of another cluster',
    ]);
  });
});

describe('mounts and drift', () => {
  it('tell what up would mend', () => {
    const mounts = [
      { source: '/home/ada/app', state: 'stale', detail: 'its container does not run', events: 'native' },
      { source: '/home/ada/web', state: 'attached', detail: '', events: 'stopped' },
      { source: '/home/ada/ok', state: 'attached', detail: '', events: 'native' },
    ];
    const foreseen = {
      drift: ['create container/dns (config.json changed)'],
      notices: [],
      refusal: undefined,
      networks: undefined,
    };
    const checks = diagnose(snapshotWith({ mounts }, { foreseen })).filter(({ severity }) => severity !== 'ok');
    expect(checks.map(({ subject, message }) => `${subject}: ${message}`)).toEqual([
      'mount /home/ada/app: it is stale: its container does not run',
      'mount /home/ada/web: nothing tells pods of its changes: the relay of file events has ended',
      'sandbar.yaml: 1 thing of the cluster is not as declared: create container/dns (config.json changed)',
    ]);
    expect(checks.every(({ repair }) => repair?.kind === 'up')).toBe(true);
  });
});

describe('the node', () => {
  it.each([
    ['is gone', [], 'error node sandbar-dev: its Node object was deleted: no pod can start'],
    [
      'is silent',
      [nodeWith({ status: { conditions: [{ type: 'Ready', status: 'Unknown', reason: 'NodeStatusUnknown' }] } })],
      'error node sandbar-dev: it is not ready: its kubelet no longer answers',
    ],
    [
      'is short of disk',
      [
        nodeWith({
          status: {
            conditions: [
              { type: 'Ready', status: 'True' },
              { type: 'DiskPressure', status: 'True', message: 'low' },
            ],
          },
        }),
      ],
      'error node sandbar-dev: it has DiskPressure, and takes no new pods: low',
    ],
    [
      'is cordoned',
      [nodeWith({ spec: { unschedulable: true } })],
      'warning node sandbar-dev: it is cordoned: no new pod starts',
    ],
    [
      'is tainted',
      [nodeWith({ spec: { taints: [{ key: 'gpu', effect: 'NoSchedule' }] } })],
      'warning node sandbar-dev: it has the taint gpu:NoSchedule: only pods that tolerate it start',
    ],
  ])('that %s is told of', (_, nodes, line) => {
    expect(inWorld({ nodes })).toEqual([line]);
  });
});

describe('objects in the way of others', () => {
  const webhook = (failurePolicy: string) => ({
    apiVersion: 'admissionregistration.k8s.io/v1',
    kind: 'ValidatingWebhookConfiguration',
    metadata: { name: 'gate' },
    webhooks: [
      {
        name: 'gate.example.com',
        failurePolicy,
        clientConfig: { service: { name: 'gate', namespace: 'shop' } },
        rules: [{ operations: ['CREATE'], resources: ['configmaps'] }],
      },
    ],
  });
  const slice = (ready: boolean) => ({
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: { name: 'gate-1', namespace: 'shop', labels: { 'kubernetes.io/service-name': 'gate' } },
    endpoints: [{ conditions: { ready } }],
  });

  it('webhooks without an endpoint block, or slow down, and with one do neither', () => {
    const why = 'requests for configmaps: service shop/gate has no ready endpoint';
    expect(inWorld({ webhooks: [webhook('Fail')], endpointSlices: [slice(false)] })).toEqual([
      `error webhook gate: it blocks ${why}`,
    ]);
    expect(inWorld({ webhooks: [webhook('Ignore')] })).toEqual([`warning webhook gate: it slows down ${why}`]);
    expect(inWorld({ webhooks: [webhook('Fail')], endpointSlices: [slice(true)] })).toEqual([]);
  });

  it('API services that nobody answers for', () => {
    const apiService = {
      apiVersion: 'apiregistration.k8s.io/v1',
      kind: 'APIService',
      metadata: meta('v1.metrics'),
      status: { conditions: [{ type: 'Available', status: 'False', message: 'service/metrics is not present' }] },
    };
    expect(inWorld({ apiServices: [apiService] })).toEqual([
      'error API service v1.metrics: nobody answers for it, so no namespace can be deleted: service/metrics is not present',
    ]);
  });

  it('namespaces that do not go, with what keeps them and where to look', () => {
    const conditions = [
      {
        type: 'NamespaceContentRemaining',
        status: 'True',
        message:
          'Some resources are remaining: widgets.example.com has 1 resource instances, pods. has 2 resource instances',
      },
      {
        type: 'NamespaceFinalizersRemaining',
        status: 'True',
        message: 'Some content in the namespace has finalizers remaining: example.com/never in 1 resource instances',
      },
    ];
    const namespace = {
      apiVersion: 'v1',
      kind: 'Namespace',
      metadata: meta('shop', { deletionTimestamp: ago(60) }),
      spec: { finalizers: ['kubernetes'] },
      status: { phase: 'Terminating', conditions },
    };
    const checks = diagnose(snapshotWith({ world: worldOf({ namespaces: [namespace] }) }));
    expect(checks.find(({ id }) => id === 'namespace.terminating')).toMatchObject({
      message: `it was deleted and does not go: ${conditions[1]?.message ?? ''}`,
      fix: 'take the finalizer off what is left: sandbar kubectl get widgets.example.com,pods -n shop',
    });
  });

  it('definitions whose kind is not served', () => {
    const definition = {
      apiVersion: 'apiextensions.k8s.io/v1',
      kind: 'CustomResourceDefinition',
      metadata: meta('widgets.example.com'),
      status: { conditions: [{ type: 'NamesAccepted', status: 'False', message: '"Widget" is already in use' }] },
    };
    expect(inWorld({ definitions: [definition] })).toEqual([
      'error CRD widgets.example.com: its kind is not served: "Widget" is already in use',
    ]);
  });

  it('claims that nobody asks for and that cannot be had', () => {
    const claim = (storageClassName?: string) => ({
      apiVersion: 'v1',
      kind: 'PersistentVolumeClaim',
      metadata: meta('data', { namespace: 'shop' }),
      spec: storageClassName === undefined ? {} : { storageClassName },
      status: { phase: 'Pending' },
    });
    expect(inWorld({ claims: [claim('fast')] })).toEqual(['error claim shop/data: there is no StorageClass "fast"']);
    // It waits for its first pod, as the class says.
    expect(inWorld({ claims: [claim('standard'), claim()] })).toEqual([]);
  });
});

describe('workloads without pods', () => {
  const refused = 'pods "web-1-x" is forbidden: exceeded quota: q, requested: pods=1, used: pods=0, limited: pods=0';

  it('tell why these are refused, under the name that the user knows', () => {
    const replicaSet = {
      apiVersion: 'apps/v1',
      kind: 'ReplicaSet',
      metadata: meta('web-1', { namespace: 'shop', ownerReferences: [{ kind: 'Deployment', name: 'web' }] }),
      status: { conditions: [{ type: 'ReplicaFailure', status: 'True', message: refused }] },
    };
    expect(inWorld({ workloads: [replicaSet] })).toEqual([
      'error deployment shop/web: its pods are refused: exceeded quota: q, requested: pods=1, used: pods=0, limited: pods=0',
    ]);
  });

  it('tell it by their events where they have no condition, as long as they lack pods', () => {
    const events = [eventOf('FailedCreate', refused, { kind: 'StatefulSet', name: 'db' })];
    const set = (replicas: number) => ({
      apiVersion: 'apps/v1',
      kind: 'StatefulSet',
      metadata: meta('db', { namespace: 'shop' }),
      spec: { replicas: 1 },
      status: { replicas },
    });
    expect(inWorld({ workloads: [set(0)], events })).toEqual([
      expect.stringContaining('statefulSet shop/db: its pods'),
    ]);
    expect(inWorld({ workloads: [set(1)], events })).toEqual([]);
  });

  it('that gave up say so', () => {
    const job = {
      apiVersion: 'batch/v1',
      kind: 'Job',
      metadata: meta('import', { namespace: 'shop' }),
      status: {
        conditions: [{ type: 'Failed', status: 'True', message: 'Job has reached the specified backoff limit' }],
      },
    };
    expect(inWorld({ workloads: [job] })).toEqual([
      'warning job shop/import: it failed: Job has reached the specified backoff limit',
    ]);
  });
});
