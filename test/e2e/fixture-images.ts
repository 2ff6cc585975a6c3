/** Images of `fixtures/ecosystem/`: built like those of `images/`, from the same builder, and named by what is in them. */
import { chmod, mkdir, rename, stat, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { DockerRuntime } from '../../src/adapters/docker.ts';
import { DockerImageBuilder } from '../../src/adapters/image-builder.ts';
import { hashOf } from '../../src/model/hash.ts';
import { getPlan, goArchitecture, goSystem, planImages, type ImageBuild } from '../../src/model/images.ts';
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
    const settings = {
      docker,
      logDirectory: join(ROOT, '.sandbar', 'artifacts'),
      env: process.env,
      homeDirectory: homedir(),
      isRoot: process.getuid?.() === 0,
    };
    const progress = { onProgress: (): void => undefined };

    const own = new DockerImageBuilder({ ...settings, imagesDirectory: join(ROOT, 'images') });
    const target = { os: goSystem(process.platform), architecture: goArchitecture(process.arch) };
    const engineArchitecture = goArchitecture((await runtime.info()).architecture);
    const plans = planImages(await own.listSources(), { engineArchitecture, kubectlTarget: target });
    const [base, builder] = [getPlan(plans, 'base'), getPlan(plans, 'builder')];

    const fixture = new DockerImageBuilder({
      ...settings,
      imagesDirectory: fileURLToPath(new URL(`fixtures/ecosystem/${folder}`, import.meta.url)),
    });
    const build = planFixture(folder, await fixture.listSources(), {
      BASE: base.ref,
      BUILDER: builder.ref,
      TARGET_OS: target.os,
      TARGET_ARCH: target.architecture,
    });
    if ((await fixture.findImage(build.ref)) === undefined) {
      // They are missing where the images were pulled.
      if ((await own.findImage(base.ref)) === undefined) await own.provideBase(base, progress);
      if ((await own.findImage(builder.ref)) === undefined) await own.build(builder, progress);
      await fixture.build(build, progress);
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
