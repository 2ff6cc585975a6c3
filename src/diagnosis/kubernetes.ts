/** As much of the API's objects as is looked at. Fields that the API may leave out are optional here too. */

export type Condition = {
  readonly type: string;
  readonly status: string;
  readonly reason?: string;
  readonly message?: string;
};

type Live<Spec, Status> = {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: {
    readonly name: string;
    readonly namespace?: string;
    readonly uid?: string;
    readonly creationTimestamp?: string;
    readonly deletionTimestamp?: string;
    readonly finalizers?: readonly string[];
    readonly annotations?: Readonly<Record<string, string>>;
    readonly labels?: Readonly<Record<string, string>>;
    readonly ownerReferences?: readonly { readonly kind: string; readonly name: string }[];
  };
  readonly spec?: Spec;
  readonly status?: Status;
};

export type Quantities = Readonly<Record<string, string>>;

export type Container = {
  readonly name: string;
  readonly image?: string;
  readonly imagePullPolicy?: string;
  readonly restartPolicy?: string;
  readonly resources?: { readonly requests?: Quantities; readonly limits?: Quantities };
  readonly ports?: readonly { readonly hostPort?: number; readonly protocol?: string }[];
};

type Terminated = {
  readonly exitCode: number;
  readonly signal?: number;
  readonly reason?: string;
  readonly message?: string;
  readonly finishedAt?: string;
};

type ContainerState = {
  readonly waiting?: { readonly reason?: string; readonly message?: string };
  readonly running?: { readonly startedAt?: string };
  readonly terminated?: Terminated;
};

export type ContainerStatus = {
  readonly name: string;
  readonly ready?: boolean;
  readonly started?: boolean;
  readonly restartCount?: number;
  readonly state?: ContainerState;
  readonly lastState?: ContainerState;
};

export type Pod = Live<
  {
    readonly nodeName?: string;
    readonly schedulerName?: string;
    readonly restartPolicy?: string;
    readonly nodeSelector?: Readonly<Record<string, string>>;
    readonly tolerations?: readonly {
      readonly key?: string;
      readonly operator?: string;
      readonly value?: string;
      readonly effect?: string;
    }[];
    readonly schedulingGates?: readonly { readonly name: string }[];
    readonly readinessGates?: readonly { readonly conditionType: string }[];
    readonly volumes?: readonly {
      readonly name: string;
      readonly persistentVolumeClaim?: { readonly claimName: string };
    }[];
    readonly containers?: readonly Container[];
    readonly initContainers?: readonly Container[];
    readonly overhead?: Quantities;
  },
  {
    readonly phase?: string;
    readonly reason?: string;
    readonly message?: string;
    readonly conditions?: readonly Condition[];
    readonly initContainerStatuses?: readonly ContainerStatus[];
    readonly containerStatuses?: readonly ContainerStatus[];
  }
>;

export type Node = Live<
  {
    readonly unschedulable?: boolean;
    readonly taints?: readonly { readonly key: string; readonly value?: string; readonly effect: string }[];
  },
  {
    readonly conditions?: readonly Condition[];
    readonly allocatable?: Quantities;
    readonly nodeInfo?: { readonly architecture?: string };
  }
>;

export type Claim = Live<
  { readonly storageClassName?: string; readonly volumeName?: string },
  { readonly phase?: string }
>;

export type StorageClass = Live<never, never> & { readonly volumeBindingMode?: string };

/** Namespaces, CustomResourceDefinitions, APIServices, workloads: what tells of itself by conditions. */
export type Conditioned = Live<
  {
    readonly finalizers?: readonly string[];
    readonly replicas?: number;
    readonly service?: { readonly name: string; readonly namespace: string };
  },
  {
    readonly phase?: string;
    readonly conditions?: readonly Condition[];
    readonly replicas?: number;
    readonly active?: number;
    readonly currentNumberScheduled?: number;
    readonly desiredNumberScheduled?: number;
  }
>;

export type WebhookConfiguration = {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: { readonly name: string };
  readonly webhooks?: readonly {
    readonly name: string;
    readonly failurePolicy?: string;
    readonly clientConfig: { readonly service?: { readonly name: string; readonly namespace: string } };
    readonly rules?: readonly { readonly operations?: readonly string[]; readonly resources?: readonly string[] }[];
  }[];
};

export type EndpointSlice = {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: {
    readonly name: string;
    readonly namespace?: string;
    readonly labels?: Readonly<Record<string, string>>;
  };
  readonly endpoints?: readonly { readonly conditions?: { readonly ready?: boolean } }[] | null;
};

export type WarningEvent = {
  readonly involvedObject: { readonly kind?: string; readonly namespace?: string; readonly name?: string };
  readonly reason?: string;
  readonly message?: string;
  readonly lastTimestamp?: string | null;
  readonly eventTime?: string | null;
  readonly firstTimestamp?: string | null;
  readonly series?: { readonly lastObservedTime?: string };
};

/** What the API server knows, listed once. */
export type Objects = {
  readonly nodes: readonly Node[];
  readonly pods: readonly Pod[];
  readonly namespaces: readonly Conditioned[];
  readonly claims: readonly Claim[];
  readonly storageClasses: readonly StorageClass[];
  readonly webhooks: readonly WebhookConfiguration[];
  readonly endpointSlices: readonly EndpointSlice[];
  readonly apiServices: readonly Conditioned[];
  readonly definitions: readonly Conditioned[];
  /** ReplicaSets, StatefulSets, DaemonSets and Jobs: what makes pods. */
  readonly workloads: readonly Conditioned[];
  /** Of the type Warning. */
  readonly events: readonly WarningEvent[];
};

export function conditionOf(
  object: { readonly status?: { readonly conditions?: readonly Condition[] } | undefined },
  type: string,
): Condition | undefined {
  return object.status?.conditions?.find((condition) => condition.type === type);
}

/** When an event was last seen, in milliseconds. */
export function eventTimeMs(event: WarningEvent): number {
  const time = event.series?.lastObservedTime ?? event.lastTimestamp ?? event.eventTime ?? event.firstTimestamp;
  return time ? Date.parse(time) : 0;
}

/** `0.5`, `500m`, `128Mi`, `1G` as a number; undefined for what is none. */
export function parseQuantity(text: string): number | undefined {
  const match = /^([+-]?\d*\.?\d+(?:[eE][+-]?\d+)?)(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$/.exec(text);
  if (match === null) return undefined;
  const [, digits = '', unit] = match;
  const powers = 'kMGTPE';
  if (unit === undefined) return Number(digits);
  if (unit === 'm') return Number(digits) / 1000;
  const power = powers.indexOf(unit[0] === 'K' ? 'k' : (unit[0] ?? '')) + 1;
  return Number(digits) * (unit.endsWith('i') ? 1024 : 1000) ** power;
}

/** A number of a resource as people write it: CPUs with two digits, memory in MiB. */
export function formatQuantity(resource: string, value: number): string {
  const isBytes = resource === 'memory' || resource.includes('storage') || resource.startsWith('hugepages');
  return isBytes ? `${String(Math.floor(value / 2 ** 20))}Mi` : String(Math.round(value * 100) / 100);
}
