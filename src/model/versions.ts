/** Versions of the upstream parts, as the Go modules below `images/` pin them; a test compares both. */
export const COMPONENT_VERSIONS = {
  kubernetes: 'v1.36.3',
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
