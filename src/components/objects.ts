/** The Kubernetes objects that every cluster has: what wires DNS, object store, ingress and volumes to it. */
import { hashOf } from '../model/hash.ts';
import { METRICS_SERVICE, OBJECT_HASH, OBJECT_ORIGIN, SYSTEM_NAMESPACE } from '../model/names.ts';
import { objectIdOf } from '../model/objects.ts';
import type { KubernetesObject, ObjectResource } from '../model/resources.ts';
import { addressesIn, dnsServiceAddress, type ComponentContext } from './context.ts';
import { DNS_RULES } from './dns.ts';
import { GATEWAY_RULES, INGRESS_CLASS, INGRESS_RULES, INGRESS_SERVICE } from './ingress.ts';
import { METRICS_PORTS, METRICS_RULES, metricsObjects } from './metrics.ts';
import { mountObjects } from './mounts.ts';
import { NETWORK_POLICY_RULES } from './network-policy.ts';
import { REGISTRY_PORTS, registryObjects } from './registry.ts';
import { portObjects } from './ports.ts';

export const OBJECT_STORE_ENDPOINT = `http://s3.${SYSTEM_NAMESPACE}.svc.cluster.local:9000`;

/** Kinds that others depend on: they are applied first. */
export const GROUND_KINDS: readonly string[] = ['Namespace', 'CustomResourceDefinition'];

/** What may be told of an object when it is compared: who made it, and the hash of what was asked for. */
type Origin = 'built-in' | 'manifest';

export type PolicyRule = {
  readonly apiGroups: readonly string[];
  readonly resources: readonly string[];
  readonly verbs: readonly string[];
};

/** Needed by upstream's provisioner library, `sig-storage-lib-external-provisioner`. */
const VOLUME_PROVISIONER_RULES: readonly PolicyRule[] = [
  {
    apiGroups: [''],
    resources: ['persistentvolumes'],
    verbs: ['get', 'list', 'watch', 'create', 'update', 'patch', 'delete'],
  },
  { apiGroups: [''], resources: ['persistentvolumeclaims'], verbs: ['get', 'list', 'watch', 'update'] },
  { apiGroups: ['storage.k8s.io'], resources: ['storageclasses'], verbs: ['get', 'list', 'watch'] },
  { apiGroups: [''], resources: ['nodes'], verbs: ['get', 'list', 'watch'] },
  { apiGroups: ['', 'events.k8s.io'], resources: ['events'], verbs: ['create', 'update', 'patch'] },
];

/** Objects built in, without those of `sandbar.yaml`'s manifests. */
export function builtInObjects(context: ComponentContext): readonly KubernetesObject[] {
  const { spec } = context;
  return [
    { apiVersion: 'v1', kind: 'Namespace', metadata: { name: SYSTEM_NAMESPACE } },
    ...dnsObjects(context),
    ...userRole('volume-provisioner', [
      ...VOLUME_PROVISIONER_RULES,
      ...(spec.networkPolicy.isEnabled ? NETWORK_POLICY_RULES : []),
    ]),
    ...mountObjects(spec.kubernetes.version),
    ...portObjects(),
    {
      apiVersion: 'storage.k8s.io/v1',
      kind: 'StorageClass',
      metadata: { name: 'standard', annotations: { 'storageclass.kubernetes.io/is-default-class': 'true' } },
      provisioner: 'sandbar.dev/local-volume',
      volumeBindingMode: 'WaitForFirstConsumer',
      reclaimPolicy: 'Delete',
    },
    ...(spec.ingress.isEnabled ? ingressObjects(context) : []),
    ...(spec.objectStore.isEnabled ? objectStoreObjects(context) : []),
    ...(spec.metrics.isEnabled ? metricsServing(context) : []),
    ...registryObjects(context),
    ...(context.registry === undefined ? [] : registryService(context)),
  ];
}

/** Objects as resources, labelled and hashed; those of `manifests` depend on the namespaces and types among them. */
export function objectResources(
  builtIn: readonly KubernetesObject[],
  manifests: readonly KubernetesObject[],
): readonly ObjectResource[] {
  const inventory = inventoryOf([...builtIn, ...manifests]);
  const own = [...builtIn, inventory].map((object) => resourceOf(object, 'built-in', []));
  const groundIds = manifests.filter((object) => GROUND_KINDS.includes(object.kind)).map(objectIdOf);
  const theirs = manifests.map((object) =>
    resourceOf(object, 'manifest', GROUND_KINDS.includes(object.kind) ? [] : groundIds),
  );
  return [...own, ...theirs];
}

/** Kinds in use, kept in the cluster: an object whose kind is no longer in any manifest is found by this. */
function inventoryOf(objects: readonly KubernetesObject[]): KubernetesObject {
  const kinds = [
    ...new Set([...objects.map((object) => `${object.apiVersion} ${object.kind}`), 'v1 ConfigMap']),
  ].sort();
  return {
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: { name: 'inventory', namespace: SYSTEM_NAMESPACE },
    data: { kinds: kinds.join('\n') },
  };
}

function resourceOf(object: KubernetesObject, origin: Origin, dependsOn: readonly string[]): ObjectResource {
  const marked: KubernetesObject = {
    ...object,
    metadata: {
      ...object.metadata,
      labels: { ...object.metadata.labels, [OBJECT_ORIGIN]: origin },
      annotations: { ...object.metadata.annotations, [OBJECT_HASH]: hashOf(object) },
    },
  };
  return { kind: 'object', id: objectIdOf(object), owner: 'objects', dependsOn, object: marked };
}

