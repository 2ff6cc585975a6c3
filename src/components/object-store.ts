import { containerName, networkName, volumeName } from '../model/names.ts';
import type { BucketResource, ContainerResource, VolumeResource } from '../model/resources.ts';
import { addressesIn, type ComponentContext } from './context.ts';
import { jsonFile, textFile } from './files.ts';

/** MinIO, outside the node: its data outlives whatever happens to pods. */
export function objectStore(
  context: ComponentContext,
): readonly (VolumeResource | ContainerResource | BucketResource)[] {
  const { spec, identity, ports, imageRefs } = context;
  if (!spec.objectStore.isEnabled) return [];
  const volume: VolumeResource = {
    kind: 'volume',
    id: 'volume/object-store',
    owner: 'object-store',
    dependsOn: [],
    name: volumeName(spec.name, 'object-store'),
    holds: 'every bucket and its objects',
  };
  const container: ContainerResource = {
    kind: 'container',
    id: 'container/object-store',
    owner: 'object-store',
    dependsOn: ['network', volume.id],
    container: {
      name: containerName(spec.name, 'object-store'),
      hostname: containerName(spec.name, 'object-store'),
      imageRef: imageRefs['object-store'],
      networkName: networkName(spec.name),
      address: addressesIn(context.subnet).objectStore,
      ports: [
        { hostPort: ports.objectStore, containerPort: 9000 },
        { hostPort: ports.objectStoreConsole, containerPort: 9001 },
      ],
      volumes: [{ volumeName: volume.name, path: '/data' }],
      binds: [],
      tmpfs: ['/tmp'],
      hasReadOnlyRoot: false,
      privileges: { level: 'none', capabilities: [] },
      extraHosts: [],
      stopTimeoutS: 10,
    },
    files: [
      jsonFile('/etc/sandbar/config.json', { region: spec.objectStore.region }),
      textFile('/etc/sandbar/root-user', identity.objectStore.accessKeyId),
      textFile('/etc/sandbar/root-password', identity.objectStore.secretAccessKey),
    ],
    probes: [
      {
        kind: 'http',
        url: `http://127.0.0.1:${String(ports.objectStore)}/minio/health/ready`,
        acceptedStatuses: [200],
        timeoutMs: 30_000,
      },
    ],
  };
  const buckets: BucketResource[] = spec.objectStore.buckets.map((bucket) => ({
    kind: 'bucket',
    id: `bucket/${bucket.name}`,
    owner: 'object-store',
    dependsOn: [container.id],
    bucket,
  }));
  return [volume, container, ...buckets];
}
