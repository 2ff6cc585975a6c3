/** CoreDNS: what it is told, and what it may read in the cluster. */

/** Rules of the ClusterRole for the user `system:sandbar:dns`. */
export const DNS_RULES = [
  { apiGroups: [''], resources: ['services', 'namespaces'], verbs: ['list', 'watch'] },
  { apiGroups: ['discovery.k8s.io'], resources: ['endpointslices'], verbs: ['list', 'watch'] },
];

/** Name under which pods reach the host. */
export const HOST_NAME = 'host.sandbar.internal';

/**
 * The Corefile. `/etc/hosts` of the container holds the host's address, since only the engine knows it, and
 * `/etc/resolv.conf` names the engine's resolver, which knows the host's.
 */
export function formatCorefile(options: { readonly clusterDomain: string }): string {
  const { clusterDomain } = options;
  return [
    '.:53 {',
    '    errors',
    '    ready :8181',
    '    loadbalance',
    // Cluster names come from memory, and a cached answer would hide a Service that was just created.
    '    cache 30 {',
    `        disable success ${clusterDomain}`,
    `        disable denial ${clusterDomain}`,
    '    }',
    `    hosts /etc/hosts ${HOST_NAME} {`,
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
