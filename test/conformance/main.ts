/** `npm run conformance`: upstream's suite against a cluster of its own, and docs/conformance.md of what it came to. */
import { spawn } from 'node:child_process';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { buffer } from 'node:stream/consumers';
import { parseArgs } from 'node:util';
import type Dockerode from 'dockerode';
import { DockerRuntime } from '../../src/adapters/docker.ts';
import { COMPONENT_VERSIONS } from '../../src/model/versions.ts';
import { describeMachine, findCommit } from '../bench/machine.ts';
import { KNOWN_CAUSES } from './causes.ts';
import { CLUSTER_CONFIG, provideConformanceImages, type ConformanceImages } from './images.ts';
import { formatConformance, summarize, unexplained, type SpecResult } from './report.ts';
import { runSuite } from './suite.ts';

const USAGE = `npm run conformance -- [options]
  --focus RE      tests whose name fits, of the whole suite (default: those of [Conformance]); may be repeated
  --skip RE       tests to leave out; may be repeated
  --name CLUSTER  a cluster that is there (default: one of its own, removed afterwards)
  --procs N       tests at a time, as far as they bear it (default: 4)
  --prepare       only build the images`;

/** What the set is called in the names of its tests. */
const CONFORMANCE = String.raw`\[Conformance\]`;
const OWN_CLUSTER = 'conformance';

type Options = {
  readonly focus: readonly string[];
  readonly skip: readonly string[];
  /** Undefined: a cluster of its own. */
  readonly clusterName: string | undefined;
  readonly processes: number;
  readonly isPreparation: boolean;
};

/** Runs the suite and returns the exit code: 1 where a test failed for a reason that nobody has found. */
export async function main(root: string, args: readonly string[]): Promise<number> {
  const options = parseOptions(args);
  if (options === undefined) return 2;
  const interruption = new AbortController();
  process.on('SIGINT', () => interruption.abort()).on('SIGTERM', () => interruption.abort());
  const runtime = new DockerRuntime({ platform: process.platform, env: process.env, homeDirectory: homedir() });
  const { signal } = interruption;
  try {
    const images = await provideConformanceImages(runtime, { root, onProgress, signal });
    if (options.isPreparation) return 0;
    const commit = findCommit(root);
    const docker = await runtime.client();
    const { results, minutes, reports } = await runOnCluster({ root, options, images, docker, signal });
    const page = formatConformance(results, KNOWN_CAUSES, {
      date: new Date().toISOString().slice(0, 10),
      versions: { Kubernetes: COMPONENT_VERSIONS.kubernetes, containerd: COMPONENT_VERSIONS.containerd },
      commit,
      machine: await describeMachine(docker),
      processes: options.processes,
      minutes,
    });
    const isWhole = options.focus.length === 0 && options.skip.length === 0;
    const file = isWhole ? join(root, 'docs', 'conformance.md') : join(reports, 'report.md');
    await writeFile(file, page);
    const open = unexplained(results, KNOWN_CAUSES);
    for (const { name, outcome, message } of open) log(`✖ ${outcome}: ${name}\n  ${message.split('\n', 1).join('')}`);
    log(`${open.length === 0 ? '✔' : '✖'} ${summarize(results)}\n  ${file}\n  ${reports}`);
    return open.length === 0 && results.length > 0 ? 0 : 1;
  } catch (error) {
    if (!signal.aborted) throw error;
    log('✖ interrupted');
    return 130;
  } finally {
    await runtime.close();
  }
}

/** Runs the suite on a cluster of its own, which is removed afterwards, or on the one that was named. */
async function runOnCluster(work: {
  readonly root: string;
  readonly options: Options;
  readonly images: ConformanceImages;
  readonly docker: Dockerode;
  readonly signal: AbortSignal;
}): Promise<{ readonly results: readonly SpecResult[]; readonly minutes: number; readonly reports: string }> {
  const { root, options, images, docker, signal } = work;
  const directory = join(root, '.sandbar', 'conformance');
  const sandbar = new Sandbar(root, options.clusterName ?? OWN_CLUSTER);
  const reports = join(directory, sandbar.clusterName);
  await rm(reports, { recursive: true, force: true });
  await mkdir(directory, { recursive: true });
  await writeFile(join(directory, 'sandbar.yaml'), CLUSTER_CONFIG);
  try {
    if (options.clusterName === undefined) await sandbar.run('up');
    await sandbar.run('image', 'load', ...images.testRefs);
    const startedAt = performance.now();
    const results = await runSuite({
      docker,
      clusterName: sandbar.clusterName,
      kubeconfig: await sandbar.run('kubeconfig'),
      images,
      focus: options.focus.length === 0 ? [CONFORMANCE] : options.focus,
      skip: options.skip,
      processes: options.processes,
      directory: reports,
      output: process.stdout,
      signal,
    });
    return { results, minutes: (performance.now() - startedAt) / 60_000, reports };
  } finally {
    if (options.clusterName === undefined) await sandbar.run('down', '--volumes', '--yes');
  }
}

function parseOptions(args: readonly string[]): Options | undefined {
  try {
    const { values } = parseArgs({
      args: [...args],
      options: {
        focus: { type: 'string', multiple: true, default: [] },
        skip: { type: 'string', multiple: true, default: [] },
        name: { type: 'string' },
        procs: { type: 'string', default: '4' },
        prepare: { type: 'boolean', default: false },
        help: { type: 'boolean', default: false },
      },
    });
    if (values.help) throw new Error("runs upstream's conformance suite");
    if (!/^[1-9]\d?$/.test(values.procs)) throw new Error(`--procs ${values.procs}: a number from 1 to 99`);
    return {
      focus: values.focus,
      skip: values.skip,
      clusterName: values.name,
      processes: Number(values.procs),
      isPreparation: values.prepare,
    };
  } catch (error) {
    log(`${error instanceof Error ? error.message : String(error)}\n\n${USAGE}`);
    return undefined;
  }
}

/** The command line as a user calls it, for one cluster and with a kubeconfig of its own. */
class Sandbar {
  readonly clusterName: string;
  readonly #root: string;

  constructor(root: string, clusterName: string) {
    this.#root = root;
    this.clusterName = clusterName;
  }

  /** Returns what it prints as its result; throws unless it ends with 0. */
  async run(...args: readonly string[]): Promise<string> {
    const directory = join(this.#root, '.sandbar', 'conformance');
    const child = spawn(process.execPath, [join(this.#root, 'bin', 'sandbar.js'), ...args], {
      cwd: directory,
      env: { ...process.env, SANDBAR_NAME: this.clusterName, KUBECONFIG: join(directory, 'kubeconfig') },
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const ended = new Promise<number | null>((resolve, reject) => child.on('error', reject).on('close', resolve));
    const stdout = (await buffer(child.stdout)).toString();
    const exitCode = await ended;
    if (exitCode !== 0) throw new Error(`sandbar ${args.join(' ')} ended with ${String(exitCode)}`);
    return stdout;
  }
}

function onProgress(text: string): void {
  log(`• ${text}`);
}

function log(text: string): void {
  process.stderr.write(`${text}\n`);
}
