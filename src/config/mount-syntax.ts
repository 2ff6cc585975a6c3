/** How mounts are written: workloads as kubectl names them, volumes in the short syntax of Compose. */
import { WORKLOAD_KINDS, type MountTarget, type WorkloadKind, type WorkloadRef } from '../model/mounts.ts';
import { findNearest } from './nearest.ts';

export type SyntaxProblem = { readonly problem: string; readonly suggestion?: string };

/** A folder or file of the host at a path of a container, as it was written. */
export type BindVolume = {
  readonly kind: 'bind';
  readonly source: string;
  readonly target: string;
  readonly isReadOnly: boolean;
  readonly createsSource: boolean;
  /** Relative to the target. */
  readonly excluded: readonly string[];
};

/** `anonymous`: the path keeps the content of the container's image. */
export type Volume = BindVolume | { readonly kind: 'anonymous'; readonly target: string };

/** What stands behind the target in the short syntax, and what comes of it; anything else is refused. */
export const VOLUME_MODES = {
  rw: 'Read and write, which is the default.',
  ro: 'Read only.',
  z: 'No effect: labels of SELinux stay as they are, and do not keep a mount from being read.',
  Z: 'No effect, as `z`.',
  cached: 'No effect: nothing is cached.',
  delegated: 'No effect: nothing is cached.',
  consistent: 'No effect: mounts always are.',
  rprivate: 'No effect: mounts always are.',
  private: 'No effect: mounts are `rprivate`.',
} as const;

/** Modes that Compose knows and that cannot be had here, with the reason. */
const REFUSED_MODES: Readonly<Record<string, string>> = {
  nocopy: 'it belongs to volumes, and this is a bind mount',
  ...Object.fromEntries(
    ['shared', 'rshared', 'slave', 'rslave'].map((mode) => [
      mode,
      'what is mounted below the source later is not passed on',
    ]),
  ),
};

