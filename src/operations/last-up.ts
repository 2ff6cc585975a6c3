/** What `up` was given last, kept beside the identity: `start`, `reset` and `snapshot restore` make that so again. */
import { recordedFlags, type ConfigFlags } from '../config/flags.ts';
import { SandbarError } from '../model/errors.ts';
import type { Emit } from '../model/events.ts';
import type { Ports, Runtime } from '../model/ports.ts';
import { containerName, LABELS } from '../model/names.ts';
import { findKubernetes, minorOf, upgradeProblem } from '../model/versions.ts';
import { clusterNotFound, componentOf, readPrivateFile, type Reader } from './access.ts';

/** Path of the record in the control plane's container. */
const LAST_UP_PATH = '/etc/sandbar/last-up.json';

/** The file in use, and the flags that say how the cluster is to be. No secrets: those stand in files and variables. */
export type UpOrigin = {
  /** Absolute; null where there is none. */
  readonly file: string | null;
  readonly flags: ConfigFlags;
};

export type LastUp = UpOrigin & {
  readonly version: 1;
  /** As of the datastore: `v1.36.3`. */
  readonly kubernetes: string;
};

/** Undefined where there is no record, as in clusters older than it, or none that this version reads. */
export async function readLastUp(runtime: Runtime, clusterName: string, reader?: Reader): Promise<LastUp | undefined> {
  const text = await readPrivateFile(runtime, clusterName, { path: LAST_UP_PATH, reader });
  return text === undefined ? undefined : parseLastUp(text);
}

/** The same for a cluster that may be down; an error where nothing of it is there. */
export async function findLastUp(
  { runtime, host }: Pick<Ports, 'runtime' | 'host'>,
  clusterName: string,
  provideImage: () => Promise<string>,
): Promise<LastUp | undefined> {
  const label = { key: LABELS.cluster, value: clusterName };
  const [containers, volumes] = await Promise.all([runtime.listContainers(label), runtime.listVolumes(label)]);
  if (containers.length + volumes.length === 0) throw await clusterNotFound(runtime, clusterName);
  if (componentOf(containers, 'control-plane') !== undefined) return readLastUp(runtime, clusterName);
  const volume = volumes.find(({ labels }) => labels[LABELS.resource] === 'volume/pki');
  if (volume === undefined) return undefined;
  const imageRef = containers[0]?.imageRef ?? (await provideImage());
  return readLastUp(runtime, clusterName, { volumeName: volume.name, imageRef, processId: host.processId });
}

/** Writes down what `up` is given, where that differs from the record. */
export async function recordLastUp(
  runtime: Runtime,
  clusterName: string,
  {
    origin,
    last,
    kubernetes,
  }: { readonly origin: UpOrigin; readonly last: LastUp | undefined; readonly kubernetes: string },
): Promise<void> {
  if (last !== undefined) requireUpgradable(last, kubernetes);
  const content = formatLastUp(origin, kubernetes);
  if (last !== undefined && content === formatLastUp(last, last.kubernetes)) return;
  const file = { path: LAST_UP_PATH, mode: 0o600, content };
  await runtime.writeFile(containerName(clusterName, 'control-plane'), file);
}

/** Says that the datastore goes on with another version of Kubernetes; refuses where that cannot be. */
export function announceUpgrade(last: LastUp | undefined, kubernetes: string, emit: Emit): void {
  if (last === undefined || minorOf(last.kubernetes) === minorOf(kubernetes)) return;
  requireUpgradable(last, kubernetes);
  const text = `this takes the cluster from Kubernetes ${last.kubernetes} to ${kubernetes}; its data are kept`;
  emit({ type: 'notice', text });
}

function requireUpgradable(last: LastUp, kubernetes: string): void {
  const problem = upgradeProblem(last.kubernetes, kubernetes);
  if (problem === undefined) return;
  const minor = minorOf(last.kubernetes) ?? 0;
  const wanted = `1.${String(problem === 'newer' ? minor : minor + 1)}`;
  const source =
    findKubernetes(wanted) === undefined
      ? `use a sandbar with Kubernetes v${wanted}`
      : `set kubernetes.version to ${wanted} in sandbar.yaml`;
  const way = problem === 'newer' ? source : `${source} for one sandbar up first`;
  throw new SandbarError(
    'UPGRADE_REFUSED',
    `the cluster's data are of Kubernetes ${last.kubernetes}, and ${kubernetes} is asked for`,
    { hint: `${way}; or give the data up: sandbar down --volumes, then sandbar up` },
  );
}

function formatLastUp({ file, flags }: UpOrigin, kubernetes: string): string {
  return `${JSON.stringify({ version: 1, file, flags: recordedFlags(flags), kubernetes }, undefined, 2)}\n`;
}

function parseLastUp(text: string): LastUp | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    // Its writing was interrupted: the next `up` writes it again.
    return undefined;
  }
  const last = value as Partial<LastUp> | null;
  const isWhole =
    last?.version === 1 && last.file !== undefined && last.flags !== undefined && last.kubernetes !== undefined;
  return isWhole ? { ...(last as LastUp), flags: recordedFlags(last.flags) } : undefined;
}
