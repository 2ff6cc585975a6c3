import { execFile, spawn, type ChildProcess } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { connectEngine, type Engine } from '../../src/adapters/docker-engine.ts';
import { DockerImageBuilder } from '../../src/adapters/image-builder.ts';
import { getPlan, goArchitecture, planImages, type ImageBuild } from '../../src/model/images.ts';
import { findFreePort } from '../fixtures/free-port.ts';

const run = promisify(execFile);
const tag = `sandbar-test/images:${String(process.pid)}`;
const silent = { onProgress: () => undefined };

let engine: Engine;
let directory: string;

const builderWith = (options: { imagesDirectory?: string; env?: Record<string, string | undefined> } = {}) =>
  new DockerImageBuilder({
    docker: engine.docker,
    imagesDirectory: options.imagesDirectory ?? join(directory, 'images'),
    logDirectory: join(directory, 'logs'),
    env: options.env ?? process.env,
    homeDirectory: directory,
    isRoot: false,
  });

/** Writes a Dockerfile and returns the build of it. */
async function imageOf(dockerfile: string, buildArguments: Record<string, string> = {}): Promise<ImageBuild> {
  const folder = join(directory, 'images', 'tiny');
  await mkdir(folder, { recursive: true });
  await writeFile(join(folder, 'Dockerfile'), dockerfile);
  const sources = (await builderWith().listSources()).filter((source) => source.path.startsWith('tiny/'));
  return { name: 'tiny', ref: tag, sources, dockerfile: 'tiny/Dockerfile', buildArguments };
}

beforeAll(async () => {
  engine = await connectEngine({ platform: process.platform, env: process.env, homeDirectory: homedir() });
  directory = await mkdtemp(join(tmpdir(), 'sandbar-images-'));
});

afterAll(async () => {
  await engine.docker
    .getImage(tag)
    .remove()
    .catch(() => undefined);
  engine.close();
  await rm(directory, { recursive: true, force: true });
});

describe('building an image', () => {
  it('builds from the folder, and tells the step', async () => {
    const shown: string[] = [];
    const build = await imageOf(
      `# ${String(Date.now())}, or the step is cached\nFROM scratch\nCOPY tiny/Dockerfile /file\n`,
    );
    await builderWith().build(build, { onProgress: (text) => shown.push(text) });
    expect((await builderWith().findImage(tag))?.sizeBytes).toBeGreaterThan(0);
    expect(shown.join('\n')).toContain('tiny/Dockerfile /file');
  });

  it('puts the host’s certificates into the context, and works without any', async () => {
    const build = await imageOf('FROM scratch\nCOPY host-ca.crt /host-ca.crt\n');
    const bundle = join(directory, 'ca.crt');
    for (const content of ['-----BEGIN CERTIFICATE-----\n', '']) {
      await writeFile(bundle, content);
      await builderWith({ env: { SSL_CERT_FILE: bundle } }).build(build, silent);
      expect((await builderWith().findImage(tag))?.sizeBytes).toBe(content.length);
    }
  });

  it('fails with the step that failed, and keeps the log', async () => {
    const build = await imageOf('FROM scratch\nCOPY tiny/missing /file\n');
    const logPath = join(directory, 'logs', 'build-tiny.log');
    await expect(builderWith().build(build, silent)).rejects.toMatchObject({
      code: 'IMAGE_BUILD_FAILED',
      message: 'image tiny cannot be built: COPY tiny/missing /file failed',
      hint: `the whole log is in ${logPath}`,
    });
    expect(await readFile(logPath, 'utf8')).toContain('tiny/missing');
  });

  it('ends a running step when it is interrupted', async (context) => {
    const imagesDirectory = new URL('../../images', import.meta.url).pathname;
    const { Architecture: engineArchitecture } = (await engine.docker.info()) as { Architecture: string };
    const plans = planImages(await builderWith({ imagesDirectory }).listSources(), {
      engineArchitecture: goArchitecture(engineArchitecture),
      kubectlTarget: { os: 'linux', architecture: 'amd64' },
    });
    const base = getPlan(plans, 'base').ref;
    if ((await builderWith().findImage(base)) === undefined) return context.skip('needs the base image');
    const build = await imageOf(`ARG BASE\nFROM \${BASE}\nRUN echo ${tag} && sleep 300\n`, { BASE: base });
    const controller = new AbortController();
    const reason = new Error('interrupted');
    const started = Date.now();
    const building = builderWith().build(build, {
      onProgress: (text) => {
        if (text.includes('sleep 300')) controller.abort(reason);
      },
      signal: controller.signal,
    });
    await expect(building).rejects.toBe(reason);
    expect(Date.now() - started).toBeLessThan(60_000);
  });
});

