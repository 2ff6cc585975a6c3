/** What people bring to a cluster, unchanged: Helm, kustomize, an operator, an admission webhook, Prometheus. */
import { cp, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { ask, fixture, mustHelm, providePrograms, runHelm, untilAnswered, WAIT } from './ecosystem.ts';
import { provideFixtureImage } from './fixture-images.ts';
import { createSandbox, eventually } from './support.ts';

const sandbox = createSandbox('ecosystem');
let httpPort: number;
let helmPath: string;

beforeAll(async () => {
  ({ helmPath } = await providePrograms());
  await provideFixtureImage('prometheus');
  await sandbox.up();
  ({ http: httpPort } = await sandbox.ports());
  await sandbox.must(['image', 'load', 'sandbar-test/programs:latest', 'sandbar-test/prometheus:latest']);
}, 1_200_000);

const helm = (...args: readonly string[]): Promise<string> => mustHelm(sandbox, helmPath, args);
const urlOf = (host: string): string => `http://${host}.localhost:${String(httpPort)}`;

describe('Helm', () => {
  const logOf = (job: string): Promise<string> => sandbox.mustKubectl(['logs', `job/web-${job}`]);

  it('installs, upgrades, rolls back, tests and uninstalls a chart with hooks', async () => {
    await helm('install', 'web', fixture('charts', 'web'), '--wait', '--timeout', '60s');
    expect(await logOf('pre-upgrade')).toBe('pre-upgrade 1 first\n');
    await untilAnswered(urlOf('web'), 'first');

    await helm('upgrade', 'web', fixture('charts', 'web'), '--set', 'text=second', '--wait', '--timeout', '60s');
    expect(await logOf('pre-upgrade')).toBe('pre-upgrade 2 second\n');
    await untilAnswered(urlOf('web'), 'second');
    await helm('test', 'web', '--timeout', '60s');

    const broken = ['upgrade', 'web', fixture('charts', 'web'), '--set', 'text=third,verdict=refuse'];
    const careful = ['--rollback-on-failure', '--timeout', '60s'];
    expect(await runHelm(sandbox, helmPath, [...broken, ...careful])).toMatchObject({ exitCode: 1 });
    expect(await logOf('post-rollback')).toBe('post-rollback 2 second\n');
    await untilAnswered(urlOf('web'), 'second');

    await helm('rollback', 'web', '1', '--wait', '--timeout', '60s');
    await untilAnswered(urlOf('web'), 'first');
    expect(await logOf('post-rollback')).toBe('post-rollback 1 first\n');
    await helm('test', 'web', '--timeout', '60s');
    const history = JSON.parse(await helm('history', 'web', '-o', 'json')) as { status: string }[];
    expect(history.map(({ status }) => status)).toEqual([
      'superseded',
      'superseded',
      'failed',
      'superseded',
      'deployed',
    ]);

    await helm('uninstall', 'web', '--wait', '--timeout', '60s');
    const left = await sandbox.mustKubectl(['get', 'deployments,services,ingresses,secrets', '-o', 'name']);
    expect(left.split('\n').filter((name) => name.includes('web'))).toEqual([]);
  });
});

describe('kustomize', () => {
  it('applies an overlay, and rolls pods when what it generates changes', async () => {
    const folder = join(sandbox.directory, 'kustomize');
    await cp(fixture('kustomize'), folder, { recursive: true });
    const overlay = join(folder, 'overlays', 'staging');
    await sandbox.mustKubectl(['apply', '-k', overlay]);
    await sandbox.mustKubectl(['rollout', 'status', 'deployment/hello-staging', '-n', 'staging', WAIT]);
    await untilAnswered(urlOf('staging'), 'staging');
    expect((await sandbox.kubectl(['diff', '-k', overlay])).exitCode).toBe(0);

    const file = join(overlay, 'kustomization.yaml');
    await writeFile(file, (await readFile(file, 'utf8')).replace('TEXT=staging', 'TEXT=changed'));
    await sandbox.mustKubectl(['apply', '-k', overlay]);
    await untilAnswered(urlOf('staging'), 'changed');
    await sandbox.mustKubectl(['delete', '-k', overlay, WAIT]);
    expect((await sandbox.kubectl(['get', 'namespace', 'staging'])).stderr).toContain('not found');
  });
});

describe('an operator built with controller-runtime', () => {
  const site = (text: string, replicas: number): string =>
    JSON.stringify({
      apiVersion: 'ecosystem.sandbar.dev/v1',
      kind: 'Site',
      metadata: { name: 'blog' },
      spec: { image: 'sandbar-test/programs:latest', text, replicas },
    });
  const untilReady = (replicas: number): Promise<string> =>
    sandbox.mustKubectl(['wait', `--for=jsonpath={.status.readyReplicas}=${String(replicas)}`, 'site/blog', WAIT]);
  const statusOf = async (): Promise<Readonly<Record<string, unknown>>> =>
    (await sandbox.getObject('site', 'blog')).status;

  beforeAll(async () => {
    await sandbox.mustKubectl(['apply', '-f', fixture('manifests', 'operator.yaml')]);
    await sandbox.mustKubectl(['wait', '--for=condition=Established', 'crd/sites.ecosystem.sandbar.dev', WAIT]);
    await sandbox.mustKubectl(['rollout', 'status', 'deployment/operator', '-n', 'site-operator', WAIT]);
  });

  it('keeps a Deployment for a custom resource, with a status, events and a scale of its own', async () => {
    const refused = await sandbox.kubectl(['apply', '-f', '-'], { stdin: site('', 1) });
    expect(refused.stderr).toContain('a site has to say something');

    await sandbox.mustKubectl(['apply', '-f', '-'], { stdin: site('hello', 2) });
    await untilReady(2);
    expect(await statusOf()).toMatchObject({ observedGeneration: 1, readyReplicas: 2 });
    // The status has an endpoint of its own, so this changes nothing.
    await sandbox.mustKubectl(['patch', 'site/blog', '--type=merge', '-p', '{"status":{"reconciledBy":"me"}}']);
    expect((await statusOf())['reconciledBy']).toMatch(/^operator-/);
    expect(await sandbox.mustKubectl(['events', '--for', 'site/blog'])).toContain('opened with 2 replicas');

    await sandbox.mustKubectl(['scale', 'site/blog', '--replicas=1']);
    await untilReady(1);
    const before = await sandbox.getObject('deployment', 'blog');
    await sandbox.mustKubectl(['delete', 'deployment/blog', WAIT]);
    await eventually('the Deployment is made anew', async () => {
      const { exitCode, stdout } = await sandbox.kubectl(['get', 'deployment/blog', '-o', 'jsonpath={.metadata.uid}']);
      return exitCode === 0 && stdout !== before.metadata.uid ? true : undefined;
    });
  });

  it('goes on with another leader when the first one leaves', async () => {
    const leaderOf = async (): Promise<string> => {
      const lease = await sandbox.getObject('lease', 'sites.ecosystem.sandbar.dev', '-n', 'site-operator');
      return String(lease.spec['holderIdentity']).replace(/_.*$/, '');
    };
    const first = await leaderOf();
    expect((await statusOf())['reconciledBy']).toBe(first);
    await sandbox.mustKubectl(['delete', 'pod', first, '-n', 'site-operator', WAIT]);
    await sandbox.mustKubectl(['apply', '-f', '-'], { stdin: site('again', 1) });
    await eventually('another pod reconciles', async () => {
      const { reconciledBy } = await statusOf();
      return reconciledBy !== first && reconciledBy === (await leaderOf()) ? true : undefined;
    });
  });

  it('is waited for by its finalizer, and what it owns goes with the resource', async () => {
    await sandbox.mustKubectl(['delete', 'site/blog', WAIT]);
    expect((await sandbox.getObject('configmap', 'farewell-blog')).data).toEqual({ text: 'again' });
    await sandbox.mustKubectl(['wait', '--for=delete', 'deployment/blog', WAIT]);
  });
});

describe('an admission webhook', () => {
  const make = (name: string, text: string, ...args: readonly string[]) =>
    sandbox.kubectl(['create', 'configmap', name, `--from-literal=${text}`, ...args]);
  const inGuarded = ['-n', 'guarded'] as const;
  const madeBy = async (name: string, ...args: readonly string[]): Promise<string | undefined> =>
    (await sandbox.getObject('configmap', name, ...args)).metadata.annotations?.['ecosystem.sandbar.dev/made-by'];
  /** What a creation that is only tried out comes to. */
  const tryOut = () => make('tried', 'a=b', ...inGuarded, '--dry-run=server', '-o', 'yaml');

  beforeAll(async () => {
    await helm('install', 'guard', fixture('charts', 'webhook'), '-n', 'guard', '--create-namespace', '--wait');
    await sandbox.mustKubectl(['create', 'namespace', 'guarded']);
    await sandbox.mustKubectl(['label', 'namespace', 'guarded', 'guarded=true']);
    await eventually('the webhooks are asked', async () =>
      (await tryOut()).stdout.includes('ecosystem.sandbar.dev/made-by') ? true : undefined,
    );
  });

  it('changes and refuses objects in the namespaces that it is for', async () => {
    expect((await make('good', 'a=b', ...inGuarded)).exitCode).toBe(0);
    expect(await madeBy('good', ...inGuarded)).toBe('sandbar-admin');
    const refused = await make('bad', 'forbidden=true', ...inGuarded);
    expect(refused).toMatchObject({ exitCode: 1 });
    expect(refused.stderr).toContain('ConfigMap bad is forbidden by its own data');
    expect((await make('bad', 'forbidden=true')).exitCode).toBe(0);
    expect(await madeBy('bad')).toBeUndefined();
  });

  it('is missed or not when it is away, as its failure policy says', async () => {
    await sandbox.mustKubectl(['scale', 'deployment/guard', '-n', 'guard', '--replicas=0']);
    await sandbox.mustKubectl(['wait', '--for=delete', 'pod', '-l', 'app=guard', '-n', 'guard', WAIT]);
    const isRefused = async (): Promise<boolean> => {
      const { exitCode, stderr } = await tryOut();
      return exitCode === 1 && /failed calling webhook .* connection refused/.test(stderr);
    };
    await eventually('nothing can be created', async () => ((await isRefused()) ? true : undefined));
    // At once and every time: a Service without endpoints refuses, and does not let its clients wait.
    for (let time = 0; time < 12; time += 1) expect(await isRefused()).toBe(true);
    for (const kind of ['validating', 'mutating']) {
      const patch = '[{"op": "replace", "path": "/webhooks/0/failurePolicy", "value": "Ignore"}]';
      await sandbox.mustKubectl(['patch', `${kind}webhookconfiguration`, 'guard', '--type=json', '-p', patch]);
    }
    await eventually('it can be done without', async () => ((await tryOut()).exitCode === 0 ? true : undefined));
    expect((await make('unguarded', 'forbidden=true', ...inGuarded)).exitCode).toBe(0);
    expect(await madeBy('unguarded', ...inGuarded)).toBeUndefined();
  });
});

describe('Prometheus', () => {
  type Series = { readonly metric: Readonly<Record<string, string>>; readonly value: readonly [number, string] };

  /** The answer to a query, once there is one. */
  async function query(text: string): Promise<readonly Series[]> {
    return eventually(`series for ${text}`, async () => {
      const answer = await ask(`${urlOf('prometheus')}/api/v1/query?query=${encodeURIComponent(text)}`);
      if (!answer.startsWith('{')) return undefined;
      const { data } = JSON.parse(answer) as { data?: { result: readonly Series[] } };
      return data === undefined || data.result.length === 0 ? undefined : data.result;
    });
  }

  const valueOf = async (text: string): Promise<number> => Number((await query(text))[0]?.value[1]);

  beforeAll(async () => {
    await sandbox.mustKubectl(['apply', '-f', fixture('manifests', 'prometheus.yaml')]);
    await sandbox.mustKubectl(['rollout', 'status', 'statefulset/prometheus', '-n', 'monitoring', WAIT]);
    await sandbox.mustKubectl(['wait', '--for=condition=Ready', 'pod/annotated', '-n', 'monitoring', WAIT]);
  });

  it('finds the API server, the kubelet, its containers, the DNS and an annotated pod, all of them up', async () => {
    await query('up{job="pods", pod="annotated"} == 1');
    const targets = await eventually('every target is up', async () => {
      const found = await query('up');
      return found.length >= 5 && found.every(({ value }) => value[1] === '1') ? found : undefined;
    });
    expect(targets.map(({ metric }) => metric['job']).sort()).toEqual([
      ...['apiserver', 'cadvisor', 'kubelet', 'pods', 'services'],
    ]);
  });

  it('has series of what the parts do', async () => {
    const pod = 'namespace="monitoring", pod="prometheus-0", container="prometheus"';
    await query('sum(rate(apiserver_request_total[10s])) > 0');
    await query('sum(kubelet_running_pods) > 1');
    await query(`container_memory_working_set_bytes{${pod}} > 10e6`);
    await query(`rate(container_cpu_usage_seconds_total{${pod}}[30s]) > 0`);
    await query('sum(coredns_dns_requests_total) > 0');
    // Controllers and the scheduler are in the API server's process, and tell of themselves there.
    await query('sum(workqueue_adds_total{job="apiserver", name="deployment"}) > 0');
    await query('sum(scheduler_schedule_attempts_total{job="apiserver", result="scheduled"}) > 1');
  });

  it('sees what the annotated pod counts', async () => {
    const before = await valueOf('hello_answers_total{pod="annotated"}');
    const path = '/api/v1/namespaces/monitoring/pods/annotated:8080/proxy/';
    await sandbox.mustKubectl(['get', '--raw', path]);
    await query(`hello_answers_total{pod="annotated"} == ${String(before + 1)}`);
  });
});
