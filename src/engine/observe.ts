/** Lists what exists of a cluster, once, in our own words. Choosing and comparing is the plan's. */
import { hashOf } from '../model/hash.ts';
import { attachmentId, ENGINE_NETWORK, LABELS, OBJECT_HASH, OBJECT_ORIGIN } from '../model/names.ts';
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

export type RegistryObservation = {
  /** The registry of that name with all its attachments, and those of other registries to the cluster's network. */
  readonly state: ObservedState;
  readonly container: ContainerSummary | undefined;
  readonly volume: VolumeSummary | undefined;
  /** What there is of registries with other names. */
  readonly others: { readonly containers: readonly ContainerSummary[]; readonly volumes: readonly VolumeSummary[] };
};

/** Registries belong to no cluster: they are found by a label of their own. */
export async function observeRegistry(
  runtime: Runtime,
  { registryName, networkName }: { readonly registryName: string | undefined; readonly networkName: string },
): Promise<RegistryObservation> {
  const label = { key: LABELS.registry };
  const [containers, volumes] = await Promise.all([runtime.listContainers(label), runtime.listVolumes(label)]);
  const isWanted = ({ labels }: { readonly labels: Labels }): boolean => labels[LABELS.registry] === registryName;
  const container = containers.find(isWanted);
  const volume = volumes.find(isWanted);
  const found = [
    ...containers.flatMap((one) =>
      attachmentsOf(one).filter((attachment) => one === container || attachment.networkName === networkName),
    ),
    ...(container === undefined
      ? []
      : [
          {
            ...observed('container', container.id, container.labels),
            containerState: container.state,
            ...((await isStranded(container, runtime)) ? { fingerprint: { networks: 'gone' } } : {}),
          },
        ]),
    ...(volume === undefined ? [] : [observed('volume', volume.name, volume.labels)]),
  ];
  const others = {
    containers: containers.filter((one) => !isWanted(one)),
    volumes: volumes.filter((one) => !isWanted(one)),
  };
  return { state: new Map(found.map((resource) => [resource.id, resource])), container, volume, others };
}

/** An engine starts no container that is to be on a network that was removed meanwhile. */
async function isStranded({ state, addresses }: ContainerSummary, runtime: Runtime): Promise<boolean> {
  if (state === 'running') return false;
  const names = (await runtime.listNetworks()).map(({ name }) => name);
  return Object.keys(addresses).some((network) => network !== ENGINE_NETWORK && !names.includes(network));
}

/** The networks of clusters that a container is on; its own is part of what it is. */
export function attachmentsOf({ name, addresses }: ContainerSummary): readonly ObservedResource[] {
  return Object.entries(addresses)
    .filter(([networkName]) => networkName !== ENGINE_NETWORK)
    .map(([networkName, address]) => ({
      id: attachmentId(networkName),
      kind: 'attachment',
      owner: 'registry',
      ref: name,
      networkName,
      fingerprint: { address: hashOf([name, address]) },
    }));
}

/** The labels by which `observeDocker` knows a resource again. */
export function labelsFor(clusterName: string, resource: Resource, fingerprint: Fingerprint): Labels {
  return {
    ...ownerLabel(clusterName, resource),
    ...(resource.kind === 'volume' || resource.kind === 'network' ? resource.labels : {}),
    [LABELS.component]: resource.owner,
    [LABELS.resource]: resource.id,
    [LABELS.fingerprint]: JSON.stringify(fingerprint),
  };
}

function ownerLabel(clusterName: string, resource: Resource): Labels {
  if (resource.owner !== 'registry') return { [LABELS.cluster]: clusterName };
  const name =
    resource.kind === 'container' ? resource.container.name : resource.kind === 'volume' ? resource.name : '';
  return { [LABELS.registry]: name };
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