function dnsObjects(context: ComponentContext): readonly KubernetesObject[] {
  const labels = { 'k8s-app': 'kube-dns', 'kubernetes.io/name': 'CoreDNS' };
  // As elsewhere: by these a Prometheus finds it.
  const annotations = { 'prometheus.io/scrape': 'true', 'prometheus.io/port': '9153' };
  const ports = [
    { name: 'dns', port: 53, protocol: 'UDP' },
    { name: 'dns-tcp', port: 53, protocol: 'TCP' },
    { name: 'metrics', port: 9153, protocol: 'TCP' },
  ];
  return [
    {
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { name: 'kube-dns', namespace: 'kube-system', labels, annotations },
      spec: { clusterIP: dnsServiceAddress(context.spec), ports },
    },
    endpoints({ service: 'kube-dns', namespace: 'kube-system', address: addressesIn(context.subnet).dns, ports }),
    ...userRole('dns', DNS_RULES),
  ];
}

function ingressObjects({ spec, subnet, ports }: ComponentContext): readonly KubernetesObject[] {
  const listening = [
    { name: 'http', port: 80, hostPort: ports.http, protocol: 'TCP' },
    { name: 'https', port: 443, hostPort: ports.https, protocol: 'TCP' },
  ];
  // A URL that works on the host works in a pod: the same names lead here, and it answers on the host's ports too.
  const published = listening.flatMap(({ name, port, hostPort, protocol }) =>
    listening.some((own) => own.port === hostPort)
      ? [{ name, port, targetPort: port, protocol }]
      : [
          { name, port, targetPort: port, protocol },
          { name: `host-${name}`, port: hostPort, targetPort: port, protocol },
        ],
  );
  return [
    {
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { name: INGRESS_SERVICE, namespace: SYSTEM_NAMESPACE },
      spec: { ports: published },
    },
    endpoints({
      service: INGRESS_SERVICE,
      namespace: SYSTEM_NAMESPACE,
      address: addressesIn(subnet).ingress,
      ports: published.map(({ name, targetPort: port, protocol }) => ({ name, port, protocol })),
    }),
    ...userRole('ingress', [...INGRESS_RULES, ...(spec.gatewayApi.isEnabled ? GATEWAY_RULES : [])]),
    {
      apiVersion: 'networking.k8s.io/v1',
      kind: 'IngressClass',
      metadata: { name: INGRESS_CLASS.name, annotations: { 'ingressclass.kubernetes.io/is-default-class': 'true' } },
      spec: { controller: INGRESS_CLASS.controller },
    },
  ];
}

function objectStoreObjects(context: ComponentContext): readonly KubernetesObject[] {
  const { objectStore } = context.identity;
  const ports = [{ name: 's3', port: 9000, protocol: 'TCP' }];
  const environment = {
    AWS_ENDPOINT_URL_S3: OBJECT_STORE_ENDPOINT,
    AWS_ACCESS_KEY_ID: objectStore.accessKeyId,
    AWS_SECRET_ACCESS_KEY: objectStore.secretAccessKey,
    AWS_REGION: context.spec.objectStore.region,
  };
  const encoded = Object.entries(environment).map(([key, value]) => [key, Buffer.from(value).toString('base64')]);
  return [
    {
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { name: 's3', namespace: SYSTEM_NAMESPACE },
      spec: { ports },
    },
    endpoints({ service: 's3', namespace: SYSTEM_NAMESPACE, address: addressesIn(context.subnet).objectStore, ports }),
    {
      apiVersion: 'v1',
      kind: 'Secret',
      metadata: { name: 'object-store', namespace: 'default' },
      type: 'Opaque',
      data: Object.fromEntries(encoded) as Record<string, string>,
    },
  ];
}

function metricsServing({ subnet }: ComponentContext): readonly KubernetesObject[] {
  const { name: service, namespace } = METRICS_SERVICE;
  return [
    ...metricsObjects(userName('metrics')),
    ...userRole('metrics', METRICS_RULES),
    endpoints({ service, namespace, address: addressesIn(subnet).metrics, ports: METRICS_PORTS }),
  ];
}

function registryService(context: ComponentContext): readonly KubernetesObject[] {
  const ports = [{ name: 'http', port: REGISTRY_PORTS.images, protocol: 'TCP' }];
  const address = addressesIn(context.subnet).registry;
  return [
    { apiVersion: 'v1', kind: 'Service', metadata: { name: 'registry', namespace: SYSTEM_NAMESPACE }, spec: { ports } },
    endpoints({ service: 'registry', namespace: SYSTEM_NAMESPACE, address, ports }),
  ];
}

/** A Service without selector points here: at a container outside the node. */
function endpoints(target: {
  readonly service: string;
  readonly namespace: string;
  readonly address: string;
  readonly ports: readonly { readonly name: string; readonly port: number; readonly protocol: string }[];
}): KubernetesObject {
  return {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: {
      name: `${target.service}-sandbar`,
      namespace: target.namespace,
      labels: { 'kubernetes.io/service-name': target.service, 'endpointslice.kubernetes.io/managed-by': 'sandbar.dev' },
    },
    addressType: 'IPv4',
    endpoints: [{ addresses: [target.address], conditions: { ready: true } }],
    ports: target.ports,
  };
}

/** A role for the user that a component's certificate names. */
function userRole(component: string, rules: readonly PolicyRule[]): readonly KubernetesObject[] {
  const name = userName(component);
  return [
    { apiVersion: 'rbac.authorization.k8s.io/v1', kind: 'ClusterRole', metadata: { name }, rules },
    {
      apiVersion: 'rbac.authorization.k8s.io/v1',
      kind: 'ClusterRoleBinding',
      metadata: { name },
      roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name },
      subjects: [{ apiGroup: 'rbac.authorization.k8s.io', kind: 'User', name }],
    },
  ];
}

/** The user that a component's certificate names. */
function userName(component: string): string {
  return `system:sandbar:${component}`;
}
