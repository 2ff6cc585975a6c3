/** The whole cluster as resources: everything that `up` makes so. */
import { LABELS, networkName, OBJECT_ORIGIN } from '../model/names.ts';
import type { ContainerResource, KubernetesObject, Resource } from '../model/resources.ts';
import { agent } from './agent.ts';
import { addressesIn, containerSubnet, type ComponentContext } from './context.ts';
import { controlPlane } from './control-plane.ts';
import { dnsContainer } from './dns.ts';
import { ingressContainer } from './ingress.ts';
import { metricsContainer } from './metrics.ts';
import { objectStore } from './object-store.ts';
import { builtInObjects, objectResources } from './objects.ts';
import { registry } from './registry.ts';
import { portsContainer } from './ports.ts';

export type DesiredCluster = {
  /** Networks, volumes, containers. */
  readonly docker: readonly Resource[];
  /** What lives inside: Kubernetes objects and buckets. */
  readonly inside: readonly Resource[];
};

/** `manifests` are the objects of the files that `sandbar.yaml` names, in their order. */
export function desiredCluster(context: ComponentContext, manifests: readonly KubernetesObject[]): DesiredCluster {
  const { spec, subnet } = context;
  const objects = objectResources(builtInObjects(context), manifests);
  const resources: readonly Resource[] = [
    {
      kind: 'network',
      id: 'network',
      owner: 'network',
      dependsOn: [],
      name: networkName(spec.name),
      subnet,
      gateway: addressesIn(subnet).gateway,
      containerSubnet: containerSubnet(subnet),
      // By this a registry that is made anew finds the networks that it belongs on.
      labels: context.registry === undefined ? {} : { [LABELS.registry]: context.registry.name },
    },
    ...controlPlane(
      context,
      objects
        .filter((resource) => resource.object.metadata.labels?.[OBJECT_ORIGIN] === 'built-in')
        .map(({ object }) => object),
    ),
    ...agent(context),
    dnsContainer(context),
    ...(spec.ingress.isEnabled ? [ingressContainer(context)] : []),
    ...objectStore(context),
    ...(spec.metrics.isEnabled ? [metricsContainer(context)] : []),
    ...registry(context),
  ];
  return {
    docker: [
      ...resources.filter((resource) => resource.kind !== 'bucket'),
      portsContainer(context, containersOf(resources)),
    ],
    inside: [...resources.filter((resource) => resource.kind === 'bucket'), ...objects],
  };
}

/** The containers among resources. */
export function containersOf(resources: readonly Resource[]): readonly ContainerResource[] {
  return resources.filter((resource) => resource.kind === 'container');
}
