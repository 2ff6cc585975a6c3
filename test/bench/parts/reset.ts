/** Back to the beginning: a cluster in use is reset, washed hard, and made anew as others do it. */
import type { Measurements } from '../measures.ts';
import type { Subject } from '../subject.ts';
import { claimOf, deploymentOf, loadWorkloadImage, provideWorkloadImage } from '../workload.ts';

const NAMESPACES = ['one', 'two', 'three', 'four', 'five'];
const KINDS = ['Gadget', 'Widget', 'Gizmo'];
const OBJECTS_PER_KIND = 20;
const CONFIG_MAPS = 5_000;
const VOLUMES = [{ name: 'data', persistentVolumeClaim: { claimName: 'bench' } }];
/** As many writers of ConfigMaps at a time. */
const WRITERS = 4;

export async function prepareReset(subject: Subject): Promise<void> {
  await provideWorkloadImage(subject);
  await subject.up();
  await subject.provideKubectl();
  await loadWorkloadImage(subject);
}

export async function measureReset(subject: Subject, measurements: Measurements): Promise<void> {
  await subject.up();
  await loadWorkloadImage(subject);
  await use(subject);
  measurements.record('reset', await untilApplied(subject, ['reset', '--yes']));

  await use(subject);
  await fill(subject);
  measurements.record('reset-large', await untilApplied(subject, ['reset', '--yes']));

  await use(subject);
  measurements.record('reset-hard', await untilApplied(subject, ['reset', '--hard', '--yes']));

  await use(subject);
  measurements.record('reset-anew', await untilApplied(subject, ['down', '--volumes', '--yes'], ['up']));
}

/** Seconds from the call of the first command until a new Deployment was accepted after the last. */
async function untilApplied(subject: Subject, ...commands: readonly (readonly string[])[]): Promise<number> {
  const startedAt = performance.now();
  for (const command of commands) await subject.sandbar(...command);
  await subject.kubectl(['apply', '-f', '-'], JSON.stringify(deploymentOf({ name: 'after', replicas: 1 })));
  return (performance.now() - startedAt) / 1000;
}

/** 20 pods in 5 namespaces, 5 claims, and 3 custom kinds with objects. */
async function use(subject: Subject): Promise<void> {
  await apply(subject, [
    ...NAMESPACES.map((name) => ({ apiVersion: 'v1', kind: 'Namespace', metadata: { name } })),
    ...KINDS.map(definitionOf),
  ]);
  for (const kind of KINDS) {
    await subject.kubectl(['wait', '--for=condition=Established', `crd/${pluralOf(kind)}.bench.sandbar.dev`]);
  }
  await apply(subject, [
    ...NAMESPACES.flatMap((namespace) => [
      claimOf({ name: 'bench', namespace }),
      deploymentOf({ name: 'bench', replicas: 4, namespace, podSpec: { volumes: VOLUMES } }),
    ]),
    ...KINDS.flatMap((kind) => Array.from({ length: OBJECTS_PER_KIND }, (_, index) => customObject(kind, index))),
  ]);
  for (const namespace of NAMESPACES) {
    await subject.kubectl(['rollout', 'status', 'deployment/bench', '-n', namespace, '--timeout=120s']);
  }
}

/** 180 further pods, for which the node has no room, and 5,000 ConfigMaps. */
async function fill(subject: Subject): Promise<void> {
  const pending = NAMESPACES.map((namespace) =>
    deploymentOf({ name: 'pending', replicas: 36, namespace, podSpec: { nodeSelector: { room: 'none' } } }),
  );
  await apply(subject, pending);
  const maps = Array.from({ length: CONFIG_MAPS }, (_, index) => ({
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: { name: `map-${String(index)}`, namespace: NAMESPACES[index % NAMESPACES.length] ?? '' },
    data: { text: 'x'.repeat(200) },
  }));
  const lanes = Array.from({ length: WRITERS }, (_, lane) => maps.filter((_, index) => index % WRITERS === lane));
  await Promise.all(lanes.map((lane) => subject.kubectl(['create', '-f', '-'], listOf(lane))));
  await subject.until('all pods', async () => {
    const { stdout } = await subject.kubectl(['get', 'pods', '--all-namespaces', '-o', 'name']);
    return stdout.trim().split('\n').length >= 200 ? true : undefined;
  });
}

async function apply(subject: Subject, objects: readonly object[]): Promise<void> {
  await subject.kubectl(['apply', '-f', '-'], listOf(objects));
}

function listOf(items: readonly object[]): string {
  return JSON.stringify({ apiVersion: 'v1', kind: 'List', items });
}

function pluralOf(kind: string): string {
  return `${kind.toLowerCase()}s`;
}

function definitionOf(kind: string): object {
  const plural = pluralOf(kind);
  const schema = { openAPIV3Schema: { type: 'object', 'x-kubernetes-preserve-unknown-fields': true } };
  return {
    apiVersion: 'apiextensions.k8s.io/v1',
    kind: 'CustomResourceDefinition',
    metadata: { name: `${plural}.bench.sandbar.dev` },
    spec: {
      group: 'bench.sandbar.dev',
      scope: 'Namespaced',
      names: { kind, plural },
      versions: [{ name: 'v1', served: true, storage: true, schema }],
    },
  };
}

function customObject(kind: string, index: number): object {
  const namespace = NAMESPACES[index % NAMESPACES.length] ?? '';
  return { apiVersion: 'bench.sandbar.dev/v1', kind, metadata: { name: `bench-${String(index)}`, namespace } };
}
