import type { Check, Repair } from '../../diagnosis/check.ts';
import type { Emit } from '../../model/events.ts';
import { doctor, mend, type Deed, type Diagnosis } from '../../operations/doctor.ts';
import { loadImages } from '../../operations/image-load.ts';
import type { AllPorts } from '../context.ts';
import { foreseeUp, loadSpecInUse } from '../foresee-up.ts';
import { clusterNameOf } from '../load-spec.ts';
import { runLocally, type CommandInput, type CommandOutput } from '../run-command.ts';
import { paint, type Terminal } from '../terminal.ts';
import { upWithContext } from './up.ts';

export type DoctorFlags = { readonly fix?: boolean; readonly verbose?: boolean };

const UNHEALTHY = 1;

/** Findings are grouped by where they are; the first that matches the start of an id. */
const GROUPS: readonly (readonly [title: string, ids: readonly string[]])[] = [
  ['this machine', ['machine', 'up', 'clock', 'kubeconfig', 'network']],
  ['the cluster', ['cluster', 'part', 'certificates', 'node', 'dns', 'mount', 'port', 'drift']],
  ['objects', ['webhook', 'api-service', 'namespace', 'crd', 'claim', 'workload', 'job']],
  ['pods', ['pod']],
];

/** Without an engine too: that it is missing is a finding. */
export function runDoctor(input: CommandInput<DoctorFlags>): Promise<number> {
  return runLocally(input, async (emit): Promise<CommandOutput> => {
    const { cli, globals, flags } = input;
    const clusterName = await clusterNameOf(globals, cli.host);
    let opened: Promise<AllPorts> | undefined;
    const openPorts = (): Promise<AllPorts> => (opened ??= cli.openPorts());
    const examine = (): Promise<Diagnosis> => diagnoseCluster(input, clusterName, openPorts);
    const first = await examine();
    const deeds =
      flags.fix === true
        ? await mend(first.checks, async (repair) =>
            applyRepair(repair, input, { clusterName, ports: await openPorts(), emit }),
          )
        : [];
    const diagnosis = deeds.length === 0 ? first : await examine();
    return {
      result: { ...describe(diagnosis), ...(flags.fix === true ? { fixes: deeds.map(describeDeed) } : {}) },
      text: formatDiagnosis({ diagnosis, deeds }, { name: globals.name, flags, terminal: cli.terminal }),
      exitCode: diagnosis.isHealthy ? 0 : UNHEALTHY,
    };
  });
}

/** The same for whoever wants to have it in a file. */
export function diagnoseCluster(
  input: Pick<CommandInput<unknown>, 'cli' | 'globals'>,
  clusterName: string,
  openPorts: () => Promise<AllPorts>,
): Promise<Diagnosis> {
  return doctor(
    {
      clusterName,
      signal: input.cli.signal,
      foresee: async ({ hasCluster }) => foreseeUp(input, { ports: await openPorts(), hasCluster }),
    },
    openPorts,
  );
}

/** As `-o json` prints it. */
export function describe({ cluster, isHealthy, checks }: Diagnosis): object {
  return {
    cluster,
    isHealthy,
    checks: checks.map(({ repair, ...check }) => ({
      ...check,
      isFixable: repair !== undefined && check.severity !== 'ok',
    })),
  };
}

async function applyRepair(
  repair: Repair,
  input: CommandInput<DoctorFlags>,
  { clusterName, ports, emit }: { readonly clusterName: string; readonly ports: AllPorts; readonly emit: Emit },
): Promise<void> {
  switch (repair.kind) {
    case 'up': {
      const loaded = await loadSpecInUse(input, { ports, emit, hasCluster: true });
      // Nobody is asked: what would lose data is refused.
      await upWithContext({ ...input, flags: {} }, { ...loaded, ports, emit, confirm: undefined });
      return;
    }
    case 'load-image': {
      const request = { clusterName, imageRefs: [repair.imageRef], signal: input.cli.signal };
      await loadImages(request, ports, emit);
    }
  }
}

function describeDeed({ repair, failure }: Deed): object {
  const command = commandOf(repair);
  if (failure === undefined) return { command, isDone: true };
  return {
    command,
    isDone: false,
    message: failure.message,
    ...(failure.hint === undefined ? {} : { fix: failure.hint }),
  };
}

function commandOf(repair: Repair): string {
  return repair.kind === 'up' ? 'sandbar up' : `sandbar image load ${repair.imageRef}`;
}

function formatDiagnosis(
  { diagnosis, deeds }: { readonly diagnosis: Diagnosis; readonly deeds: readonly Deed[] },
  options: { readonly name: string | undefined; readonly flags: DoctorFlags; readonly terminal: Terminal },
): string {
  const { checks, cluster } = diagnosis;
  const { terminal, flags } = options;
  const isShown = ({ severity }: Check): boolean => severity !== 'ok' || flags.verbose === true;
  const groups = GROUPS.map(([title, ids]) => ({
    title,
    lines: checks
      .filter((check) => isShown(check) && ids.includes(check.id.replace(/\..*$/, '')))
      .flatMap((check) => formatCheck(check, options)),
  })).filter(({ lines }) => lines.length > 0);
  const fine = checks.filter(({ severity }) => severity === 'ok');
  const names = [...new Set(fine.map(({ subject }) => subject))].join(', ');
  return [
    ...deeds.map((deed) => formatDeed(deed, terminal)),
    `cluster ${cluster}: ${countOf(checks)}`,
    ...groups.flatMap(({ title, lines }) => [paint(title, 'bold', terminal), ...lines]),
    ...(flags.verbose === true || fine.length === 0 ? [] : [`${paint('✔', 'green', terminal)} fine: ${names}`]),
  ].join('\n');
}

function formatCheck(
  { severity, subject, message, cause, fix, repair }: Check,
  { name, terminal }: { readonly name: string | undefined; readonly terminal: Terminal },
): readonly string[] {
  const marks = {
    ok: paint('✔', 'green', terminal),
    warning: paint('⚠', 'yellow', terminal),
    error: paint('✖', 'red', terminal),
  };
  const line = `  ${marks[severity]} ${subject}: ${message}`;
  if (severity === 'ok') return [line];
  const command = name === undefined ? fix : fix?.replaceAll(/\bsandbar (?=[a-z])/g, `sandbar --name ${name} `);
  return [
    line,
    ...(cause === undefined ? [] : [`      ${paint('cause:', 'bold', terminal)} ${cause}`]),
    ...(command === undefined
      ? []
      : [
          `      ${paint('fix:', 'bold', terminal)} ${command}${repair === undefined ? '' : paint(' (doctor --fix does it)', 'dim', terminal)}`,
        ]),
  ];
}

function formatDeed({ repair, failure }: Deed, terminal: Terminal): string {
  if (failure === undefined) return `${paint('✔', 'green', terminal)} done: ${commandOf(repair)}`;
  return `${paint('✖', 'red', terminal)} ${commandOf(repair)}: ${failure.message}`;
}

function countOf(checks: readonly Check[]): string {
  const count = (severity: Check['severity'], word: string): readonly string[] => {
    const found = checks.filter((check) => check.severity === severity).length;
    return found === 0 ? [] : [`${String(found)} ${word}${found === 1 ? '' : 's'}`];
  };
  const parts = [...count('error', 'error'), ...count('warning', 'warning')];
  return parts.length === 0 ? 'nothing is wrong' : parts.join(', ');
}
