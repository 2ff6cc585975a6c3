/** What stands before `up` plans: images, identity, subnet and ports. What the cluster has, it keeps. */
import { identityRequest, type ComponentContext, type ImageRefs } from '../components/context.ts';
import type { DockerObservation, RegistryObservation } from '../engine/observe.ts';
import {
  isIdentityFor,
  keptFor,
  planRenewal,
  type Identity,
  type IdentityRequest,
  type KeptIdentity,
  type KeyPair,
} from '../model/identity.ts';
import type { Ports, Runtime } from '../model/ports.ts';
import { withoutProxyFor } from '../model/proxy.ts';
import type { ClusterSpec } from '../model/spec.ts';
import { readIdentity, type Reader } from './access.ts';
import { provideRoot, type RootMeans } from './local-authority.ts';
import { readLastUp, type LastUp } from './last-up.ts';
import { settlePorts, settleRegistry, settleSubnet } from './settle.ts';

export type MintIdentity = (
  request: IdentityRequest,
  root: KeyPair | undefined,
  kept?: KeptIdentity,
) => Promise<Identity>;

/** What the volume `pki` holds. */
type Kept = { readonly identity: Promise<Identity | undefined>; readonly lastUp: Promise<LastUp | undefined> };

export type Ground = {
  readonly imageRefs: ImageRefs;
  /** As the control plane's container had it then, if there was one. */
  readonly kept: Kept;
};

/** Begins to read what the cluster keeps of itself: the engine's slowest answer is asked for before anything else. */
export function readKept(runtime: Runtime, clusterName: string, reader?: Reader): Kept {
  const identity = readIdentity(runtime, clusterName, reader);
  // One after the other: the engine reads so anyway, and the identity is waited for first.
  const lastUp = identity.then(() => readLastUp(runtime, clusterName, reader));
  for (const reading of [identity, lastUp]) reading.catch(() => undefined);
  return { identity, lastUp };
}

/** Settles what the spec leaves open. `lastUp` may take longer than all else, and is not waited for. */
export async function settle(
  { spec, isDryRun }: { readonly spec: ClusterSpec; readonly isDryRun: boolean },
  means: RootMeans & { readonly ports: Ports; readonly mintIdentity: MintIdentity },
  docker: DockerObservation & { readonly registry: RegistryObservation },
  ground: Ground,
): Promise<{ readonly context: ComponentContext; readonly lastUp: Kept['lastUp'] }> {
  const { ports, emit, mintIdentity } = means;
  const { imageRefs } = ground;
  // A dry run may come before its image; without any container, all are made anew whichever identity there is.
  const readerRef = isDryRun ? docker.containers[0]?.imageRef : imageRefs['control-plane'];
  const kept = findKept(spec.name, docker, ports, { ground, readerRef });
  const [subnet, settled, existing, root] = await Promise.all([
    settleSubnet(spec, docker, ports.host),
    settlePorts(spec, docker, ports.host),
    kept.identity,
    spec.ingress.isEnabled ? provideRoot(means, { isDryRun }) : undefined,
  ]);
  const taken = Object.values(settled.ports);
  const { networks } = docker;
  const { registry, notices } = await settleRegistry(
    spec,
    { observation: docker.registry, networks, taken },
    ports.host,
  );
  for (const text of [...settled.notices, ...notices]) emit({ type: 'notice', text });
  const wanted = identityRequest(spec, subnet, root?.certificate ?? '');
  const renewal = existing === undefined ? undefined : planRenewal(existing, ports.clock.now());
  if (renewal !== undefined) emit({ type: 'notice', text: describeRenewal(renewal) });
  const isKept = existing !== undefined && renewal === undefined && isIdentityFor(existing, wanted);
  const stays = renewal?.kept ?? (existing && keptFor(existing, wanted));
  const identity = isKept ? existing : await mintIdentity(wanted, root, stays);
  // The subnet may have been chosen only now; nothing in it is reached through a proxy.
  const reachable = { ...spec, proxy: withoutProxyFor(spec.proxy, [subnet]) };
  return {
    context: { spec: reachable, identity, subnet, ports: settled.ports, registry, imageRefs },
    lastUp: kept.lastUp,
  };
}

function describeRenewal({ endsMs, kept }: NonNullable<ReturnType<typeof planRenewal>>): string {
  const [day] = new Date(endsMs).toISOString().split('T');
  const authorities = kept.ca === undefined || kept.frontProxyCa === undefined ? ', an authority among them,' : '';
  return `certificates${authorities} that end on ${day ?? ''} are renewed; data, tokens and credentials stay valid`;
}

const NOTHING: Kept = { identity: Promise.resolve(undefined), lastUp: Promise.resolve(undefined) };

/** Read through the control plane's container, or a throw-away one where that is gone. */
function findKept(
  clusterName: string,
  docker: DockerObservation,
  { runtime, host }: Pick<Ports, 'runtime' | 'host'>,
  { ground, readerRef }: { readonly ground: Ground; readonly readerRef: string | undefined },
): Kept {
  const volume = docker.state.get('volume/pki');
  if (volume === undefined) return NOTHING;
  if (docker.state.has('container/control-plane')) return ground.kept;
  if (readerRef === undefined) return NOTHING;
  return readKept(runtime, clusterName, {
    volumeName: volume.ref,
    imageRef: readerRef,
    processId: host.processId,
  });
}
