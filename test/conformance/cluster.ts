/** The cluster that a suite runs against: the one that was named, or one of its own. */
import { spawn } from 'node:child_process';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { buffer } from 'node:stream/consumers';

export type TestedCluster = {
  readonly clusterName: string;
  /** As `sandbar kubeconfig` prints it: for the host. */
  readonly kubeconfig: string;
  /** Where the suite's output and reports go. */
  readonly directory: string;
};

/** Runs a suite on a cluster of its own, which is removed afterwards, or on the one that was named, and says how long it took. */
export async function onCluster<T>(
  work: {
    readonly root: string;
    /** Undefined: a cluster of its own. */
    readonly clusterName: string | undefined;
    readonly ownName: string;
    /** `sandbar.yaml` */
    readonly config: string;
    /** Images that the node gets. */
    readonly testRefs: readonly string[];
  },
  test: (cluster: TestedCluster) => Promise<T>,
): Promise<{ readonly results: T; readonly minutes: number; readonly reports: string }> {
  const { root, clusterName, ownName, config, testRefs } = work;
  const directory = join(root, '.sandbar', 'conformance');
  const sandbar = new Sandbar(root, clusterName ?? ownName);
  const reports = join(directory, sandbar.clusterName);
  await rm(reports, { recursive: true, force: true });
  await mkdir(directory, { recursive: true });
  await writeFile(join(directory, 'sandbar.yaml'), config);
  try {
    if (clusterName === undefined) await sandbar.run('up');
    await sandbar.run('image', 'load', ...testRefs);
    const startedAt = performance.now();
    const kubeconfig = await sandbar.run('kubeconfig');
    const results = await test({ clusterName: sandbar.clusterName, kubeconfig, directory: reports });
    return { results, minutes: (performance.now() - startedAt) / 60_000, reports };
  } finally {
    if (clusterName === undefined) await sandbar.run('down', '--volumes', '--yes');
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
