/** `sandbar.yaml`, flags and environment → the cluster's spec, or everything that is wrong with them. */
import path from 'node:path';
import type { Diagnostic } from '../model/errors.ts';
import { clusterNameProblem, DEFAULT_CLUSTER_NAME, suggestClusterName } from '../model/names.ts';
import type { Host } from '../model/ports.ts';
import type { ClusterSpec, FileContent, PortWish, RegistrySpec } from '../model/spec.ts';
import { DEFAULT_KUBERNETES, findKubernetes } from '../model/versions.ts';
import { findEnvironmentCertificates } from './certificates.ts';
import type { ConfigDocument } from './document.ts';
import { readVariable } from './environment.ts';
import { readAuditPolicy, readCaCertificates, readManifests } from './files.ts';
import { overridesOf, type ConfigFlags, type Override } from './flags.ts';
import { readMounts } from './mounts.ts';
import { readPublished } from './published.ts';
import type { Path, Problem } from './problem.ts';
import { proxySettings } from './proxy.ts';
import { checkRules } from './rules.ts';
import { DEFAULTS, type WrittenConfig } from './schema.ts';

/** What the configuration is read from. */
export type ConfigHost = Pick<
  Host,
  | 'env'
  | 'platform'
  | 'homeDirectory'
  | 'workingDirectory'
  | 'readFile'
  | 'hasFile'
  | 'listDirectory'
  | 'findFileType'
  | 'resolvePath'
>;

export type LoadedConfig = {
  /** The file in use; undefined when there is none, which is fine. */
  readonly file: string | undefined;
  readonly warnings: readonly Diagnostic[];
} & (
  | { readonly kind: 'valid'; readonly spec: ClusterSpec }
  | { readonly kind: 'invalid'; readonly diagnostics: readonly Diagnostic[] }
);

/** Loads the configuration; every problem of it is reported at once. */
export async function loadConfig(host: ConfigHost, flags: ConfigFlags): Promise<LoadedConfig> {
  const found = await findFile(host, flags);
  if (found.kind === 'missing')
    return { kind: 'invalid', file: found.file, warnings: [], diagnostics: [found.diagnostic] };
  const displayPath = (file: string): string => shortenPath(file, host.workingDirectory);
  const document = found.kind === 'none' ? undefined : await parseDocument(displayPath(found.file), found.text, host);
  const written = withOverrides(spellOut(document?.value ?? {}), [
    ...environmentOverrides(host),
    ...overridesOf(flags),
  ]);

  // The schema's validator takes 50 ms to load, for which a machine without any configuration need not wait.
  const isEmpty = document === undefined && written.origins.length === 0;
  const { config, problems: structural } = isEmpty
    ? { config: {}, problems: [] }
    : (await import('./structure.ts')).checkStructure(written.value);

  const file = found.kind === 'none' ? undefined : found.file;
  const directory = file === undefined ? host.workingDirectory : path.dirname(file);
  const certificates = await readCaCertificates(config, directory, host);
  const manifests = await readManifests(config, directory, { host, displayPath });
  const auditPolicy = await readAuditPolicy(config, directory, host);
  const mounts = await readMounts(config, directory, host);
  const published = readPublished(config);
  const fromEnvironment = await findEnvironmentCertificates(host);
  const network = networkOf(config);
  const { proxy, diagnostics: proxyDiagnostics } = proxySettings(host.env, network);

  const inFiles = [
    ...certificates.problems,
    ...auditPolicy.problems,
    ...manifests.problems,
    ...mounts.problems,
    ...published.problems,
  ];
  const problems = [...structural, ...checkRules(config), ...inFiles];
  const inDocument = document?.diagnostics ?? [];
  const places = { document, file: file && displayPath(file), origins: written.origins };
  const located = problems
    .map((problem) => locate(problem, places))
    // Where a variable could not be replaced, the value that came out of it says nothing.
    .filter((found) => !inDocument.some((earlier) => isSamePlace(earlier, found)));
  const diagnostics = sortDiagnostics([...inDocument, ...located, ...manifests.diagnostics, ...proxyDiagnostics]);
  const warnings = [
    ...(document?.warnings ?? []),
    ...mounts.warnings.map((warning) => locate(warning, places)),
    ...fromEnvironment.warnings,
  ];
  if (diagnostics.length > 0) return { kind: 'invalid', file, warnings, diagnostics };
  const spec: ClusterSpec = {
    ...settingsOf(config, auditPolicy.policy),
    network,
    caCertificates: withoutRepeats([...certificates.files, ...fromEnvironment.files]),
    manifests: manifests.files,
    mounts: mounts.mounts,
    publish: published.ports,
    proxy,
    projectDirectory: file === undefined ? undefined : ((await host.resolvePath(directory)) ?? directory),
  };
  return { kind: 'valid', file, warnings, spec };
}

