/** Traefik: what it is told, and what it may read in the cluster. */
import { stringify } from 'yaml';
import { containerName, networkName } from '../model/names.ts';
import type { ContainerResource } from '../model/resources.ts';
import { addressesIn, apiServerUrl, clusterRoutes, type ComponentContext } from './context.ts';
import { jsonFile, kubeconfigFile, textFile } from './files.ts';

/** Name of the IngressClass, and the controller that Traefik looks for in it. */
export const INGRESS_CLASS = { name: 'sandbar', controller: 'traefik.io/ingress-controller' } as const;

/** Name of the Service by which pods reach it. */
export const INGRESS_SERVICE = 'ingress';

const GATEWAY_GROUP = 'gateway.networking.k8s.io';
const ROUTED = ['gatewayclasses', 'gateways', 'httproutes', 'grpcroutes', 'referencegrants', 'backendtlspolicies'];

/** Name of the GatewayClass, and the controller that Traefik looks for in it. */
export const GATEWAY_CLASS = { name: 'sandbar', controllerName: 'traefik.io/gateway-controller' } as const;

/** Rules of the ClusterRole for the user `system:sandbar:ingress`. */
export const INGRESS_RULES = [
  { apiGroups: [''], resources: ['services', 'secrets', 'nodes'], verbs: ['get', 'list', 'watch'] },
  { apiGroups: ['discovery.k8s.io'], resources: ['endpointslices'], verbs: ['list', 'watch'] },
  { apiGroups: ['networking.k8s.io'], resources: ['ingresses', 'ingressclasses'], verbs: ['get', 'list', 'watch'] },
  { apiGroups: ['networking.k8s.io'], resources: ['ingresses/status'], verbs: ['update'] },
];

/** What the same user needs for the Gateway API. */
export const GATEWAY_RULES = [
  { apiGroups: [''], resources: ['namespaces', 'configmaps'], verbs: ['get', 'list', 'watch'] },
  { apiGroups: [GATEWAY_GROUP], resources: ROUTED, verbs: ['get', 'list', 'watch'] },
  { apiGroups: [GATEWAY_GROUP], resources: ROUTED.map((resource) => `${resource}/status`), verbs: ['update'] },
];

/** Files in the ingress container besides `config.json` and `kubeconfig`. */
export const INGRESS_FILES = {
  config: '/etc/sandbar/traefik.yaml',
  tls: '/etc/sandbar/tls.yaml',
  certificate: '/etc/sandbar/tls.crt',
  key: '/etc/sandbar/tls.key',
  /** Signs certificates for names below `localhost` as clients ask for them. */
  authorityCertificate: '/etc/sandbar/authority.crt',
  authorityKey: '/etc/sandbar/authority.key',
} as const;

/** Traefik's static configuration. */
export function formatTraefikConfig({ spec, subnet }: Pick<ComponentContext, 'spec' | 'subnet'>): string {
  return stringify({
    global: { checkNewVersion: false, sendAnonymousUsage: false },
    log: { level: 'ERROR', noColor: true },
    entryPoints: {
      // Every Ingress answers on these two.
      web: { ...entryPoint(80), asDefault: true },
      // TLS belongs to the port: every Ingress answers on both ports, with its own certificate where it names one.
      websecure: { ...entryPoint(443), asDefault: true, http: { tls: {} } },
      ...(spec.gatewayApi.isEnabled ? { alternate: entryPoint(8080) } : {}),
    },
    providers: {
      // The wait between two configurations is for bursts in large clusters; here it would delay every change by 2 s.
      providersThrottleDuration: '50ms',
      file: { filename: INGRESS_FILES.tls, watch: false },
      kubernetesIngress: {
        ingressClass: INGRESS_CLASS.name,
        ingressEndpoint: { hostname: 'localhost' },
        // A Service without ready pods answers 503, which says more than 404.
        allowEmptyServices: true,
        allowExternalNameServices: true,
        // Path type Prefix by path elements, as Kubernetes defines it: /app does not match /apple.
        strictPrefixMatching: true,
      },
      ...(spec.gatewayApi.isEnabled
        ? // Listeners name ports of the container, which answer at its address whatever ports the host publishes.
          { kubernetesGateway: { statusAddress: { ip: addressesIn(subnet).ingress } } }
        : {}),
    },
  });
}

/** Traefik's file with the default certificate. Without one it makes a new RSA key at every change of any Ingress. */
export function formatTlsConfig(): string {
  const { certificate: certFile, key: keyFile } = INGRESS_FILES;
  return stringify({ tls: { stores: { default: { defaultCertificate: { certFile, keyFile } } } } });
}

function entryPoint(port: number): object {
  return {
    address: `:${String(port)}`,
    transport: {
      // Large uploads and long streams are not cut off after a minute.
      respondingTimeouts: { readTimeout: '0s' },
      // An open WebSocket does not hold up `down`.
      lifeCycle: { graceTimeOut: '1s' },
    },
  };
}

/** Traefik as a container of its own, published on the host. */
export function ingressContainer(context: ComponentContext): ContainerResource {
  const { spec, subnet, imageRefs, ports, identity } = context;
  const name = containerName(spec.name, 'ingress');
  const serving = identity.certificates['ingress-serving'];
  return {
    kind: 'container',
    id: 'container/ingress',
    owner: 'ingress',
    dependsOn: ['network'],
    container: {
      name,
      hostname: name,
      imageRef: imageRefs.ingress,
      networkName: networkName(spec.name),
      address: addressesIn(subnet).ingress,
      ports: [
        { hostPort: ports.http, containerPort: 80 },
        { hostPort: ports.https, containerPort: 443 },
      ],
      volumes: [],
      binds: [],
      tmpfs: [],
      hasReadOnlyRoot: false,
      privileges: { level: 'none', capabilities: ['NET_BIND_SERVICE', 'NET_ADMIN'] },
      extraHosts: [],
      stopTimeoutS: 5,
    },
    files: [
      jsonFile('/etc/sandbar/config.json', { apiServer: apiServerUrl(context), routes: clusterRoutes(context) }),
      kubeconfigFile(context, '/etc/sandbar/kubeconfig', 'ingress'),
      textFile(INGRESS_FILES.config, formatTraefikConfig(context)),
      textFile(INGRESS_FILES.tls, formatTlsConfig()),
      textFile(INGRESS_FILES.certificate, serving.certificate),
      textFile(INGRESS_FILES.key, serving.key),
      textFile(INGRESS_FILES.authorityCertificate, identity.ingressAuthority.certificate),
      textFile(INGRESS_FILES.authorityKey, identity.ingressAuthority.key),
    ],
    probes: [
      {
        // No Ingress has this host, so that Traefik itself answers, and it does so with 404.
        kind: 'http',
        url: `http://127.0.0.1:${String(ports.http)}/`,
        acceptedStatuses: [200, 404],
        timeoutMs: 30_000,
      },
      // Once the node is ready the control plane makes the definitions. A user's may have any version.
      ...(spec.gatewayApi.isEnabled
        ? [{ kind: 'api', path: `/apis/${GATEWAY_GROUP}`, timeoutMs: 30_000 } as const]
        : []),
    ],
  };
}
