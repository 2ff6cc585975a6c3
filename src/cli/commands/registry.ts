import { SandbarError } from '../../model/errors.ts';
import {
  pruneRegistry,
  removeRegistry,
  showRegistry,
  type RegistryImage,
  type RegistryStatus,
} from '../../operations/registry.ts';
import { loadSpec } from '../load-spec.ts';
import { runCommand, type CommandContext, type CommandInput } from '../run-command.ts';
import { formatTable } from '../view/table.ts';

export function runRegistry(input: CommandInput<unknown>): Promise<number> {
  return runCommand(input, async ({ ports, emit }) => {
    const registryName = await registryNameOf(input, emit);
    const result = await showRegistry({ registryName, signal: input.cli.signal }, ports.runtime);
    return { result, text: formatRegistry(result) };
  });
}

export function runRegistryPrune(input: CommandInput<{ readonly caches?: boolean }>): Promise<number> {
  return runCommand(input, async ({ ports, emit }) => {
    const registryName = await registryNameOf(input, emit);
    const ofCaches = input.flags.caches === true;
    const result = await pruneRegistry({ registryName, ofCaches, signal: input.cli.signal }, ports.runtime);
    return { result, text: `${formatSize(result.freedBytes)} freed` };
  });
}

export function runRegistryRemove(input: CommandInput<unknown>): Promise<number> {
  return runCommand(input, async ({ ports, emit, confirm }) => {
    const registryName = await registryNameOf(input, emit);
    const result = await removeRegistry({ registryName, confirm, signal: input.cli.signal }, ports);
    const text =
      result.removed.length === 0 ? `registry ${registryName} is not there` : `registry ${registryName} is removed`;
    return { result, text };
  });
}

/** The registry of the cluster that `up` would make here. */
async function registryNameOf(
  { cli, globals }: Pick<CommandInput<unknown>, 'cli' | 'globals'>,
  emit: CommandContext['emit'],
): Promise<string> {
  const { spec } = await loadSpec(globals, cli.host, emit);
  if (spec.registry !== undefined) return spec.registry.name;
  throw new SandbarError('NOT_FOUND', `cluster "${spec.name}" has no registry`, {
    hint: 'remove registry: false from sandbar.yaml, then sandbar up',
  });
}

function formatRegistry({ name, host, clusters, sizeBytes, images, caches }: RegistryStatus): string {
  const rows = [
    ...images.map((image) => imageRow(`${host}/`, image)),
    ...caches.flatMap(({ registry, images: copies }) => copies.map((image) => imageRow(`${registry}/`, image))),
  ];
  return [
    `registry ${name} is at ${host}, for ${clusters.join(', ') || 'no cluster'}`,
    formatTable([
      ['  pushed images', formatSize(sizeBytes)],
      ...caches.map((cache) => [`  copies of ${cache.registry}`, formatSize(cache.sizeBytes)]),
    ]),
    ...(rows.length === 0 ? [] : ['', formatTable([['IMAGE', 'DIGEST', 'SIZE'], ...rows])]),
  ].join('\n');
}

function imageRow(prefix: string, { name, tag, digest, sizeBytes }: RegistryImage): readonly string[] {
  return [`${prefix}${name}:${tag}`, digest.slice(0, 'sha256:'.length + 12), formatSize(sizeBytes)];
}

function formatSize(bytes: number): string {
  return `${(bytes / 2 ** 20).toFixed(1)} MiB`;
}