/** The file in use, whatever it holds; undefined where there is none. */
export async function findConfigFile(host: ConfigHost, flags: Pick<ConfigFlags, 'file'>): Promise<string | undefined> {
  const found = await findFile(host, flags);
  return found.kind === 'found' ? found.file : undefined;
}

/**
 * Name of the cluster that a command is about: `--name`, SANDBAR_NAME, the file's, `dev`. Reads no more than the name,
 * so that a mistake elsewhere in the file does not keep anybody from `down`.
 */
export async function resolveClusterName(
  host: ConfigHost,
  flags: Pick<ConfigFlags, 'name' | 'file'>,
): Promise<{ readonly name: string } | { readonly diagnostics: readonly Diagnostic[] }> {
  const given = flags.name ?? readVariable(host.env, 'SANDBAR_NAME');
  if (given !== undefined) return checkedName(given, { file: flags.name === undefined ? 'SANDBAR_NAME' : '--name' });
  const found = await findFile(host, flags);
  if (found.kind === 'missing') return { diagnostics: [found.diagnostic] };
  if (found.kind === 'none') return { name: DEFAULT_CLUSTER_NAME };
  const file = shortenPath(found.file, host.workingDirectory);
  const document = await parseDocument(file, found.text, host);
  if (document.value === undefined) return { diagnostics: document.diagnostics };
  const { value } = document;
  const written: unknown = typeof value === 'object' && value !== null && 'name' in value ? value.name : undefined;
  if (written === undefined) return { name: DEFAULT_CLUSTER_NAME };
  return checkedName(typeof written === 'string' ? written : JSON.stringify(written), {
    file,
    ...document.locate(['name'], 'value'),
  });
}

function checkedName(
  name: string,
  place: Pick<Diagnostic, 'file' | 'line' | 'column'>,
): { readonly name: string } | { readonly diagnostics: readonly Diagnostic[] } {
  const message = clusterNameProblem(name);
  if (message === undefined) return { name };
  return { diagnostics: [{ ...place, message, suggestion: `for example ${suggestClusterName(name)}` }] };
}

type FoundFile =
  | { readonly kind: 'none' }
  | { readonly kind: 'found'; readonly file: string; readonly text: string }
  | { readonly kind: 'missing'; readonly file: string; readonly diagnostic: Diagnostic };

const FILE_NAMES = ['sandbar.yaml', 'sandbar.yml'];

/** The parser takes 30 ms to load, for which a machine without any configuration need not wait. */
async function parseDocument(file: string, text: string, host: ConfigHost): Promise<ConfigDocument> {
  const { parseConfigDocument } = await import('./document.ts');
  return parseConfigDocument(file, text, host.env);
}

/** The file that was named, or the nearest one from the working directory up to the project's or the home directory. */
async function findFile(host: ConfigHost, flags: Pick<ConfigFlags, 'file'>): Promise<FoundFile> {
  if (flags.file === null) return { kind: 'none' };
  const named = flags.file ?? readVariable(host.env, 'SANDBAR_FILE');
  if (named !== undefined) {
    const file = path.resolve(host.workingDirectory, named);
    const text = await host.readFile(file);
    if (text !== undefined) return { kind: 'found', file, text };
    const origin = flags.file === undefined ? 'SANDBAR_FILE' : '--file';
    return {
      kind: 'missing',
      file,
      diagnostic: { file: origin, message: `${named} does not exist`, suggestion: `looked for ${file}` },
    };
  }
  let directory = host.workingDirectory;
  for (;;) {
    const names = ((await host.listDirectory(directory)) ?? []).map(({ name }) => name);
    const fileName = FILE_NAMES.find((name) => names.includes(name));
    if (fileName !== undefined) {
      const file = path.join(directory, fileName);
      const text = await host.readFile(file);
      if (text !== undefined) return { kind: 'found', file, text };
    }
    const parent = path.dirname(directory);
    if (names.includes('.git') || directory === host.homeDirectory || parent === directory) return { kind: 'none' };
    directory = parent;
  }
}

