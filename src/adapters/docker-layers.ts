/**
 * Single layers of an image, from where the engine keeps them. `docker save` reads and copies every layer of an image,
 * also where one is wanted: 0.7 s for 100 MB, 7 s for 1 GB. The engine's own archive of a folder mounted into a
 * container that is never started costs 0.1 s. The layer's exact bytes come from the recipe (tar-split) that the engine
 * keeps beside its files; who receives them checks their digest.
 */
import { createHash } from 'node:crypto';
import { Readable } from 'node:stream';
import { gunzipSync } from 'node:zlib';
import type Dockerode from 'dockerode';
import type { Labels } from '../model/ports.ts';
import { blobPath, formatManifest } from '../model/image-archive.ts';
import { readMember, readTar, TAR_END, tarHeader, tarPadding, type TarMember } from '../model/tar.ts';

/** Where things appear in the container; by name in the order in which they are needed. */
const FOLDER = 'sandbar-layers';

export type StoredImage = {
  readonly id: string;
  readonly name: string;
  /** Uncompressed layer digests, lowest first. */
  readonly layers: readonly string[];
  readonly graphDriver: { readonly Name: string; readonly Data: Readonly<Record<string, string>> | null } | undefined;
};

/**
 * The image as an archive that holds, of its layers, only `wantedLayers`; undefined where the engine keeps layers in
 * another way than the one known here. Failures while reading mean the same: save the image whole.
 */
export function openLayers(
  docker: Dockerode,
  image: StoredImage,
  { wantedLayers, labels }: { readonly wantedLayers: readonly string[]; readonly labels: Labels },
): AsyncGenerator<Uint8Array> | undefined {
  const places = findPlaces(image);
  if (places === undefined) return undefined;
  const wanted = image.layers.flatMap((layer, index) => (wantedLayers.includes(layer) ? [{ layer, index }] : []));
  // Created with the first read: a stream that nobody reads must leave nothing behind.
  const createContainer = () =>
    docker.createContainer({
      Image: image.id,
      Cmd: ['never started'],
      Labels: { ...labels },
      HostConfig: {
        NetworkMode: 'none',
        Mounts: [
          readOnlyBind(places.config, CONFIG),
          ...wanted.flatMap(({ index }) => [
            readOnlyBind(places.recipes[index] ?? '', recipePath(index)),
            readOnlyBind(places.files[index] ?? '', filesPath(index)),
          ]),
        ],
      },
    });
  return assemble(createContainer, image, wanted);
}

type WantedLayer = { readonly layer: string; readonly index: number };

async function* assemble(
  createContainer: () => Promise<Dockerode.Container>,
  image: StoredImage,
  wanted: readonly WantedLayer[],
): AsyncGenerator<Uint8Array> {
  const container = await createContainer();
  let archive: Readable | undefined;
  try {
    archive = (await container.getArchive({ path: `/${FOLDER}` })) as Readable;
    const folder = new FolderReader(readTar(archive));
    yield* tarMember(blobPath(image.id), await folder.read(CONFIG));
    for (const { layer, index } of wanted) {
      const recipe = parseRecipe(await folder.read(recipePath(index)));
      yield* assembleLayer(layer, recipe, (path) => folder.open(`${filesPath(index)}/${path}`));
      folder.forget();
    }
    const layers = image.layers.map(blobPath);
    const manifest = formatManifest([{ config: blobPath(image.id), names: [image.name], layers }]);
    yield* tarMember('manifest.json', Buffer.from(manifest));
    yield TAR_END;
  } finally {
    archive?.destroy();
    await container.remove({ force: true, v: true });
  }
}

const CONFIG = '0-config';

function recipePath(index: number): string {
  return `${layerFolder(index)}/0-recipe.json.gz`;
}

function filesPath(index: number): string {
  return `${layerFolder(index)}/1-files`;
}

function layerFolder(index: number): string {
  return `layer-${String(index).padStart(4, '0')}`;
}

function readOnlyBind(source: string, path: string): Dockerode.MountSettings {
  return { Type: 'bind', Source: source, Target: `/${FOLDER}/${path}`, ReadOnly: true };
}

type Places = {
  readonly config: string;
  /** Per layer: how its tar is put together, and the folder of its files. */
  readonly recipes: readonly string[];
  readonly files: readonly string[];
};

