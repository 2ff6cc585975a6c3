/** What a run of the suite came to: Ginkgo's report read, and docs/conformance.md made of it. Pure. */
import type { Machine } from '../bench/machine.ts';

export type SpecResult = {
  /** Containers and test, as Ginkgo joins them. */
  readonly name: string;
  /** `skipped`: it was chosen, and itself found that it cannot run here. */
  readonly outcome: 'passed' | 'skipped' | 'failed';
  readonly seconds: number;
  /** Why it was skipped or failed. */
  readonly message: string;
  readonly isSerial: boolean;
};

/** A cause that somebody has found, for tests with this name that end with this message. */
export type KnownCause = { readonly test: RegExp; readonly message: RegExp; readonly cause: string };

/** What a report says of a run, besides its results. */
export type RunDescription = {
  readonly date: string;
  readonly versions: Readonly<Record<string, string>>;
  readonly commit: string | undefined;
  readonly machine: Machine;
  readonly processes: number;
  readonly minutes: number;
};

/** A run that did not come to its end, of which no page may tell. */
export class CutShort extends Error {
  constructor(reason: string) {
    super(`the run was cut short: ${reason}`);
  }
}

type GinkgoReport = {
  /** Such as that it was interrupted, or took too long. */
  readonly SpecialSuiteFailureReasons?: readonly string[] | null;
  readonly PreRunStats: { readonly SpecsThatWillRun: number };
  readonly SpecReports: readonly GinkgoSpec[];
};

type GinkgoSpec = {
  readonly ContainerHierarchyTexts: readonly string[] | null;
  readonly LeafNodeType: string;
  readonly LeafNodeText: string;
  readonly State: string;
  /** In nanoseconds. */
  readonly RunTime: number;
  readonly Failure?: { readonly Message: string };
};

const NANOSECONDS = 1e9;

/**
 * The tests that were chosen, and what else of the suite failed, such as its preparation. Throws CutShort where not all
 * of them were come to: the report has those as it has tests that were not chosen.
 */
export function readReport(text: string): readonly SpecResult[] {
  const reports = JSON.parse(text) as readonly GinkgoReport[];
  const specs = reports
    .flatMap(({ SpecReports }) => SpecReports)
    // A test that skips itself says why.
    .filter(({ State, Failure }) => State !== 'pending' && !(State === 'skipped' && Failure === undefined))
    .filter((spec) => isTest(spec) || (spec.State !== 'passed' && spec.State !== 'skipped'));
  const reasons = reports.flatMap(({ SpecialSuiteFailureReasons }) => SpecialSuiteFailureReasons ?? []);
  const chosen = reports.reduce((sum, { PreRunStats }) => sum + PreRunStats.SpecsThatWillRun, 0);
  const tested = specs.filter(isTest).length;
  if (tested < chosen || tested === 0) {
    const broken = specs.filter((spec) => !isTest(spec)).map(resultOf);
    reasons.push(
      `${String(tested)} of ${String(chosen)} tests were run`,
      ...broken.map(({ name, message }) => `${name}: ${firstLine(message)}`),
    );
  }
  if (reasons.length > 0) throw new CutShort(reasons.join('; '));
  return specs.map(resultOf);
}

function isTest({ LeafNodeType }: GinkgoSpec): boolean {
  return LeafNodeType === 'It';
}

function resultOf(spec: GinkgoSpec): SpecResult {
  const name = [...(spec.ContainerHierarchyTexts ?? []), spec.LeafNodeText || spec.LeafNodeType].join(' ');
  return {
    name,
    outcome: spec.State === 'passed' || spec.State === 'skipped' ? spec.State : 'failed',
    seconds: spec.RunTime / NANOSECONDS,
    message: spec.Failure?.Message ?? '',
    isSerial: name.includes('[Serial]'),
  };
}

/** Why a test did not pass, where somebody has found out. */
export function findCause({ name, message }: SpecResult, causes: readonly KnownCause[]): string | undefined {
  return causes.find((known) => known.test.test(name) && known.message.test(message))?.cause;
}

/** The tests that did not pass for a reason that nobody has found. */
export function unexplained(results: readonly SpecResult[], causes: readonly KnownCause[]): readonly SpecResult[] {
  return results.filter((result) => result.outcome !== 'passed' && findCause(result, causes) === undefined);
}

/** `444 of 446 passed, 2 not run here, 0 failed` */
export function summarize(results: readonly SpecResult[]): string {
  const count = (outcome: SpecResult['outcome']): string =>
    String(results.filter((result) => result.outcome === outcome).length);
  return `${count('passed')} of ${String(results.length)} passed, ${count('skipped')} not run here, ${count('failed')} failed`;
}

/** docs/conformance.md */
export function formatConformance(
  results: readonly SpecResult[],
  causes: readonly KnownCause[],
  run: RunDescription,
): string {
  const { machine } = run;
  const serial = results.filter(({ isSerial }) => isSerial);
  const missed = results.filter(({ outcome }) => outcome !== 'passed');
  const facts = {
    Result: `**${summarize(results)}**`,
    Date: run.date,
    ...run.versions,
    Sandbar: run.commit ?? 'a package',
    Machine: `${machine.cpu}, ${String(machine.cores)} cores, ${String(machine.memoryGiB)} GiB`,
    System: machine.system,
    Engine: machine.engine,
    Duration: `${String(Math.round(run.minutes))} minutes: ${String(results.length - serial.length)} tests in ${String(run.processes)} processes, then ${String(serial.length)} one after the other`,
  };
  return [
    '# Conformance',
    '',
    '<!-- Made by `npm run conformance`. -->',
    '',
    "Upstream's conformance suite, whole, the serial and disruptive tests included, at the cluster's own version.",
    'A test counts as not run here when it finds by itself that the cluster lacks what it needs.',
    '',
    ...table(['', ''], Object.entries(facts)),
    '',
    '## Not passed',
    '',
    ...(missed.length === 0
      ? ['None.']
      : table(
          ['test', 'outcome', 'cause'],
          missed.map((result) => [
            escapeCell(result.name),
            result.outcome === 'skipped' ? 'not run here' : 'failed',
            findCause(result, causes) ?? `unexplained: ${escapeCell(firstLine(result.message))}`,
          ]),
        )),
    '',
    '## By area',
    '',
    ...table(['area', 'passed', 'of'], byArea(results)),
    '',
  ].join('\n');
}

function byArea(results: readonly SpecResult[]): readonly (readonly string[])[] {
  const areas = new Map<string, { passed: number; all: number }>();
  for (const { name, outcome } of results) {
    const area = /^\[(sig-[a-z-]+)\]/.exec(name)?.[1] ?? 'the suite itself';
    const counts = areas.get(area) ?? { passed: 0, all: 0 };
    areas.set(area, { passed: counts.passed + (outcome === 'passed' ? 1 : 0), all: counts.all + 1 });
  }
  return [...areas]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([area, { passed, all }]) => [area, String(passed), String(all)]);
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): readonly string[] {
  const line = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`;
  return [line(head), line(head.map(() => '---')), ...rows.map(line)];
}

function escapeCell(text: string): string {
  return text.replace(/[|<>*_[\]]/g, '\\$&');
}

function firstLine(text: string): string {
  return text.trim().split('\n', 1).join('').slice(0, 200);
}
