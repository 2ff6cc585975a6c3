/** Observations in, checks out. Pure: what was seen is data, and so is what follows from it. */
import type { Identity } from '../model/identity.ts';
import { containerName, nodeName } from '../model/names.ts';
import type { ApiAccess } from '../model/ports.ts';
import type { Check } from './check.ts';
import type { World } from './explanation.ts';
import { checkDisk, checkInotify, checkMachine, INOTIFY_FIX, type Machine, type MachineCheck } from './machine.ts';
import { checkNode } from './node.ts';
import { checkObjects } from './objects.ts';
import {
  checkCertificates,
  checkClock,
  checkDrift,
  checkKubeconfig,
  checkParts,
  checkRoutes,
  type Part,
} from './parts.ts';
import { checkPods } from './pods.ts';
import { checkPublished, type OpenPort } from './published.ts';

/** What `up` would do, as far as that can be told without doing it. */
export type Foreseen = {
  /** Changes, one line each; starts and creations of containers are left out. */
  readonly drift: readonly string[];
  /** What `up` would say beside them, e.g. that a port is taken and which one it would take. */
  readonly notices: readonly string[];
  /** Why `up` would refuse. */
  readonly refusal: { readonly message: string; readonly hint: string | undefined } | undefined;
  readonly networks: { readonly subnet: string; readonly inside: readonly string[] } | undefined;
};

/** What was seen inside of the node's container. */
export type NodeObservation = {
  readonly freeDiskBytes: number | undefined;
  readonly inotifyLimits: Machine['inotifyLimits'];
  /** Whether one more program of root's may watch files; undefined where that cannot be tried. */
  readonly canWatchFiles: boolean | undefined;
  readonly clock: { readonly nodeMs: number; readonly hostMs: number } | undefined;
  /** Whether the cluster's DNS, and the engine's, know a name of the internet; undefined where it took too long. */
  readonly resolves: { readonly cluster: boolean | undefined; readonly engine: boolean | undefined };
};

export type Mount = {
  readonly source: string;
  readonly state: string;
  readonly detail: string;
  readonly events: string;
};

export type ClusterObservation = {
  readonly parts: readonly Part[];
  readonly routes: readonly string[];
  readonly identity: Identity | undefined;
  readonly kubeconfig: {
    readonly found: Pick<ApiAccess, 'server' | 'ca' | 'certificate'> | undefined;
    readonly wanted: ApiAccess | undefined;
  };
  readonly node: NodeObservation | undefined;
  readonly mounts: readonly Mount[];
  readonly published: readonly OpenPort[];
  /** Undefined while the API server does not answer. */
  readonly world: World | undefined;
};

export type Snapshot = {
  readonly clusterName: string;
  readonly nowMs: number;
  /** A refusal where no engine can be used: then nothing else was looked at. */
  readonly machine: Machine | { readonly message: string; readonly hint: string | undefined };
  readonly foreseen: Foreseen | undefined;
  /** Undefined while there is none. */
  readonly cluster: ClusterObservation | undefined;
};

/** Every check, in the order in which causes come before what follows from them. */
export function diagnose(snapshot: Snapshot): readonly Check[] {
  const { clusterName, machine, foreseen, cluster, nowMs } = snapshot;
  if ('message' in machine) {
    const { message, hint } = machine;
    return [{ id: 'machine.engine', severity: 'error', subject: 'engine', message, ...fixOf(hint) }];
  }
  const checks: readonly Check[] = checkMachine(machine).map(asCheck);
  const declared = foreseen === undefined ? [] : checkForeseen(foreseen, { hasCluster: cluster !== undefined });
  if (cluster === undefined) {
    const message = `there is no cluster "${clusterName}" yet: sandbar up makes it`;
    return [...checks, ...declared, { id: 'cluster', severity: 'ok', subject: 'cluster', message }];
  }
  const { identity, kubeconfig, node, world } = cluster;
  return [
    ...checks,
    ...declared,
    ...checkParts(cluster.parts, nowMs),
    ...(identity === undefined ? [] : [checkCertificates(identity, nowMs)]),
    ...(kubeconfig.wanted === undefined ? [] : [checkKubeconfig(clusterName, kubeconfig.found, kubeconfig.wanted)]),
    ...(foreseen?.networks === undefined ? [] : checkRoutes(cluster.routes, foreseen.networks)),
    ...(node === undefined ? [] : checkInside(node, machine, clusterName)),
    ...(world === undefined ? [] : checkNode(world.objects.nodes, nodeName(clusterName))),
    ...checkMounts(cluster.mounts),
    ...checkPublished(cluster.published),
    ...(foreseen === undefined ? [] : checkDrift(foreseen.drift)),
    ...(world === undefined ? [] : [...checkObjects(world.objects, world.nowMs), ...checkPods(world)]),
  ];
}

