/** What the cluster is to know of mounts, from what the user asked for and what the cluster knows already. */
import { mountIdOf, type MountRecord, type MountSpec, type MountTarget } from '../model/mounts.ts';
import { isBelow, isWithin, partsOf, platformOf } from './paths.ts';
import { findSystemFolder } from './refusals.ts';

type Context = {
  readonly origin: MountRecord['origin'];
  /** Folder of `sandbar.yaml`, where there is one. */
  readonly projectDirectory: string | undefined;
  readonly homeDirectory: string;
  /** Records that the cluster has. Those of the same origin `file` that are asked for no more count as gone. */
  readonly existing: readonly MountRecord[];
  readonly sourceTypeOf: (source: string) => MountRecord['sourceType'];
};

/** Records of mounts, in the order in which they are asked for. */
export function planRecords(specs: readonly MountSpec[], context: Context): readonly MountRecord[] {
  const wanted = specs.map((spec) => ({ spec, id: mountIdOf(spec.target, spec.source) }));
  const wantedIds = new Set(wanted.map(({ id }) => id));
  const staying = context.existing.filter(
    ({ id, origin }) => !wantedIds.has(id) && !(context.origin === 'file' && origin === 'file'),
  );
  const roots = planRoots(specs, context);
  const records = wanted.map(({ spec, id }, index): MountRecord => {
    const { source, target, isReadOnly, excluded } = spec;
    const before = context.existing.find((record) => record.id === id);
    const sourceType = context.sourceTypeOf(source);
    const isSameSource = before?.source === source && before.sourceType === sourceType;
    return {
      id,
      source,
      sourceType,
      root: roots[index] ?? source,
      target,
      isReadOnly,
      excluded,
      parentId: undefined,
      origin: context.origin,
      // What was proven of a source stays true of it.
      events: isSameSource ? before.events : undefined,
    };
  });
  return records.map((record) => {
    const before = context.existing.find(({ id }) => id === record.id);
    // Pods that run have a volume of its own for it: it does not move into a mount that came later.
    const isSettled = before !== undefined && before.parentId === undefined;
    return isSettled ? record : { ...record, parentId: findParent(record, [...records, ...staying])?.id };
  });
}

/** For each mount the folder of the host that its container binds: the source, or one above it. */
function planRoots(specs: readonly MountSpec[], context: Context): readonly string[] {
  const known = new Set(context.existing.map(({ root }) => root));
  return specs.map(({ source, target }) => {
    const id = mountIdOf(target, source);
    const before = context.existing.find((record) => record.id === id && record.source === source);
    const planned = planRoot(source, context);
    // The project's folder comes before one further up that has a container for another reason.
    const isProject = planned === context.projectDirectory;
    const root = before?.root ?? (isProject ? planned : (findKnownRoot(source, [...known]) ?? planned));
    known.add(root);
    return root;
  });
}

/** The nearest root that has a container already. */
function findKnownRoot(source: string, roots: readonly string[]): string | undefined {
  return roots.filter((root) => holds(root, source)).sort((a, b) => b.length - a.length)[0];
}

function planRoot(source: string, context: Context): string {
  const { projectDirectory } = context;
  if (projectDirectory !== undefined && holds(projectDirectory, source) && mayBeRoot(projectDirectory, context)) {
    if (!isHome(projectDirectory, context)) return projectDirectory;
  }
  // From the folder above, a source that is deleted and made again is found by its name.
  const parent = parentOf(source);
  return mayBeRoot(parent, context) ? parent : source;
}

/** Not a whole disk, and not a folder of the system, where the engine's own mounts would be bound with it. */
function mayBeRoot(folder: string, { homeDirectory }: Context): boolean {
  const platform = platformOf(folder);
  if (partsOf(folder, platform).length <= (platform === 'win32' ? 1 : 0)) return false;
  const systems: readonly NodeJS.Platform[] = platform === 'win32' ? ['win32'] : ['linux', 'darwin'];
  return systems.every((system) => findSystemFolder(folder, { homeDirectory, platform: system }) === undefined);
}

function isHome(folder: string, { homeDirectory }: Context): boolean {
  const platform = platformOf(folder);
  return isWithin(partsOf(homeDirectory, platform), partsOf(folder, platform));
}

function holds(folder: string, source: string): boolean {
  const platform = platformOf(source);
  return isBelow(partsOf(source, platform), partsOf(folder, platform));
}

function parentOf(path: string): string {
  const parent = path.replace(/[\\/]+[^\\/]*[\\/]*$/, '');
  if (parent === '') return '/';
  return /^[A-Za-z]:$/.test(parent) ? `${parent}\\` : parent;
}

/** The mount that the target of another lies in, in the same container, unless what it excludes would hide that. */
function findParent(record: MountRecord, others: readonly MountRecord[]): MountRecord | undefined {
  const path = placeOf(record.target);
  if (path === undefined) return undefined;
  const [nearest] = others
    .filter((other) => other.sourceType === 'Directory')
    .flatMap((other) => {
      const place = placeOf(other.target);
      return place !== undefined && place.container === path.container && isBelow(path.parts, place.parts)
        ? [{ record: other, parts: place.parts }]
        : [];
    })
    .sort((a, b) => b.parts.length - a.parts.length);
  const isHidden = nearest?.record.excluded.some((excluded) =>
    isWithin(path.parts, [...nearest.parts, ...partsOf(excluded, 'linux')]),
  );
  return isHidden === true ? undefined : nearest?.record;
}

function placeOf(target: MountTarget): { readonly container: string; readonly parts: readonly string[] } | undefined {
  if (target.kind === 'node') return undefined;
  const { namespace, kind, name, container = '' } = target.workload;
  return { container: [namespace, kind, name, container].join('/'), parts: partsOf(target.path, 'linux') };
}
