/** What a run of the Gateway API's suite came to: its output read, and a chapter of docs/gateway-api.md made of it. Pure. */
import { findCause, summarize, type KnownCause, type SpecResult } from './report.ts';

const HEADING = '## Conformance';
/** Name of the one test that holds all others. */
const ALL = 'Conformance';
const MESSAGE_LENGTH = 400;

type GatewayRun = {
  readonly date: string;
  readonly versions: Readonly<Record<string, string>>;
  readonly commit: string | undefined;
  readonly minutes: number;
};

/** The tests in what `go test -v` prints. What their parts said is in the message, and so is why one was skipped. */
export function readGatewayOutput(text: string): readonly SpecResult[] {
  const said = new Map<string, string[]>();
  const results: Omit<SpecResult, 'message'>[] = [];
  let current = ALL;
  for (const line of text.split('\n')) {
    const begun = /^=== (?:RUN|NAME|CONT) +Conformance(?:\/([^/\s]+))?/.exec(line);
    if (begun !== null) {
      current = begun[1] ?? ALL;
      continue;
    }
    const ended = /^ *--- (PASS|FAIL|SKIP): Conformance(?:\/([^/\s]+))? \(([\d.]+)s\)$/.exec(line);
    if (ended === null) {
      said.set(current, [...(said.get(current) ?? []), line.trim()]);
      continue;
    }
    const [, state, name = ALL, seconds] = ended;
    // The whole counts where nothing in it failed but itself, such as its preparation.
    results.push({ name, outcome: outcomeOf(state), seconds: Number(seconds), isSerial: true });
  }
  const parts = results.filter(({ name }) => name !== ALL);
  const isBroken = results.length > parts.length && parts.every(({ outcome }) => outcome !== 'failed');
  const whole = results.filter(({ name, outcome }) => name === ALL && outcome === 'failed' && isBroken);
  return [...parts, ...whole].map((result) => ({ ...result, message: messageOf(said.get(result.name) ?? []) }));
}

/** The chapter, with its heading. */
export function formatGateway(results: readonly SpecResult[], causes: readonly KnownCause[], run: GatewayRun): string {
  const versions = Object.entries(run.versions).map(([name, version]) => `, ${name} ${version}`);
  const failed = results.filter(({ outcome }) => outcome === 'failed');
  const features = new Set(
    results.flatMap(({ outcome, message }) =>
      outcome === 'skipped' ? (/suite does not support (\w+)/.exec(message)?.[1] ?? []) : [],
    ),
  );
  return [
    HEADING,
    '',
    '<!-- Made by `npm run conformance -- --gateway`. -->',
    '',
    "Upstream's suite, with the profiles GATEWAY-HTTP and GATEWAY-GRPC and the features that the class claims: " +
      `**${summarize(results)}** (${run.date}${versions.join('')}, Sandbar ${run.commit ?? 'a package'}, ` +
      `${String(Math.max(1, Math.round(run.minutes)))} minutes).`,
    '',
    ...failed.map((result) => {
      const cause = findCause(result, causes) ?? `unexplained: ${result.message}`;
      return `- \`${result.name}\` failed: ${cause}.`;
    }),
    `- Not run, since the class does not claim it or the standard channel has no definition for it: ${[...features].sort().join(', ') || 'nothing'}.`,
    '',
  ].join('\n');
}

/** The page with that chapter in place of its last one, or after all others. */
export function replaceSection(page: string, chapter: string): string {
  const start = page.indexOf(`${HEADING}\n`);
  return `${(start === -1 ? page : page.slice(0, start)).trimEnd()}\n\n${chapter}`;
}

function outcomeOf(state: string | undefined): SpecResult['outcome'] {
  return state === 'PASS' ? 'passed' : state === 'SKIP' ? 'skipped' : 'failed';
}

/** The first error, where there is one, else everything; in one line. */
function messageOf(lines: readonly string[]): string {
  const start = lines.findIndex((line) => line.startsWith('Error:'));
  const end = lines.findIndex((line, index) => index > start && line.startsWith('Test:'));
  const kept = start === -1 ? lines : lines.slice(start, end === -1 ? undefined : end);
  return kept.join(' ').replace(/\s+/g, ' ').trim().slice(0, MESSAGE_LENGTH);
}
