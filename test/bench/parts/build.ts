/**
 * Building the images, in a copy of the sources whose caches are empty and its own. What BuildKit keeps meanwhile is
 * removed afterwards: nothing else should be built at the same time.
 */
import { appendFile, cp, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { randomBytes } from 'node:crypto';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import type Dockerode from 'dockerode';
import { DockerImageBuilder } from '../../../src/adapters/image-builder.ts';
import { goArchitecture, goSystem, planImages } from '../../../src/model/images.ts';
import { removeImage } from '../images.ts';
import type { Measurements } from '../measures.ts';
import { run } from '../subject.ts';

/** Files of the package that building needs. */
const NEEDED = ['bin', 'dist', 'images', 'package.json'];
const CHANGED_FILE = join('images', 'kubernetes', 'cmd', 'control-plane', 'main.go');

type BuildOptions = {
  readonly packageDirectory: string;
  readonly docker: Dockerode;
  readonly runs: number;
  readonly signal: AbortSignal;
  readonly log: (text: string) => void;
};

/** One cold build, then as many after a change of one line as there are runs. */
export async function measureBuild(measurements: Measurements, options: BuildOptions): Promise<void> {
  const { docker, signal, log } = options;
  const copy = await mkdtemp(join(tmpdir(), 'sandbar-bench-sources-'));
  const mark = `bench-${randomBytes(4).toString('hex')}`;
  const cachedBefore = new Set(await listCaches(docker));
  const refs = new Set<string>();
  const build = async (): Promise<number> => {
    for (const ref of await planRefs(docker, join(copy, 'images'))) refs.add(ref);
    const entry = join(copy, 'bin', 'sandbar.js');
    const { seconds } = await run(process.execPath, [entry, 'image', 'build'], { env: process.env, signal });
    return seconds;
  };
  try {
    for (const name of NEEDED) await cp(join(options.packageDirectory, name), join(copy, name), { recursive: true });
    await makeUnknown(join(copy, 'images'), mark);
    const cold = await build();
    measurements.record('build-cold', cold);
    log(`  cold build: ${cold.toFixed(0)} s`);
    for (let number = 1; number <= options.runs; number += 1) {
      await appendFile(join(copy, CHANGED_FILE), `\nvar _ = "${mark} ${String(number)}"\n`);
      const changed = await build();
      measurements.record('build-changed', changed);
      log(`  build after a change, ${String(number)} of ${String(options.runs)}: ${changed.toFixed(1)} s`);
    }
  } finally {
    await rm(copy, { recursive: true, force: true });
    for (const ref of refs) await removeImage(docker, ref);
    await removeCachesBut(cachedBefore, docker);
  }
}

/** Names of all images that the sources in a folder make, base and builder too. */
async function planRefs(docker: Dockerode, imagesDirectory: string): Promise<readonly string[]> {
  const builder = new DockerImageBuilder({
    docker,
    imagesDirectory,
    logDirectory: tmpdir(),
    env: process.env,
    homeDirectory: homedir(),
    isRoot: process.getuid?.() === 0,
  });
  const plans = planImages(await builder.listSources(), {
    engineArchitecture: goArchitecture((await docker.version()).Arch),
    kubectlTarget: { os: goSystem(process.platform), architecture: goArchitecture(process.arch) },
  });
  return [...plans.values()].map(({ ref }) => ref);
}

/** Makes sources of which the engine has nothing: no image, no layer, no cache mount. */
async function makeUnknown(images: string, mark: string): Promise<void> {
  await appendFile(join(images, 'base', 'dpkg.cfg'), `# ${mark}\n`);
  for (const entry of await readdir(images, { withFileTypes: true })) {
    const dockerfile = join(images, entry.name, 'Dockerfile');
    const text = await readFile(dockerfile, 'utf8').catch(() => undefined);
    if (text === undefined) continue;
    const renamed = text.replaceAll('id=sandbar-', `id=${mark}-`);
    await writeFile(dockerfile, renamed.replaceAll(/^FROM .*$/gm, `$&\nLABEL bench=${mark}`));
  }
}

async function listCaches(docker: Dockerode): Promise<readonly string[]> {
  const { BuildCache: entries } = (await docker.df()) as { BuildCache: readonly { readonly ID: string }[] | null };
  return (entries ?? []).map(({ ID: id }) => id);
}

/** An entry goes only after those that stand on it: several rounds, until one brings nothing more. */
async function removeCachesBut(kept: ReadonlySet<string>, docker: Dockerode): Promise<void> {
  let left = Infinity;
  for (;;) {
    const made = (await listCaches(docker)).filter((id) => !kept.has(id));
    if (made.length === 0 || made.length >= left) return;
    left = made.length;
    for (const id of made) await removeCache(docker, id);
  }
}

/** One entry of BuildKit's cache; one that is in use stays. The client's own call for it sends no filter. */
function removeCache(docker: Dockerode, id: string): Promise<void> {
  const modem = docker.modem as { dial(options: object, done: (error: Error | null) => void): void };
  return new Promise((resolve, reject) => {
    modem.dial(
      {
        path: '/build/prune?',
        method: 'POST',
        options: { all: true, filters: { id: [id] } },
        statusCodes: { 200: true, 500: 'server error' },
      },
      (error) => {
        if (error === null) resolve();
        else reject(error);
      },
    );
  });
}
