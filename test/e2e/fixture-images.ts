/** Images of `fixtures/ecosystem/`: built like those of `images/`, from the same builder, and named by what is in them. */
import { chmod, mkdir, rename, stat, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { createClock } from '../../src/adapters/clock.ts';
import { DockerRuntime } from '../../src/adapters/docker.ts';
import { createHost } from '../../src/adapters/host.ts';
import { DockerImageBuilder } from '../../src/adapters/image-builder.ts';
import { hashOf } from '../../src/model/hash.ts';
import { goArchitecture, goSystem, type ImageBuild } from '../../src/model/images.ts';
import { resolveImages } from '../../src/operations/images.ts';
import { environment } from '../fixtures/docker.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const CACHE = join(process.env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache'), 'sandbar', 'fixtures');
const EXECUTABLE = 0o755;

/**
 * Builds the image of a folder below `fixtures/ecosystem/` unless it is there; returns its name, which is a hash. Manifests
 * name it `sandbar-test/FOLDER:latest`.
 */
export async function provideFixtureImage(folder: string): Promise<string> {
  const runtime = new DockerRuntime(environment);
  try {
    const docker = await runtime.client();
    const host = createHost();
    const builderOn = (imagesDirectory: string): DockerImageBuilder =>
      new DockerImageBuilder({
        docker,
        imagesDirectory,
        logDirectory: join(ROOT, '.sandbar', 'artifacts'),
        env: process.env,
        homeDirectory: homedir(),
        isRoot: host.isRoot,
      });
    const ports = { images: builderOn(join(ROOT, 'images')), runtime, host, clock: createClock() };
    const parts = await resolveImages(ports, () => undefined, { names: ['base', 'builder'] });

    const fixture = builderOn(fileURLToPath(new URL(`fixtures/ecosystem/${folder}`, import.meta.url)));
    const build = planFixture(folder, await fixture.listSources(), {
      BASE: parts.get('base') ?? '',
      BUILDER: parts.get('builder') ?? '',
      TARGET_OS: goSystem(process.platform),
      TARGET_ARCH: goArchitecture(process.arch),
    });
    if ((await fixture.findImage(build.ref)) === undefined) {
      await fixture.build(build, { onProgress: () => undefined });
    }
    await fixture.tag(build.ref, `sandbar-test/${folder}:latest`);
    return build.ref;
  } finally {
    await runtime.close();
  }
}

/** A program for this machine out of a fixture's image, kept in the user's cache; returns its path. */
export async function provideFixtureProgram(imageRef: string, pathInImage: string): Promise<string> {
  const path = join(CACHE, imageRef.replace(/^.*:/, ''), basename(pathInImage));
  if ((await stat(path).catch(() => undefined)) !== undefined) return path;
  const runtime = new DockerRuntime(environment);
  try {
    await mkdir(dirname(path), { recursive: true });
    const part = `${path}.${String(process.pid)}`;
    await writeFile(part, await runtime.readImageFile(imageRef, pathInImage));
    await chmod(part, EXECUTABLE);
    await rename(part, path);
    return path;
  } finally {
    await runtime.close();
  }
}

function planFixture(
  folder: string,
  sources: ImageBuild['sources'],
  buildArguments: ImageBuild['buildArguments'],
): ImageBuild {
  const sorted = sources.toSorted((a, b) => (a.path < b.path ? -1 : 1));
  const ref = `sandbar-test/${folder}:${hashOf({ sources: sorted, buildArguments })}`;
  return { name: folder, ref, sources: sorted, dockerfile: 'Dockerfile', buildArguments };
}
