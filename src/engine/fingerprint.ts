import { hashOf } from '../model/hash.ts';
import { OBJECT_HASH } from '../model/names.ts';
import type { Fingerprint, Resource } from '../model/resources.ts';

/** What Docker or Kubernetes is given for a resource, hashed section by section: sections that differ name the cause. */
export function fingerprintOf(resource: Resource): Fingerprint {
  switch (resource.kind) {
    case 'network':
      return { subnet: hashOf([resource.subnet, resource.gateway]) };
    case 'volume':
      return {};
    case 'attachment':
      return { address: hashOf([resource.containerName, resource.address]) };
    case 'object':
      return { object: resource.object.metadata.annotations?.[OBJECT_HASH] ?? '' };
    case 'bucket':
      return { versioning: resource.bucket.hasVersioning ? 'enabled' : '' };
    case 'container': {
      const { imageRef, address, ports, volumes, binds, privileges, ...settings } = resource.container;
      const files = resource.files
        .filter((file) => file.isInert !== true)
        .map((file) => [file.path, hashOf([file.mode, file.content])] as const);
      return {
        image: hashOf(imageRef),
        address: hashOf(address),
        ports: hashOf(ports),
        volumes: hashOf(volumes),
        ...(binds.length === 0 ? {} : { binds: hashOf(binds) }),
        privileges: hashOf(privileges),
        settings: hashOf(settings),
        ...Object.fromEntries(files),
      };
    }
  }
}

/** Sections in which two fingerprints differ, in a stable order. */
export function changedSections(desired: Fingerprint, observed: Fingerprint): readonly string[] {
  const sections = [...new Set([...Object.keys(desired), ...Object.keys(observed)])];
  return sections.filter((section) => desired[section] !== observed[section]).sort();
}
