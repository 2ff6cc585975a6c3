import { dirname } from 'node:path/posix';
import { IDENTITY_PATH } from '../model/identity.ts';
import { AUDIT_LOG_PATH, containerName, networkName, nodeName, volumeName } from '../model/names.ts';
import type { ContainerFile, ContainerResource, KubernetesObject, VolumeResource } from '../model/resources.ts';
import { addressesIn, clusterRoutes, type ComponentContext } from './context.ts';
import { jsonFile, textFile } from './files.ts';
import { GATEWAY_CLASS } from './ingress.ts';
import { hardeningArguments, hardeningFiles } from './hardening.ts';
import { metricsRegistration } from './metrics.ts';
import { BETA_POLICIES, hasBetaPolicies } from './mounts.ts';

/** etcd, API server, controller manager and scheduler in one process; `objects` are there before it says it is ready. */
export function controlPlane(
  context: ComponentContext,
  objects: readonly KubernetesObject[],
): readonly (VolumeResource | ContainerResource)[] {
  const { spec, subnet, ports, imageRefs } = context;
  const volumes: VolumeResource[] = [
    {
      kind: 'volume',
      id: 'volume/pki',
      owner: 'control-plane',
      dependsOn: [],
      name: volumeName(spec.name, 'pki'),
      holds: 'the certificates, keys and credentials',
    },
    {
      kind: 'volume',
      id: 'volume/datastore',
      owner: 'control-plane',
      dependsOn: [],
      name: volumeName(spec.name, 'datastore'),
      holds: 'every Kubernetes object',
    },
    ...(spec.kubernetes.auditPolicy === undefined ? [] : [auditVolume(spec.name)]),
  ];
  const container: ContainerResource = {
    kind: 'container',
    id: 'container/control-plane',
    owner: 'control-plane',
    dependsOn: ['network', ...volumes.map((volume) => volume.id)],
    container: {
      name: containerName(spec.name, 'control-plane'),
      hostname: containerName(spec.name, 'control-plane'),
      imageRef: imageRefs['control-plane'],
      networkName: networkName(spec.name),
      address: addressesIn(subnet).controlPlane,
      ports: [{ hostPort: ports.api, containerPort: 6443 }],
      volumes: [
        { volumeName: volumeName(spec.name, 'pki'), path: '/etc/sandbar' },
        { volumeName: volumeName(spec.name, 'datastore'), path: '/var/lib/etcd' },
        ...(spec.kubernetes.auditPolicy === undefined
          ? []
          : [{ volumeName: auditVolume(spec.name).name, path: dirname(AUDIT_LOG_PATH) }]),
      ],
      binds: [],
      tmpfs: ['/run', '/tmp'],
      hasReadOnlyRoot: true,
      privileges: { level: 'none', capabilities: ['NET_ADMIN'] },
      extraHosts: [],
      stopTimeoutS: 10,
    },
    files: controlPlaneFiles(context, objects),
    probes: [
      { kind: 'api', path: '/readyz', timeoutMs: 60_000 },
      { kind: 'api', path: '/api/v1/namespaces/default/serviceaccounts/default', timeoutMs: 30_000 },
    ],
  };
  return [...volumes, container];
}

/** Outlives the container, and no reset or snapshot touches it. */
function auditVolume(clusterName: string): VolumeResource {
  return {
    kind: 'volume',
    id: 'volume/audit',
    owner: 'control-plane',
    dependsOn: [],
    name: volumeName(clusterName, 'audit'),
    holds: 'the audit log',
  };
}

function controlPlaneFiles(context: ComponentContext, objects: readonly KubernetesObject[]): readonly ContainerFile[] {
  const { spec, identity } = context;
  const { kubernetes, network } = spec;
  const own: Readonly<Record<string, string | undefined>> = kubernetes.apiServerArguments;
  const isBeta = hasBetaPolicies(kubernetes.version);
  const pairs = {
    ca: identity.ca,
    apiserver: identity.certificates.apiserver,
    'apiserver-kubelet-client': identity.certificates['apiserver-kubelet-client'],
    'front-proxy-client': identity.certificates['front-proxy-client'],
  };
  return [
    jsonFile('/etc/sandbar/config.json', {
      nodeName: nodeName(spec.name),
      address: addressesIn(context.subnet).controlPlane,
      advertisePort: 6443,
      serviceSubnet: network.serviceSubnet,
      podSubnet: network.podSubnet,
      routes: clusterRoutes(context),
      featureGates: { ...(isBeta ? { MutatingAdmissionPolicy: true } : {}), ...kubernetes.featureGates },
      apiServerArguments: {
        ...hardeningArguments(context),
        ...kubernetes.apiServerArguments,
        ...(isBeta
          ? { 'runtime-config': [own['runtime-config'], `${BETA_POLICIES}=true`].filter(Boolean).join(',') }
          : {}),
      },
      controllerManagerArguments: kubernetes.controllerManagerArguments,
      schedulerArguments: kubernetes.schedulerArguments,
      gatewayClass: spec.gatewayApi.isEnabled ? GATEWAY_CLASS : null,
    }),
    ...hardeningFiles(context),
    ...Object.entries(pairs).flatMap(([name, pair]) => [
      textFile(`/etc/sandbar/pki/${name}.crt`, pair.certificate),
      textFile(`/etc/sandbar/pki/${name}.key`, pair.key),
    ]),
    // Pods trust the ingress as they trust the API server; the root can sign for names below localhost only.
    textFile('/etc/sandbar/pki/root-ca.crt', identity.ca.certificate + identity.request.rootCertificate),
    textFile('/etc/sandbar/pki/front-proxy-ca.crt', identity.frontProxyCa.certificate),
    textFile('/etc/sandbar/pki/sa.key', identity.serviceAccount.privateKey),
    textFile('/etc/sandbar/pki/sa.pub', identity.serviceAccount.publicKey),
    // Objects that changed are applied to the running API server; the identity is compared through the files above.
    { ...jsonFile('/etc/sandbar/objects.json', objects), isInert: true },
    jsonFile('/etc/sandbar/registrations.json', spec.metrics.isEnabled ? [metricsRegistration(context)] : []),
    { ...jsonFile(IDENTITY_PATH, identity), isInert: true },
  ];
}