function environmentOverrides(host: ConfigHost): readonly Override[] {
  const variables = [
    { origin: 'SANDBAR_NAME', path: ['name'] },
    { origin: 'SANDBAR_REGISTRY', path: ['registry', 'name'] },
  ] as const;
  return variables.flatMap(({ origin, path: wanted }) => {
    const value = readVariable(host.env, origin);
    return value === undefined ? [] : [{ path: wanted, value, origin }];
  });
}

/** `registry: true` is a mapping that settles nothing: what overrides settle of it has its place there. */
function spellOut(value: unknown): unknown {
  return isMapping(value) && value['registry'] === true ? { ...value, registry: {} } : value;
}

type Origin = { readonly path: Path; readonly origin: string };

/** The file's value with the overrides in place, and which values are theirs. */
function withOverrides(
  value: unknown,
  overrides: readonly Override[],
): { readonly value: unknown; readonly origins: readonly Origin[] } {
  return overrides.reduce<{ readonly value: unknown; readonly origins: readonly Origin[] }>(
    (result, { path: wanted, value: put, origin }) => {
      const at = findPathFor(result.value, wanted);
      if (at === undefined) return result;
      // An override replaces an earlier one of the same place, so the latest origin is looked at first.
      return { value: withValueAt(result.value, at, put), origins: [{ path: at, origin }, ...result.origins] };
    },
    { value, origins: [] },
  );
}

/** Where an override ends up; undefined when something else than a mapping stands in the way, which is reported anyway. */
function findPathFor(target: unknown, [key, ...rest]: Path): Path | undefined {
  if (key === undefined) return [];
  if (key === '+') {
    if (target === undefined) return [0];
    return Array.isArray(target) ? [target.length] : undefined;
  }
  if (target !== undefined && !isMapping(target)) return undefined;
  const deeper = findPathFor(target?.[key], rest);
  return deeper === undefined ? undefined : [key, ...deeper];
}

function withValueAt(target: unknown, [key, ...rest]: Path, value: unknown): unknown {
  if (key === undefined) return value;
  if (typeof key === 'number') return [...(Array.isArray(target) ? (target as readonly unknown[]) : []), value];
  const mapping = isMapping(target) ? target : {};
  return { ...mapping, [key]: withValueAt(mapping[key], rest, value) };
}

