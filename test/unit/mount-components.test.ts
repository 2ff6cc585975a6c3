import { describe, expect, it } from 'vitest';
import { admittedPod, mountAdmission, mountContainer } from '../../src/components/mounts.ts';
import { containersOf } from '../../src/components/cluster.ts';
import { recordObject, WORKLOAD_KINDS, type MountRecord, type WorkloadKind } from '../../src/model/mounts.ts';
import { objectIdOf } from '../../src/model/objects.ts';
import { desiredFor } from '../builders/cluster.ts';

type Expression = { readonly name?: string; readonly expression: string };

type Policy = {
  readonly spec: {
    readonly failurePolicy: string;
    readonly matchConstraints: { readonly resourceRules: readonly object[] };
    readonly matchConditions: readonly Expression[];
    readonly variables: readonly Expression[];
    readonly mutations: readonly { readonly jsonPatch: Expression }[];
  };
};

const [policy, binding] = mountAdmission();
const { spec } = policy as unknown as Policy;
const expressions = [
  ...spec.matchConditions,
  ...spec.variables,
  ...spec.mutations.map(({ jsonPatch }) => jsonPatch),
].map(({ expression }) => expression);

const RECORD: MountRecord = {
  id: 'web-src-1f2e3d',
  source: '/home/ada/app/src',
  sourceType: 'Directory',
  root: '/home/ada/app',
  target: {
    kind: 'workload',
    workload: { namespace: 'default', kind: 'Deployment', name: 'web', container: undefined },
    path: '/app/src',
  },
  isReadOnly: false,
  excluded: [],
  parentId: undefined,
  origin: 'file',
  events: undefined,
};

describe('the admission of mounts', () => {
  it('looks at pods that are created and at nothing else, and lets none run without its mount', () => {
    expect(spec.matchConstraints.resourceRules).toEqual([
      { apiGroups: [''], apiVersions: ['v1'], operations: ['CREATE'], resources: ['pods'] },
    ]);
    expect(spec.failurePolicy).toBe('Fail');
  });

  it('takes the records of workloads for its parameters, of which there may be none', () => {
    expect(binding).toMatchObject({
      spec: {
        policyName: policy?.metadata.name,
        paramRef: {
          namespace: 'sandbar-system',
          selector: { matchLabels: { 'sandbar.dev/mount-in': 'workload' } },
          parameterNotFoundAction: 'Allow',
        },
      },
    });
    expect(recordObject(RECORD).metadata.labels).toMatchObject({ 'sandbar.dev/mount-in': 'workload' });
  });

  it('reads only what a record has', () => {
    const read = new Set(
      expressions.flatMap((text) => [...text.matchAll(/params\.\?data\[\?'(\w+)'\]/g)].map(([, key]) => key)),
    );
    const written = Object.keys(recordObject(RECORD)['data'] as object);
    expect(written).toEqual(expect.arrayContaining([...read]));
    expect(read.size).toBeGreaterThan(5);
  });

  // An expression that fails keeps every pod from being created.
  it.each([
    'params.data',
    'metadata.labels',
    'metadata.annotations',
    'metadata.ownerReferences',
    'metadata.name',
    'spec.volumes',
    'spec.initContainers',
    'container.volumeMounts',
  ])('does not count on %s to be there', (path) => {
    for (const expression of expressions) {
      // Types of the object are spelt the same, with an upper-case letter.
      expect(expression.replaceAll(/Object\.[\w.]+/g, '')).not.toContain(path);
    }
  });

  it('uses variables only where they are known: not in the conditions', () => {
    for (const { expression } of spec.matchConditions) expect(expression).not.toContain('variables.');
    const known = spec.variables.map(({ name }) => name);
    for (const used of expressions.join().matchAll(/variables\.(\w+)/g)) expect(known).toContain(used[1]);
  });

  it('is in every cluster, with the right to read records in their namespace only', () => {
    const { inside } = desiredFor();
    const ids = inside.map(({ id }) => id);
    expect(ids).toEqual(expect.arrayContaining(mountAdmission().map(objectIdOf)));
    expect(ids).toContain('object/Role.rbac.authorization.k8s.io/sandbar-system/mounts');
    expect(ids).toContain('object/RoleBinding.rbac.authorization.k8s.io/sandbar-system/mounts');
  });

  it.each(Object.keys(WORKLOAD_KINDS) as WorkloadKind[])('knows how a controller names pods of a %s', (kind) => {
    const { metadata } = admittedPod({ namespace: 'shop', kind, name: 'web', container: undefined });
    expect(metadata.namespace).toBe('shop');
    const owner = metadata.ownerReferences?.[0];
    if (kind === 'Pod') expect(metadata.name).toBe('web');
    else expect(owner).toMatchObject({ controller: true, name: expect.stringMatching(/^web(?:-0)?$/) as string });
  });
});

describe('the container of a mount', () => {
  const resource = mountContainer({ clusterName: 'dev', imageRef: 'sandbar/mount:1' }, '/home/ada/my app');

  it('sees one folder of the host and the way to the agent, and has no network', () => {
    expect(resource.container).toMatchObject({
      networkName: 'none',
      binds: [{ source: '/home/ada/my app', path: '/source' }],
      volumes: [{ volumeName: 'sandbar-dev-mounts', path: '/run/sandbar/mounts' }],
      hasReadOnlyRoot: true,
      privileges: { level: 'none', capabilities: ['SYS_ADMIN', 'DAC_READ_SEARCH'] },
    });
    const agent = containersOf(desiredFor().docker).find(({ owner }) => owner === 'agent');
    expect(agent?.container.volumes).toContainEqual(resource.container.volumes[0]);
  });

  it('is named by its root, within what a host name may be', () => {
    expect(resource.id).toMatch(/^container\/mount-my-app-[0-9a-f]{6}$/);
    expect(resource.container.name).toBe(`sandbar-dev-${resource.id.slice('container/'.length)}`);
    const long = mountContainer({ clusterName: 'a'.repeat(32), imageRef: '' }, `/srv/${'x'.repeat(80)}`);
    expect(long.container.hostname.length).toBeLessThanOrEqual(63);
  });
});
