/** What `up` was given last, kept beside the identity: `start`, `reset` and `snapshot restore` make that so again. */
import { recordedFlags, type ConfigFlags } from '../config/flags.ts';
import { SandbarError } from '../model/errors.ts';
import type { Emit } from '../model/events.ts';
import type { Ports, Runtime } from '../model/ports.ts';
import { containerName, LABELS } from '../model/names.ts';
import { versionOf, type ClusterSpec } from '../model/spec.ts';
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

/** In which form the datastore holds objects. */
export type StoredForm = {
  /** The version that has written them: `v1.36.3`. */
  readonly kubernetes: string;
  /** Whether Secrets are written encrypted. */
  readonly isEncrypted: boolean;
};

/** Records of an older Sandbar tell nothing of encryption. */
export type LastUp = UpOrigin &
  Pick<StoredForm, 'kubernetes'> &
  Partial<Pick<StoredForm, 'isEncrypted'>> & { readonly version: 1 };

/** Undefined where there is no record, as in clusters older than it, or none that this version reads. */
export async function readLastUp(runtime: Runtime, clusterName: string, reader?: Reader): Promise<LastUp | undefined> {
  const text = await readPrivateFile(runtime, clusterName, { path: LAST_UP_PATH, reader });
  return text === undefined ? undefined : parseLastUp(text);
}

/** The form that a cluster's objects have now, whatever its file says meanwhile; without a record it is the file's. */
export async function readStoredForm(
  runtime: Runtime,
  spec: Pick<ClusterSpec, 'name' | 'kubernetes'>,
): Promise<StoredForm> {
  const { kubernetes, isEncrypted } = { ...formOf(spec), ...(await readLastUp(runtime, spec.name)) };
  return { kubernetes, isEncrypted };
}

/** The form that objects have after an `up` with this spec. */
export function formOf(spec: Pick<ClusterSpec, 'kubernetes'>): StoredForm {
  return { kubernetes: versionOf(spec), isEncrypted: spec.kubernetes.isEncrypted };
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
  { origin, last, form }: { readonly origin: UpOrigin; readonly last: LastUp | undefined; readonly form: StoredForm },
): Promise<void> {
  if (last !== undefined) requireUpgradable(last, form.kubernetes);
  const content = formatLastUp(origin, form);
  if (last !== undefined && content === formatLastUp(last, last)) return;
  const file = { path: LAST_UP_PATH, mode: 0o600, content };
  await runtime.writeFile(containerName(clusterName, 'control-plane'), file);
}

/**
 * Says that the datastore goes on with another version of Kubernetes; refuses where that cannot be. Returns the question
 * to ask before where nobody has named that version: there is no way back.
 */
export function announceUpgrade(
  last: LastUp | undefined,
  spec: Pick<ClusterSpec, 'kubernetes'>,
  emit: Emit,
): { readonly question: string; readonly hint: string } | undefined {
  const kubernetes = versionOf(spec);
  const before = last && minorOf(last.kubernetes);
  if (last === undefined || before === undefined || before === minorOf(kubernetes)) return undefined;
  requireUpgradable(last, kubernetes);
  const deed = `this takes the cluster from Kubernetes ${last.kubernetes} to ${kubernetes}`;
  emit({ type: 'notice', text: `${deed}; its data are kept` });
  if (spec.kubernetes.isVersionNamed) return undefined;
  const [old, asked] = [`1.${String(before)}`, spec.kubernetes.version];
  const stay = findKubernetes(old) === undefined ? '' : `, or stay: set kubernetes.version to '${old}' in sandbar.yaml`;
  return {
    question: `${deed}, as nothing names a version, and there is no way back`,
    hint: `add --yes to agree, or set it to '${asked}'${stay}`,
  };
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

function formatLastUp(
  { file, flags }: UpOrigin,
  { kubernetes, isEncrypted }: Pick<LastUp, 'kubernetes' | 'isEncrypted'>,
): string {
  const record = { version: 1, file, flags: recordedFlags(flags), kubernetes, isEncrypted };
  return `${JSON.stringify(record, undefined, 2)}\n`;
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
