/** Files that the configuration names: found, read and checked. */
import path from 'node:path';
import type { Diagnostic } from '../model/errors.ts';
import type { Host } from '../model/ports.ts';
import type { FileContent } from '../model/spec.ts';
import { DEFAULT_AUDIT_POLICY } from './audit-policy.ts';
import { parseCertificates } from './certificates.ts';
import { findNearest } from './nearest.ts';
import { formatPath, type Path, type Problem } from './problem.ts';
import type { WrittenConfig } from './schema.ts';

export type FileHost = Pick<Host, 'readFile' | 'hasFile' | 'listDirectory' | 'homeDirectory'>;

export type FoundFiles = {
  readonly files: readonly FileContent[];
  /** What is wrong with the words of the configuration, e.g. a file that is not there. */
  readonly problems: readonly Problem[];
  /** What is wrong inside of the files. */
  readonly diagnostics: readonly Diagnostic[];
};

/** Files of `caCertificates`. */
export async function readCaCertificates(
  { caCertificates }: WrittenConfig,
  directory: string,
  host: FileHost,
): Promise<FoundFiles> {
  const files: FileContent[] = [];
  const problems: Problem[] = [];
  for (const [index, written] of (caCertificates ?? []).entries()) {
    if (written === undefined) continue;
    const at = ['caCertificates', index];
    const file = absolutePath(written, directory, host);
    const text = await host.readFile(file);
    if (text === undefined) {
      problems.push(await explainMissingFile(at, written, file, host));
      continue;
    }
    const { certificates, problem } = parseCertificates(text);
    if (problem === undefined) files.push({ path: file, content: `${certificates.join('\n')}\n` });
    else
      problems.push({
        path: at,
        message: `${written} ${problem}`,
        suggestion: 'a CA certificate in PEM form is needed',
      });
  }
  return { files, problems, diagnostics: [] };
}

