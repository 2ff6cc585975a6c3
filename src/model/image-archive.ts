/** Archives of images as engines save them: a tar with a manifest that names the configuration and the layers. */
import { readMember, readTar, TAR_END, tarPadding } from './tar.ts';

/** An image in `manifest.json`: paths within the archive, layers lowest first. */
export type ArchivedImage = {
  readonly config: string;
  readonly names: readonly string[];
  readonly layers: readonly string[];
};

/** Passes an archive on without the members at `skippedPaths`. */
export async function* filterArchive(
  source: AsyncIterable<Uint8Array>,
  {
    skippedPaths,
    onManifest,
  }: {
    readonly skippedPaths: ReadonlySet<string>;
    readonly onManifest?: (images: readonly ArchivedImage[]) => void;
  },
): AsyncGenerator<Uint8Array> {
  for await (const member of readTar(source)) {
    if (skippedPaths.has(member.path)) continue;
    yield* member.headers;
    if (member.path === 'manifest.json') {
      const text = await readMember(member);
      onManifest?.(parseManifest(text.toString('utf8')));
      yield text;
    } else {
      yield* member.content;
    }
    yield tarPadding(member.size);
  }
  yield TAR_END;
}

/** The images of an archive, read to its end: the manifest comes last. */
export async function readArchiveManifest(source: AsyncIterable<Uint8Array>): Promise<readonly ArchivedImage[]> {
  let images: readonly ArchivedImage[] = [];
  for await (const member of readTar(source)) {
    if (member.path === 'manifest.json') images = parseManifest((await readMember(member)).toString('utf8'));
  }
  return images;
}

/** The text of `manifest.json`. */
export function formatManifest(images: readonly ArchivedImage[]): string {
  return JSON.stringify(
    images.map(({ config, names, layers }) => ({ Config: config, RepoTags: names, Layers: layers })),
  );
}

/** Path of a blob in an archive whose members are named by their digests. */
export function blobPath(digest: string): string {
  return `blobs/${digest.replace(':', '/')}`;
}

/** The digest that a path of an archive names: `blobs/sha256/HEX`, or `HEX.json` as old engines have it. */
export function digestOfPath(path: string): string | undefined {
  const hex = /(?:^|\/)([0-9a-f]{64})(?:\.json)?$/.exec(path)?.[1];
  return hex === undefined ? undefined : `sha256:${hex}`;
}

function parseManifest(text: string): readonly ArchivedImage[] {
  const images = JSON.parse(text) as readonly {
    readonly Config: string;
    readonly RepoTags: readonly string[] | null;
    readonly Layers: readonly string[] | null;
  }[];
  return images.map((image) => ({ config: image.Config, names: image.RepoTags ?? [], layers: image.Layers ?? [] }));
}
