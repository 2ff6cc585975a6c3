/** What the user asked for, complete: every default is filled in, every path absolute, every value checked. */
import type { MountSpec } from './mounts.ts';
import type { PublishSpec } from './published.ts';
import { KUBERNETES_VERSIONS, type KubernetesMinor } from './versions.ts';

/** A port on 127.0.0.1. `isFixed`: the user named it, so a taken port is an error; else the next free one is used. */
export type PortWish = { readonly port: number; readonly isFixed: boolean };

export type BucketSpec = { readonly name: string; readonly hasVersioning: boolean };

export type MirrorSpec = {
  /** Registry host as image names have it, e.g. `docker.io`. */
  readonly registry: string;
  /** Base URLs tried in this order before the registry itself. */
  readonly endpoints: readonly string[];
};

/** The registry that clusters share. */
export type RegistrySpec = {
  /** Name of its container and of its volume; clusters that name the same one share it. */
  readonly name: string;
  readonly port: PortWish;
  /** Hosts of registries of which it keeps copies. */
  readonly mirrors: readonly string[];
};

export type FileContent = { readonly path: string; readonly content: string };

export type ProxySettings = { readonly httpProxy: string; readonly httpsProxy: string; readonly noProxy: string };

export type ClusterSpec = {
  readonly name: string;
  readonly kubernetes: {
    readonly version: KubernetesMinor;
    /** The user named it; else it is the default of this Sandbar. */
    readonly isVersionNamed: boolean;
    /** Text of upstream's audit policy; undefined where nothing is logged. */
    readonly auditPolicy: string | undefined;
    /** Whether Secrets are written encrypted. */
    readonly isEncrypted: boolean;
    readonly admission: {
      readonly enabled: readonly string[];
      readonly disabled: readonly string[];
      /** Admission plugin → its configuration. */
      readonly configuration: Readonly<Record<string, unknown>>;
    };
    readonly featureGates: Readonly<Record<string, boolean>>;
    readonly apiServerArguments: Readonly<Record<string, string>>;
    readonly controllerManagerArguments: Readonly<Record<string, string>>;
    readonly schedulerArguments: Readonly<Record<string, string>>;
    readonly kubeletArguments: Readonly<Record<string, string>>;
    /** Fields of upstream's KubeletConfiguration, merged over ours. */
    readonly kubeletConfiguration: Readonly<Record<string, unknown>>;
  };
  readonly network: {
    /** IPv4 CIDR of the Docker network, or undefined: a free /24 is chosen. */
    readonly subnet: string | undefined;
    readonly podSubnet: string;
    readonly serviceSubnet: string;
  };
  readonly ports: {
    readonly api: PortWish;
    readonly http: PortWish;
    readonly https: PortWish;
    readonly objectStore: PortWish;
    readonly objectStoreConsole: PortWish;
  };
  readonly ingress: { readonly isEnabled: boolean };
  /** Needs the ingress: it is what serves routes. */
  readonly gatewayApi: { readonly isEnabled: boolean };
  readonly networkPolicy: { readonly isEnabled: boolean };
  readonly objectStore: {
    readonly isEnabled: boolean;
    readonly region: string;
    readonly buckets: readonly BucketSpec[];
  };
  /** `kubectl top`, and what autoscalers go by. */
  readonly metrics: { readonly isEnabled: boolean };
  /** Extra CA certificates (PEM) that the node trusts when it pulls images. */
  readonly caCertificates: readonly FileContent[];
  readonly mirrors: readonly MirrorSpec[];
  /** Undefined: the cluster has none. */
  readonly registry: RegistrySpec | undefined;
  /** Kubernetes manifests (YAML) applied by `up`, in this order. */
  readonly manifests: readonly FileContent[];
  /** Folders and files of the host that `sandbar.yaml` mounts into workloads. */
  readonly mounts: readonly MountSpec[];
  /** Ports of this machine that `sandbar.yaml` has lead into the cluster. */
  readonly publish: readonly PublishSpec[];
  readonly proxy: ProxySettings;
  /** Folder of `sandbar.yaml`, symbolic links resolved; undefined where there is no such file. */
  readonly projectDirectory: string | undefined;
};

/** `v1.36.3`, as the cluster's datastore has it. */
export function versionOf({ kubernetes }: Pick<ClusterSpec, 'kubernetes'>): string {
  return KUBERNETES_VERSIONS[kubernetes.version];
}
