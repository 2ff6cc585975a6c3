/** Upstream's metrics-server: `kubectl top` and autoscalers ask it for what the node says of processor and memory. */
import { containerName, METRICS_SERVICE, networkName } from '../model/names.ts';
import type { ContainerResource, KubernetesObject } from '../model/resources.ts';
import { addressesIn, apiServerUrl, type ComponentContext } from './context.ts';
import { jsonFile, kubeconfigFile, textFile } from './files.ts';

/** The shortest that upstream takes, so that the first figures are there soon; its own manifests have 15 s. */
const RESOLUTION = '10s';

/** Rules of the ClusterRole for the user `system:sandbar:metrics`: upstream's. */
export const METRICS_RULES = [
  { apiGroups: [''], resources: ['nodes/metrics'], verbs: ['get'] },
  { apiGroups: [''], resources: ['pods', 'nodes'], verbs: ['get', 'list', 'watch'] },
];

export const METRICS_PORTS = [{ name: 'https', port: 10250, protocol: 'TCP' }];

const RBAC = 'rbac.authorization.k8s.io';

/** metrics-server as a container of its own. */
export function metricsContainer(context: ComponentContext): ContainerResource {
  const { spec, subnet, imageRefs, identity } = context;
  const name = containerName(spec.name, 'metrics');
  const serving = identity.certificates['metrics-serving'];
  return {
    kind: 'container',
    id: 'container/metrics',
    owner: 'metrics',
    dependsOn: ['network'],
    container: {
      name,
      hostname: name,
      imageRef: imageRefs.metrics,
      networkName: networkName(spec.name),
      address: addressesIn(subnet).metrics,
      ports: [],
      volumes: [],
      binds: [],
      tmpfs: [],
      hasReadOnlyRoot: false,
      privileges: { level: 'none', capabilities: [] },
      extraHosts: [],
      stopTimeoutS: 5,
    },
    files: [
      jsonFile('/etc/sandbar/config.json', { apiServer: apiServerUrl(context), resolution: RESOLUTION }),
      kubeconfigFile(context, '/etc/sandbar/kubeconfig', 'metrics'),
      textFile('/etc/sandbar/ca.crt', identity.ca.certificate),
      textFile('/etc/sandbar/tls.crt', serving.certificate),
      textFile('/etc/sandbar/tls.key', serving.key),
    ],
    probes: [],
  };
}

/** Where it is found, and what it and those who read metrics may do, as upstream's manifests have it. */
export function metricsObjects(user: string): readonly KubernetesObject[] {
  const subjects = [{ apiGroup: RBAC, kind: 'User', name: user }];
  const aggregation = ['view', 'edit', 'admin'].map((role) => [`${RBAC}/aggregate-to-${role}`, 'true'] as const);
  const ports = METRICS_PORTS.map(({ name, port, protocol }) => ({ name, port: 443, targetPort: port, protocol }));
  return [
    { apiVersion: 'v1', kind: 'Service', metadata: METRICS_SERVICE, spec: { ports } },
    {
      apiVersion: `${RBAC}/v1`,
      kind: 'ClusterRole',
      metadata: { name: 'system:aggregated-metrics-reader', labels: Object.fromEntries(aggregation) },
      rules: [{ apiGroups: ['metrics.k8s.io'], resources: ['pods', 'nodes'], verbs: ['get', 'list', 'watch'] }],
    },
    {
      apiVersion: `${RBAC}/v1`,
      kind: 'ClusterRoleBinding',
      metadata: { name: 'metrics-server:system:auth-delegator' },
      roleRef: { apiGroup: RBAC, kind: 'ClusterRole', name: 'system:auth-delegator' },
      subjects,
    },
    {
      apiVersion: `${RBAC}/v1`,
      kind: 'RoleBinding',
      metadata: { name: 'metrics-server-auth-reader', namespace: METRICS_SERVICE.namespace },
      roleRef: { apiGroup: RBAC, kind: 'Role', name: 'extension-apiserver-authentication-reader' },
      subjects,
    },
  ];
}

/**
 * What has the API server forward requests for metrics. The control plane makes and removes it as the server answers:
 * one that leads nowhere has kubectl complain whatever it is asked, and holds up the deletion of namespaces.
 */
export function metricsRegistration({ identity }: ComponentContext): KubernetesObject {
  const [version, group] = ['v1beta1', 'metrics.k8s.io'];
  return {
    apiVersion: 'apiregistration.k8s.io/v1',
    kind: 'APIService',
    metadata: { name: `${version}.${group}`, labels: { 'sandbar.dev/registered': 'while-it-answers' } },
    spec: {
      group,
      version,
      service: { ...METRICS_SERVICE, port: 443 },
      caBundle: Buffer.from(identity.ca.certificate).toString('base64'),
      groupPriorityMinimum: 100,
      versionPriority: 100,
    },
  };
}
