import { buildImages, listImages, publishImages, type ListedImage } from '../../operations/images.ts';
import { loadImages } from '../../operations/image-load.ts';
import { RUNTIME_IMAGES, type RuntimeImageName } from '../../model/images.ts';
import type { KubernetesMinor } from '../../model/versions.ts';
import { SandbarError } from '../../model/errors.ts';
import { clusterNameOf } from '../load-spec.ts';
import { runCommand, type CommandInput } from '../run-command.ts';
import { formatTable } from '../view/table.ts';

/** Without it, images are those of the default version. */
type VersionFlags = { readonly kubernetes?: KubernetesMinor };

export function runImageBuild(
  input: CommandInput<VersionFlags & { readonly images: readonly string[] }>,
): Promise<number> {
  return runCommand(input, async ({ ports, emit }) => {
    const names = input.flags.images.map(imageNamed);
    const refs = await buildImages(ports, emit, {
      ...(names.length === 0 ? {} : { names }),
      kubernetes: input.flags.kubernetes,
      signal: input.cli.signal,
    });
    return { result: Object.fromEntries(refs), text: [...refs.values()].join('\n') };
  });
}

export function runImageList(input: CommandInput<VersionFlags>): Promise<number> {
  return runCommand(input, async ({ ports }) => {
    const images = await listImages(ports, input.flags.kubernetes);
    return { result: images, text: formatImages(images) };
  });
}

export function runImagePublish(input: CommandInput<VersionFlags & { readonly repository: string }>): Promise<number> {
  return runCommand(input, async ({ ports, emit }) => {
    const { repository, kubernetes } = input.flags;
    const published = await publishImages(ports, emit, { repository, kubernetes, signal: input.cli.signal });
    const usage = `use them with --image-repository ${repository} or SANDBAR_IMAGE_REPOSITORY=${repository}`;
    return { result: { repository, published }, text: [...published, usage].join('\n') };
  });
}

export function runImageLoad(
  input: CommandInput<{ readonly images: readonly string[]; readonly platform?: string }>,
): Promise<number> {
  return runCommand(input, async ({ ports, emit }) => {
    const { cli, globals, flags } = input;
    const clusterName = await clusterNameOf(globals, cli.host);
    const loaded = await loadImages(
      { clusterName, imageRefs: flags.images, platform: flags.platform, signal: cli.signal },
      ports,
      emit,
    );
    const lines = loaded.map(({ imageRef, layersSent, layers }) =>
      layersSent === 0
        ? `${imageRef} is there already`
        : `${imageRef} loaded (${String(layersSent)} of ${String(layers)} layers sent)`,
    );
    return { result: loaded, text: lines.join('\n') };
  });
}

function imageNamed(name: string): RuntimeImageName {
  const found = RUNTIME_IMAGES.find((image) => image === name);
  if (found !== undefined) return found;
  throw new SandbarError('USAGE', `there is no image "${name}"`, { hint: `there are ${RUNTIME_IMAGES.join(', ')}` });
}

function formatImages(images: readonly ListedImage[]): string {
  return formatTable([
    ['IMAGE', 'REFERENCE', 'STATE', 'SIZE', 'USED BY'],
    ...images.map((image) => [
      image.name,
      image.ref,
      image.isPresent ? 'present' : 'missing',
      image.isPresent ? `${(image.sizeBytes / 2 ** 20).toFixed(0)} MiB` : '-',
      image.usedBy.join(', ') || '-',
    ]),
  ]);
}
