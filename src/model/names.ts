/** Names and labels of everything that Sandbar creates; a cluster's objects are found by label, never by name pattern. */

/** The parts of a cluster that run as containers of their own. */
export const COMPONENTS = ['control-plane', 'agent', 'dns', 'ingress', 'object-store', 'metrics', 'ports'] as const;
export type Component = (typeof COMPONENTS)[number];

/** Those that `up` starts beside the rest and does not wait for: a cluster is ready without them. */
const ASIDE: readonly string[] = ['metrics', 'ports', 'registry'] satisfies readonly (Component | 'registry')[];

export function isAside(component: string): boolean {
  return ASIDE.includes(component);
}

export const DEFAULT_CLUSTER_NAME = 'dev';

export const LABELS = {
  /** Name of the cluster that a Docker object belongs to. */
  cluster: 'dev.sandbar.cluster',
  component: 'dev.sandbar.component',
  /** Id of the resource within its cluster, e.g. `container/agent`. */
  resource: 'dev.sandbar.resource',
  /** Name of the registry that a Docker object belongs to, or that a cluster's network was made for. */
  registry: 'dev.sandbar.registry',
  /** Port on the host that a registry had first, on its volume. */
  port: 'dev.sandbar.port',
  /** JSON object: section of the resource → hash of what Docker was given. */
  fingerprint: 'dev.sandbar.fingerprint',
} as const;

/** Label on the Kubernetes objects that Sandbar applies: `built-in`, or `manifest` for those named in `sandbar.yaml`. */
export const OBJECT_ORIGIN = 'sandbar.dev/origin';

/** Annotation with the hash of what was applied. */
export const OBJECT_HASH = 'sandbar.dev/hash';

const CLUSTER_NAME = /^[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?$/;

/** Why a cluster name is not usable, or undefined when it is. 32 characters keep every derived name within DNS's 63. */
export function clusterNameProblem(clusterName: string): string | undefined {
  if (CLUSTER_NAME.test(clusterName)) return undefined;
  return `cluster name "${clusterName}" is not usable: up to 32 lower-case letters, digits and inner hyphens`;
}

/** The nearest usable name, for the hint that goes with a refused one. */
export function suggestClusterName(text: string): string {
  const cleaned = text
    .toLowerCase()
    .replace(/[^a-z0-9-]+/g, '-')
    .slice(0, 32)
    .replace(/^-+|-+$/g, '');
  return cleaned === '' ? DEFAULT_CLUSTER_NAME : cleaned;
}

/** Where upstream's manifests have metrics-server. */
export const METRICS_SERVICE = { name: 'metrics-server', namespace: 'kube-system' } as const;

/** The audit log in the control plane's container, where there is one. */
export const AUDIT_LOG_PATH = '/var/log/kubernetes/audit.log';

/** Namespace of what Sandbar keeps in a cluster. */
export const SYSTEM_NAMESPACE = 'sandbar-system';

export function networkName(clusterName: string): string {
  return `sandbar-${clusterName}`;
}

export function containerName(clusterName: string, component: string): string {
  return `sandbar-${clusterName}-${component}`;
}

export function volumeName(clusterName: string, volume: string): string {
  return `sandbar-${clusterName}-${volume}`;
}

export function contextName(clusterName: string): string {
  return `sandbar-${clusterName}`;
}

export function nodeName(clusterName: string): string {
  return `sandbar-${clusterName}`;
}

/** The network that an engine always has. */
export const ENGINE_NETWORK = 'bridge';

/** Id of the resource that puts a registry on a cluster's network. */
export function attachmentId(clusterNetwork: string): string {
  return `attachment/${clusterNetwork}`;
}

/** Name by which containers and pods reach the machine that Sandbar runs on. */
export const HOST_HOSTNAME = 'host.sandbar.internal';
