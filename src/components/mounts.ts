/** Live mounts: the containers that hand folders over, and the admission that puts them into pods. */
import {
  MOUNT_PLACE_LABEL,
  NODE_MOUNTS_DIRECTORY,
  VOLUME_PREFIX,
  mountComponentOf,
  rootIdOf,
  type WorkloadRef,
} from '../model/mounts.ts';
import { SYSTEM_NAMESPACE, containerName, volumeName } from '../model/names.ts';
import type { ContainerResource, KubernetesObject, VolumeResource } from '../model/resources.ts';
import type { ClusterSpec } from '../model/spec.ts';
import type { KubernetesMinor } from '../model/versions.ts';
import { jsonFile } from './files.ts';

/** Where the agent and the containers of mounts meet. */
export const MOUNTS_PATH = '/run/sandbar/mounts';

/** Who may read what is to be mounted: the node's own user, under which the agent asks the API server. */
const READER = 'system:sandbar:volume-provisioner';

const POLICY_NAME = 'sandbar-mounts';

/** Holds the socket over which folders are handed to the agent. */
export function mountsVolume(spec: Pick<ClusterSpec, 'name'>): VolumeResource {
  return {
    kind: 'volume',
    id: 'volume/mounts',
    owner: 'agent',
    dependsOn: [],
    name: volumeName(spec.name, 'mounts'),
    holds: 'the socket over which folders of the host are handed over',
  };
}

/** The container that hands over what lies below a folder of the host, as long as it runs. */
export function mountContainer(
  { clusterName, imageRef }: { readonly clusterName: string; readonly imageRef: string },
  root: string,
): ContainerResource {
  const name = containerName(clusterName, mountComponentOf(root));
  return {
    kind: 'container',
    id: `container/${mountComponentOf(root)}`,
    owner: 'mounts',
    dependsOn: [],
    container: {
      name,
      hostname: name.slice(0, 63).replace(/-+$/, ''),
      imageRef,
      networkName: 'none',
      address: '',
      ports: [],
      volumes: [{ volumeName: volumeName(clusterName, 'mounts'), path: MOUNTS_PATH }],
      binds: [{ source: root, path: '/source' }],
      tmpfs: [],
      hasReadOnlyRoot: true,
      // To clone a mount, and to find paths whatever their modes are.
      privileges: { level: 'none', capabilities: ['SYS_ADMIN', 'DAC_READ_SEARCH'] },
      extraHosts: [],
      stopTimeoutS: 1,
    },
    files: [jsonFile('/etc/sandbar/config.json', { rootId: rootIdOf(root) })],
    probes: [],
  };
}

const LEAST = { cpu: '1m', memory: '1Mi', 'ephemeral-storage': '1Mi' };

/** A pod as a workload's controller would make it, in what tells admission whose it is. */
export function admittedPod({ namespace, kind, name, container = 'main' }: WorkloadRef): KubernetesObject {
  const owner = {
    Deployment: { apiVersion: 'apps/v1', kind: 'ReplicaSet', name: `${name}-0` },
    CronJob: { apiVersion: 'batch/v1', kind: 'Job', name: `${name}-0` },
    StatefulSet: { apiVersion: 'apps/v1', kind, name },
    DaemonSet: { apiVersion: 'apps/v1', kind, name },
    ReplicaSet: { apiVersion: 'apps/v1', kind, name },
    Job: { apiVersion: 'batch/v1', kind, name },
    Pod: undefined,
  }[kind];
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: {
      name: owner === undefined ? name : 'sandbar-admission',
      namespace,
      labels: { 'pod-template-hash': '0' },
      ...(owner === undefined
        ? {}
        : { ownerReferences: [{ ...owner, uid: '00000000-0000-0000-0000-000000000000', controller: true }] }),
    },
    // Quotas may refuse pods that do not say what they need.
    spec: { containers: [{ name: container, image: 'never-pulled', resources: { requests: LEAST, limits: LEAST } }] },
  };
}

/** What every cluster has for mounts: the admission, and the agent's right to read the records. */
export function mountObjects(kubernetes: KubernetesMinor): readonly KubernetesObject[] {
  const apiVersion = hasBetaPolicies(kubernetes) ? BETA_POLICIES : POLICIES;
  return [...mountAdmission().map((object) => ({ ...object, apiVersion })), ...recordReader()];
}

