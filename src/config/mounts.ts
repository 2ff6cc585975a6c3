/** The mounts of `sandbar.yaml`, checked against each other and against this machine. */
import path from 'node:path';
import { SandbarError } from '../model/errors.ts';
import { formatWorkload, type MountSpec, type WorkloadRef } from '../model/mounts.ts';
import type { Host } from '../model/ports.ts';
import { isBelow, partsOf } from '../mounts/paths.ts';
import { findSourceProblem, findTargetProblem, type Refusal } from '../mounts/refusals.ts';
import {
  findModeProblem,
  parseExcluded,
  parsePath,
  parseVolume,
  parseWorkload,
  type BindVolume,
  type SyntaxProblem,
  type Volume,
} from './mount-syntax.ts';
import { findNearest } from './nearest.ts';
import { formatPath, type Path, type Problem } from './problem.ts';
import type { WrittenConfig, WrittenMount } from './schema.ts';

type MountHost = Pick<Host, 'platform' | 'homeDirectory' | 'findFileType' | 'resolvePath' | 'listDirectory'>;

/** One entry of a list, and where it stands. */
type Declared<V extends Volume = Volume> = {
  readonly workload: WorkloadRef;
  readonly volume: V;
  readonly sourcePath: Path;
  readonly targetPath: Path;
};

/** Mounts that are declared, with sources as they are on this machine. Relative ones start at `directory`. */
export async function readMounts(
  { mounts }: WrittenConfig,
  directory: string,
  host: MountHost,
): Promise<{
  readonly mounts: readonly MountSpec[];
  readonly problems: readonly Problem[];
  readonly warnings: readonly Problem[];
}> {
  const read = Object.entries(mounts ?? {}).map(([key, volumes]) => readWorkload(key, volumes));
  const declared = read.flatMap((workload) => workload.declared);
  const binds = declared.filter((entry): entry is Declared<BindVolume> => entry.volume.kind === 'bind');
  const anonymous = placeAnonymous(declared, binds);
  const specs: MountSpec[] = [];
  const inFiles: Problem[] = [];
  const warnings: Problem[] = [];
  for (const entry of binds) {
    const { volume, workload, sourcePath } = entry;
    const excluded = [...new Set([...volume.excluded, ...(anonymous.excluded.get(entry) ?? [])])];
    const found = await findSource({ ...volume, excluded }, directory, host);
    if ('message' in found) inFiles.push({ path: sourcePath, ...found });
    else {
      if (found.warning !== undefined) warnings.push({ path: sourcePath, ...found.warning });
      specs.push({
        source: found.source,
        writtenSource: volume.source,
        target: { kind: 'workload', workload, path: volume.target },
        isReadOnly: volume.isReadOnly,
        excluded,
        createsSource: volume.createsSource,
      });
    }
  }
  const problems = [
    ...read.flatMap((workload) => workload.problems),
    ...findRepeats(declared),
    ...anonymous.problems,
    ...inFiles,
  ];
  return { mounts: specs, problems, warnings };
}

function readWorkload(
  key: string,
  volumes: readonly (string | WrittenMount | undefined)[],
): { readonly declared: readonly Declared[]; readonly problems: readonly Problem[] } {
  const parsed = parseWorkload(key, { namespace: 'default' });
  const declared: Declared[] = [];
  const problems: Problem[] = 'problem' in parsed ? [{ ...problemAt(['mounts', key], parsed), isAboutKey: true }] : [];
  for (const [index, written] of volumes.entries()) {
    if (written === undefined) continue;
    const at = ['mounts', key, index];
    const read = typeof written === 'string' ? readShort(written, at) : readLong(written, at);
    if (!('kind' in read)) {
      problems.push(...read);
      continue;
    }
    const isLong = typeof written !== 'string';
    const targetPath = isLong ? [...at, 'target'] : at;
    const refused = findTargetProblem(read.target);
    if (refused !== undefined) problems.push(refusalAt(targetPath, refused));
    else if ('workload' in parsed) {
      declared.push({
        workload: parsed.workload,
        volume: read,
        sourcePath: isLong ? [...at, 'source'] : at,
        targetPath,
      });
    }
  }
  return { declared, problems };
}

function problemAt(at: Path, { problem: message, suggestion }: SyntaxProblem): Problem {
  return { path: at, message, ...(suggestion === undefined ? {} : { suggestion }) };
}

function refusalAt(at: Path, { message, hint }: Refusal): Problem {
  return { path: at, message, suggestion: hint };
}

