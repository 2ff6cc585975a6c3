import { containerName, networkName, nodeName, volumeName } from '../model/names.ts';
import type { ContainerFile, ContainerResource, VolumeResource } from '../model/resources.ts';
import { addressesIn, apiServerUrl, dnsServiceAddress, loadBalancerSubnet, type ComponentContext } from './context.ts';
import { jsonFile, kubeconfigFile, textFile } from './files.ts';
import { MOUNTS_PATH, mountsVolume } from './mounts.ts';
import { networkPolicySettings } from './network-policy.ts';
import { PORTS_PATH, portsVolume } from './ports.ts';
import { registryHostFiles, registryHosts } from './registry.ts';

const VOLUMES = [
  {
    name: 'containerd',
    path: '/var/lib/containerd',
    holds: 'the images in the cluster and the files of its containers',
  },
  { name: 'kubelet', path: '/var/lib/kubelet', holds: "the pods' own volumes" },
  { name: 'claims', path: '/var/lib/sandbar', holds: 'the data of every PersistentVolumeClaim' },
] as const;

/** The node: containerd, kubelet, kube-proxy, pod network and the provisioner of claims. */
export function agent(context: ComponentContext): readonly (VolumeResource | ContainerResource)[] {
  const { spec, subnet, imageRefs } = context;
  const volumes: VolumeResource[] = VOLUMES.map(({ name, holds }) => ({
    kind: 'volume',
    id: `volume/${name}`,
    owner: 'agent',
    dependsOn: [],
    name: volumeName(spec.name, name),
    holds,
  }));
  const mounts = mountsVolume(spec);
  const ports = portsVolume(spec);
  const node = `/api/v1/nodes/${nodeName(spec.name)}`;
  const container: ContainerResource = {
    kind: 'container',
    id: 'container/agent',
    owner: 'agent',
    dependsOn: ['network', ...volumes.map((volume) => volume.id), mounts.id, ports.id],
    container: {
      name: containerName(spec.name, 'agent'),
      hostname: nodeName(spec.name),
      imageRef: imageRefs.agent,
      networkName: networkName(spec.name),
      address: addressesIn(subnet).agent,
      ports: [],
      volumes: [
        ...VOLUMES.map(({ name, path }) => ({ volumeName: volumeName(spec.name, name), path })),
        { volumeName: mounts.name, path: MOUNTS_PATH },
        { volumeName: ports.name, path: PORTS_PATH },
      ],
      binds: [],
      tmpfs: ['/run', '/tmp'],
      hasReadOnlyRoot: false,
      privileges: { level: 'node' },
      extraHosts: [],
      stopTimeoutS: 10,
    },
    files: agentFiles(context),
    probes: [
      // The kubelet itself: what the node said last stays for a while when its kubelet has gone.
      { kind: 'api', path: `${node}/proxy/healthz`, timeoutMs: 90_000 },
      { kind: 'node', path: node, containerName: containerName(spec.name, 'agent'), timeoutMs: 90_000 },
    ],
  };
  return [...volumes, mounts, ports, container];
}

function agentFiles(context: ComponentContext): readonly ContainerFile[] {
  const { spec, identity } = context;
  const serving = identity.certificates['kubelet-serving'];
  return [
    jsonFile('/etc/sandbar/config.json', {
      nodeName: nodeName(spec.name),
      address: addressesIn(context.subnet).agent,
      apiServer: apiServerUrl(context),
      clusterDomain: 'cluster.local',
      clusterDNS: dnsServiceAddress(spec),
      serviceSubnet: spec.network.serviceSubnet,
      podSubnet: spec.network.podSubnet,
      loadBalancerSubnet: loadBalancerSubnet(context.subnet),
      featureGates: spec.kubernetes.featureGates,
      kubeletArguments: spec.kubernetes.kubeletArguments,
      kubeletConfiguration: spec.kubernetes.kubeletConfiguration,
      proxy: spec.proxy,
      ...(spec.networkPolicy.isEnabled ? { networkPolicy: networkPolicySettings(context) } : {}),
    }),
    textFile('/etc/sandbar/pki/ca.crt', identity.ca.certificate),
    textFile('/etc/sandbar/pki/kubelet.crt', serving.certificate),
    textFile('/etc/sandbar/pki/kubelet.key', serving.key),
    kubeconfigFile(context, '/etc/sandbar/kubelet.kubeconfig', 'kubelet'),
    kubeconfigFile(context, '/etc/sandbar/kube-proxy.kubeconfig', 'kube-proxy'),
    kubeconfigFile(context, '/etc/sandbar/volume-provisioner.kubeconfig', 'volume-provisioner'),
    ...spec.caCertificates.map((certificate, index) =>
      textFile(`/etc/sandbar/ca-certificates/${String(index)}.crt`, certificate.content),
    ),
    ...registryHostFiles(registryHosts(context)),
  ];
}
