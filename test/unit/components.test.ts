import { describe, expect, it } from 'vitest';
import { containersOf } from '../../src/components/cluster.ts';
import { fingerprintOf } from '../../src/engine/fingerprint.ts';
import { labelsFor, isContained } from '../../src/engine/observe.ts';
import { chooseSubnet } from '../../src/model/cidr.ts';
import { desiredFor, SPEC } from '../builders/cluster.ts';

const containers = containersOf(desiredFor().docker);
const containerOf = (owner: string) => {
  const found = containers.find((container) => container.owner === owner);
  if (found === undefined) throw new Error(`no container ${owner}`);
  return found;
};

describe('components', () => {
  it('gives only the agent more than a listed capability or two', () => {
    const levels = containers.map(({ owner, container: { privileges } }) => [
      owner,
      privileges.level === 'none' ? privileges.capabilities : privileges.level,
    ]);
    expect(levels).toEqual([
      ['control-plane', ['NET_ADMIN']],
      ['agent', 'node'],
      ['dns', ['NET_BIND_SERVICE']],
      ['ingress', ['NET_BIND_SERVICE', 'NET_ADMIN']],
      ['object-store', []],
      ['metrics', []],
      ['ports', ['NET_BIND_SERVICE']],
    ]);
  });

  it('keeps every secret out of what Docker shows', () => {
    const shown = containers.map((resource) => [
      resource.container,
      labelsFor('dev', resource, fingerprintOf(resource)),
    ]);
    expect(JSON.stringify(shown)).not.toMatch(/secret-value|key of|private/);
    expect(containerOf('object-store').files.map((file) => file.content)).toContain('secret-value');
  });

  it('gives every container an address and a name of its own', () => {
    const addresses = containers.map(({ container }) => container.address);
    expect(new Set(addresses).size).toBe(containers.length);
    expect(new Set(containers.map(({ container }) => container.name)).size).toBe(containers.length);
  });

  it('has no ingress, no object store and no metrics where they are switched off', () => {
    const { docker, inside } = desiredFor({
      ingress: { isEnabled: false },
      objectStore: { isEnabled: false, region: 'us-east-1', buckets: [] },
      metrics: { isEnabled: false },
    });
    expect(containersOf(docker).map(({ owner }) => owner)).toEqual(['control-plane', 'agent', 'dns', 'ports']);
    expect(inside.map(({ id }) => id).filter((id) => /IngressClass|object-store|\/s3|metrics/.test(id))).toEqual([]);
  });

  it('tells the node which containers policies may name as pods, and of none where they are switched off', () => {
    const settingsOf = (spec: Parameters<typeof desiredFor>[0]): unknown => {
      const agent = containersOf(desiredFor(spec).docker).find(({ owner }) => owner === 'agent');
      const file = agent?.files.find(({ path }) => path === '/etc/sandbar/config.json');
      return (JSON.parse(file?.content ?? '{}') as Record<string, unknown>)['networkPolicy'];
    };
    expect(settingsOf({ objectStore: { ...SPEC.objectStore, isEnabled: false } })).toEqual({
      controlPlane: '172.30.0.2',
      neighbours: [
        { namespace: 'kube-system', name: 'dns', labels: { 'k8s-app': 'kube-dns' }, address: '172.30.0.4' },
        {
          namespace: 'sandbar-system',
          name: 'ingress',
          labels: { 'app.kubernetes.io/name': 'ingress' },
          address: '172.30.0.5',
        },
      ],
    });
    expect(settingsOf({ networkPolicy: { isEnabled: false } })).toBeUndefined();
  });

  it('writes Secrets as it is asked, and reads them either way', () => {
    const providersOf = (isEncrypted: boolean): readonly string[] => {
      const { docker } = desiredFor({ kubernetes: { ...SPEC.kubernetes, isEncrypted } });
      const plane = containersOf(docker).find(({ owner }) => owner === 'control-plane');
      const file = plane?.files.find(({ path }) => path === '/etc/sandbar/encryption.json');
      const { resources } = JSON.parse(file?.content ?? '') as {
        resources: readonly { providers: readonly object[] }[];
      };
      return resources.flatMap(({ providers }) => providers.flatMap((provider) => Object.keys(provider)));
    };
    expect(providersOf(true)).toEqual(['secretbox', 'identity']);
    expect(providersOf(false)).toEqual(['identity', 'secretbox']);
  });

  it('does not replace the control plane for a change of the objects that live in it', () => {
    const plane = containerOf('control-plane');
    const files = plane.files.map((file) => (file.path.endsWith('objects.json') ? { ...file, content: '[]' } : file));
    expect(fingerprintOf({ ...plane, files })).toEqual(fingerprintOf(plane));
  });

  it('replaces the control plane for a change of its settings, and names the file', () => {
    const changed = containersOf(
      desiredFor({ kubernetes: { ...SPEC.kubernetes, featureGates: { SomeGate: true } } }).docker,
    ).find(({ owner }) => owner === 'control-plane');
    expect(changed && fingerprintOf(changed)['/etc/sandbar/config.json']).not.toBe(
      fingerprintOf(containerOf('control-plane'))['/etc/sandbar/config.json'],
    );
  });
});

describe('isContained', () => {
  it('ignores what a server filled in', () => {
    expect(isContained({ spec: { a: 1 } }, { spec: { a: 1, b: 2 }, status: {} })).toBe(true);
  });
  it('sees what was edited or taken away', () => {
    expect(isContained({ spec: { a: 1 } }, { spec: { a: 2 } })).toBe(false);
    expect(isContained({ ports: [{ port: 53 }] }, { ports: [] })).toBe(false);
  });
});

describe('chooseSubnet', () => {
  it('takes the first that overlaps with nothing', () => {
    expect(chooseSubnet([])).toBe('172.30.0.0/24');
    expect(chooseSubnet(['172.30.0.0/23', '192.168.0.0/16'])).toBe('172.30.2.0/24');
    expect(chooseSubnet(['172.16.0.0/12'])).toBeUndefined();
  });
  it('takes no notice of the default route', () => {
    expect(chooseSubnet(['0.0.0.0/0'])).toBe('172.30.0.0/24');
  });
});
