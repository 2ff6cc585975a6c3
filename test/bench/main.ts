/** `npm run bench`: measures the command line on this machine; prints a table and writes every value as JSON. */
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { dirname, join, relative, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { formatTable } from '../../src/cli/view/table.ts';
import { canRestartEngine, restartEngine } from '../fixtures/engine-restart.ts';
import { currentLoad, describeMachine, findCommit } from './machine.ts';
import { Measurements, type StepSummary, type Summary } from './measures.ts';
import { measureBuild } from './parts/build.ts';
import { measureLife, prepareLife } from './parts/life.ts';
import { measureLoad } from './parts/load.ts';
import { measureMounts, prepareMounts } from './parts/mounts.ts';
import { measurePods, preparePods } from './parts/pods.ts';
import { measurePorts, preparePorts } from './parts/ports.ts';
import { measurePower, preparePower } from './parts/power.ts';
import { measureReset, prepareReset } from './parts/reset.ts';
import { measureRest } from './parts/rest.ts';
import { endTraffic, measureTraffic, prepareTraffic } from './parts/traffic.ts';
import { Subject } from './subject.ts';

const PARTS = ['up', 'pods', 'load', 'mounts', 'ports', 'traffic', 'reset', 'power', 'rest', 'build'] as const;
type Part = (typeof PARTS)[number];

const USAGE = `npm run bench -- [options]
  --only PARTS      of ${PARTS.join(', ')}; a list with commas (default: all but build)
  --build           build too: one cold build of all images, 15 minutes and more
  --restart-engine  in power, restart the Docker engine too: whatever runs on it is restarted with it
  --runs N          how often each part is measured (default: 5)
  --output FILE     where the values go (default: docs/bench/DATE-MACHINE.json)
  --machine NAME    what the machine is called in the file's name
  --package FOLDER  another checkout or installed package to be measured
  --name NAME       of the cluster, which must not be there (default: bench)`;

type Options = {
  readonly parts: readonly Part[];
  readonly runs: number;
  readonly output: string;
  readonly packageDirectory: string;
  readonly clusterName: string;
  readonly restartsEngine: boolean;
};

/** Runs the parts and returns the exit code: 1 where a run failed. `root` is the checkout. */
export async function main(root: string, args: readonly string[]): Promise<number> {
  const options = parseOptions(root, args);
  if (options === undefined) {
    log(USAGE);
    return 2;
  }
  const interruption = new AbortController();
  process.on('SIGINT', () => interruption.abort()).on('SIGTERM', () => interruption.abort());
  const subject = await Subject.open({ ...options, signal: interruption.signal });
  try {
    return await measureAll(subject, options, interruption.signal);
  } finally {
    await subject.close();
  }
}

async function measureAll(subject: Subject, options: Options, signal: AbortSignal): Promise<number> {
  const { parts, packageDirectory } = options;
  const measurements = new Measurements();
  const failures: string[] = [];
  const loads: Record<string, number> = {};
  const { version } = JSON.parse(await readFile(join(packageDirectory, 'package.json'), 'utf8')) as { version: string };
  const head = {
    date: new Date().toISOString(),
    sandbar: version,
    commit: findCommit(packageDirectory),
    machine: await describeMachine(subject.docker),
  };

  const repeat = async (part: Part, measure: () => Promise<void>): Promise<void> => {
    loads[part] = currentLoad();
    log(`• ${part}: load of the machine ${String(loads[part])}`);
    for (let run = 1; run <= options.runs; run += 1) {
      const startedAt = performance.now();
      try {
        await measure();
        log(`  ${part} ${String(run)} of ${String(options.runs)}: ${seconds((performance.now() - startedAt) / 1000)}`);
      } catch (error) {
        signal.throwIfAborted();
        failures.push(`${part} ${String(run)}: ${error instanceof Error ? error.message : String(error)}`);
        log(`✖ ${failures.at(-1) ?? ''}`);
      }
    }
    // What is there so far outlives whatever comes next.
    await save();
  };
  const save = async (): Promise<void> => {
    const result = { ...head, load: loads, measures: measurements.summaries(), steps: measurements.steps(), failures };
    await mkdir(dirname(options.output), { recursive: true });
    await writeFile(options.output, `${JSON.stringify(result, undefined, 2)}\n`);
  };

  if (parts.includes('up')) {
    await prepareLife(subject);
    await repeat('up', () => measureLife(subject, measurements));
  }
  if (parts.includes('pods')) {
    await preparePods(subject);
    await repeat('pods', () => measurePods(subject, measurements));
  }
  if (parts.includes('load')) await repeat('load', () => measureLoad(subject, measurements));
  if (parts.includes('mounts')) {
    await prepareMounts(subject);
    await repeat('mounts', () => measureMounts(subject, measurements));
  }
  if (parts.includes('traffic')) {
    await prepareTraffic(subject);
    await repeat('traffic', () => measureTraffic(subject, measurements));
    await endTraffic(subject);
  }
  if (parts.includes('ports')) {
    await preparePorts(subject);
    await repeat('ports', () => measurePorts(subject, measurements));
  }
  if (parts.includes('reset')) {
    await prepareReset(subject);
    await repeat('reset', () => measureReset(subject, measurements));
  }
  if (parts.includes('power')) {
    await preparePower(subject);
    const restart = options.restartsEngine ? (): Promise<void> => restartEngine(subject.docker) : undefined;
    await repeat('power', () => measurePower(subject, measurements, { restartEngine: restart }));
  }
  if (parts.includes('rest')) await repeat('rest', () => measureRest(subject, measurements));
  if (parts.includes('build')) {
    loads['build'] = currentLoad();
    const { runs } = options;
    await measureBuild(measurements, { packageDirectory, docker: subject.docker, runs, signal, log });
    await save();
  }

  printLine(formatMeasures(measurements.summaries()));
  if (measurements.steps().length > 0)
    printLine(`\nwhere the time of \`up\` goes\n${formatSteps(measurements.steps())}`);
  printLine(`\nall values: ${relative(process.cwd(), options.output)}`);
  for (const failure of failures) log(`✖ ${failure}`);
  return failures.length === 0 ? 0 : 1;
}

function parseOptions(root: string, args: readonly string[]): Options | undefined {
  try {
    const { values } = parseArgs({
      args: [...args],
      options: {
        only: { type: 'string' },
        build: { type: 'boolean', default: false },
        runs: { type: 'string', default: '5' },
        output: { type: 'string' },
        machine: { type: 'string' },
        package: { type: 'string', default: root },
        name: { type: 'string', default: 'bench' },
        'restart-engine': { type: 'boolean', default: false },
      },
    });
    const wished = values.only?.split(',') ?? ['up', 'pods', 'load', 'mounts', 'traffic', 'reset', 'power', 'rest'];
    const parts = PARTS.filter((part) => wished.includes(part) || (part === 'build' && values.build));
    const runs = Number(values.runs);
    if (wished.some((part) => !PARTS.includes(part as Part)) || !(runs >= 1)) return undefined;
    const machine = values.machine ?? `${process.platform}-${process.arch}`;
    const file = `${new Date().toISOString().slice(0, 10)}-${machine}.json`;
    const output = values.output === undefined ? join(root, 'docs', 'bench', file) : resolve(values.output);
    const restartsEngine = values['restart-engine'];
    if (restartsEngine && !canRestartEngine) return undefined;
    return { parts, runs, output, packageDirectory: resolve(values.package), clusterName: values.name, restartsEngine };
  } catch {
    return undefined;
  }
}

function formatMeasures(summaries: readonly Summary[]): string {
  return formatTable([
    ['MEASURE', 'MEDIAN', 'GOAL', 'FROM', 'TO', 'RUNS'],
    ...summaries.map(({ title, unit, median, goal, floor, min, max, values }) => {
      const isLarge = (unit === 'MiB' && median >= 10) || unit === '/s';
      const figure = (value: number): string => `${value.toFixed(isLarge ? 0 : 2)} ${unit}`;
      const isMissed = median > (goal ?? Infinity) || median < (floor ?? 0);
      const limit = goal ?? floor;
      const wanted = limit === undefined ? '' : `${String(limit)} ${unit}${isMissed ? ' ✖' : ''}`;
      return [title, figure(median), wanted, figure(min), figure(max), String(values.length)];
    }),
  ]);
}

function formatSteps(steps: readonly StepSummary[]): string {
  return formatTable([
    ['STEP', 'FROM', 'TO', 'TAKES', 'RUNS'],
    ...steps.map(({ id, start, end, runs }) => [id, seconds(start), seconds(end), seconds(end - start), String(runs)]),
  ]);
}

function seconds(value: number): string {
  return `${value.toFixed(2)} s`;
}

/** Progress, for whoever waits. */
function log(text: string): void {
  process.stderr.write(`${text}\n`);
}

/** The result. */
function printLine(text: string): void {
  process.stdout.write(`${text}\n`);
}
