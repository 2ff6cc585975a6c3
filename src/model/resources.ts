/** Desired resources, what was observed of them, and the plan between both. Docker and Kubernetes in our own words. */
import type { MountRecord, WorkloadRef } from './mounts.ts';
import type { Component } from './names.ts';
import type { BucketSpec } from './spec.ts';

/** Stable within a cluster: `network`, `volume/datastore`, `container/agent`, `object/Service/kube-system/kube-dns`, `bucket/pictures`. */
export type ResourceId = string;

/** Owner of a row on the screen: a component, or the ground that all stand on. */
export type Owner = Component | 'registry' | 'mounts' | 'network' | 'objects' | 'kubeconfig';

type ResourceBase = { readonly id: ResourceId; readonly owner: Owner; readonly dependsOn: readonly ResourceId[] };

export type NetworkResource = ResourceBase & {
  readonly kind: 'network';
  readonly name: string;
  readonly subnet: string;
  readonly gateway: string;
  /** What the engine chooses addresses from for containers that ask for none. A network made before keeps its own. */
  readonly containerSubnet: string;
  /** Besides those by which it is known again. */
  readonly labels?: Readonly<Record<string, string>>;
};

export type VolumeResource = ResourceBase & {
  readonly kind: 'volume';
  readonly name: string;
  /** Besides those by which it is known again. */
  readonly labels?: Readonly<Record<string, string>>;
  /** Says in a plan and in a question what goes with it. */
  readonly holds: string;
};

/** A file written into a container after its creation and before its start; never visible in `docker inspect`. */
export type ContainerFile = {
  readonly path: string;
  readonly mode: number;
  readonly content: string;
  /** Says nothing about how the container runs, so that a change of it alone is no reason to replace the container. */
  readonly isInert?: boolean;
};

/** Published on 127.0.0.1 only. */
export type PublishedPort = { readonly hostPort: number; readonly containerPort: number };

/**
 * `none`: every capability dropped but those listed. `node`: all that the engine grants (`--privileged`, else the
 * capability list of images/README.md); which of both it became is not part of the resource.
 */
export type Privileges =
  { readonly level: 'none'; readonly capabilities: readonly string[] } | { readonly level: 'node' };

export type ContainerSpec = {
  readonly name: string;
  readonly hostname: string;
  readonly imageRef: string;
  readonly networkName: string;
  readonly address: string;
  readonly ports: readonly PublishedPort[];
  readonly volumes: readonly { readonly volumeName: string; readonly path: string }[];
  /** Folders of the host, which must be there. */
  readonly binds: readonly { readonly source: string; readonly path: string }[];
  readonly tmpfs: readonly string[];
  readonly hasReadOnlyRoot: boolean;
  readonly privileges: Privileges;
  /** Extra lines of /etc/hosts; `host-gateway` stands for the host as the engine knows it. */
  readonly extraHosts: readonly { readonly host: string; readonly address: string }[];
  readonly stopTimeoutS: number;
  /** In place of what the image runs. */
  readonly command?: readonly string[];
};

/** How it is known that a container does its work. Each is asked again until it holds or its time is over. */
export type Probe = { readonly timeoutMs: number } & (
  | { readonly kind: 'http'; readonly url: string; readonly acceptedStatuses: readonly number[] }
  /** A command that waits by itself and ends with 0 when it is so. */
  | { readonly kind: 'exec'; readonly containerName: string; readonly command: readonly string[] }
  /** An API path answers 200. */
  | { readonly kind: 'api'; readonly path: string }
  /** A Node is Ready, as the container of its kubelet has said since it was started. */
  | { readonly kind: 'node'; readonly path: string; readonly containerName: string }
  /** Admission gives a pod that is created now these volumes. */
  | { readonly kind: 'admission'; readonly pod: KubernetesObject; readonly volumeNames: readonly string[] }
);

export type ContainerResource = ResourceBase & {
  readonly kind: 'container';
  readonly owner: Component | 'registry' | 'mounts';
  readonly container: ContainerSpec;
  readonly files: readonly ContainerFile[];
  readonly probes: readonly Probe[];
};

/** A container that is on a network besides its own. */
export type AttachmentResource = ResourceBase & {
  readonly kind: 'attachment';
  readonly containerName: string;
  readonly networkName: string;
  readonly address: string;
};

