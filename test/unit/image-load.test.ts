import { Readable } from 'node:stream';
import { beforeEach, describe, expect, it } from 'vitest';
import { readArchiveManifest } from '../../src/model/image-archive.ts';
import { LABELS, containerName } from '../../src/model/names.ts';
import { readTar } from '../../src/model/tar.ts';
import { loadImages } from '../../src/operations/image-load.ts';
import { FakeClock } from '../fakes/fake-clock.ts';
import { FakeRuntime } from '../fakes/fake-runtime.ts';

const layer = (digit: string): string => `sha256:${digit.repeat(64)}`;
const LAYERS = [layer('1'), layer('2'), layer('3')];

/** A node that keeps layers and names, as `sandbar-images` does. */
class FakeNode {
  readonly layers = new Set<string>();
  readonly names = new Map<string, string>();
  readonly imports: string[][] = [];
  /** Says so of a digest that it lacks. */
  readonly forgotten = new Set<string>();
  givesId: string | undefined;

  readonly program = async ({ args, stdin }: { readonly args: readonly string[]; readonly stdin: string }) => {
    if (args[0] === 'missing') {
      const asked = JSON.parse(stdin) as string[];
      return { stdout: JSON.stringify(asked.filter((reference) => !this.#has(reference))) };
    }
    const archive = () => Readable.from([Buffer.from(stdin)], { objectMode: false });
    const sent: string[] = [];
    for await (const member of readTar(archive())) sent.push(digestOf(member.path));
    this.imports.push(sent);
    const [image] = await readArchiveManifest(archive());
    const layers = (image?.layers ?? []).map(digestOf);
    const absent = layers.filter(
      (digest) => !sent.includes(digest) && (!this.layers.has(digest) || this.forgotten.has(digest)),
    );
    if (absent.length > 0) return { exitCode: 3, stderr: absent.join(' ') };
    for (const digest of layers) this.layers.add(digest);
    const id = this.givesId ?? digestOf(image?.config ?? '');
    for (const name of image?.names ?? []) this.names.set(name, id);
    return { stdout: JSON.stringify((image?.names ?? []).map((name) => ({ name, id }))) };
  };

  #has(reference: string): boolean {
    const [name, id] = reference.split('@');
    return id === undefined ? this.layers.has(reference) : this.names.get(name ?? '') === id;
  }
}

const digestOf = (path: string): string => path.replace(/^blobs\/(sha256)\//, '$1:');

const named = (sent: readonly string[]): readonly string[] => sent.filter((digest) => LAYERS.includes(digest));

describe('loadImages', () => {
  let runtime: FakeRuntime;
  let node: FakeNode;
  const request = { clusterName: 'dev', imageRefs: ['app:1'] };
  const load = (changes: Partial<Parameters<typeof loadImages>[0]> = {}) =>
    loadImages({ ...request, ...changes }, { runtime, clock: new FakeClock() }, () => undefined);

  beforeEach(async () => {
    runtime = new FakeRuntime();
    node = new FakeNode();
    runtime.programs.set('sandbar-images', node.program);
    runtime.images.set('app:1', { layers: LAYERS });
    runtime.images.set('agent', {});
    const labels = { [LABELS.cluster]: 'dev', [LABELS.component]: 'agent' };
    await runtime.createNetwork({ name: 'dev', subnet: '10.0.0.0/24', gateway: '10.0.0.1', labels });
    const agent = {
      name: containerName('dev', 'agent'),
      hostname: 'agent',
      imageRef: 'agent',
      networkName: 'dev',
      address: '10.0.0.3',
      ports: [],
      volumes: [],
      binds: [],
      tmpfs: [],
      hasReadOnlyRoot: false,
      privileges: { level: 'node' as const },
      extraHosts: [],
      stopTimeoutS: 1,
    };
    await runtime.createContainer(agent, [], labels);
    await runtime.startContainer(agent.name);
  });

  it('sends a whole image the first time and nothing the second', async () => {
    expect(await load()).toMatchObject([{ imageRef: 'app:1', layers: 3, layersSent: 3 }]);
    expect(await load()).toMatchObject([{ imageRef: 'app:1', layers: 3, layersSent: 0, bytesSent: 0 }]);
    expect(node.imports).toHaveLength(1);
  });

  it('sends only the layers that the node lacks', async () => {
    node.layers.add(layer('1')).add(layer('2'));
    expect(await load()).toMatchObject([{ layersSent: 1 }]);
    expect(node.imports.map(named)).toEqual([[layer('3')]]);
  });

  it('sends a new name for layers that are all there', async () => {
    for (const digest of LAYERS) node.layers.add(digest);
    expect(await load()).toMatchObject([{ layersSent: 0 }]);
    expect(node.names.has('app:1')).toBe(true);
  });

  it('sends everything when a layer that was left out is gone', async () => {
    node.layers.add(layer('1')).add(layer('2'));
    node.forgotten.add(layer('1'));
    await load();
    expect(named(node.imports.at(-1) ?? [])).toEqual(LAYERS);
  });

  it('saves the image where single layers cannot be read', async () => {
    runtime.saveLayers = () => Promise.reject(new Error('kept in another way'));
    node.layers.add(layer('1'));
    expect(await load()).toMatchObject([{ layersSent: 2 }]);
    expect(node.imports.map(named)).toEqual([[layer('2'), layer('3')]]);
  });

  it('asks the archive for the id where the engine has ids of another kind', async () => {
    const [loaded] = await load();
    runtime.engine = { ...runtime.engine, hasContainerdImageStore: true };
    const inspect = runtime.inspectImage.bind(runtime);
    runtime.inspectImage = async (imageRef) => {
      const image = await inspect(imageRef);
      return image && { ...image, id: layer('f') };
    };
    runtime.saveLayers = () => Promise.resolve(undefined);
    expect(await load()).toMatchObject([{ id: loaded?.id, layersSent: 0, bytesSent: 0 }]);
    expect(node.imports).toHaveLength(1);
  });

  it('fails when the node has another image under the name', async () => {
    node.givesId = layer('e');
    await expect(load()).rejects.toMatchObject({
      code: 'COMMAND_FAILED',
      message: expect.stringContaining(layer('e')) as string,
    });
  });

  it('tells what the node answered when the import fails', async () => {
    runtime.programs.set('sandbar-images', ({ args, ...call }) =>
      args[0] === 'import'
        ? { exitCode: 1, stderr: 'sandbar-images: unpack: no space left on device\n' }
        : node.program({ args, ...call }),
    );
    await expect(load()).rejects.toThrow('no space left on device');
  });

  it.each([
    [{ imageRefs: ['none:1'] }, 'IMAGE_NOT_FOUND'],
    [{ clusterName: 'other' }, 'CLUSTER_NOT_FOUND'],
  ])('refuses %o', async (changes, code) => {
    await expect(load(changes)).rejects.toMatchObject({ code });
  });
});