/** Where the engine's default storage keeps an image's parts; paths on the engine's own machine. */
function findPlaces({ id, layers, graphDriver }: StoredImage): Places | undefined {
  const { UpperDir: top, LowerDir: lower } = graphDriver?.Data ?? {};
  if (graphDriver?.Name !== 'overlay2' || top === undefined) return undefined;
  const files = [top, ...(lower === undefined || lower === '' ? [] : lower.split(':'))].toReversed();
  const root = /^(.*)\/overlay2\/[^/]+\/diff$/.exec(top)?.[1];
  if (root === undefined || files.length !== layers.length) return undefined;
  const store = `${root}/image/overlay2`;
  return {
    config: `${store}/imagedb/content/${id.replace(':', '/')}`,
    recipes: chainIds(layers).map((chainId) => `${store}/layerdb/${chainId.replace(':', '/')}/tar-split.json.gz`),
    files,
  };
}

/** Names of the stacks that end with each layer, as the image specification defines them. */
function chainIds(layers: readonly string[]): readonly string[] {
  const ids: string[] = [];
  for (const layer of layers) {
    const below = ids.at(-1);
    ids.push(below === undefined ? layer : `sha256:${createHash('sha256').update(`${below} ${layer}`).digest('hex')}`);
  }
  return ids;
}

/** A piece of a layer's tar: bytes as they are, or the content of a file. */
type RecipePart = { readonly bytes: Buffer } | { readonly path: string; readonly size: number };

function parseRecipe(compressed: Uint8Array): readonly RecipePart[] {
  const lines = gunzipSync(compressed).toString('utf8').split('\n');
  return lines
    .filter((line) => line !== '')
    .flatMap((line): readonly RecipePart[] => {
      const entry = JSON.parse(line) as RecipeEntry;
      if (entry.type === 2) return [{ bytes: Buffer.from(entry.payload ?? '', 'base64') }];
      // Names that are no text stand in another field.
      if (entry.name === undefined) throw new Error('the layer has file names that are not UTF-8');
      const size = entry.size ?? 0;
      return size === 0 ? [] : [{ path: entry.name.replace(/^(?:\.?\/)+/, ''), size }];
    });
}

type RecipeEntry = {
  readonly type: 1 | 2;
  readonly name?: string;
  readonly size?: number;
  readonly payload?: string;
};

async function* assembleLayer(
  layer: string,
  recipe: readonly RecipePart[],
  open: (path: string) => Promise<AsyncIterable<Uint8Array>>,
): AsyncGenerator<Uint8Array> {
  const size = recipe.reduce((sum, part) => sum + ('bytes' in part ? part.bytes.length : part.size), 0);
  yield tarHeader({ path: blobPath(layer), mode: 0o644, size });
  for (const part of recipe) {
    if ('bytes' in part) {
      yield part.bytes;
      continue;
    }
    let left = part.size;
    for await (const bytes of await open(part.path)) {
      left -= bytes.length;
      yield bytes;
    }
    if (left !== 0) throw new Error(`${part.path} is not as long as its layer says`);
  }
  yield tarPadding(size);
}

function* tarMember(path: string, content: Uint8Array): Generator<Uint8Array> {
  yield tarHeader({ path, mode: 0o644, size: content.length });
  yield content;
  yield tarPadding(content.length);
}

/** Files of an archive by name. They mostly come in the order in which they are asked for; those passed over are kept. */
class FolderReader {
  readonly #members: AsyncGenerator<TarMember>;
  readonly #passedOver = new Map<string, Buffer>();

  constructor(members: AsyncGenerator<TarMember>) {
    this.#members = members;
  }

  async open(path: string): Promise<AsyncIterable<Uint8Array>> {
    const kept = this.#passedOver.get(path);
    if (kept !== undefined) return Readable.from([kept]);
    for (;;) {
      const next = await this.#members.next();
      if (next.done === true) throw new Error(`the engine keeps no ${path}`);
      const member = next.value;
      const memberPath = member.path.slice(FOLDER.length + 1);
      if (memberPath === path && member.kind === 'file') return member.content;
      if (member.kind === 'file') this.#passedOver.set(memberPath, await readMember(member));
    }
  }

  async read(path: string): Promise<Buffer> {
    const parts: Uint8Array[] = [];
    for await (const part of await this.open(path)) parts.push(part);
    return Buffer.concat(parts);
  }

  forget(): void {
    this.#passedOver.clear();
  }
}
