/** Lists what exists of a cluster, once, in our own words. Choosing and comparing is the plan's. */
import { LABELS, OBJECT_HASH, OBJECT_ORIGIN } from '../model/names.ts';
import type {
  Fingerprint,
  KubernetesObject,
  ObjectResource,
  ObservedResource,
  ObservedState,
  Owner,
  Resource,
} from '../model/resources.ts';
import type {
  Cluster,
  ContainerSummary,
  Labels,
  NetworkSummary,
  ObjectStore,
  Runtime,
  VolumeSummary,
} from '../model/ports.ts';
import { objectIdOf } from '../model/objects.ts';

export type DockerObservation = {
  readonly state: ObservedState;
  readonly containers: readonly ContainerSummary[];
  readonly volumes: readonly VolumeSummary[];
  /** Of the whole engine, foreign ones too. */
  readonly networks: readonly NetworkSummary[];
};

/** Containers, volumes and the network that carry this cluster's label. */
export async function observeDocker(runtime: Runtime, clusterName: string): Promise<DockerObservation> {
  const label = { key: LABELS.cluster, value: clusterName };
  const [containers, volumes, networks] = await Promise.all([
    runtime.listContainers(label),
    runtime.listVolumes(label),
    runtime.listNetworks(),
  ]);
  const found = [
    ...containers.map((container) => ({
      ...observed('container', container.id, container.labels),
      containerState: container.state,
      ...(container.state === 'running' ? { address: container.address } : {}),
    })),
    ...volumes.map((volume) => observed('volume', volume.name, volume.labels)),
    ...networks
      .filter((network) => network.labels[LABELS.cluster] === clusterName)
      .map((network) => observed('network', network.name, network.labels)),
  ];
  return { state: new Map(found.map((resource) => [resource.id, resource])), containers, volumes, networks };
}

/** The labels by which `observeDocker` knows a resource again. */
export function labelsFor(clusterName: string, resource: Resource, fingerprint: Fingerprint): Labels {
  return {
    [LABELS.cluster]: clusterName,
    [LABELS.component]: resource.owner,
    [LABELS.resource]: resource.id,
    [LABELS.fingerprint]: JSON.stringify(fingerprint),
  };
}

/** Kubernetes objects of every kind that is desired now or was at the last `up`. */
export async function observeObjects(
  cluster: Cluster,
  desired: readonly ObjectResource[],
  inventory: KubernetesObject | undefined,
): Promise<ObservedState> {
  const data = inventory?.['data'] as Readonly<Record<string, string>> | undefined;
  const kinds = new Set([
    ...desired.map(({ object }) => `${object.apiVersion} ${object.kind}`),
    ...(data?.['kinds']?.split('\n') ?? []),
  ]);
  const lists = await Promise.all(
    [...kinds].map(async (entry) => {
      const [apiVersion = '', kind = ''] = entry.split(' ');
      const objects = await cluster.list({ apiVersion, kind }, { labelSelector: OBJECT_ORIGIN });
      return objects.map((object) => ({ ...object, apiVersion, kind }));
    }),
  );
  const wanted = new Map(desired.map((resource) => [resource.id, resource]));
  // Controllers copy labels to what they make, as from a Service to its EndpointSlices: that is not ours.
  const own = lists.flat().filter(({ metadata }) => metadata.ownerReferences === undefined);
  const found = own.map((object): ObservedResource => {
    const id = objectIdOf(object);
    const resource = wanted.get(id);
    const isDrifted =
      resource !== undefined &&
      object.metadata.labels?.[OBJECT_ORIGIN] === 'built-in' &&
      !isContained(resource.object, object);
    const hash = object.metadata.annotations?.[OBJECT_HASH] ?? '';
    return {
      id,
      kind: 'object',
      owner: 'objects',
      ref: id,
      fingerprint: { object: isDrifted ? 'edited' : hash },
      object,
    };
  });
  return new Map(found.map((resource) => [resource.id, resource]));
}

/** Buckets as resources; those nobody declared are the user's own and left out. */
export async function observeBuckets(store: ObjectStore, declared: readonly string[]): Promise<ObservedState> {
  if (declared.length === 0) return new Map();
  const buckets = (await store.listBuckets()).filter((bucket) => declared.includes(bucket.name));
  const found = await Promise.all(
    buckets.map(async ({ name }): Promise<ObservedResource> => {
      const versioning = (await store.isVersioned(name)) ? 'enabled' : '';
      return { id: `bucket/${name}`, kind: 'bucket', owner: 'object-store', ref: name, fingerprint: { versioning } };
    }),
  );
  return new Map(found.map((resource) => [resource.id, resource]));
}

/** True when everything in `wanted` stands in `found` too; fields that a server filled in do not count. */
export function isContained(wanted: unknown, found: unknown): boolean {
  if (Array.isArray(wanted)) {
    return (
      Array.isArray(found) &&
      wanted.length === found.length &&
      wanted.every((item, index) => isContained(item, found[index]))
    );
  }
  if (wanted !== null && typeof wanted === 'object') {
    if (found === null || typeof found !== 'object') return false;
    const fields = found as Readonly<Record<string, unknown>>;
    return Object.entries(wanted).every(([key, value]) => isContained(value, fields[key]));
  }
  return wanted === found;
}

function observed(kind: 'container' | 'volume' | 'network', ref: string, labels: Labels): ObservedResource {
  return {
    id: labels[LABELS.resource] ?? `${kind}/${ref}`,
    kind,
    owner: (labels[LABELS.component] ?? 'network') as Owner,
    ref,
    fingerprint: parseFingerprint(labels[LABELS.fingerprint]),
  };
}

function parseFingerprint(text: string | undefined): Fingerprint {
  try {
    return JSON.parse(text ?? '{}') as Fingerprint;
  } catch {
    // Written by something else: whatever it is, it is not what we want.
    return { unreadable: text ?? '' };
  }
}
