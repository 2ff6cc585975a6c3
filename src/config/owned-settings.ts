/** Flags and fields that Sandbar itself sets, and why: another value would break the cluster or be lost. */

export type ArgumentsKey =
  'apiServerArguments' | 'controllerManagerArguments' | 'schedulerArguments' | 'kubeletArguments';

type Ownership = { readonly flags: RegExp; readonly reason: string };

const CERTIFICATES = "the cluster's certificates are made by sandbar";
const GATES: Ownership = { flags: /^feature-gates$/, reason: 'every component gets kubernetes.featureGates' };
const SERVICES: Ownership = { flags: /^service-cluster-ip-range$/, reason: 'network.services sets it' };
const LEADER: Ownership = { flags: /^leader-elect/, reason: 'there is only one control plane, nobody to elect' };
const CREDENTIALS: Ownership = {
  flags: /^(?:kubeconfig|master|authentication-kubeconfig|authorization-kubeconfig)$/,
  reason: 'sandbar connects it to the API server',
};
const SERVING: Ownership = {
  flags: /^(?:tls-cert-file|tls-private-key-file|cert-dir|client-ca-file|requestheader-.*)$/,
  reason: CERTIFICATES,
};
/** Nothing of the host is mounted into these containers, so a path could only name what is not there. */
const FILES: Ownership = {
  flags:
    /-(?:file|kubeconfig|dir|path)$|^(?:config|cloud-config|authentication-config|authorization-config|encryption-provider-config)$/,
  reason: 'it names a file, and the container has none of yours',
};

const OWNERSHIPS: Readonly<Record<ArgumentsKey, readonly Ownership[]>> = {
  apiServerArguments: [
    {
      flags: /^(?:etcd-(?:servers.*|prefix|cafile|certfile|keyfile)|storage-backend)$/,
      reason: 'the datastore is part of the control plane',
    },
    { flags: /^storage-media-type$/, reason: 'a reset reads what the datastore holds, in the form that it has' },
    {
      flags: /^(?:secure-port|bind-address|advertise-address)$/,
      reason: 'its address is fixed in the network; ports.api sets the port on this machine',
    },
    SERVICES,
    GATES,
    {
      flags: /^(?:kubelet-c.*|kubelet-preferred-address-types|proxy-client-.*|service-account-.*key-file)$/,
      reason: CERTIFICATES,
    },
    SERVING,
    { flags: /^audit-log-path$/, reason: 'kubernetes.auditLog sets it; "-" writes to `sandbar logs control-plane`' },
    { flags: /^(?:enable|disable)-admission-plugins$/, reason: 'kubernetes.admissionPlugins sets it' },
    { flags: /^admission-control-config-file$/, reason: 'kubernetes.admissionPlugins.configuration sets it' },
    { flags: /^audit-policy-file$/, reason: 'kubernetes.auditLog takes the file' },
    { flags: /^encryption-provider-config$/, reason: 'kubernetes.encryptionAtRest sets it' },
    FILES,
  ],
  controllerManagerArguments: [
    { flags: /^(?:cluster-cidr|allocate-node-cidrs|node-cidr-mask-size.*)$/, reason: 'network.pods sets it' },
    SERVICES,
    GATES,
    LEADER,
    CREDENTIALS,
    { flags: /^(?:secure-port|bind-address)$/, reason: 'it does not listen' },
    { flags: /^(?:root-ca-file|service-account-private-key-file|cluster-signing-.*-file)$/, reason: CERTIFICATES },
    SERVING,
    FILES,
  ],
  schedulerArguments: [
    GATES,
    LEADER,
    CREDENTIALS,
    { flags: /^(?:secure-port|bind-address)$/, reason: 'it does not listen' },
    SERVING,
    FILES,
  ],
  kubeletArguments: [
    { flags: /^(?:config|config-dir)$/, reason: 'kubernetes.kubeletConfiguration is merged into its configuration' },
    { flags: /^(?:kubeconfig|bootstrap-kubeconfig)$/, reason: 'sandbar connects it to the API server' },
    {
      flags: /^(?:hostname-override|node-ip|address|port)$/,
      reason: "the node's name and address are fixed in the network",
    },
    {
      flags:
        /^(?:container-runtime-endpoint|image-service-endpoint|root-dir|cgroup-.*|kubelet-cgroups|runtime-cgroups|fail-cgroupv1)$/,
      reason: 'the agent sets it for the containerd and the cgroups that it runs with',
    },
    { flags: /^(?:cluster-dns|cluster-domain|pod-cidr)$/, reason: "the cluster's network sets it" },
    GATES,
    { flags: /^rotate-.*certificates$/, reason: CERTIFICATES },
    SERVING,
    FILES,
  ],
};

const KUBELET_FIELDS: readonly Ownership[] = [
  { flags: /^(?:clusterDNS|clusterDomain|podCIDR)$/, reason: "the cluster's network sets it" },
  { flags: /^featureGates$/, reason: 'every component gets kubernetes.featureGates' },
  {
    flags: /^(?:tlsCertFile|tlsPrivateKeyFile|rotateCertificates|serverTLSBootstrap|authentication)$/,
    reason: CERTIFICATES,
  },
  {
    flags: /^(?:containerRuntimeEndpoint|imageServiceEndpoint|cgroupDriver|cgroupRoot|failCgroupV1)$/,
    reason: 'the agent sets it for the containerd and the cgroups that it runs with',
  },
  { flags: /^(?:address|port)$/, reason: "the node's address is fixed in the network" },
  { flags: /^(?:staticPodPath|staticPodURL)$/, reason: 'it names a file, and the container has none of yours' },
];

/** Why this flag of a component cannot be set, or undefined when it can. */
export function findFlagOwnership(component: ArgumentsKey, flag: string, value: string): string | undefined {
  if (component === 'apiServerArguments' && flag === 'audit-log-path' && value === '-') return undefined;
  return OWNERSHIPS[component].find((ownership) => ownership.flags.test(flag))?.reason;
}

/** Why this field of the KubeletConfiguration cannot be set, or undefined when it can. */
export function findKubeletFieldOwnership(field: string): string | undefined {
  return KUBELET_FIELDS.find((ownership) => ownership.flags.test(field))?.reason;
}
