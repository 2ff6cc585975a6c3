import { createHash, randomBytes } from 'node:crypto';
import { Readable } from 'node:stream';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { DockerRuntime } from '../../src/adapters/docker.ts';
import { LABELS } from '../../src/model/names.ts';
import { readTar } from '../../src/model/tar.ts';
import { filterArchive, readArchiveManifest } from '../../src/model/image-archive.ts';
import { environment, isDockerMissing, layerImage, provideTestImage, TEST_IMAGE } from '../fixtures/docker.ts';

const PREFIX = 'sandbar-integration';
const LAYERED = 'sandbar-test/layered:1';
const labels = { [LABELS.cluster]: PREFIX };

describe.skipIf(isDockerMissing)('DockerRuntime', () => {
  const runtime = new DockerRuntime(environment);
  const spec = {
    name: `${PREFIX}-main`,
    hostname: 'main',
    imageRef: TEST_IMAGE,
    networkName: PREFIX,
    address: '10.213.92.5',
    ports: [],
    volumes: [],
    binds: [],
    tmpfs: [],
    hasReadOnlyRoot: false,
    privileges: { level: 'node' as const },
    extraHosts: [{ host: 'host.sandbar.internal', address: 'host-gateway' }],
    stopTimeoutS: 1,
  };
  const busybox = async (...args: readonly string[]): Promise<string> =>
    (await runtime.exec(spec.name, ['/bin/busybox', ...args])).stdout;

  beforeAll(async () => {
    await provideTestImage(runtime);
    const files = Object.fromEntries(
      Array.from({ length: 40 }, (_, index) => [
        `app/folder-${String(index % 4)}/é ${String(index)}.bin`,
        randomBytes(9999),
      ]),
    );
    await layerImage(await runtime.client(), LAYERED, [files, { 'app/empty': '', 'app/folder-0/more': 'more' }]);
    await runtime.createNetwork({ name: PREFIX, subnet: '10.213.92.0/24', gateway: '10.213.92.1', labels });
    await runtime.createContainer(spec, [], labels);
    await runtime.startContainer(spec.name);
  });

  afterAll(async () => {
    await runtime.removeContainer(spec.name);
    await runtime.removeNetwork(PREFIX);
    await (await runtime.client()).getImage(LAYERED).remove({ force: true });
    await runtime.close();
  });

  it('describes the engine', async () => {
    expect(await runtime.info()).toMatchObject({
      apiVersion: expect.stringMatching(/^1\.\d+$/) as string,
      cgroupVersion: expect.toSatisfy((version) => version === 1 || version === 2) as number,
    });
  });

  it('lets a node do what only a node may', async () => {
    const capabilities = /CapEff:\s+([0-9a-f]+)/.exec(await busybox('cat', '/proc/self/status'))?.[1] ?? '0';
    const SYS_ADMIN = 21n;
    expect((BigInt(`0x${capabilities}`) >> SYS_ADMIN) & 1n).toBe(1n);
    expect(await busybox('cat', '/etc/hosts')).toContain('host.sandbar.internal');
  });

  it('starts a node also where it cannot be seen what the engine can grant', async () => {
    const blind = new DockerRuntime({ ...environment, platform: 'darwin' });
    const other = { ...spec, name: `${PREFIX}-blind`, address: '10.213.92.6' };
    const files = [{ path: '/etc/sandbar/config.json', mode: 0o600, content: '{}' }];
    const id = await blind.createContainer(other, files, labels);
    await blind.startContainer(id);
    // Still known by the id that it was created with, whatever had to be done to start it.
    expect(await blind.inspectState(id)).toMatchObject({ state: 'running' });
    expect(await blind.readFile(id, '/etc/sandbar/config.json')).toBe('{}');
    await blind.removeContainer(id);
    expect(await blind.inspectState(other.name)).toBeUndefined();
    await blind.close();
  });

  it('streams more input than any buffer holds, and outputs as large', async () => {
    const block = randomBytes(1 << 20);
    function* blocks() {
      for (let count = 0; count < 20; count += 1) yield block;
    }
    const expected = createHash('sha256');
    for (const bytes of blocks()) expected.update(bytes);
    const counting = await runtime.exec(spec.name, ['/bin/busybox', 'sha256sum'], { stdin: Readable.from(blocks()) });
    expect(counting.stdout).toContain(expected.digest('hex'));
    expect(await busybox('sh', '-c', '/bin/busybox yes | /bin/busybox head -c 5000000')).toHaveLength(5_000_000);
  });

  it('returns the exit code of a program that does not read its input', async () => {
    function* endless() {
      for (;;) yield Buffer.alloc(1 << 16);
    }
    const command = ['/bin/busybox', 'sh', '-c', 'echo enough; exit 7'];
    const result = await runtime.exec(spec.name, command, { stdin: Readable.from(endless()) });
    expect(result).toMatchObject({ exitCode: 7, stdout: 'enough\n' });
  });

  it('fails with its source when the input breaks off', async () => {
    // eslint-disable-next-line @typescript-eslint/require-await -- a stream of this kind is what breaks off
    async function* broken() {
      yield 'start';
      throw new Error('the source is gone');
    }
    const feeding = runtime.exec(spec.name, ['/bin/busybox', 'cat'], { stdin: Readable.from(broken()) });
    await expect(feeding).rejects.toThrow('the source is gone');
  });

  it('reads single layers of an image, exactly', async () => {
    const image = await runtime.inspectImage(LAYERED);
    const layers = image?.layers ?? [];
    for (const wanted of [layers.slice(-1), layers.slice(-2), layers]) {
      const archive = await runtime.saveLayers(LAYERED, { layers: wanted, labels });
      // Engines that keep layers in another way are asked to save the whole image.
      if (archive === undefined) return;
      const digests: string[] = [];
      for await (const member of readTar(archive)) {
        const hash = createHash('sha256');
        for await (const bytes of member.content) hash.update(bytes);
        if (member.path !== 'manifest.json') digests.push(`sha256:${hash.digest('hex')}`);
      }
      expect(digests).toEqual([image?.id, ...wanted]);
    }
    const left = await runtime.listContainers({ key: LABELS.cluster, value: PREFIX });
    expect(left.map(({ name }) => name)).toEqual([spec.name]);
  });

  it('saves an image with a manifest that names it', async () => {
    const image = await runtime.inspectImage(LAYERED);
    const [archived] = await readArchiveManifest(await runtime.saveImage(LAYERED, {}));
    expect(archived).toMatchObject({ names: [LAYERED] });
    expect(archived?.layers).toHaveLength(image?.layers.length ?? 0);
    const skippedPaths = new Set(archived?.layers);
    const filtered = filterArchive(await runtime.saveImage(LAYERED, {}), { skippedPaths });
    const paths: string[] = [];
    for await (const member of readTar(filtered)) paths.push(member.path);
    expect(paths).toContain('manifest.json');
    expect(paths.filter((path) => skippedPaths.has(path))).toEqual([]);
  });

  it('reads a file of an image without running it', async () => {
    expect((await runtime.readImageFile(LAYERED, '/app/folder-0/more')).toString()).toBe('more');
    await expect(runtime.readImageFile(LAYERED, '/none')).rejects.toMatchObject({ code: 'NOT_FOUND' });
  });

  it('reads the log since a time', async () => {
    const since = async (text: string): Promise<number> => {
      const lines: string[] = [];
      for await (const line of runtime.logs(spec.name, { since: text })) lines.push(line);
      return lines.length;
    };
    expect(await since('1h')).toBe(2);
    expect(await since(new Date(Date.now() + 60_000).toISOString())).toBe(0);
    await expect(since('yesterday')).rejects.toMatchObject({ code: 'USAGE' });
  });
});
