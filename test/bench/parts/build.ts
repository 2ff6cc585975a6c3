/** Building the images, in a copy of the sources whose caches are empty and its own. */
import { appendFile, cp, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { randomBytes } from 'node:crypto';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type Dockerode from 'dockerode';
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
  const copy = await mkdtemp(join(tmpdir(), 'sandbar-bench-sources-'));
  const mark = `bench-${randomBytes(4).toString('hex')}`;
  const refs = new Set<string>();
  const build = async (): Promise<number> => {
    const entry = join(copy, 'bin', 'sandbar.js');
    const { stdout, seconds } = await run(process.execPath, [entry, 'image', 'build', '-o', 'json'], {
      env: process.env,
      signal: options.signal,
    });
    for (const ref of Object.values(JSON.parse(stdout) as Record<string, string>)) refs.add(ref);
    return seconds;
  };
  try {
    for (const name of NEEDED) await cp(join(options.packageDirectory, name), join(copy, name), { recursive: true });
    await useOwnCaches(join(copy, 'images'), mark);
    const cold = await build();
    measurements.record('build-cold', cold);
    options.log(`cold build ${cold.toFixed(0)} s`);
    for (let run = 1; run <= options.runs; run += 1) {
      await appendFile(join(copy, CHANGED_FILE), `\nvar _ = "${mark} ${String(run)}"\n`);
      const changed = await build();
      measurements.record('build-changed', changed);
      options.log(`build after a change ${changed.toFixed(1)} s`);
    }
  } finally {
    await rm(copy, { recursive: true, force: true });
    for (const ref of refs) await removeImage(options.docker, ref);
    await removeCaches(options.docker, mark);
  }
}

/** Gives the cache mounts names of their own, and every image a source that was never built. */
async function useOwnCaches(images: string, mark: string): Promise<void> {
  for (const entry of await readdir(images, { withFileTypes: true })) {
    const dockerfile = join(images, entry.name, 'Dockerfile');
    const text = await readFile(dockerfile, 'utf8').catch(() => undefined);
    if (text === undefined) continue;
    await writeFile(dockerfile, `${text.replaceAll('id=sandbar-', `id=${mark}-`)}\n# ${mark}\n`);
  }
}

/** What BuildKit kept for the copy alone. */
async function removeCaches(docker: Dockerode, mark: string): Promise<void> {
  type Entry = { readonly ID: string; readonly Description: string };
  const { BuildCache: entries } = (await docker.df()) as { BuildCache: readonly Entry[] | null };
  for (const { ID: id } of (entries ?? []).filter(({ Description: description }) => description.includes(mark))) {
    await docker.pruneBuilder({ filters: { id: [id] } } as object).catch(() => undefined);
  }
}
