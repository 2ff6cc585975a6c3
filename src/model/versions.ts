/** Kubernetes by minor version; each but the default is built when a cluster asks for it. */
export const KUBERNETES_VERSIONS = { '1.36': 'v1.36.3', '1.35': 'v1.35.4' } as const;
export type KubernetesMinor = keyof typeof KUBERNETES_VERSIONS;
export const DEFAULT_KUBERNETES: KubernetesMinor = '1.36';

/** The version that is meant by `1.35`, `v1.35` or `v1.35.4`; undefined when there is none. */
export function findKubernetes(text: string): KubernetesMinor | undefined {
  const minors = Object.keys(KUBERNETES_VERSIONS) as KubernetesMinor[];
  const plain = text.replace(/^v/, '');
  return minors.find((minor) => plain === minor || `v${plain}` === KUBERNETES_VERSIONS[minor]);
}

/** Versions of the upstream parts, as the Go modules below `images/` pin them; a test compares both. */
export const COMPONENT_VERSIONS = {
  kubernetes: KUBERNETES_VERSIONS[DEFAULT_KUBERNETES],
  etcd: 'v3.6.8',
  containerd: 'v2.2.9',
  'cni-plugins': 'v1.9.1',
  coredns: 'v1.14.7',
  traefik: 'v3.6.12',
  'metrics-server': 'v0.9.0',
  minio: 'RELEASE.2026-02-12T20-18-48Z',
} as const;

/** Why data of Kubernetes `from` cannot be used by `to`, as upstream has it, or undefined: one minor version at a time, and never back. */
export function upgradeProblem(from: string, to: string): 'newer' | 'too old' | undefined {
  const [before, after] = [minorOf(from), minorOf(to)];
  if (before === undefined || after === undefined) return undefined;
  if (before > after) return 'newer';
  return after - before > 1 ? 'too old' : undefined;
}

/** 36 of `v1.36.3`. */
export function minorOf(version: string): number | undefined {
  const minor = /^v1\.(\d+)\./.exec(version)?.[1];
  return minor === undefined ? undefined : Number(minor);
}
