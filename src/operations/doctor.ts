/** `doctor`: looks at everything at once, says what is wrong and why, and mends what can be mended without loss. */
import type { Check, Repair } from '../diagnosis/check.ts';
import { diagnose, type ClusterObservation, type Foreseen, type Snapshot } from '../diagnosis/diagnose.ts';
import { SandbarError } from '../model/errors.ts';
import { contextName, LABELS } from '../model/names.ts';
import type { Ports } from '../model/ports.ts';
import { adminAccess, hostPortOf, readIdentity } from './access.ts';
import { readKubeconfigEntry } from './kubeconfig.ts';
import { observeWorld } from './observe-objects.ts';
import { observeMounts, observeNode, observeParts, type FoundCluster } from './observe-parts.ts';
import { observePublished } from './port-list.ts';
import { observeMachine } from './preflight.ts';

export type DoctorRequest = {
  readonly clusterName: string;
  readonly signal: AbortSignal;
  /** What `up` would do; `hasCluster` where there is one already. */
  readonly foresee: (found: { readonly hasCluster: boolean }) => Promise<Foreseen>;
};

export type Diagnosis = {
  readonly cluster: string;
  /** Warnings are no illness. */
  readonly isHealthy: boolean;
  readonly checks: readonly Check[];
};

export type Deed = { readonly repair: Repair; readonly failure: SandbarError | undefined };

/** How long what `up` would do may take to find out, as with an API server that hangs. */
const FORESIGHT_MS = 4_000;

/** `openPorts` fails where no engine can be used: that is a finding too. */
export async function doctor(request: DoctorRequest, openPorts: () => Promise<Ports>): Promise<Diagnosis> {
  const checks = diagnose(await observe(request, openPorts));
  const isHealthy = checks.every(({ severity }) => severity !== 'error');
  return { cluster: request.clusterName, isHealthy, checks };
}

/** Mends what the checks say can be mended; `up` first, since images go into a node that runs. */
export async function mend(
  checks: readonly Check[],
  apply: (repair: Repair) => Promise<void>,
): Promise<readonly Deed[]> {
  const wanted = checks.flatMap(({ severity, repair }) => (severity === 'ok' || repair === undefined ? [] : [repair]));
  const distinct = new Map(wanted.map((repair) => [JSON.stringify(repair), repair]));
  const deeds: Deed[] = [];
  for (const repair of [...distinct.values()].toSorted((a, b) => Number(b.kind === 'up') - Number(a.kind === 'up'))) {
    try {
      await apply(repair);
      deeds.push({ repair, failure: undefined });
    } catch (error) {
      // One repair that fails keeps nothing from the others.
      if (!(error instanceof SandbarError) || error.code === 'INTERRUPTED') throw error;
      deeds.push({ repair, failure: error });
    }
  }
  return deeds;
}

async function observe(request: DoctorRequest, openPorts: () => Promise<Ports>): Promise<Snapshot> {
  const { clusterName } = request;
  let ports: Ports;
  try {
    ports = await openPorts();
  } catch (error) {
    if (!(error instanceof SandbarError)) throw error;
    const machine = { message: error.message, hint: error.hint };
    return { clusterName, nowMs: 0, machine, foreseen: undefined, cluster: undefined };
  }
  const labelled = ports.runtime.listContainers({ key: LABELS.cluster, value: clusterName });
  const containers = labelled.then((all) => all.filter(({ labels }) => labels[LABELS.component] !== undefined));
  const [machine, foreseen, cluster] = await Promise.all([
    observeMachine(ports.runtime, ports.host),
    containers.then((found) => foreseeInTime(request, { hasCluster: found.length > 0 })),
    Promise.all([containers, readIdentity(ports.runtime, clusterName)]).then(([found, identity]) =>
      found.length === 0
        ? undefined
        : observeCluster({ clusterName, containers: found, identity }, ports, request.signal),
    ),
  ]);
  return { clusterName, nowMs: ports.clock.now(), machine, foreseen, cluster };
}

async function observeCluster(found: FoundCluster, ports: Ports, signal: AbortSignal): Promise<ClusterObservation> {
  const { clusterName, containers, identity } = found;
  const apiPort = hostPortOf(containers, 'control-plane', 6443);
  const [parts, routes, kubeconfig, node, mounts, published, world] = await Promise.all([
    observeParts(found, ports, signal),
    ports.host.listRoutes(),
    // A file that is no kubeconfig is kubectl's to complain of.
    readKubeconfigEntry(ports.host, contextName(clusterName)).catch(() => undefined),
    observeNode(found, ports),
    observeMounts(found, ports),
    observePublished(found, ports),
    observeWorld(found, ports),
  ]);
  const wanted = identity === undefined || apiPort === undefined ? undefined : adminAccess(identity, apiPort);
  return { parts, routes, identity, kubeconfig: { found: kubeconfig, wanted }, node, mounts, published, world };
}

/** Undefined where that takes too long. */
async function foreseeInTime(
  { foresee }: DoctorRequest,
  found: { readonly hasCluster: boolean },
): Promise<Foreseen | undefined> {
  const limit = AbortSignal.timeout(FORESIGHT_MS);
  const late = new Promise<undefined>((resolve) => {
    limit.addEventListener('abort', () => {
      resolve(undefined);
    });
  });
  return Promise.race([foresee(found), late]);
}