const POLICIES = 'admissionregistration.k8s.io/v1';
export const BETA_POLICIES = 'admissionregistration.k8s.io/v1beta1';

/** Before 1.36, mutating admission policies were a beta that has to be switched on. */
export function hasBetaPolicies(kubernetes: KubernetesMinor): boolean {
  return kubernetes === '1.35';
}

/**
 * Adds to a pod, as it is created, the mounts that its workload has in the records. Redeploying loses none, whoever
 * redeploys; pods of workloads without a record pass untouched.
 */
export function mountAdmission(): readonly KubernetesObject[] {
  return [
    {
      apiVersion: POLICIES,
      kind: 'MutatingAdmissionPolicy',
      metadata: { name: POLICY_NAME },
      spec: {
        paramKind: { apiVersion: 'v1', kind: 'ConfigMap' },
        matchConstraints: {
          resourceRules: [{ apiGroups: [''], apiVersions: ['v1'], operations: ['CREATE'], resources: ['pods'] }],
        },
        matchConditions: [
          { name: 'record-stands-by-itself', expression: `${field('parent')} == ''` },
          { name: 'pod-is-in-its-namespace', expression: `${field('namespace')} == request.namespace` },
          { name: 'pod-is-of-its-workload', expression: IS_OF_WORKLOAD },
          { name: 'pod-has-its-container', expression: `size(${CONTAINER_PATHS}) > 0` },
        ],
        variables: [
          { name: 'containerPath', expression: `${CONTAINER_PATHS}[0]` },
          { name: 'container', expression: CONTAINER_AT_PATH },
          { name: 'volumeName', expression: `'${VOLUME_PREFIX}' + ${field('id')}` },
        ],
        mutations: [
          // A list that is absent cannot be added to, and lists of an apply configuration keep what is at the same path.
          { patchType: 'JSONPatch', jsonPatch: { expression: PUT_VOLUME } },
          { patchType: 'JSONPatch', jsonPatch: { expression: PUT_VOLUME_MOUNT } },
        ],
        reinvocationPolicy: 'Never',
        // A pod without its mount would run other code than the user believes.
        failurePolicy: 'Fail',
      },
    },
    {
      apiVersion: POLICIES,
      kind: 'MutatingAdmissionPolicyBinding',
      metadata: { name: POLICY_NAME },
      spec: {
        policyName: POLICY_NAME,
        paramRef: {
          namespace: SYSTEM_NAMESPACE,
          selector: { matchLabels: { [MOUNT_PLACE_LABEL]: 'workload' } },
          parameterNotFoundAction: 'Allow',
        },
      },
    },
  ];
}

/** Expressions in CEL. Whatever may be absent is asked for with `?`, because an error would keep the pod from starting. */
const WORKLOAD = field('workload');
const KIND = field('kind');

const OWNERS = `object.metadata.?ownerReferences.orValue([]).filter(owner, owner.?controller.orValue(false))`;
const TEMPLATE_HASH = `object.metadata.?labels[?'pod-template-hash'].orValue('')`;

/** Names of what a controller makes tell which workload stands behind it: a pod names only the one that made it. */
const IS_OF_WORKLOAD = anyOf([
  `${KIND} == 'Pod' && object.metadata.?name.orValue('') == ${WORKLOAD}`,
  `${OWNERS}.exists(owner, ${anyOf([
    `owner.kind == ${KIND} && owner.name == ${WORKLOAD} && ${KIND} in ['StatefulSet', 'DaemonSet', 'ReplicaSet', 'Job']`,
    `${KIND} == 'Deployment' && owner.kind == 'ReplicaSet' && owner.name == ${WORKLOAD} + '-' + ${TEMPLATE_HASH}`,
    `${KIND} == 'CronJob' && owner.kind == 'Job' && owner.name.startsWith(${WORKLOAD} + '-') && ` +
      `owner.name.substring(size(${WORKLOAD}) + 1).matches('^[0-9]+$')`,
  ])})`,
]);