function readShort(text: string, at: Path): Volume | readonly Problem[] {
  const parsed = parseVolume(text);
  return 'problem' in parsed ? [problemAt(at, parsed)] : parsed.volume;
}

/** Types of Compose that no folder of this machine is behind, and what takes their place. */
const OTHER_TYPES: Readonly<Record<string, string>> = {
  tmpfs: 'give the workload an emptyDir with medium: Memory',
  image: 'give the workload an image volume',
  npipe: 'the node is Linux, which has no named pipes of Windows',
  cluster: 'give the workload a PersistentVolumeClaim',
};

function readLong(written: WrittenMount, at: Path): Volume | readonly Problem[] {
  const { type, source, bind } = written;
  const problems: Problem[] = [];
  if (type === undefined || written.target === undefined) return [];
  const target = parsePath(written.target);
  if ('problem' in target) problems.push(problemAt([...at, 'target'], target));
  if (type !== 'bind' && type !== 'volume') problems.push(explainType(type, [...at, 'type']));
  if (type === 'volume' && source !== undefined) {
    problems.push({
      path: [...at, 'source'],
      message: `volumes with a name, as ${source}, are only in Compose`,
      suggestion: 'write type: bind for a folder, or give the workload a PersistentVolumeClaim',
    });
  }
  if (type === 'bind' && (source === undefined || source === '')) {
    problems.push({ path: source === undefined ? at : [...at, 'source'], message: `${formatPath(at)} has no source` });
  }
  for (const key of ['propagation', 'selinux'] as const) {
    const mode = bind?.[key];
    const problem = mode === undefined ? undefined : findModeProblem(mode, key);
    if (problem !== undefined) problems.push(problemAt([...at, 'bind', key], problem));
  }
  const excluded = (written.exclude ?? []).flatMap((text, index) => {
    if (text === undefined || 'problem' in target) return [];
    const parsed = parseExcluded(text, target.path);
    if (!('problem' in parsed)) return [parsed.path];
    problems.push(problemAt([...at, 'exclude', index], parsed));
    return [];
  });
  if (problems.length > 0 || 'problem' in target) return problems;
  if (type === 'volume') return { kind: 'anonymous', target: target.path };
  const createsSource = bind?.create_host_path ?? true;
  const isReadOnly = written.read_only ?? false;
  return { kind: 'bind', source: source ?? '', target: target.path, isReadOnly, createsSource, excluded };
}

function explainType(type: string, at: Path): Problem {
  const instead = Object.hasOwn(OTHER_TYPES, type) ? OTHER_TYPES[type] : undefined;
  if (instead !== undefined) {
    return { path: at, message: `type ${type} is no mount of a folder or a file`, suggestion: instead };
  }
  const nearest = findNearest(type, ['bind', 'volume']);
  const suggestion = nearest === undefined ? 'types: bind, volume' : `did you mean ${nearest}?`;
  return { path: at, message: `unknown type ${type}`, suggestion };
}

function findRepeats(declared: readonly Declared[]): readonly Problem[] {
  const seen = new Set<string>();
  return declared.flatMap(({ workload, volume, targetPath }): readonly Problem[] => {
    const name = formatWorkload(workload);
    const place = `${name}:${volume.target}`;
    if (seen.has(place)) return [{ path: targetPath, message: `${name} has two mounts at ${volume.target}` }];
    seen.add(place);
    return [];
  });
}

/** Anonymous volumes are paths that the deepest mount around them leaves to the container's image. */
function placeAnonymous(
  declared: readonly Declared[],
  binds: readonly Declared<BindVolume>[],
): {
  readonly excluded: ReadonlyMap<Declared, readonly string[]>;
  readonly problems: readonly Problem[];
} {
  const excluded = new Map<Declared, readonly string[]>();
  const problems: Problem[] = [];
  for (const { workload, volume, targetPath } of declared.filter((entry) => entry.volume.kind === 'anonymous')) {
    const name = formatWorkload(workload);
    const [around] = binds
      .filter((bind) => formatWorkload(bind.workload) === name)
      .filter((bind) => isBelow(partsOf(volume.target, 'linux'), partsOf(bind.volume.target, 'linux')))
      .sort((a, b) => b.volume.target.length - a.volume.target.length);
    if (around === undefined) {
      problems.push({
        path: targetPath,
        message: `${volume.target} is in no mount of ${name}: the container has the image's own content there anyway`,
        suggestion: 'leave it out, or give the workload an emptyDir or a claim',
      });
    } else {
      const relative = volume.target.slice(around.volume.target.length + 1);
      excluded.set(around, [...(excluded.get(around) ?? []), relative]);
    }
  }
  return { excluded, problems };
}

