/** How soon a port of this machine answers. The API server is what answers: it is there in every cluster. */
import { findFreePort } from '../../fixtures/free-port.ts';
import type { Measurements } from '../measures.ts';
import { httpsStatus, type Subject } from '../subject.ts';

const NAME = 'bench-balancer';

export async function preparePorts(subject: Subject): Promise<void> {
  await subject.up();
  await subject.provideKubectl();
}

export async function measurePorts(subject: Subject, measurements: Measurements): Promise<void> {
  const added = await findFreePort();
  const startedAt = performance.now();
  await subject.sandbar('port', 'add', String(added), 'service/kubernetes:443');
  await untilAnswered(subject, added);
  measurements.record('port-add', (performance.now() - startedAt) / 1000);
  await subject.sandbar('port', 'rm', String(added));

  const balanced = await findFreePort();
  const objects = (await balancer(subject, balanced)).map((object) => JSON.stringify(object)).join('\n---\n');
  const appliedAt = performance.now();
  const applied = subject.kubectl(['apply', '-f', '-'], objects);
  await untilAnswered(subject, balanced);
  measurements.record('load-balancer', (performance.now() - appliedAt) / 1000);
  await applied;
  await subject.kubectl(['delete', 'service', NAME]);
}

async function untilAnswered(subject: Subject, port: number): Promise<void> {
  await subject.until(`port ${String(port)}`, async () => {
    const status = await httpsStatus(`https://127.0.0.1:${String(port)}/readyz`);
    return status === 0 ? undefined : status;
  });
}

/**
 * A Service without a selector in front of the API server. No List of both: to check one, kubectl has the API server put
 * together a description of everything, once in its life, which takes seconds while the machine is busy.
 */
async function balancer(subject: Subject, port: number): Promise<readonly object[]> {
  const { stdout } = await subject.kubectl(['get', 'endpointslices', 'kubernetes', '-o', 'json']);
  const { addressType, endpoints, ports } = JSON.parse(stdout) as Readonly<Record<string, unknown>>;
  const [{ name }] = ports as [{ readonly name: string }];
  return [
    {
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { name: NAME },
      spec: { type: 'LoadBalancer', ports: [{ name, port }] },
    },
    {
      apiVersion: 'discovery.k8s.io/v1',
      kind: 'EndpointSlice',
      metadata: { name: NAME, labels: { 'kubernetes.io/service-name': NAME } },
      addressType,
      endpoints,
      ports,
    },
  ];
}