/** As much of a container as it takes to wait until it answers. */
export type Probed = Pick<ContainerResource, 'id' | 'owner' | 'probes'> & {
  readonly container: Pick<ContainerSpec, 'name'>;
};

export type KubernetesObject = {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: {
    readonly name: string;
    readonly namespace?: string;
    readonly labels?: Readonly<Record<string, string>>;
    readonly annotations?: Readonly<Record<string, string>>;
    /** There on what a controller made. */
    readonly ownerReferences?: readonly unknown[];
    /** There on what is on its way out. */
    readonly deletionTimestamp?: string;
  };
  readonly [field: string]: unknown;
};

/** Enough of an object to find it. */
export type ObjectRef = Pick<KubernetesObject, 'apiVersion' | 'kind'> & {
  readonly metadata: Pick<KubernetesObject['metadata'], 'name' | 'namespace'>;
};

export type ObjectResource = ResourceBase & { readonly kind: 'object'; readonly object: KubernetesObject };

export type BucketResource = ResourceBase & { readonly kind: 'bucket'; readonly bucket: BucketSpec };

export type Resource =
  NetworkResource | VolumeResource | ContainerResource | AttachmentResource | ObjectResource | BucketResource;

/** Section of a resource → hash of what Docker or Kubernetes is given for it. Sections that differ name the cause. */
export type Fingerprint = Readonly<Record<string, string>>;

export type ContainerState = 'created' | 'running' | 'paused' | 'restarting' | 'exited' | 'dead' | 'removing';

/** How a container is doing, and how it ended where it did. */
export type ContainerRun = {
  readonly state: ContainerState;
  readonly exitCode: number;
  readonly error: string;
  /** When it was last started; undefined where it never was. */
  readonly startedMs: number | undefined;
};

/** What was found of a resource of this cluster. */
export type ObservedResource = {
  readonly id: ResourceId;
  readonly kind: Resource['kind'];
  readonly owner: Owner;
  /** Docker's id or name, with which it is removed or started. */
  readonly ref: string;
  /** Empty when it carries none: it was not finished, or is not ours to compare. */
  readonly fingerprint: Fingerprint;
  /** Containers only. */
  readonly containerState?: ContainerState;
  /** Of a container that runs, on the cluster's network; empty when somebody has taken it off. */
  readonly address?: string;
  /** Attachments only. */
  readonly networkName?: string;
  /** Kubernetes objects only: what is there. */
  readonly object?: KubernetesObject;
};

export type ObservedState = ReadonlyMap<ResourceId, ObservedResource>;

export type Step = {
  /** Unique in its plan: `create container/agent`. */
  readonly id: string;
  readonly owner: Owner;
  /** Why it is needed, in the user's words. */
  readonly cause: string;
  /** Ids of steps that must have succeeded before. */
  readonly dependsOn: readonly string[];
  readonly losesData: boolean;
} & (
  | { readonly verb: 'create'; readonly resource: Resource }
  | { readonly verb: 'update'; readonly resource: Resource }
  | { readonly verb: 'start'; readonly resource: ContainerResource; readonly observed: ObservedResource }
  | { readonly verb: 'remove'; readonly observed: ObservedResource }
  /** Containers that stay what they are: frozen, going on, ended, begun anew. */
  | { readonly verb: 'pause' | 'resume' | 'stop' | 'restart'; readonly observed: ObservedResource }
  | { readonly verb: 'wait'; readonly resource: Probed }
  /** Pods that run were made before these mounts, or with mounts that are gone: new ones take their place. */
  | {
      readonly verb: 'roll';
      readonly workload: WorkloadRef;
      readonly mounted: readonly MountRecord[];
      /** Ids of mounts whose records are gone. */
      readonly unmountedIds: readonly string[];
      /** What a mount leaves out has changed, which is settled when a container is made: its pod does not tell. */
      readonly isForced: boolean;
      /** Ids of the mounts that this is about. */
      readonly dueIds: readonly string[];
    }
);

/** What changes whether a container runs, and nothing of what it is. */
export type Deed = Extract<Step, { readonly verb: 'pause' | 'resume' | 'stop' | 'restart' }>;

/** Steps in an order in which every step stands after those it depends on. */
export type Plan = readonly Step[];
