import { describe, expect, it } from 'vitest';
import { formatPlan, isConverged, plan } from '../../src/engine/plan.ts';
import type { Plan } from '../../src/model/resources.ts';
import { desiredFor, getResource, observedFrom, withResource } from '../builders/cluster.ts';

const { docker } = desiredFor();
const lines = (...expected: string[]): string => expected.join('\n');
const idsOf = (steps: Plan): string[] => steps.map((step) => step.id);
const stepIn = (steps: Plan, id: string) => steps.find((step) => step.id === id);

describe('plan', () => {
  it('creates everything from nothing, and waits for every container but those beside', () => {
    const steps = plan(docker, new Map());
    expect(formatPlan(steps)).toBe(
      lines(
        'create network (missing)',
        'create volume/pki (missing)',
        'create volume/datastore (missing)',
        'create volume/containerd (missing)',
        'create volume/kubelet (missing)',
        'create volume/claims (missing)',
        'create volume/mounts (missing)',
        'create volume/ports (missing)',
        'create volume/object-store (missing)',
        'create container/control-plane (missing)',
        'create container/agent (missing)',
        'create container/dns (missing)',
        'create container/ingress (missing)',
        'create container/object-store (missing)',
        'create container/metrics (missing)',
        'create container/ports (missing)',
      ),
    );
    expect(idsOf(steps).filter((id) => id.startsWith('wait'))).toHaveLength(5);
  });

  it('plans nothing but waits for a cluster that is as it should be', () => {
    const steps = plan(docker, observedFrom(docker));
    expect(isConverged(steps)).toBe(true);
    expect(formatPlan(steps)).toBe('');
  });

  it('replaces a container whose image changed and leaves the rest alone', () => {
    const agent = getResource(docker, 'container/agent');
    const observed = withResource(observedFrom(docker), agent, { fingerprint: { image: 'old' } });
    const steps = plan(docker, observed);
    expect(formatPlan(steps)).toBe(
      lines('remove container/agent (image changed)', 'create container/agent (image changed)'),
    );
    expect(stepIn(steps, 'create container/agent')?.dependsOn).toContain('remove container/agent');
    expect(stepIn(steps, 'wait container/agent')?.dependsOn).toEqual(['create container/agent']);
  });

  it('lets what is paused go on, the control plane last', () => {
    let observed = observedFrom(docker);
    for (const resource of docker.filter(({ kind }) => kind === 'container')) {
      observed = withResource(observed, resource, { containerState: 'paused' });
    }
    const steps = plan(docker, observed);
    const last = stepIn(steps, 'resume container/control-plane');
    expect(formatPlan([last!])).toBe('resume container/control-plane (it is paused)');
    expect(last?.dependsOn.toSorted()).toEqual(
      ['agent', 'dns', 'ingress', 'metrics', 'object-store', 'ports'].map(
        (component) => `resume container/${component}`,
      ),
    );
    expect(stepIn(steps, 'wait container/dns')?.dependsOn).toContain('resume container/dns');
  });

  it.each(['exited', 'dead'] as const)('starts a container that is %s', (containerState) => {
    const dns = getResource(docker, 'container/dns');
    const steps = plan(docker, withResource(observedFrom(docker), dns, { containerState }));
    expect(formatPlan(steps)).toBe(`start container/dns (it is ${containerState})`);
  });

  it.each(['', '10.0.0.9'])('replaces a container that somebody took off its network: address "%s"', (address) => {
    const dns = getResource(docker, 'container/dns');
    const steps = plan(docker, withResource(observedFrom(docker), dns, { address }));
    expect(formatPlan(steps)).toBe(
      lines('remove container/dns (it is off its network)', 'create container/dns (it is off its network)'),
    );
  });

  it('replaces a container that an interrupted run created and never started', () => {
    const dns = getResource(docker, 'container/dns');
    const steps = plan(docker, withResource(observedFrom(docker), dns, { containerState: 'created' }));
    expect(formatPlan(steps)).toBe(
      lines(
        'remove container/dns (an earlier run was interrupted)',
        'create container/dns (an earlier run was interrupted)',
      ),
    );
  });

  it('replaces every container when the network is another one', () => {
    const network = getResource(docker, 'network');
    const steps = plan(docker, withResource(observedFrom(docker), network, { fingerprint: { subnet: 'other' } }));
    expect(idsOf(steps).filter((id) => id.startsWith('remove container'))).toHaveLength(6);
    expect(stepIn(steps, 'remove network')?.dependsOn).toHaveLength(6);
    expect(stepIn(steps, 'create container/dns')?.dependsOn).toContain('create network');
  });

  it('marks the removal of a volume that is no longer wanted as losing data, but not that of its container', () => {
    const { docker: smaller } = desiredFor({ objectStore: { isEnabled: false, region: 'us-east-1', buckets: [] } });
    const steps = plan(smaller, observedFrom(docker));
    expect(formatPlan(steps)).toContain('remove container/object-store (no longer wanted)');
    expect(formatPlan(steps)).toContain('remove volume/object-store (no longer wanted) — loses data');
    expect(stepIn(steps, 'remove volume/object-store')?.dependsOn).toContain('remove container/object-store');
  });

  it('marks the removal of objects of manifests as losing data, but not of our own', () => {
    const settings = { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'settings', namespace: 'shop' } };
    const steps = plan(
      desiredFor({ metrics: { isEnabled: false } }).inside,
      observedFrom(desiredFor({}, [settings]).inside),
    );
    const printed = formatPlan(steps).split('\n');
    expect(printed).toContain('remove object/ConfigMap/shop/settings (no longer wanted) — loses data');
    expect(printed).toContain('remove object/Service/kube-system/metrics-server (no longer wanted)');
  });

  it('puts every step after those it depends on', () => {
    const network = getResource(docker, 'network');
    const observed = withResource(observedFrom(docker), network, { fingerprint: { subnet: 'other' } });
    const seen = new Set<string>();
    for (const step of plan(docker, observed)) {
      for (const id of step.dependsOn) expect(seen).toContain(id);
      seen.add(step.id);
    }
  });

  it('applies manifests after the namespaces and types among them', () => {
    const { inside } = desiredFor({}, [
      { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'settings', namespace: 'shop' } },
      { apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'shop' } },
    ]);
    const step = stepIn(plan(inside, new Map()), 'create object/ConfigMap/shop/settings');
    expect(step?.dependsOn).toEqual(['create object/Namespace/shop']);
  });

  it('updates an object that was edited', () => {
    const { inside } = desiredFor();
    const service = getResource(inside, 'object/Service/kube-system/kube-dns');
    const observed = withResource(observedFrom(inside), service, { fingerprint: { object: 'edited' } });
    expect(formatPlan(plan(inside, observed))).toBe(
      'update object/Service/kube-system/kube-dns (differs from what is wanted)',
    );
  });
});