type Explanation = { readonly message: string; readonly suggestion?: string };
type FoundSource = { readonly source: string; readonly warning?: Explanation };

async function findSource(volume: BindVolume, directory: string, host: MountHost): Promise<FoundSource | Explanation> {
  try {
    return await checkSource(volume, directory, host);
  } catch (error) {
    // One that may not be looked at is a problem of this place in the file.
    if (!(error instanceof SandbarError)) throw error;
    return { message: error.message, ...(error.hint === undefined ? {} : { suggestion: error.hint }) };
  }
}

async function checkSource(volume: BindVolume, directory: string, host: MountHost): Promise<FoundSource | Explanation> {
  const { source: written, createsSource, excluded } = volume;
  const { platform, homeDirectory } = host;
  if (platform !== 'win32' && /^(?:[A-Za-z]:|\\\\)/.test(written)) {
    return { message: `${written} is a path of Windows`, suggestion: 'write the path that it has on this system' };
  }
  const isInHome = /^~(?:$|[/\\])/.test(written);
  const wanted = isInHome ? path.join(homeDirectory, written.slice(1)) : path.resolve(directory, written);
  const isDeclaredInside = !isInHome && !path.isAbsolute(written) && !written.split(/[/\\]/).includes('..');
  const resolved = await resolveExisting(wanted, host);
  const context = { platform, allowsSensitive: false };
  const refused =
    findSourceProblem(wanted, { ...context, homeDirectory }) ??
    findSourceProblem(resolved.path, {
      ...context,
      homeDirectory: (await host.resolvePath(homeDirectory)) ?? homeDirectory,
      declaredRoot: isDeclaredInside ? ((await host.resolvePath(directory)) ?? directory) : undefined,
    });
  if (refused !== undefined) return { message: refused.message, suggestion: refused.hint };
  if (!resolved.isThere) {
    const missing = await explainMissing(written, wanted, host);
    if (missing.isInTheWay || !createsSource) return missing.explanation;
    const { message, ...rest } = missing.explanation;
    return { source: resolved.path, warning: { ...rest, message: `${message}: up makes it, as a folder` } };
  }
  const type = await host.findFileType(resolved.path);
  if (type === undefined) return { message: `${written} is neither a folder nor a file` };
  if (type === 'File' && excluded.length > 0) {
    return { message: `${written} is a file, of which nothing can be excluded (${excluded.join(', ')})` };
  }
  return { source: resolved.path };
}

/** The path with its symbolic links resolved, as far as it is there. */
async function resolveExisting(
  wanted: string,
  host: MountHost,
): Promise<{ readonly path: string; readonly isThere: boolean }> {
  const real = await host.resolvePath(wanted);
  const parent = path.dirname(wanted);
  if (real !== undefined || parent === wanted) return { path: real ?? wanted, isThere: real !== undefined };
  const above = await resolveExisting(parent, host);
  return { path: path.join(above.path, path.basename(wanted)), isThere: false };
}

/** `isInTheWay`: the folder cannot be made, since something else is there. */
async function explainMissing(
  written: string,
  wanted: string,
  host: MountHost,
): Promise<{ readonly explanation: Explanation; readonly isInTheWay: boolean }> {
  const parent = path.dirname(wanted);
  const siblings = (await host.listDirectory(parent))?.map(({ name }) => name) ?? [];
  if (siblings.includes(path.basename(wanted))) {
    const explanation = {
      message: `${written} is a symbolic link to nothing`,
      suggestion: `look at it: ls -l ${wanted}`,
    };
    return { explanation, isInTheWay: true };
  }
  for (let above = parent; above !== path.dirname(above); above = path.dirname(above)) {
    const type = await host.findFileType(above);
    if (type === 'Directory') break;
    if (type === 'File') {
      return { explanation: { message: `${written} cannot be: ${above} is a file` }, isInTheWay: true };
    }
  }
  const nearest = findNearest(path.basename(wanted), siblings);
  const suggestion =
    nearest === undefined
      ? `looked for ${wanted}`
      : `did you mean ${written.slice(0, written.length - path.basename(written).length)}${nearest}?`;
  return { explanation: { message: `${written} does not exist`, suggestion }, isInTheWay: false };
}
