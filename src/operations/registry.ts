/** `registry`: what the registry that clusters share holds, and how it is told of, cleaned and removed. */
import { Readable } from 'node:stream';
import { cacheSettings, registryHostFiles, REGISTRY_PORTS, type RegistryHosts } from '../components/registry.ts';
import type { ComponentContext } from '../components/context.ts';
import { attachmentsOf } from '../engine/observe.ts';
import { SandbarError } from '../model/errors.ts';
import { LABELS } from '../model/names.ts';
import type { ContainerSummary, Ports, Runtime } from '../model/ports.ts';
import { createTar } from '../model/tar.ts';

/** The program in the registry's container, which does these things beside its server. */
const PROGRAM = '/sandbar-registry';

export type RegistryImage = {
  readonly name: string;
  readonly tag: string;
  readonly digest: string;
  readonly sizeBytes: number;
};

export type RegistryContent = {
  readonly sizeBytes: number;
  readonly images: readonly RegistryImage[];
  readonly caches: readonly {
    readonly registry: string;
    readonly sizeBytes: number;
    readonly images: readonly RegistryImage[];
  }[];
};

export type RegistryStatus = RegistryContent & {
  readonly name: string;
  /** As image names begin with: `localhost:5001`. */
  readonly host: string;
  /** Names of the clusters that it serves. */
  readonly clusters: readonly string[];
};

type RegistryRequest = { readonly registryName: string; readonly signal: AbortSignal };

/** Where it is and what it holds. */
export async function showRegistry(
  { registryName, signal }: RegistryRequest,
  runtime: Runtime,
): Promise<RegistryStatus> {
  const container = await getRunning(registryName, runtime);
  const [content, networks] = await Promise.all([
    ask<RegistryContent>(registryName, 'content', { runtime, signal }),
    runtime.listNetworks(),
  ]);
  const attached = Object.keys(container.addresses);
  const clusters = networks
    .filter(({ name }) => attached.includes(name))
    .flatMap(({ labels }) => labels[LABELS.cluster] ?? []);
  return { name: registryName, host: hostOf(container), clusters: clusters.sort(), ...content };
}

/** Frees what no tag leads to, or every copy of other registries' images. */
export async function pruneRegistry(
  { registryName, signal, ofCaches }: RegistryRequest & { readonly ofCaches: boolean },
  runtime: Runtime,
): Promise<{ readonly name: string; readonly freedBytes: number }> {
  await getRunning(registryName, runtime);
  const command = ofCaches ? 'prune-caches' : 'prune';
  const { freedBytes } = await ask<{ readonly freedBytes: number }>(registryName, command, { runtime, signal });
  return { name: registryName, freedBytes };
}

/** Removes the registry with all that it holds; clusters that run get a new one with the next `up`. */
export async function removeRegistry(
  {
    registryName,
    signal,
    confirm,
  }: RegistryRequest & { readonly confirm: ((question: string) => Promise<boolean>) | undefined },
  { runtime, host }: Pick<Ports, 'runtime' | 'host'>,
): Promise<{ readonly name: string; readonly removed: readonly string[] }> {
  const label = { key: LABELS.registry, value: registryName };
  // Before the lock: the answer may take its time, and every `up` would wait for it.
  if ((await runtime.listVolumes(label)).length > 0) await confirmLoss(registryName, confirm);
  return host.withLock('allocation', { onWait: () => undefined, signal }, async () => {
    const [containers, volumes] = await Promise.all([runtime.listContainers(label), runtime.listVolumes(label)]);
    for (const { id } of containers) await runtime.removeContainer(id);
    for (const { name } of volumes) await runtime.removeVolume(name);
    return {
      name: registryName,
      removed: [...containers.map(() => `container/${registryName}`), ...volumes.map(() => `volume/${registryName}`)],
    };
  });
}

/**
 * Takes away the containers of those registries that serve no cluster any more; their images stay. Called while the
 * caller holds the lock `allocation`.
 */
export async function releaseRegistries(names: readonly string[], runtime: Runtime): Promise<readonly string[]> {
  const [containers, networks] = await Promise.all([
    runtime.listContainers({ key: LABELS.registry }),
    runtime.listNetworks(),
  ]);
  const unused = containers.filter(
    (container) =>
      names.includes(container.name) &&
      !attachmentsOf(container).some(({ networkName }) => networks.some(({ name }) => name === networkName)),
  );
  for (const { id } of unused) await runtime.removeContainer(id);
  return unused.map(({ name }) => name);
}

/** Tells the registry of what it keeps copies of; it looks when it is asked for one. */
export async function tellRegistry(context: ComponentContext, runtime: Runtime): Promise<void> {
  for (const file of cacheSettings(context)) await runtime.writeFile(context.registry?.name ?? '', file);
}

/** Puts what the node is told of registries in place of what it was told before; containerd reads it at every pull. */
export async function writeRegistryHosts(
  agentRef: string,
  { old, wanted }: { readonly old: RegistryHosts; readonly wanted: RegistryHosts },
  runtime: Runtime,
): Promise<void> {
  // containerd takes an empty file for none.
  const blank = Object.fromEntries(Object.keys(old).map((host) => [host, '']));
  const archive = createTar(registryHostFiles({ ...blank, ...wanted }));
  const { exitCode, stderr } = await runtime.exec(agentRef, ['tar', '-x', '-C', '/'], {
    stdin: Readable.from([archive]),
  });
  if (exitCode !== 0) {
    throw new SandbarError('COMMAND_FAILED', `the node was not told of registries: ${stderr.trim()}`);
  }
}

/** Registries on a network of a cluster. */
export async function findRegistryOn(networkName: string, runtime: Runtime): Promise<ContainerSummary | undefined> {
  const containers = await runtime.listContainers({ key: LABELS.registry });
  return containers.find(({ addresses }) => addresses[networkName] !== undefined);
}

/** As image names begin with. */
export function hostOf({ ports }: Pick<ContainerSummary, 'ports'>): string {
  const port = ports.find(({ containerPort }) => containerPort === REGISTRY_PORTS.images)?.hostPort ?? 0;
  return `localhost:${String(port)}`;
}

async function getRunning(registryName: string, runtime: Runtime): Promise<ContainerSummary> {
  const [container] = await runtime.listContainers({ key: LABELS.registry, value: registryName });
  if (container?.state === 'running') return container;
  const state = container === undefined ? 'is not there' : `is ${container.state}`;
  throw new SandbarError('NOT_FOUND', `registry ${registryName} ${state}`, { hint: 'sandbar up brings it back' });
}

async function ask<T>(
  registryName: string,
  command: string,
  { runtime, signal }: { readonly runtime: Runtime; readonly signal: AbortSignal },
): Promise<T> {
  const { exitCode, stdout, stderr } = await runtime.exec(registryName, [PROGRAM, command], { signal });
  if (exitCode !== 0) throw new SandbarError('COMMAND_FAILED', `registry ${registryName}: ${stderr.trim()}`);
  return JSON.parse(stdout) as T;
}

async function confirmLoss(
  registryName: string,
  confirm: ((question: string) => Promise<boolean>) | undefined,
): Promise<void> {
  const question = `this removes registry ${registryName} with every image in it, for all clusters`;
  if (confirm === undefined) {
    throw new SandbarError('CONFIRMATION_NEEDED', question, { hint: 'add --yes to agree' });
  }
  if (!(await confirm(question))) throw new SandbarError('INTERRUPTED', 'nothing was removed', { exitCode: 1 });
}
