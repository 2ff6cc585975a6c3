/** `image load`: from the engine into the node, sending only the layers that the node lacks. */
import { Readable } from 'node:stream';
import { SandbarError } from '../model/errors.ts';
import type { Emit } from '../model/events.ts';
import { blobPath, digestOfPath, filterArchive, readArchiveManifest } from '../model/image-archive.ts';
import { goArchitecture } from '../model/images.ts';
import { containerName, LABELS } from '../model/names.ts';
import type { Clock, EngineInfo, ImageSummary, Runtime } from '../model/ports.ts';
import { findContainers } from './access.ts';

/** `sandbar-images import` found a layer neither in the archive nor on the node. */
const EXIT_LAYERS_ABSENT = 3;

export type LoadedImage = {
  /** Name under which pods find it. */
  readonly imageRef: string;
  /** Digest of its configuration, which is its id on the node. */
  readonly id: string;
  readonly layers: number;
  readonly layersSent: number;
  readonly bytesSent: number;
};

type LoadRequest = {
  readonly clusterName: string;
  readonly imageRefs: readonly string[];
  /** `OS/ARCHITECTURE`, for engines that keep several platforms of an image; otherwise the engine's own. */
  readonly platform?: string | undefined;
  readonly signal?: AbortSignal | undefined;
};

type LoadPorts = { readonly runtime: Runtime; readonly clock: Clock };

/** Brings images into the cluster and makes sure that they are the ones that the engine has. */
export async function loadImages(request: LoadRequest, ports: LoadPorts, emit: Emit): Promise<readonly LoadedImage[]> {
  const { runtime } = ports;
  const info = runtime.info();
  // Only some ways of loading ask for it; a failure shows where it is asked for.
  info.catch(() => undefined);
  const [images] = await Promise.all([
    Promise.all(request.imageRefs.map((imageRef) => findImage(runtime, imageRef))),
    findContainers(runtime, request.clusterName),
  ]);
  const node = new Node(runtime, request);
  const missing = new Set(
    await node.findMissing(images.flatMap((image) => [namedId(image.ref, image.id), ...image.layers])),
  );
  const loaded: LoadedImage[] = [];
  for (const image of images) {
    loaded.push(
      missing.has(namedId(image.ref, image.id))
        ? await inPhase(ports.clock, emit, image.ref, (onProgress) =>
            sendImage({ image, missing, info, request, runtime, node, onProgress }),
          )
        : describe(image, { id: image.id, layersSent: 0, bytesSent: 0 }),
    );
    // Images of one app mostly stand on the same layers: those are there now.
    for (const layer of image.layers) missing.delete(layer);
  }
  return loaded;
}

/** An image of the engine, with the name under which it is sent. */
type NamedImage = ImageSummary & { readonly ref: string };

async function findImage(runtime: Runtime, imageRef: string): Promise<NamedImage> {
  const image = await runtime.inspectImage(imageRef);
  if (image === undefined) {
    throw new SandbarError('IMAGE_NOT_FOUND', `the engine has no image ${imageRef}`, {
      hint: `docker images lists those it has; docker build -t ${imageRef} . or docker pull ${imageRef} brings it`,
    });
  }
  // Pods name images by tag, never by the id that the user may have given.
  const [firstTag] = image.tags;
  const ref = image.tags.find((tag) => isSameName(tag, imageRef)) ?? firstTag;
  if (ref === undefined) {
    throw new SandbarError('USAGE', `image ${imageRef} has no name that a pod could use`, {
      hint: `docker tag ${imageRef} NAME:TAG, then sandbar image load NAME:TAG`,
    });
  }
  return { ...image, ref };
}

function isSameName(tag: string, imageRef: string): boolean {
  const plain = imageRef.replace(/^(?:docker\.io\/)?(?:library\/)?/, '');
  return tag === imageRef || tag === plain || tag === `${plain}:latest`;
}

async function sendImage(sending: Sending): Promise<LoadedImage> {
  const { image, missing, runtime, request } = sending;
  const layers = image.layers.filter((layer) => missing.has(layer));
  const labels = { [LABELS.cluster]: request.clusterName };
  const archive = await runtime.saveLayers(image.ref, { layers, labels }).catch(() => undefined);
  // Whatever goes wrong on this shorter way, the longer one will do or tell.
  const loaded = archive && (await importArchive(archive, new Set(), sending).catch(keepInterruption(request.signal)));
  if (loaded !== undefined) return { ...loaded, layersSent: new Set(layers).size };
  return sendSavedImage(sending);
}

async function sendSavedImage(sending: Sending): Promise<LoadedImage> {
  const { image, missing, runtime, request, node } = sending;
  const info = await sending.info;
  const platform = request.platform ?? (info.hasContainerdImageStore ? platformOf(info) : undefined);
  const save = () => runtime.saveImage(image.ref, platform === undefined ? {} : { platform });
  const present = image.layers.filter((layer) => !missing.has(layer));
  let skippedPaths: ReadonlySet<string> = new Set(present.map(blobPath));
  if (info.hasContainerdImageStore && present.length === image.layers.length) {
    // This store's ids are those of manifests, and its layers are compressed: only the archive tells what they are.
    const [archived] = await readArchiveManifest(await save());
    const id = archived === undefined ? undefined : digestOfPath(archived.config);
    if (archived !== undefined && id !== undefined) {
      const isThere = (await node.findMissing([namedId(image.ref, id)])).size === 0;
      if (isThere) return describe(image, { id, layersSent: 0, bytesSent: 0 });
      skippedPaths = new Set(archived.layers);
    }
  }
  const loaded =
    (await importArchive(await save(), skippedPaths, sending)) ??
    (await importArchive(await save(), new Set(), sending));
  if (loaded !== undefined) return { ...loaded, layersSent: new Set(image.layers).size - new Set(present).size };
  throw new SandbarError('COMMAND_FAILED', `the engine's archive of ${image.ref} lacks layers`);
}

