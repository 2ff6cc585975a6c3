/** Ports of the host that lead to Services and pods: the container that opens them, and what the agent may do for them. */
import { containerName, SYSTEM_NAMESPACE, volumeName } from '../model/names.ts';
import type { ContainerResource, KubernetesObject, VolumeResource } from '../model/resources.ts';
import type { ClusterSpec } from '../model/spec.ts';
import type { ComponentContext } from './context.ts';
import { jsonFile } from './files.ts';

/** Where the agent and the ports container meet. */
export const PORTS_PATH = '/run/sandbar/ports';

/** The node's own user, under which the agent asks the API server. */
const AGENT_USER = 'system:sandbar:volume-provisioner';

const RBAC = 'rbac.authorization.k8s.io';

/** Holds the socket over which opened ports are handed to the agent. */
export function portsVolume(spec: Pick<ClusterSpec, 'name'>): VolumeResource {
  return {
    kind: 'volume',
    id: 'volume/ports',
    owner: 'agent',
    dependsOn: [],
    name: volumeName(spec.name, 'ports'),
    holds: 'the socket over which opened ports are handed over',
  };
}

/**
 * Opens ports of 127.0.0.1 in the host's network, as the agent wants them, and hands the sockets over. `others` are the
 * cluster's containers: their ports are left alone, also while they do not run. It is not waited for: nothing needs it
 * before a Service or a command does.
 */
export function portsContainer(context: ComponentContext, others: readonly ContainerResource[]): ContainerResource {
  const { spec, imageRefs } = context;
  const name = containerName(spec.name, 'ports');
  const reserved = others.flatMap(({ container }) => container.ports.map(({ hostPort }) => hostPort));
  return {
    kind: 'container',
    id: 'container/ports',
    owner: 'ports',
    dependsOn: ['volume/ports'],
    container: {
      name,
      hostname: name,
      imageRef: imageRefs.ports,
      networkName: 'host',
      address: '',
      ports: [],
      volumes: [{ volumeName: volumeName(spec.name, 'ports'), path: PORTS_PATH }],
      binds: [],
      tmpfs: [],
      hasReadOnlyRoot: true,
      privileges: { level: 'none', capabilities: ['NET_BIND_SERVICE'] },
      extraHosts: [],
      stopTimeoutS: 1,
    },
    files: [jsonFile('/etc/sandbar/config.json', { reserved: reserved.toSorted((a, b) => a - b) })],
    probes: [],
  };
}

/** The agent's right to follow Services and records, to find pods, and to write down what became of ports. */
export function portObjects(): readonly KubernetesObject[] {
  const clusterRole = 'system:sandbar:ports';
  const subjects = [{ apiGroup: RBAC, kind: 'User', name: AGENT_USER }];
  const metadata = { name: 'ports', namespace: SYSTEM_NAMESPACE };
  return [
    {
      apiVersion: `${RBAC}/v1`,
      kind: 'ClusterRole',
      metadata: { name: clusterRole },
      rules: [
        { apiGroups: [''], resources: ['services'], verbs: ['get', 'list', 'watch', 'patch'] },
        { apiGroups: [''], resources: ['services/status'], verbs: ['patch'] },
        { apiGroups: [''], resources: ['pods'], verbs: ['get', 'list'] },
        { apiGroups: ['discovery.k8s.io'], resources: ['endpointslices'], verbs: ['list'] },
        { apiGroups: ['apps'], resources: ['deployments', 'statefulsets', 'daemonsets'], verbs: ['get'] },
      ],
    },
    {
      apiVersion: `${RBAC}/v1`,
      kind: 'ClusterRoleBinding',
      metadata: { name: clusterRole },
      roleRef: { apiGroup: RBAC, kind: 'ClusterRole', name: clusterRole },
      subjects,
    },
    {
      apiVersion: `${RBAC}/v1`,
      kind: 'Role',
      metadata,
      rules: [{ apiGroups: [''], resources: ['configmaps'], verbs: ['get', 'list', 'watch', 'patch'] }],
    },
    {
      apiVersion: `${RBAC}/v1`,
      kind: 'RoleBinding',
      metadata,
      roleRef: { apiGroup: RBAC, kind: 'Role', name: 'ports' },
      subjects,
    },
  ];
}