const CONTAINERS = `object.spec.containers`;
const INIT_CONTAINERS = `object.spec.?initContainers.orValue([])`;
const DEFAULT_CONTAINER = `object.metadata.?annotations[?'kubectl.kubernetes.io/default-container'].orValue('')`;

/** Places in the pod of the container meant, the first of which counts: the one named, else as kubectl chooses. */
const CONTAINER_PATHS =
  `(${field('container')} != '' ? ${pathsOf(field('container'))} : ` +
  `${pathsOf(DEFAULT_CONTAINER)} + ['/spec/containers/0'])`;

const CONTAINER_AT_PATH =
  `(variables.containerPath.startsWith('/spec/containers/') ? ${CONTAINERS} : ${INIT_CONTAINERS})` +
  `[int(variables.containerPath.split('/')[3])]`;

const VOLUME =
  `Object.spec.volumes{name: variables.volumeName, hostPath: Object.spec.volumes.hostPath{` +
  `path: '${NODE_MOUNTS_DIRECTORY}/' + ${field('id')}, type: ${field('sourceType')}}}`;

/** HostToContainer: a folder that is attached again appears in pods that run already. */
const VOLUME_MOUNT =
  `Object.spec.containers.volumeMounts{name: variables.volumeName, mountPath: ${field('target')}, ` +
  `readOnly: ${field('readOnly')} == 'true', mountPropagation: 'HostToContainer'}`;

const PUT_VOLUME = put({
  parent: 'object.spec',
  list: 'volumes',
  path: `'/spec/volumes'`,
  isSame: `item.name == variables.volumeName`,
  value: VOLUME,
});

/** Two mounts at one path are refused by the API server: ours takes the other's place. */
const PUT_VOLUME_MOUNT = put({
  parent: 'variables.container',
  list: 'volumeMounts',
  path: `variables.containerPath + '/volumeMounts'`,
  isSame: `(item.mountPath == ${field('target')} || item.mountPath == ${field('target')} + '/')`,
  value: VOLUME_MOUNT,
});

/** A value of the record. */
function field(name: string): string {
  return `params.?data[?'${name}'].orValue('')`;
}

function anyOf(conditions: readonly string[]): string {
  return conditions.map((condition) => `(${condition})`).join(' || ');
}

/** JSON pointers to the containers of a name. */
function pathsOf(name: string): string {
  const among = (containers: string, path: string): string =>
    `${containers}.transformList(i, container, container.name == ${name}, '${path}/' + string(i))`;
  return `(${among(CONTAINERS, '/spec/containers')} + ${among(INIT_CONTAINERS, '/spec/initContainers')})`;
}

/** A JSON patch that puts a value into a list: in the place of the same one, else at its end; the list may be absent. */
function put({
  parent,
  list,
  path,
  isSame,
  value,
}: {
  readonly parent: string;
  readonly list: string;
  readonly path: string;
  readonly isSame: string;
  readonly value: string;
}): string {
  const items = `${parent}.?${list}.orValue([])`;
  const places = `${items}.transformList(i, item, ${isSame}, i)`;
  const add = (place: string, added: string): string =>
    `[JSONPatch{op: 'add', path: ${path}${place}, value: ${added}}]`;
  const replace = `[JSONPatch{op: 'replace', path: ${path} + '/' + string(${places}[0]), value: ${value}}]`;
  return (
    `(size(${items}) == 0 ? ${add('', '[]')} : []) +\n` +
    `(size(${places}) == 0 ? ${add(` + '/-'`, value)} : ${replace})`
  );
}

function recordReader(): readonly KubernetesObject[] {
  const apiGroup = 'rbac.authorization.k8s.io';
  const metadata = { name: 'mounts', namespace: SYSTEM_NAMESPACE };
  return [
    {
      apiVersion: `${apiGroup}/v1`,
      kind: 'Role',
      metadata,
      rules: [{ apiGroups: [''], resources: ['configmaps'], verbs: ['get', 'list', 'watch'] }],
    },
    {
      apiVersion: `${apiGroup}/v1`,
      kind: 'RoleBinding',
      metadata,
      roleRef: { apiGroup, kind: 'Role', name: 'mounts' },
      subjects: [{ apiGroup, kind: 'User', name: READER }],
    },
  ];
}