/** What `kubernetes.auditLog` asks for: no policy, the default one, or a file's. The API server checks what is in it. */
export async function readAuditPolicy(
  { kubernetes }: WrittenConfig,
  directory: string,
  host: FileHost,
): Promise<{ readonly policy: string | undefined; readonly problems: readonly Problem[] }> {
  const written = String(kubernetes?.auditLog ?? false);
  if (written === 'false') return { policy: undefined, problems: [] };
  if (written === 'true') return { policy: `${JSON.stringify(DEFAULT_AUDIT_POLICY, undefined, 2)}\n`, problems: [] };
  const at = ['kubernetes', 'auditLog'];
  const file = absolutePath(written, directory, host);
  const policy = await host.readFile(file);
  if (policy === undefined) return { policy, problems: [await explainMissingFile(at, written, file, host)] };
  if (/^\s*"?kind"?:\s*"?Policy\b/m.test(policy)) return { policy, problems: [] };
  const message = `${written} is no audit policy`;
  const suggestion = 'kind: Policy of audit.k8s.io/v1 is needed; true takes the default one';
  return { policy, problems: [{ path: at, message, suggestion }] };
}

/** Files of `manifests`, each once, in the order in which they are named. `displayPath` shortens paths in messages. */
export async function readManifests(
  { manifests }: WrittenConfig,
  directory: string,
  context: { readonly host: FileHost; readonly displayPath: (file: string) => string },
): Promise<FoundFiles> {
  const files = new Map<string, FileContent>();
  const problems: Problem[] = [];
  for (const [index, written] of (manifests ?? []).entries()) {
    if (written === undefined) continue;
    const at = ['manifests', index];
    if (/^[a-z]+:\/\//i.test(written)) {
      const suggestion = 'download it beside sandbar.yaml, so that up needs no network';
      problems.push({ path: at, message: `${formatPath(at)} ${written} is a URL, not a file`, suggestion });
      continue;
    }
    const found = await findManifestFiles(absolutePath(written, directory, context.host), context.host);
    for (const file of found) {
      const content = await context.host.readFile(file);
      if (content !== undefined) files.set(file, { path: file, content });
    }
    if (found.length > 0) continue;
    const file = absolutePath(written, directory, context.host);
    problems.push(
      hasPattern(written)
        ? { path: at, message: `no file matches ${written}`, suggestion: `looked in ${directory}` }
        : await explainMissingFile(at, written, file, context.host),
    );
  }
  return {
    files: [...files.values()],
    problems,
    diagnostics: await checkManifests([...files.values()], context.displayPath),
  };
}

async function checkManifests(
  files: readonly FileContent[],
  displayPath: (file: string) => string,
): Promise<readonly Diagnostic[]> {
  if (files.length === 0) return [];
  const { parseManifest } = await import('../model/manifests.ts');
  const seen = new Map<string, string>();
  return files.flatMap(({ path: file, content }) => {
    const { objects, diagnostics } = parseManifest({ path: displayPath(file), content });
    const repeated = objects.flatMap(({ object, file: shownFile, line }): readonly Diagnostic[] => {
      const group = object.apiVersion.includes('/') ? object.apiVersion.split('/', 1).join('') : '';
      const namespace = object.metadata.namespace ?? 'default';
      const key = [group, object.kind, namespace, object.metadata.name].join('/');
      const earlier = seen.get(key);
      if (earlier === undefined) {
        seen.set(key, `${shownFile}:${String(line)}`);
        return [];
      }
      return [{ file: shownFile, line, message: `${object.kind} ${object.metadata.name} is in ${earlier} already` }];
    });
    return [...diagnostics, ...repeated];
  });
}

const MANIFEST_NAME = /\.(?:ya?ml|json)$/i;

/** A file, the manifests of a folder, or what a pattern (`*`, `?`, `**`, `{a,b}`) matches, sorted by name. */
async function findManifestFiles(wanted: string, host: FileHost): Promise<readonly string[]> {
  if (!hasPattern(wanted)) {
    const isFolder = (await host.listDirectory(wanted)) !== undefined;
    if (isFolder) return (await matchIn(wanted, '*', host)).filter(isManifest).map(({ file }) => file);
    return (await host.hasFile(wanted)) ? [wanted] : [];
  }
  const { root } = path.parse(wanted);
  const segments = wanted.slice(root.length).split(path.sep);
  const start = segments.findIndex(hasPattern);
  let candidates: readonly Entry[] = [{ file: path.join(root, ...segments.slice(0, start)), isDirectory: true }];
  for (const segment of segments.slice(start)) {
    const next: Entry[] = [];
    for (const { file } of candidates.filter(({ isDirectory }) => isDirectory)) {
      next.push(...(segment === '**' ? await listTree(file, host) : await matchIn(file, segment, host)));
    }
    // `**` stands for no folder at all too, so the same file may be reached twice.
    candidates = [...new Map(next.map((entry) => [entry.file, entry])).values()];
  }
  return candidates
    .filter(({ isDirectory }) => !isDirectory)
    .map(({ file }) => file)
    .sort();
}

type Entry = { readonly file: string; readonly isDirectory: boolean };

function isManifest(entry: Entry): boolean {
  return !entry.isDirectory && MANIFEST_NAME.test(entry.file);
}

async function matchIn(directory: string, segment: string, host: FileHost): Promise<readonly Entry[]> {
  const matcher = segmentMatcher(segment);
  return ((await host.listDirectory(directory)) ?? [])
    .filter(({ name }) => matcher.test(name) && (!name.startsWith('.') || segment.startsWith('.')))
    .map(({ name, isDirectory }) => ({ file: path.join(directory, name), isDirectory }))
    .sort((a, b) => (a.file < b.file ? -1 : 1));
}

async function listTree(directory: string, host: FileHost): Promise<readonly Entry[]> {
  const below: Entry[] = [{ file: directory, isDirectory: true }];
  for (const entry of await matchIn(directory, '*', host)) {
    if (entry.isDirectory) below.push(...(await listTree(entry.file, host)));
  }
  return below;
}

function segmentMatcher(segment: string): RegExp {
  let braces = 0;
  const source = segment.replace(/[\s\S]/g, (character) => {
    switch (character) {
      case '*':
        return '.*';
      case '?':
        return '.';
      case '{':
        braces += 1;
        return '(?:';
      case '}':
        if (braces === 0) return String.raw`\}`;
        braces -= 1;
        return ')';
      case ',':
        return braces > 0 ? '|' : ',';
      default:
        return character.replace(/[.+^$()|[\]\\]/, String.raw`\$&`);
    }
  });
  return new RegExp(`^${source}${')'.repeat(braces)}$`);
}

function hasPattern(text: string): boolean {
  return /[*?{]/.test(text);
}

/** `~` is the home directory; anything else that is relative starts at the configuration's folder. */
function absolutePath(written: string, directory: string, host: FileHost): string {
  const isInHome = written === '~' || written.startsWith('~/');
  return isInHome ? path.join(host.homeDirectory, written.slice(1)) : path.resolve(directory, written);
}

async function explainMissingFile(at: Path, written: string, file: string, host: FileHost): Promise<Problem> {
  const siblings = (await host.listDirectory(path.dirname(file)))?.map(({ name }) => name) ?? [];
  if (siblings.includes(path.basename(file))) {
    return { path: at, message: `${written} is a folder without manifests (.yaml, .yml, .json)` };
  }
  const nearest = findNearest(path.basename(file), siblings);
  return {
    path: at,
    message: `${written} does not exist`,
    suggestion:
      nearest === undefined ? `looked for ${file}` : `did you mean ${path.join(path.dirname(written), nearest)}?`,
  };
}
