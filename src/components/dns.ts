/** CoreDNS: what it is told, and what it may read in the cluster. */
import { containerName, HOST_HOSTNAME, networkName, SYSTEM_NAMESPACE } from '../model/names.ts';
import type { ContainerResource } from '../model/resources.ts';
import { addressesIn, apiServerUrl, type ComponentContext } from './context.ts';
import { jsonFile, kubeconfigFile, textFile } from './files.ts';
import { INGRESS_SERVICE } from './ingress.ts';

/** Rules of the ClusterRole for the user `system:sandbar:dns`. */
export const DNS_RULES = [
  { apiGroups: [''], resources: ['services', 'namespaces'], verbs: ['list', 'watch'] },
  { apiGroups: ['discovery.k8s.io'], resources: ['endpointslices'], verbs: ['list', 'watch'] },
];

/**
 * The Corefile. `/etc/hosts` of the container holds the host's address, since only the engine knows it, and
 * `/etc/resolv.conf` names the engine's resolver, which knows the host's.
 */
export function formatCorefile(options: { readonly clusterDomain: string; readonly hasIngress: boolean }): string {
  const { clusterDomain, hasIngress } = options;
  return [
    '.:53 {',
    '    errors',
    '    ready :8181',
    // Where the Service `kube-dns` has its port `metrics`.
    '    prometheus :9153',
    '    loadbalance',
    // The ingress' names on the host lead to the ingress from pods too.
    ...(hasIngress
      ? [
          `    rewrite stop name regex ^.+\\.localhost\\.$ ${INGRESS_SERVICE}.${SYSTEM_NAMESPACE}.svc.${clusterDomain} answer auto`,
        ]
      : []),
    // Cluster names come from memory, and a cached answer would hide a Service that was just created.
    '    cache 30 {',
    `        disable success ${clusterDomain}`,
    `        disable denial ${clusterDomain}`,
    '    }',
    `    hosts /etc/hosts ${HOST_HOSTNAME} {`,
    '        no_reverse',
    '        reload 0s',
    '        fallthrough',
    '    }',
    `    kubernetes ${clusterDomain} in-addr.arpa ip6.arpa {`,
    '        kubeconfig /etc/sandbar/kubeconfig',
    '        pods insecure',
    '        ttl 5',
    '        fallthrough in-addr.arpa ip6.arpa',
    '    }',
    '    loop',
    // One upstream on the same machine: there is no other to turn to when it fails, so its health need not be probed.
    '    forward . /etc/resolv.conf {',
    '        max_fails 0',
    '    }',
    '}',
    '',
  ].join('\n');
}

/** CoreDNS as a container of its own; the Service `kube-dns` points at it. */
export function dnsContainer(context: ComponentContext): ContainerResource {
  const { spec, subnet, imageRefs } = context;
  const name = containerName(spec.name, 'dns');
  return {
    kind: 'container',
    id: 'container/dns',
    owner: 'dns',
    dependsOn: ['network'],
    container: {
      name,
      hostname: name,
      imageRef: imageRefs.dns,
      networkName: networkName(spec.name),
      address: addressesIn(subnet).dns,
      ports: [],
      volumes: [],
      binds: [],
      tmpfs: [],
      hasReadOnlyRoot: false,
      privileges: { level: 'none', capabilities: ['NET_BIND_SERVICE'] },
      extraHosts: [{ host: HOST_HOSTNAME, address: 'host-gateway' }],
      stopTimeoutS: 5,
    },
    files: [
      jsonFile('/etc/sandbar/config.json', { apiServer: apiServerUrl(context) }),
      kubeconfigFile(context, '/etc/sandbar/kubeconfig', 'dns'),
      textFile(
        '/etc/sandbar/Corefile',
        formatCorefile({ clusterDomain: 'cluster.local', hasIngress: spec.ingress.isEnabled }),
      ),
    ],
    probes: [
      {
        // From the node and through the Service: this answers only when DNS, kube-proxy and the network do.
        kind: 'exec',
        containerName: containerName(spec.name, 'agent'),
        command: ['sandbar-agent', 'resolve', 'kubernetes.default.svc.cluster.local', '--timeout', '30s'],
        timeoutMs: 60_000,
      },
    ],
  };
}