const DNS_LABEL = /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/;
const DNS_SUBDOMAIN = /^(?=.{1,253}$)[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*$/;

/** `[NAMESPACE/]KIND/NAME[/CONTAINER]`, a key of `mounts` in the file. */
export function parseWorkload(
  text: string,
  { namespace: defaultNamespace }: { readonly namespace: string },
): { readonly workload: WorkloadRef } | SyntaxProblem {
  const parts = text.split('/');
  const isKind = (index: number): boolean => findKind(parts[index] ?? '') !== undefined;
  const isNamespaced = !isKind(0) && (parts.length === 4 || (parts.length === 3 && isKind(1)));
  const [namespace = '', kindWord = '', name, container, ...rest] = isNamespaced ? parts : [defaultNamespace, ...parts];
  const kind = findKind(kindWord);
  if (name === undefined) {
    const suggestion = DNS_SUBDOMAIN.test(kindWord) ? `for example deployment/${kindWord}` : WORKLOAD_FORM;
    return { problem: `"${text}" names no workload`, suggestion };
  }
  if (kind === undefined) return explainKind(kindWord, text);
  const wrong = findWrongName({ namespace, name, container });
  if (wrong !== undefined) return { problem: `"${text}" names no workload: ${wrong}`, suggestion: WORKLOAD_FORM };
  if (rest.length > 0) return { problem: `"${text}" has too many parts`, suggestion: WORKLOAD_FORM };
  return { workload: { namespace, kind, name, container } };
}

const WORKLOAD_FORM = 'the form is KIND/NAME, KIND/NAME/CONTAINER or NAMESPACE/KIND/NAME, for example deployment/web';

/** As kubectl takes and prints it: `deploy`, `Deployment`, `deployment.apps`. */
function findKind(word: string): WorkloadKind | undefined {
  const plain = word.toLowerCase().replace(/\.(?:apps|batch)$/, '');
  const found = Object.entries(WORKLOAD_KINDS).find(([, words]) => (words as readonly string[]).includes(plain));
  return found?.[0] as WorkloadKind | undefined;
}

function explainKind(word: string, text: string): SyntaxProblem {
  const words: readonly string[] = Object.values(WORKLOAD_KINDS).flat();
  const nearest =
    word === ''
      ? undefined
      : findNearest(
          word,
          words.filter((known) => known.length > 3),
        );
  return {
    problem: `"${text}" names no workload: ${word === '' ? 'its kind is empty' : `${word} is not a kind that has pods`}`,
    suggestion:
      nearest === undefined
        ? `kinds: ${Object.values(WORKLOAD_KINDS)
            .map(([singular]) => singular)
            .join(', ')}`
        : `did you mean ${nearest}?`,
  };
}

function findWrongName(names: {
  readonly namespace: string;
  readonly name: string;
  readonly container: string | undefined;
}): string | undefined {
  if (!DNS_LABEL.test(names.namespace)) return `"${names.namespace}" is not the name of a namespace`;
  if (!DNS_SUBDOMAIN.test(names.name)) return `"${names.name}" is not a name that Kubernetes has`;
  const { container } = names;
  return container === undefined || DNS_LABEL.test(container) ? undefined : `"${container}" is not a container's name`;
}

/** `[KIND/NAME[/CONTAINER]:]TARGET` of the command line. Without a workload, `path` is only what was written. */
export function parseMountTarget(
  text: string,
  context: { readonly namespace: string },
): { readonly target: MountTarget; readonly path: string } | SyntaxProblem {
  if (text.startsWith('/')) {
    const parsed = parsePath(text);
    return 'problem' in parsed ? parsed : { target: { kind: 'node' }, path: parsed.path };
  }
  const colon = text.indexOf(':');
  if (colon === -1) return explainWithoutColon(text, context);
  const found = parseWorkload(text.slice(0, colon), context);
  if ('problem' in found) return found;
  const parsed = parsePath(text.slice(colon + 1));
  if ('problem' in parsed) return parsed;
  return { target: { kind: 'workload', workload: found.workload, path: parsed.path }, path: parsed.path };
}

function explainWithoutColon(text: string, context: { readonly namespace: string }): SyntaxProblem {
  if ('workload' in parseWorkload(text, context)) {
    return { problem: `"${text}" has no path in the container`, suggestion: `for example ${text}:/app` };
  }
  const suggestion = 'the form is [KIND/NAME[/CONTAINER]:]TARGET, for example deployment/web:/app';
  return { problem: `"${text}" is not a target`, suggestion };
}

/** An absolute path of a container, without what does not change where it leads. */
export function parsePath(text: string): { readonly path: string } | SyntaxProblem {
  if (!text.startsWith('/')) {
    const suggestion = /^[A-Za-z]:/.test(text)
      ? 'containers have no drives'
      : `for example /${text.replace(/^[./]+/, '') || 'app'}`;
    return { problem: `target "${text}" is not an absolute path in the container`, suggestion };
  }
  const parts = text.split('/').filter((part) => part !== '' && part !== '.');
  if (parts.includes('..')) return { problem: `target ${text} contains ..`, suggestion: 'write the path without it' };
  if (/[:\0]/.test(text)) {
    return { problem: `target ${text} contains a colon`, suggestion: 'Kubernetes has no mount path with a colon' };
  }
  return { path: `/${parts.join('/')}` };
}

/** A path that keeps the image's content: relative to the target, or absolute and below it. The result is relative. */
export function parseExcluded(text: string, target: string): { readonly path: string } | SyntaxProblem {
  const suggestion = `a path below ${target}, for example node_modules`;
  const isAbsolute = text.startsWith('/');
  const prefix = target === '/' ? '/' : `${target}/`;
  const clean = `/${text
    .split('/')
    .filter((part) => part !== '' && part !== '.')
    .join('/')}`;
  if (isAbsolute && !clean.startsWith(prefix)) return { problem: `"${text}" is not below ${target}`, suggestion };
  const path = isAbsolute ? clean.slice(prefix.length) : clean.slice(1);
  if (path === '') return { problem: `"${text}" would exclude the whole mount`, suggestion };
  if (path.split('/').includes('..')) return { problem: `"${text}" contains ..`, suggestion };
  if (/[*?]/.test(path)) return { problem: `"${text}" is a pattern, not a path`, suggestion };
  if (/[:\0]/.test(path)) return { problem: `"${text}" contains a colon`, suggestion };
  return { path };
}

const VOLUME_FORM = 'the form is SOURCE:TARGET[:MODE], for example ./src:/app/src:ro';

/** `SOURCE:TARGET[:MODE]`, or `TARGET` alone for an anonymous volume. */
export function parseVolume(text: string): { readonly volume: Volume } | SyntaxProblem {
  const sections = splitSections(text);
  if (sections.some((section) => section === '')) {
    const problem = text === '' ? 'a mount is empty' : `"${text}" has an empty part beside a colon`;
    return { problem, suggestion: VOLUME_FORM };
  }
  const [source = '', writtenTarget, modes, ...rest] = sections;
  if (writtenTarget === undefined) return parseAnonymous(source);
  if (rest.length > 0 || modes?.startsWith('/') === true || /^[A-Za-z]:\//.test(writtenTarget)) {
    return {
      problem: `"${text}" has too many colons: the short syntax cannot say that one belongs to a path`,
      suggestion: 'use the long syntax: { type: bind, source: …, target: … }',
    };
  }
  if (!isFilePath(source)) {
    return {
      problem: `"${text}" wants a volume named ${source}, which only Compose has`,
      suggestion: `write ./${source}:${writtenTarget} for a folder, or give the workload a PersistentVolumeClaim`,
    };
  }
  const otherUser = /^~[^/\\]+/.exec(source)?.[0];
  if (otherUser !== undefined) {
    return { problem: `"${text}": ${otherUser} is no path`, suggestion: 'only ~ itself is known: your home folder' };
  }
  const target = parsePath(writtenTarget);
  if ('problem' in target) return target;
  const mode = parseModes(modes);
  if ('problem' in mode) return { ...mode, problem: `"${text}": ${mode.problem}` };
  return {
    volume: {
      kind: 'bind',
      source,
      target: target.path,
      isReadOnly: mode.isReadOnly,
      createsSource: true,
      excluded: [],
    },
  };
}

/** The short syntax of a mount, or undefined where it cannot say it. */
export function formatVolume(volume: BindVolume): string | undefined {
  const { source, target, isReadOnly, createsSource, excluded } = volume;
  const text = `${source}:${target}${isReadOnly ? ':ro' : ''}`;
  const parsed = parseVolume(text);
  if ('problem' in parsed || parsed.volume.kind !== 'bind' || !createsSource || excluded.length > 0) return undefined;
  const isSaid = parsed.volume.source === source && parsed.volume.target === target;
  return isSaid ? text : undefined;
}

function parseAnonymous(text: string): { readonly volume: Volume } | SyntaxProblem {
  if (text.startsWith('/')) {
    const parsed = parsePath(text);
    return 'problem' in parsed ? parsed : { volume: { kind: 'anonymous', target: parsed.path } };
  }
  const suggestion = isFilePath(text) && !/^[A-Za-z]:/.test(text) ? `for example ${text}:/app` : VOLUME_FORM;
  return { problem: `"${text}" has no target`, suggestion };
}

/** At colons, but not behind the letter of a Windows drive: as Compose does, whatever the system is. */
function splitSections(text: string): readonly string[] {
  const sections: string[] = [];
  let current = '';
  for (const character of text) {
    if (character === ':' && !/^[A-Za-z]$/.test(current)) {
      sections.push(current);
      current = '';
    } else {
      current += character;
    }
  }
  return [...sections, current];
}

/** Whether Compose takes a source for a path; else it is a volume's name. */
function isFilePath(source: string): boolean {
  return /^(?:[./~]|\\\\|[A-Za-z]:)/.test(source);
}

function parseModes(text: string | undefined): { readonly isReadOnly: boolean } | SyntaxProblem {
  const modes = text?.split(',') ?? [];
  for (const mode of modes) {
    const refused = findModeProblem(mode);
    if (refused !== undefined) return refused;
  }
  if (modes.includes('ro') && modes.includes('rw')) return { problem: 'ro and rw exclude each other' };
  return { isReadOnly: modes.includes('ro') };
}

/** Modes that have keys of their own in the long syntax. */
const MODES_OF_KEYS = { propagation: ['rprivate', 'private'], selinux: ['z', 'Z'] } as const;

/** Why a mode, or the value of a key below `bind`, cannot be had; undefined when it can. */
export function findModeProblem(mode: string, key?: keyof typeof MODES_OF_KEYS): SyntaxProblem | undefined {
  const known: readonly string[] = key === undefined ? Object.keys(VOLUME_MODES) : MODES_OF_KEYS[key];
  if (known.includes(mode)) return undefined;
  const reason = Object.hasOwn(REFUSED_MODES, mode) ? REFUSED_MODES[mode] : undefined;
  if (reason !== undefined) return { problem: `mode ${mode} cannot be had: ${reason}`, suggestion: 'leave it out' };
  const nearest = findNearest(
    mode,
    known.filter((name) => name.length > 1),
  );
  const suggestion = nearest === undefined ? `known modes: ${known.join(', ')}` : `did you mean ${nearest}?`;
  return { problem: `unknown mode "${mode}"`, suggestion };
}
