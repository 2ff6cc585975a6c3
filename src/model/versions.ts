/** Versions of the upstream parts, as the Go modules below `images/` pin them; a test compares both. */
export const COMPONENT_VERSIONS = {
  kubernetes: 'v1.36.3',
  etcd: 'v3.6.8',
  containerd: 'v2.2.9',
  'cni-plugins': 'v1.9.1',
  coredns: 'v1.14.7',
  traefik: 'v3.6.12',
  minio: 'RELEASE.2026-02-12T20-18-48Z',
} as const;
