import { findConfigFile } from '../../config/load.ts';
import { parseExcluded, parseMountTarget, type SyntaxProblem } from '../../config/mount-syntax.ts';
import { SandbarError } from '../../model/errors.ts';
import { formatWorkload, type MountTarget } from '../../model/mounts.ts';
import { resolveImages } from '../../operations/images.ts';
import { listMounts, type MountListing } from '../../operations/mount-list.ts';
import { mount, type MountResult } from '../../operations/mounts.ts';
import { requireSavable, saveRecord } from '../../operations/mount-save.ts';
import { unmount, type UnmountResult } from '../../operations/unmount.ts';
import type { Rollout } from '../../operations/mount-workloads.ts';
import { clusterNameOf } from '../load-spec.ts';
import { runCommand, type CommandContext, type CommandInput } from '../run-command.ts';
import { paint, type Terminal } from '../terminal.ts';
import { formatTable } from '../view/table.ts';

export type MountFlags = {
  readonly source: string;
  readonly target?: string;
  readonly readOnly?: boolean;
  readonly exclude?: readonly string[];
  readonly namespace?: string;
  readonly allowSensitive?: boolean;
  readonly save?: boolean;
};

export type UnmountFlags = {
  readonly mounts: readonly string[];
  readonly namespace?: string;
  readonly all?: boolean;
};

const DEFAULT_NAMESPACE = 'default';

/** Mounts a folder or a file into a workload; without one, says where it lies on the node. */
export function runMount(input: CommandInput<MountFlags>): Promise<number> {
  return runCommand(input, async (context) => {
    const { cli, globals, flags } = input;
    const { ports, emit } = context;
    const { target, path } = parseTarget(flags);
    if (flags.save === true) requireSavable(target);
    if (flags.save === true && flags.allowSensitive === true) {
      throw new SandbarError('USAGE', 'a folder with credentials is not saved: sandbar.yaml may come from anywhere', {
        hint: 'leave out --save, or --allow-sensitive',
      });
    }
    const file = await findConfigFile(cli.host, globals);
    const excluded = (flags.exclude ?? []).map((text) => required(parseExcluded(text, path ?? '/')).path);
    const result = await mount(
      {
        clusterName: await clusterNameOf(globals, cli.host),
        writtenSource: flags.source,
        target,
        isReadOnly: flags.readOnly === true,
        excluded: [...new Set(excluded)],
        allowsSensitive: flags.allowSensitive === true,
        configFile: file,
        timeoutMs: globals.timeout,
        signal: cli.signal,
      },
      { ports, emit, startRelay: cli.startRelay, ensureImage: () => resolveMountImage(input, context) },
    );
    const savedIn = flags.save === true ? await saveRecord(result.record, file, cli.host) : undefined;
    const saved = savedIn === undefined ? [] : [`  saved in ${savedIn}`];
    return {
      result: { ...describeMount(result), savedIn },
      text: [...formatMount(flags, result, path), ...saved].join('\n'),
    };
  });
}

export function runUnmount(input: CommandInput<UnmountFlags>): Promise<number> {
  return runCommand(input, async ({ ports, emit }) => {
    const { cli, globals, flags } = input;
    if ((flags.all === true) === flags.mounts.length > 0) {
      throw new SandbarError('USAGE', flags.all === true ? '--all leaves nothing to name' : 'no mount is named', {
        hint: 'name mounts as sandbar mounts lists them, or say --all',
      });
    }
    const result = await unmount(
      {
        clusterName: await clusterNameOf(globals, cli.host),
        mounts: flags.all === true ? 'all' : flags.mounts,
        namespace: flags.namespace,
        timeoutMs: globals.timeout,
        signal: cli.signal,
      },
      { ports, emit },
    );
    return { result: describeUnmount(result), text: formatUnmount(result) };
  });
}

