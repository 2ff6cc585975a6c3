/** One run of one of upstream's suites against a cluster, in a container beside it. */
import { createWriteStream } from 'node:fs';
import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { finished, pipeline } from 'node:stream/promises';
import type Dockerode from 'dockerode';
import { extract } from 'tar';
import { createTar } from '../../src/model/tar.ts';
import { readGatewayOutput } from './gateway-report.ts';
import { REGISTRY_HOST, type ConformanceImages, type GatewayConformanceImages } from './images.ts';
import { CutShort, readReport, type SpecResult } from './report.ts';

/** Folder in the container that the suite writes its reports to. */
const REPORTS = '/tmp/reports';
const REPORT = 'report.json';
/** What the suite prints, in the directory of its reports. */
const OUTPUT = 'output.log';
/** Exit codes of a suite that came to its end: all passed, or not all. */
const VERDICTS = [0, 1];
const PRIVATE = 0o600;
const API_PORT = 6443;

type Run = {
  readonly docker: Dockerode;
  readonly clusterName: string;
  /** As `sandbar kubeconfig` prints it: for the host. */
  readonly kubeconfig: string;
  /** Where reports and the log go. */
  readonly directory: string;
  /** Gets what the suite prints, beside the log. */
  readonly output?: NodeJS.WritableStream;
  readonly signal?: AbortSignal;
};

export type SuiteRun = Run & {
  readonly images: Pick<ConformanceImages, 'suiteRef' | 'registryRef'>;
  /** Names of tests, as regular expressions of Go. */
  readonly focus: readonly string[];
  readonly skip: readonly string[];
  readonly processes: number;
};

/**
 * Runs the tests, those that bear others beside them first and in parallel, the serial ones after them, and returns what
 * became of each that was chosen.
 */
export async function runSuite(run: SuiteRun): Promise<readonly SpecResult[]> {
  const { docker, clusterName, directory, signal } = run;
  const networkName = `sandbar-${clusterName}`;
  const registry = await createContainer(docker, {
    name: `${networkName}-conformance-registry`,
    Image: run.images.registryRef,
    HostConfig: { NetworkMode: networkName },
    NetworkingConfig: { EndpointsConfig: { [networkName]: { Aliases: [REGISTRY_HOST] } } },
  });
  const remove = (): Promise<unknown> => registry.remove({ force: true, v: true }).catch(ignoreMissing);
  signal?.addEventListener('abort', () => void remove(), { once: true });
  try {
    await registry.start();
    await runProgram(run, run.images.suiteRef, suiteCommand(run));
  } finally {
    await remove();
  }
  return readReport(await readFile(join(directory, REPORT), 'utf8'));
}

/** Runs the Gateway API's tests, or the one with the short name `only`, and returns what became of each. */
export async function runGatewaySuite(
  run: Run & {
    readonly images: Pick<GatewayConformanceImages, 'suiteRef'>;
    readonly only: string | undefined;
    /** Of Sandbar, for the report. */
    readonly version: string;
  },
): Promise<readonly SpecResult[]> {
  const command = [
    '/suite',
    '-test.v',
    '-test.timeout=1h',
    `-report=${REPORTS}/report.yaml`,
    `-implementation=${run.version}`,
  ];
  if (run.only !== undefined) command.push(`-only=${run.only}`);
  await runProgram(run, run.images.suiteRef, command);
  const results = readGatewayOutput(await readFile(join(run.directory, OUTPUT), 'utf8'));
  if (results.length === 0) throw new CutShort('no test was run');
  return results;
}

/** Runs a program on the cluster's network to its end, whatever its verdict, and fetches its reports. */
async function runProgram(run: Run, ref: string, command: readonly string[]): Promise<void> {
  const { docker, clusterName, directory, signal } = run;
  await mkdir(directory, { recursive: true });
  const networkName = `sandbar-${clusterName}`;
  const container = await createContainer(docker, {
    name: `${networkName}-conformance`,
    Image: ref,
    Cmd: [...command],
    Env: ['KUBECONFIG=/tmp/kubeconfig'],
    HostConfig: { NetworkMode: networkName },
  });
  const remove = (): Promise<unknown> => container.remove({ force: true, v: true }).catch(ignoreMissing);
  signal?.addEventListener('abort', () => void remove(), { once: true });
  try {
    const files = createTar([{ path: 'kubeconfig', mode: PRIVATE, content: await kubeconfigWithin(run) }]);
    await container.putArchive(files, { path: '/tmp' });
    const stream = await container.attach({ stream: true, stdout: true, stderr: true });
    const both = new PassThrough();
    docker.modem.demuxStream(stream, both, both);
    stream.on('end', () => both.end());
    if (run.output !== undefined) both.pipe(run.output, { end: false });
    const logged = pipeline(both, createWriteStream(join(directory, OUTPUT)));
    await container.start();
    const { StatusCode: exitCode } = (await container.wait()) as { readonly StatusCode: number };
    await logged;
    signal?.throwIfAborted();
    if (!VERDICTS.includes(exitCode))
      throw new CutShort(`the suite ended with ${String(exitCode)}, see ${join(directory, OUTPUT)}`);
    await finished((await container.getArchive({ path: REPORTS })).pipe(extract({ cwd: directory, strip: 1 })));
  } finally {
    await remove();
  }
}

/** One that an earlier run left behind makes room. */
async function createContainer(
  docker: Dockerode,
  options: Dockerode.ContainerCreateOptions & { readonly name: string },
): Promise<Dockerode.Container> {
  await docker.getContainer(options.name).remove({ force: true, v: true }).catch(ignoreMissing);
  return docker.createContainer(options);
}

function suiteCommand({ focus, skip, processes }: SuiteRun): string[] {
  return [
    'ginkgo',
    `--procs=${String(processes)}`,
    '--no-color',
    '--silence-skips',
    '--timeout=6h',
    '--poll-progress-after=30m',
    `--output-dir=${REPORTS}`,
    `--json-report=${REPORT}`,
    '--junit-report=junit.xml',
    ...focus.map((pattern) => `--focus=${pattern}`),
    ...skip.map((pattern) => `--skip=${pattern}`),
    '/usr/local/bin/e2e.test',
    '--',
    '--kubeconfig=/tmp/kubeconfig',
    '--kubectl-path=/usr/local/bin/kubectl',
    '--provider=skeleton',
    '--disable-log-dump',
  ];
}

/** The same access, to the address that the API server has inside of the cluster's network. */
async function kubeconfigWithin({ docker, clusterName, kubeconfig }: Run): Promise<string> {
  const { NetworkSettings } = await docker.getContainer(`sandbar-${clusterName}-control-plane`).inspect();
  const address = NetworkSettings.Networks[`sandbar-${clusterName}`]?.IPAddress ?? '';
  return kubeconfig.replace(/^(\s*server: ).*$/m, `$1https://${address}:${String(API_PORT)}`);
}

function ignoreMissing(error: unknown): void {
  if ((error as { statusCode?: number }).statusCode !== 404) throw error;
}
