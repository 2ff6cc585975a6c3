/** Builders of specs, contexts and observed states, so that a test names only what it is about. */
import { desiredCluster, type DesiredCluster } from '../../src/components/cluster.ts';
import type { ComponentContext } from '../../src/components/context.ts';
import { identityRequest } from '../../src/components/context.ts';
import { fingerprintOf } from '../../src/engine/fingerprint.ts';
import { CERTIFICATES, type Identity } from '../../src/model/identity.ts';
import type {
  ContainerState,
  KubernetesObject,
  ObservedResource,
  ObservedState,
  Resource,
} from '../../src/model/resources.ts';
import type { ClusterSpec } from '../../src/model/spec.ts';

const free = (port: number) => ({ port, isFixed: false });

export const SPEC: ClusterSpec = {
  name: 'dev',
  kubernetes: {
    version: '1.36',
    isVersionNamed: false,
    auditPolicy: undefined,
    isEncrypted: false,
    admission: { enabled: [], disabled: [], configuration: {} },
    featureGates: {},
    apiServerArguments: {},
    controllerManagerArguments: {},
    schedulerArguments: {},
    kubeletArguments: {},
    kubeletConfiguration: {},
  },
  network: { subnet: undefined, podSubnet: '10.244.0.0/16', serviceSubnet: '10.96.0.0/16' },
  ports: {
    api: free(6443),
    http: free(80),
    https: free(443),
    objectStore: free(9000),
    objectStoreConsole: free(9001),
  },
  ingress: { isEnabled: true },
  gatewayApi: { isEnabled: true },
  networkPolicy: { isEnabled: true },
  objectStore: { isEnabled: true, region: 'us-east-1', buckets: [] },
  metrics: { isEnabled: true },
  caCertificates: [],
  mirrors: [],
  registry: undefined,
  manifests: [],
  mounts: [],
  publish: [],
  proxy: { httpProxy: '', httpsProxy: '', noProxy: '' },
  projectDirectory: undefined,
};

export const SUBNET = '172.30.0.0/24';

/** A root in form, as of `fakeIdentity`. */
export const FAKE_ROOT = { certificate: 'certificate of root\n', key: 'key of root\n' };

/** An identity in form; its texts are no certificates. */
export function fakeIdentity(spec: ClusterSpec = SPEC): Identity {
  const pair = (name: string) => ({ certificate: `certificate of ${name}\n`, key: `key of ${name}\n` });
  return {
    version: 1,
    request: identityRequest(spec, SUBNET, FAKE_ROOT.certificate),
    ca: pair('ca'),
    frontProxyCa: pair('front-proxy-ca'),
    ingressAuthority: pair('ingress-authority'),
    serviceAccount: { privateKey: 'private', publicKey: 'public' },
    certificates: Object.fromEntries(CERTIFICATES.map((name) => [name, pair(name)])) as Identity['certificates'],
    objectStore: { accessKeyId: 'access', secretAccessKey: 'secret-value' },
    encryptionKey: 'key of the datastore',
  };
}

export function contextWith(spec: Partial<ClusterSpec> = {}): ComponentContext {
  const whole = { ...SPEC, ...spec };
  return {
    spec: whole,
    identity: fakeIdentity(whole),
    subnet: SUBNET,
    ports: { api: 6443, http: 80, https: 443, objectStore: 9000, objectStoreConsole: 9001 },
    registry: whole.registry && { name: whole.registry.name, port: 5001, otherNetworks: {} },
    imageRefs: {
      'control-plane': 'sandbar/control-plane:1',
      agent: 'sandbar/agent:1',
      dns: 'sandbar/dns:1',
      ingress: 'sandbar/ingress:1',
      'object-store': 'sandbar/object-store:1',
      metrics: 'sandbar/metrics:1',
      ports: 'sandbar/ports:1',
      mount: 'sandbar/mount:1',
      registry: 'sandbar/registry:1',
    },
  };
}

export function desiredFor(
  spec: Partial<ClusterSpec> = {},
  manifests: readonly KubernetesObject[] = [],
): DesiredCluster {
  return desiredCluster(contextWith(spec), manifests);
}

/** What Docker shows of resources that are just as they are desired. */
export function observedFrom(resources: readonly Resource[]): ObservedState {
  return new Map(resources.map((resource) => [resource.id, observe(resource)]));
}

export function observe(
  resource: Resource,
  changes: {
    readonly containerState?: ContainerState;
    readonly address?: string;
    readonly fingerprint?: Readonly<Record<string, string>>;
  } = {},
): ObservedResource {
  return {
    id: resource.id,
    kind: resource.kind,
    owner: resource.owner,
    ref: `ref of ${resource.id}`,
    fingerprint: { ...fingerprintOf(resource), ...changes.fingerprint },
    ...(resource.kind === 'object' ? { object: resource.object } : {}),
    ...(resource.kind === 'container'
      ? {
          containerState: changes.containerState ?? 'running',
          address: changes.address ?? resource.container.address,
        }
      : {}),
  };
}

export function getResource(resources: readonly Resource[], id: string): Resource {
  const found = resources.find((resource) => resource.id === id);
  if (found === undefined) throw new Error(`no resource ${id}`);
  return found;
}

/** `observed` with one resource as `changes` say, or without it when they are undefined. */
export function withResource(
  observed: ObservedState,
  resource: Resource,
  changes: Parameters<typeof observe>[1] | undefined,
): ObservedState {
  const changed = new Map(observed);
  if (changes === undefined) changed.delete(resource.id);
  else changed.set(resource.id, observe(resource, changes));
  return changed;
}