export function runMounts(input: CommandInput<{ readonly namespace?: string }>): Promise<number> {
  return runCommand(input, async ({ ports, terminal }) => {
    const { cli, globals, flags } = input;
    const clusterName = await clusterNameOf(globals, cli.host);
    const mounts = await listMounts(clusterName, ports, { namespace: flags.namespace });
    return { result: mounts, text: formatMounts(mounts, terminal) };
  });
}

/** Image of the containers that hand folders over. */
async function resolveMountImage({ cli }: CommandInput<unknown>, { ports, emit }: CommandContext): Promise<string> {
  const repository = cli.host.env['SANDBAR_IMAGE_REPOSITORY'];
  const refs = await resolveImages(ports, emit, { names: ['mount'], repository, signal: cli.signal });
  return refs.get('mount') ?? '';
}

function parseTarget({ target: text, namespace = DEFAULT_NAMESPACE }: MountFlags): {
  readonly target: MountTarget;
  /** Path in the container, where one was written. */
  readonly path: string | undefined;
} {
  if (text === undefined) return { target: { kind: 'node' }, path: undefined };
  return required(parseMountTarget(text, { namespace }));
}

function required<T extends object>(parsed: T | SyntaxProblem): T {
  if (!('problem' in parsed)) return parsed;
  const { problem, suggestion } = parsed;
  throw new SandbarError('USAGE', problem, suggestion === undefined ? {} : { hint: suggestion });
}

function describeMount({ record, change, rollout, placed, nodePath }: MountResult): object {
  const { target, ...rest } = record;
  return {
    ...rest,
    ...describeTarget(target),
    change,
    rollout,
    state: placed?.state,
    fileSystem: placed?.fileSystem,
    ownership: placed?.ownership,
    nodePath,
  };
}

function describeTarget(target: MountTarget): object {
  if (target.kind === 'node') return {};
  const { namespace, container } = target.workload;
  return { target: target.path, namespace, workload: nameOf(target), container };
}

function nameOf(target: Extract<MountTarget, { kind: 'workload' }>): string {
  return formatWorkload({ ...target.workload, namespace: DEFAULT_NAMESPACE, container: undefined });
}

function formatMount(flags: MountFlags, result: MountResult, path: string | undefined): readonly string[] {
  const { record, change, rollout } = result;
  const { target, parentId } = record;
  const events = `  file events: ${formatEvents(result)}`;
  if (target.kind === 'node') {
    const already = change === 'unchanged' ? ', as before' : '';
    const volume = `{ name: ${record.id}, hostPath: { path: ${result.nodePath}, type: ${record.sourceType} } }`;
    const mountPath = path ?? '/PATH/IN/CONTAINER';
    return [
      `${flags.source} lies at ${result.nodePath} on the node${already}`,
      `  volumes:      - ${volume}`,
      `  volumeMounts: - { name: ${record.id}, mountPath: ${mountPath}, mountPropagation: HostToContainer }`,
      events,
    ];
  }
  const place = `${target.path} in ${formatWorkload(target.workload)}`;
  const mode = record.isReadOnly ? ', read-only' : '';
  if (change === 'unchanged') {
    const already = `${flags.source} is mounted at ${place} already: nothing was changed`;
    return [already, ...byHandLines(rollout), events, ...ownershipLines(result)];
  }
  const inside = parentId === undefined ? '' : `: it lies inside of ${parentId}`;
  return [
    `${flags.source} is mounted at ${place}${mode} (${record.id})`,
    ...(rollout.kind === 'none' ? [`  no pod was restarted${inside}`] : []),
    ...(rollout.kind === 'rolled' ? [`  rolled once: ${countPods(rollout.pods)}`] : []),
    ...byHandLines(rollout),
    events,
    ...ownershipLines(result),
  ];
}

function byHandLines(rollout: Rollout): readonly string[] {
  return rollout.kind === 'by-hand' ? [`  pods that run stay as they are; ${rollout.advice}`] : [];
}

function countPods(pods: number): string {
  return pods === 1 ? '1 new pod is ready' : `${String(pods)} new pods are ready`;
}