function checkForeseen(
  { refusal, notices }: Foreseen,
  { hasCluster }: { readonly hasCluster: boolean },
): readonly Check[] {
  // A cluster that is to be made takes another port, and builds its images: that is how it begins.
  const severity = hasCluster ? ('warning' as const) : ('ok' as const);
  return [
    ...(refusal === undefined
      ? []
      : [
          {
            id: 'up.refused',
            severity: 'error' as const,
            subject: 'sandbar up',
            message: `it would refuse: ${refusal.message}`,
            ...fixOf(refusal.hint),
          },
        ]),
    ...notices.map((message) => ({ id: 'up.notice', severity, subject: 'sandbar up', message })),
  ];
}

/** What the node sees of the engine's machine, where that is another than this one. */
function checkInside(node: NodeObservation, machine: Machine, clusterName: string): readonly Check[] {
  const { freeDiskBytes, inotifyLimits, canWatchFiles, clock, resolves } = node;
  const place = `container ${containerName(clusterName, 'agent')}`;
  // The same disk is told of once.
  const isSameDisk =
    freeDiskBytes !== undefined &&
    machine.freeDiskBytes !== undefined &&
    Math.abs(freeDiskBytes - machine.freeDiskBytes) < 0.05 * machine.freeDiskBytes;
  const insideChecks = [
    ...(freeDiskBytes === undefined || isSameDisk ? [] : [checkDisk(freeDiskBytes, place)]),
    ...(inotifyLimits === undefined || machine.inotifyLimits !== undefined ? [] : [checkInotify(inotifyLimits)]),
  ].map(asCheck);
  return [
    ...insideChecks,
    ...(canWatchFiles === false ? [watchesExhausted(inotifyLimits)] : []),
    ...(clock === undefined ? [] : [checkClock(clock.nodeMs, clock.hostMs)]),
    ...(resolves.cluster === false && resolves.engine === true
      ? [
          {
            id: 'dns.upstream',
            severity: 'error' as const,
            subject: 'dns',
            message: 'pods find no names of the internet, although the engine does',
            fix: 'docker restart ' + containerName(clusterName, 'dns'),
          },
        ]
      : []),
  ];
}

/** Containers of one engine share root's: some twenty a cluster, and those of pods. */
function watchesExhausted(limits: Machine['inotifyLimits']): Check {
  const instances = limits === undefined ? '' : ` ${String(limits.maxUserInstances)}`;
  return {
    id: 'machine.inotify',
    severity: 'error',
    subject: 'inotify instances',
    message: `all${instances} of root are taken: what watches files in a container, of a pod too, fails or is slow`,
    fix: `${INOTIFY_FIX} (or stop a cluster: sandbar list)`,
  };
}

function checkMounts(mounts: readonly Mount[]): readonly Check[] {
  return mounts.flatMap(({ source, state, detail, events }): readonly Check[] => {
    const base = { id: 'mount', subject: `mount ${source}`, fix: 'sandbar up', repair: { kind: 'up' } } as const;
    if (state !== 'attached' && state !== 'unknown') {
      return [{ ...base, severity: 'error', message: `it is ${state}: ${detail}` }];
    }
    if (events === 'stopped') {
      return [
        {
          ...base,
          severity: 'warning',
          message: 'nothing tells pods of its changes: the relay of file events has ended',
        },
      ];
    }
    return [];
  });
}

/** With what `up` refuses is `up`'s concern. */
function asCheck({ id, severity, subject, message, fix }: MachineCheck): Check {
  return { id, severity, subject, message, ...fixOf(fix) };
}

function fixOf(hint: string | undefined): { readonly fix?: string } {
  return hint === undefined ? {} : { fix: hint };
}