describe('a registry with logins', () => {
  let registry: Registry | undefined;

  beforeAll(async () => {
    registry = await startRegistry();
    await builderWith().build(await imageOf('FROM scratch\nCOPY tiny/Dockerfile /file\n'), silent);
  });

  afterAll(() => registry?.stop());

  it('takes what a login may push, and gives it back', async (context) => {
    if (registry === undefined) return context.skip('needs docker-registry: apt-get install docker-registry');
    const ref = `${registry.address}/team/tiny:1`;
    const builder = builderWith({ env: { DOCKER_CONFIG: registry.configDirectory } });
    await builder.tag(tag, ref);
    const pushed = await builder.findImage(ref);
    await builder.push(ref, silent);
    await engine.docker.getImage(ref).remove();
    await builder.pull(ref, silent);
    expect(await builder.findImage(ref)).toEqual(pushed);
    await engine.docker.getImage(ref).remove();
  });

  it('refuses without a login, and says how to log in', async (context) => {
    if (registry === undefined) return context.skip('needs docker-registry: apt-get install docker-registry');
    const ref = `${registry.address}/team/other:1`;
    await builderWith().tag(tag, ref);
    await expect(builderWith().push(ref, silent)).rejects.toMatchObject({
      code: 'IMAGE_UNAVAILABLE',
      hint: expect.stringContaining(`docker login ${registry.address}`) as string,
    });
    await engine.docker.getImage(ref).remove();
  });

  it('says that an image is not there', async (context) => {
    if (registry === undefined) return context.skip('needs docker-registry: apt-get install docker-registry');
    const builder = builderWith({ env: { DOCKER_CONFIG: registry.configDirectory } });
    await expect(builder.pull(`${registry.address}/team/none:1`, silent)).rejects.toMatchObject({
      code: 'IMAGE_UNAVAILABLE',
    });
  });
});

type Registry = { readonly address: string; readonly configDirectory: string; stop(): void };

/** Debian's registry server on loopback, with one user; undefined where it cannot be had. */
async function startRegistry(): Promise<Registry | undefined> {
  const program = await findRegistryProgram();
  if (program === undefined) return undefined;
  const folder = join(directory, 'registry');
  await mkdir(folder, { recursive: true });
  const address = `127.0.0.1:${String(await findFreePort())}`;
  // Perl's crypt is the C library's, which knows bcrypt: the only kind of hash that the registry takes.
  const { stdout: hash } = await run('perl', ['-e', 'print crypt("secret", q($2y$05$abcdefghijklmnopqrstuu))']);
  await writeFile(join(folder, 'htpasswd'), `team:${hash}\n`);
  await writeFile(join(folder, 'config.json'), JSON.stringify({ auths: { [address]: { auth: btoa('team:secret') } } }));
  const settings = {
    version: '0.1',
    log: { level: 'error' },
    storage: { filesystem: { rootdirectory: join(folder, 'data') } },
    http: { addr: address },
    auth: { htpasswd: { realm: 'test', path: join(folder, 'htpasswd') } },
  };
  await writeFile(join(folder, 'config.yml'), JSON.stringify(settings));
  const server = spawn(program, ['serve', join(folder, 'config.yml')], { stdio: 'ignore' });
  await waitForAnswer(`http://${address}/v2/`, server);
  return { address, configDirectory: folder, stop: () => server.kill() };
}

/** The installed program, or the one in Debian's package, unpacked without installing it. */
async function findRegistryProgram(): Promise<string | undefined> {
  if (existsSync('/usr/bin/docker-registry')) return '/usr/bin/docker-registry';
  const folder = join(directory, 'registry-package');
  await mkdir(folder);
  try {
    await run('apt-get', ['download', 'docker-registry'], { cwd: folder });
    const [archive = ''] = await readdir(folder);
    await run('dpkg', ['-x', archive, 'root'], { cwd: folder });
    return join(folder, 'root', 'usr', 'bin', 'docker-registry');
  } catch {
    // No Debian, or no package server: the tests say what they need.
    return undefined;
  }
}

async function waitForAnswer(url: string, server: ChildProcess): Promise<void> {
  await vi.waitFor(
    async () => {
      if (server.exitCode !== null) throw new Error(`the registry ended with ${String(server.exitCode)}`);
      expect((await fetch(url)).status).toBe(401);
    },
    { timeout: 10_000 },
  );
}
