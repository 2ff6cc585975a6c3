import { expect, it } from 'vitest';
import { objectResources } from '../../src/components/objects.ts';
import { observeObjects } from '../../src/engine/observe.ts';
import { plan } from '../../src/engine/plan.ts';
import type { Cluster } from '../../src/model/ports.ts';
import type { KubernetesObject } from '../../src/model/resources.ts';

const service: KubernetesObject = { apiVersion: 'v1', kind: 'Service', metadata: { name: 'web' }, spec: {} };

/** Objects as a server gives them back: in a namespace, and with what controllers made of them. */
function served(objects: readonly KubernetesObject[]): Pick<Cluster, 'list'> {
  return {
    list: ({ kind }) =>
      Promise.resolve(
        objects
          .filter((object) => object.kind === kind)
          .map((object) => ({ ...object, metadata: { namespace: 'default', ...object.metadata } })),
      ),
  };
}

it('takes a manifest without a namespace and its object in the namespace default for the same', async () => {
  const desired = objectResources([], [service]);
  const cluster = served(desired.map(({ object }) => object)) as Cluster;
  expect(plan(desired, await observeObjects(cluster, desired, undefined))).toEqual([]);
});

it('leaves alone what a controller made with the labels of ours', async () => {
  const desired = objectResources([], [service]);
  const slice: KubernetesObject = {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: { name: 'web-x', labels: desired.at(-1)!.object.metadata.labels!, ownerReferences: [{}] },
  };
  const inventory = { ...slice, data: { kinds: 'discovery.k8s.io/v1 EndpointSlice' } };
  const cluster = served([slice]) as Cluster;
  expect((await observeObjects(cluster, desired, inventory)).size).toBe(0);
});