function formatEvents({ record: { events, source } }: MountResult): string {
  switch (events) {
    case 'native':
      return 'native';
    case 'relayed':
      return "relayed by a process on this machine, since the engine's file sharing delivers none";
    case 'polling':
      return "polling, since the engine's file sharing delivers none: they come late";
    case undefined:
      return `not proven, since ${source} cannot be written by this user`;
  }
}

/** What helps where the kernel or the file system cannot make the files look like the container's user's own. */
function ownershipLines({ record: { source }, placed }: MountResult): readonly string[] {
  if (placed?.ownership !== 'unsupported' || placed.owner === undefined) return [];
  const { owner, fileSystem } = placed;
  const user = (placed.users ?? []).find(({ uid }) => uid !== owner.uid);
  if (user === undefined) return [];
  const [own, wanted] = [String(owner.uid), String(user.uid)];
  return [
    `  ownership: the container runs as user ${wanted}, the files belong to ${own}, and ${fileSystem || 'their file system'} cannot map one to the other`,
    `  fix: securityContext: { runAsUser: ${own}, runAsGroup: ${String(owner.gid)} } in its pod, or sudo chown -R ${wanted} ${source}`,
  ];
}

function describeUnmount({ removed, rollouts }: UnmountResult): unknown {
  return {
    removed: removed.map(({ target, ...record }) => ({ ...record, ...describeTarget(target) })),
    rollouts: rollouts.map(({ workload, rollout }) => ({ workload, ...rollout })),
  };
}

function formatUnmount({ removed, rollouts }: UnmountResult): string {
  if (removed.length === 0) return 'nothing is mounted: nothing was changed';
  const lines = removed.map(({ id, source, target }) =>
    target.kind === 'node'
      ? `${source} is unmounted (${id})`
      : `${source} is unmounted from ${target.path} in ${formatWorkload(target.workload)} (${id})`,
  );
  const rolled = rollouts.flatMap(({ workload, rollout }) => {
    switch (rollout.kind) {
      case 'none':
        return [];
      case 'rolled':
        return [`  ${workload} rolled once: ${countPods(rollout.pods)}`];
      case 'by-hand':
        return [`  ${workload}: pods that run stay as they are; ${rollout.advice}`];
    }
  });
  return [...lines, ...(rolled.length === 0 ? ['  no pod was restarted'] : rolled)].join('\n');
}

function formatMounts(mounts: readonly MountListing[], terminal: Terminal): string {
  if (mounts.length === 0) return 'no mounts: sandbar mount ./src deployment/NAME:/PATH makes one';
  const rows = mounts.map((listing) => [
    listing.source,
    listing.target,
    formatPlace(listing),
    listing.state === 'attached' ? listing.state : paint(listing.state, 'red', terminal),
    listing.events,
    listing.fileSystem || '-',
    listing.isReadOnly ? 'ro' : 'rw',
    listing.id,
  ]);
  const details = mounts.flatMap(problemLines);
  const table = formatTable([['SOURCE', 'TARGET', 'WORKLOAD', 'STATE', 'EVENTS', 'FILES', 'MODE', 'ID'], ...rows]);
  return [table, ...details].join('\n');
}

function formatPlace({ workload, namespace, container }: MountListing): string {
  if (workload === undefined) return '-';
  const prefix = namespace === DEFAULT_NAMESPACE || namespace === undefined ? '' : `${namespace}/`;
  return `${prefix}${workload}${container === undefined ? '' : `/${container}`}`;
}

function problemLines({ id, state, detail, events, excluded, ownership }: MountListing): readonly string[] {
  return [
    ...(ownership === 'unsupported'
      ? [`${id}: its file system cannot map owners: sandbar mount it again says what helps`]
      : []),
    ...(excluded.length === 0 ? [] : [`${id}: ${excluded.join(', ')} kept from the image`]),
    ...(state === 'attached' || detail === '' ? [] : [`${id}: ${detail}`]),
    ...(events === 'stopped' ? [`${id}: its file events are relayed, and the relay has stopped: sandbar up`] : []),
  ];
}