function isMapping(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function locate(
  problem: Problem,
  source: {
    readonly document: ConfigDocument | undefined;
    readonly file: string | undefined;
    readonly origins: readonly Origin[];
  },
): Diagnostic {
  const { path: at, message, suggestion, isAboutKey } = problem;
  const explanation = suggestion === undefined ? { message } : { message, suggestion };
  const origin = source.origins.find(({ path: prefix }) => prefix.every((part, index) => part === at[index]));
  if (origin !== undefined) return { file: origin.origin, ...explanation };
  const place = source.document?.locate(at, isAboutKey === true ? 'key' : 'value');
  return { file: source.file ?? 'sandbar.yaml', ...place, ...explanation };
}

function isSamePlace(first: Diagnostic, second: Diagnostic): boolean {
  return first.file === second.file && first.line === second.line && first.column === second.column;
}

function sortDiagnostics(diagnostics: readonly Diagnostic[]): readonly Diagnostic[] {
  const fileOrder = [...new Set(diagnostics.map(({ file }) => file))];
  return [...diagnostics].sort(
    (a, b) =>
      fileOrder.indexOf(a.file) - fileOrder.indexOf(b.file) ||
      (a.line ?? 0) - (b.line ?? 0) ||
      (a.column ?? 0) - (b.column ?? 0),
  );
}

function networkOf({ network }: WrittenConfig): ClusterSpec['network'] {
  return {
    subnet: network?.subnet,
    podSubnet: network?.pods ?? DEFAULTS.podSubnet,
    serviceSubnet: network?.services ?? DEFAULTS.serviceSubnet,
  };
}

function settingsOf(
  config: WrittenConfig,
  auditPolicy: string | undefined,
): Pick<
  ClusterSpec,
  | 'name'
  | 'kubernetes'
  | 'ports'
  | 'ingress'
  | 'gatewayApi'
  | 'networkPolicy'
  | 'objectStore'
  | 'metrics'
  | 'mirrors'
  | 'registry'
> {
  const { kubernetes, ingress, objectStore, mirrors } = config;
  const isIngressEnabled = ingress?.enabled ?? true;
  const isObjectStoreEnabled = objectStore?.enabled ?? true;
  const port = (key: keyof ClusterSpec['ports']): PortWish => {
    const named = config.ports?.[key];
    return { port: named ?? DEFAULTS.ports[key], isFixed: named !== undefined };
  };
  return {
    name: config.name ?? DEFAULTS.name,
    kubernetes: {
      version: findKubernetes(String(kubernetes?.version ?? DEFAULT_KUBERNETES)) ?? DEFAULT_KUBERNETES,
      isVersionNamed: kubernetes?.version !== undefined,
      isEncrypted: kubernetes?.encryptionAtRest ?? false,
      admission: {
        enabled: (kubernetes?.admissionPlugins?.enable ?? []).filter((name) => name !== undefined),
        disabled: (kubernetes?.admissionPlugins?.disable ?? []).filter((name) => name !== undefined),
        configuration: kubernetes?.admissionPlugins?.configuration ?? {},
      },
      featureGates: kubernetes?.featureGates ?? {},
      apiServerArguments: kubernetes?.apiServerArguments ?? {},
      controllerManagerArguments: kubernetes?.controllerManagerArguments ?? {},
      schedulerArguments: kubernetes?.schedulerArguments ?? {},
      kubeletArguments: kubernetes?.kubeletArguments ?? {},
      kubeletConfiguration: kubernetes?.kubeletConfiguration ?? {},
      auditPolicy,
    },
    ports: {
      api: port('api'),
      http: port('http'),
      https: port('https'),
      objectStore: port('objectStore'),
      objectStoreConsole: port('objectStoreConsole'),
    },
    ingress: { isEnabled: isIngressEnabled },
    gatewayApi: { isEnabled: isIngressEnabled && (config.gatewayApi ?? true) },
    networkPolicy: { isEnabled: config.networkPolicy ?? true },
    objectStore: {
      isEnabled: isObjectStoreEnabled,
      region: objectStore?.region ?? DEFAULTS.region,
      buckets: (objectStore?.buckets ?? []).flatMap((bucket) => {
        if (bucket === undefined) return [];
        return typeof bucket === 'string'
          ? [{ name: bucket, hasVersioning: false }]
          : [{ name: bucket.name, hasVersioning: bucket.versioning ?? false }];
      }),
    },
    metrics: { isEnabled: config.metrics ?? true },
    mirrors: Object.entries(mirrors ?? {}).map(([registry, endpoints]) => ({
      registry,
      endpoints: endpoints.filter((endpoint) => endpoint !== undefined),
    })),
    registry: registryOf(config),
  };
}

function registryOf({ registry = {} }: WrittenConfig): RegistrySpec | undefined {
  if (registry === false) return undefined;
  const { name, port, mirrors } = registry === true ? {} : registry;
  return {
    name: name ?? DEFAULTS.registry.name,
    port: { port: port ?? DEFAULTS.registry.port, isFixed: port !== undefined },
    mirrors: [...new Set((mirrors ?? []).filter((host) => host !== undefined))],
  };
}

/** The file and the environment may name the same certificates. */
function withoutRepeats(files: readonly FileContent[]): readonly FileContent[] {
  return files.filter((file, index) => !files.slice(0, index).some((earlier) => earlier.content === file.content));
}

/** Relative inside of the working directory, absolute elsewhere. */
function shortenPath(file: string, workingDirectory: string): string {
  const relative = path.relative(workingDirectory, file);
  return relative.startsWith('..') || path.isAbsolute(relative) ? file : relative;
}