type Sending = {
  readonly image: NamedImage;
  /** What of all the images the node lacks. */
  readonly missing: ReadonlySet<string>;
  readonly info: Promise<EngineInfo>;
  readonly request: LoadRequest;
  readonly runtime: Runtime;
  readonly node: Node;
  readonly onProgress: (sentBytes: number) => void;
};

/** Imports an archive; undefined when the node turns out to lack a layer that was left out. */
async function importArchive(
  archive: Readable,
  skippedPaths: ReadonlySet<string>,
  { image, node, onProgress }: Sending,
): Promise<LoadedImage | undefined> {
  let expectedId = image.id;
  let bytesSent = 0;
  async function* counted(): AsyncGenerator<Uint8Array> {
    const filtered = filterArchive(archive, {
      skippedPaths,
      onManifest: ([archived]) => {
        expectedId = (archived && digestOfPath(archived.config)) ?? image.id;
      },
    });
    for await (const bytes of filtered) {
      bytesSent += bytes.length;
      onProgress(bytesSent);
      yield bytes;
    }
  }
  try {
    const imported = await node.import(Readable.from(counted(), { objectMode: false, highWaterMark: 1 << 20 }));
    if (imported === undefined) return undefined;
    requireSameId(image.ref, imported, expectedId);
    return describe(image, { id: expectedId, layersSent: 0, bytesSent });
  } finally {
    archive.destroy();
  }
}

/** The agent's container, where `sandbar-images` speaks to containerd. */
class Node {
  readonly #runtime: Runtime;
  readonly #container: string;
  readonly #signal: { readonly signal?: AbortSignal };

  constructor(runtime: Runtime, { clusterName, signal }: LoadRequest) {
    this.#runtime = runtime;
    this.#container = containerName(clusterName, 'agent');
    this.#signal = signal === undefined ? {} : { signal };
  }

  async findMissing(references: readonly string[]): Promise<ReadonlySet<string>> {
    const { stdout } = await this.#run('missing', JSON.stringify(references));
    return new Set(JSON.parse(stdout) as string[]);
  }

  async import(archive: Readable): Promise<readonly ImportedImage[] | undefined> {
    const { stdout, exitCode } = await this.#run('import', archive);
    return exitCode === EXIT_LAYERS_ABSENT ? undefined : (JSON.parse(stdout) as ImportedImage[]);
  }

  async #run(verb: string, stdin: Readable | string): Promise<{ readonly stdout: string; readonly exitCode: number }> {
    const options = { stdin, ...this.#signal };
    const result = await this.#runtime.exec(this.#container, ['sandbar-images', verb], options);
    if (result.exitCode === 0 || result.exitCode === EXIT_LAYERS_ABSENT) return result;
    const lines = `${result.stderr}\n${result.stdout}`.split('\n').filter((line) => line.trim() !== '');
    throw new SandbarError(
      'COMMAND_FAILED',
      `sandbar-images ${verb} failed on the node: ${lines[0] ?? 'no reason given'}`,
      {
        details: lines.slice(1, 20),
        hint: 'sandbar status shows whether the node is ready',
      },
    );
  }
}

type ImportedImage = { readonly name: string; readonly id: string };

/** An import that reports success over something else is worse than one that fails. */
function requireSameId(imageRef: string, imported: readonly ImportedImage[], expectedId: string): void {
  const wrong = imported.find(({ id }) => id !== expectedId);
  if (imported.length > 0 && wrong === undefined) return;
  throw new SandbarError(
    'COMMAND_FAILED',
    `the node has ${wrong === undefined ? 'no image' : `image ${wrong.id}`} under the name ${imageRef}, the engine ${expectedId}`,
    { hint: `sandbar image load ${imageRef} sends it again` },
  );
}

function namedId(imageRef: string, id: string): string {
  return `${imageRef}@${id}`;
}

function platformOf(info: EngineInfo): string {
  return `linux/${goArchitecture(info.architecture)}`;
}

function describe(
  image: NamedImage,
  outcome: { readonly id: string; readonly layersSent: number; readonly bytesSent: number },
): LoadedImage {
  return { imageRef: image.ref, layers: new Set(image.layers).size, ...outcome };
}

function keepInterruption(signal: AbortSignal | undefined): () => undefined {
  return () => {
    signal?.throwIfAborted();
    return undefined;
  };
}

async function inPhase(
  clock: Clock,
  emit: Emit,
  imageRef: string,
  work: (onProgress: (sentBytes: number) => void) => Promise<LoadedImage>,
): Promise<LoadedImage> {
  const phase = `image ${imageRef}`;
  const startedMs = clock.now();
  let shownMB = 0;
  emit({ type: 'phase-started', phase, text: 'loading' });
  try {
    const loaded = await work((sentBytes) => {
      const sentMB = Math.floor(sentBytes / 1e6);
      if (sentMB < shownMB + 5) return;
      shownMB = sentMB;
      emit({ type: 'phase-progress', phase, text: `loading, ${String(sentMB)} MB sent` });
    });
    emit({ type: 'phase-finished', phase, text: 'loaded', ms: clock.now() - startedMs });
    return loaded;
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    emit({ type: 'phase-failed', phase, message, ms: clock.now() - startedMs });
    throw error;
  }
}
