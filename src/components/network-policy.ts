/** What the enforcement of network policies on the node needs to know, and may read. */
import { SYSTEM_NAMESPACE } from '../model/names.ts';
import { addressesIn, type ComponentContext } from './context.ts';
import type { PolicyRule } from './objects.ts';

/** The node's own user asks for these, as for what volumes and mounts need. */
export const NETWORK_POLICY_RULES: readonly PolicyRule[] = [
  { apiGroups: [''], resources: ['pods', 'namespaces'], verbs: ['get', 'list', 'watch'] },
  { apiGroups: ['networking.k8s.io'], resources: ['networkpolicies'], verbs: ['get', 'list', 'watch'] },
];

/**
 * The parts of the cluster that are containers beside the node, as the pods that they would be elsewhere: policies name
 * them by the labels that they have there, such as `k8s-app: kube-dns`.
 */
export function networkPolicySettings({ spec, subnet }: ComponentContext): Record<string, unknown> {
  const addresses = addressesIn(subnet);
  return {
    // On other single nodes it has the node's own address, by which it reaches webhooks whatever policies say.
    controlPlane: addresses.controlPlane,
    neighbours: [
      { namespace: 'kube-system', name: 'dns', labels: { 'k8s-app': 'kube-dns' }, address: addresses.dns },
      ...(spec.ingress.isEnabled
        ? [{ namespace: SYSTEM_NAMESPACE, name: 'ingress', labels: partLabels('ingress'), address: addresses.ingress }]
        : []),
      ...(spec.objectStore.isEnabled
        ? [
            {
              namespace: SYSTEM_NAMESPACE,
              name: 'object-store',
              labels: partLabels('object-store'),
              address: addresses.objectStore,
            },
          ]
        : []),
    ],
  };
}

function partLabels(name: string): Readonly<Record<string, string>> {
  return { 'app.kubernetes.io/name': name };
}
