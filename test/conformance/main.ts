/** `npm run conformance`: upstream's suites against a cluster of their own, and pages below docs/ of what it came to. */
import { readFile, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { DockerRuntime } from '../../src/adapters/docker.ts';
import { COMPONENT_VERSIONS } from '../../src/model/versions.ts';
import { describeMachine, findCommit } from '../bench/machine.ts';
import { GATEWAY_CAUSES, KNOWN_CAUSES } from './causes.ts';
import { onCluster } from './cluster.ts';
import { formatGateway, replaceSection } from './gateway-report.ts';
import { CLUSTER_CONFIG, provideConformanceImages, provideGatewayConformanceImages } from './images.ts';
import { CutShort, formatConformance, summarize, unexplained, type KnownCause, type SpecResult } from './report.ts';
import { runGatewaySuite, runSuite } from './suite.ts';

const USAGE = `npm run conformance -- [options]
  --focus RE      tests whose name fits, of the whole suite (default: those of [Conformance]); may be repeated
  --skip RE       tests to leave out; may be repeated
  --name CLUSTER  a cluster that is there (default: one of its own, removed afterwards)
  --procs N       tests at a time, as far as they bear it (default: 4)
  --gateway       the Gateway API's suite instead; --focus then gives the short name of one test
  --prepare       only build the images`;

/** What the set is called in the names of its tests. */
const CONFORMANCE = String.raw`\[Conformance\]`;
const OWN_CLUSTER = 'conformance';
const OWN_GATEWAY_CLUSTER = 'gateway-conformance';

type Options = {
  readonly focus: readonly string[];
  readonly skip: readonly string[];
  /** Undefined: a cluster of its own. */
  readonly clusterName: string | undefined;
  readonly processes: number;
  readonly isGateway: boolean;
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
    const suite = options.isGateway ? testGateway : testKubernetes;
    const outcome = await suite({ root, options, runtime, signal });
    if (outcome === undefined) return 0;
    const { results, causes, file, reports } = outcome;
    const open = unexplained(results, causes);
    for (const { name, outcome, message } of open) log(`✖ ${outcome}: ${name}\n  ${message.split('\n', 1).join('')}`);
    log(`${open.length === 0 ? '✔' : '✖'} ${summarize(results)}\n  ${file}\n  ${reports}`);
    return open.length === 0 ? 0 : 1;
  } catch (error) {
    if (signal.aborted) {
      log('✖ interrupted');
      return 130;
    }
    if (!(error instanceof CutShort)) throw error;
    log(`✖ ${error.message}`);
    return 1;
  } finally {
    await runtime.close();
  }
}

type Work = {
  readonly root: string;
  readonly options: Options;
  readonly runtime: DockerRuntime;
  readonly signal: AbortSignal;
};

type Outcome = {
  readonly results: readonly SpecResult[];
  readonly causes: readonly KnownCause[];
  /** The page that was written. */
  readonly file: string;
  readonly reports: string;
};

/** Undefined where only images were wanted. */
async function testKubernetes({ root, options, runtime, signal }: Work): Promise<Outcome | undefined> {
  const images = await provideConformanceImages(runtime, { root, onProgress, signal });
  if (options.isPreparation) return undefined;
  const { focus, skip, processes, clusterName } = options;
  const commit = findCommit(root);
  const docker = await runtime.client();
  const { results, minutes, reports } = await onCluster(
    { root, clusterName, ownName: OWN_CLUSTER, config: CLUSTER_CONFIG, testRefs: images.testRefs },
    (cluster) =>
      runSuite({
        ...cluster,
        docker,
        images,
        focus: focus.length === 0 ? [CONFORMANCE] : focus,
        skip,
        processes,
        output: process.stdout,
        signal,
      }),
  );
  const page = formatConformance(results, KNOWN_CAUSES, {
    date: today(),
    versions: { Kubernetes: COMPONENT_VERSIONS.kubernetes, containerd: COMPONENT_VERSIONS.containerd },
    commit,
    machine: await describeMachine(docker),
    processes,
    minutes,
  });
  const isWhole = focus.length === 0 && skip.length === 0;
  const file = isWhole ? join(root, 'docs', 'conformance.md') : join(reports, 'report.md');
  await writeFile(file, page);
  return { results, causes: KNOWN_CAUSES, file, reports };
}

/** The same with the Gateway API's suite, whose results are a chapter of docs/gateway-api.md. */
async function testGateway({ root, options, runtime, signal }: Work): Promise<Outcome | undefined> {
  const images = await provideGatewayConformanceImages(runtime, { root, onProgress, signal });
  if (options.isPreparation) return undefined;
  const commit = findCommit(root);
  const docker = await runtime.client();
  const [only] = options.focus;
  const { results, minutes, reports } = await onCluster(
    {
      root,
      clusterName: options.clusterName,
      ownName: OWN_GATEWAY_CLUSTER,
      config: 'gatewayApi: true\n',
      testRefs: images.testRefs,
    },
    (cluster) =>
      runGatewaySuite({ ...cluster, docker, images, only, version: commit ?? '', output: process.stdout, signal }),
  );
  const chapter = formatGateway(results, GATEWAY_CAUSES, {
    date: today(),
    versions: { 'Gateway API': await gatewayVersion(root), Traefik: COMPONENT_VERSIONS.traefik },
    commit,
    minutes,
  });
  const page = join(root, 'docs', 'gateway-api.md');
  const file = only === undefined ? page : join(reports, 'report.md');
  await writeFile(file, only === undefined ? replaceSection(await readFile(page, 'utf8'), chapter) : chapter);
  return { results, causes: GATEWAY_CAUSES, file, reports };
}

/** That of the suite; a unit test holds it together with the definitions'. */
async function gatewayVersion(root: string): Promise<string> {
  const goMod = await readFile(join(root, 'images', 'gateway-conformance', 'go.mod'), 'utf8');
  return /^\tsigs\.k8s\.io\/gateway-api (\S+)$/m.exec(goMod)?.[1] ?? 'unknown';
}

function today(): string {
  return new Date().toISOString().slice(0, 10);
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
        gateway: { type: 'boolean', default: false },
        prepare: { type: 'boolean', default: false },
        help: { type: 'boolean', default: false },
      },
    });
    if (values.help) throw new Error("runs upstream's conformance suite");
    if (!/^[1-9]\d?$/.test(values.procs)) throw new Error(`--procs ${values.procs}: a number from 1 to 99`);
    if (values.gateway && (values.focus.length > 1 || values.skip.length > 0)) {
      throw new Error('--gateway: takes one --focus and no --skip');
    }
    return {
      focus: values.focus,
      skip: values.skip,
      clusterName: values.name,
      processes: Number(values.procs),
      isGateway: values.gateway,
      isPreparation: values.prepare,
    };
  } catch (error) {
    log(`${error instanceof Error ? error.message : String(error)}\n\n${USAGE}`);
    return undefined;
  }
}

function onProgress(text: string): void {
  log(`• ${text}`);
}

function log(text: string): void {
  process.stderr.write(`${text}\n`);
}
