/** Where the Docker engine is: DOCKER_HOST, else the current docker context, else the sockets that engines make. */
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { SandbarError } from '../model/errors.ts';

/** What of the user's machine decides which engine is meant. */
export type EngineEnvironment = {
  readonly platform: NodeJS.Platform;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly homeDirectory: string;
};

export type TlsFiles = {
  readonly ca: string | undefined;
  readonly cert: string | undefined;
  readonly key: string | undefined;
  readonly isUnverified: boolean;
};

export type EngineEndpoint =
  | { readonly kind: 'socket'; readonly path: string }
  | { readonly kind: 'tcp'; readonly host: string; readonly port: number; readonly tls: TlsFiles | undefined };

/** The engine's endpoints, the first that answers counts. More than one only where nothing names the engine. */
export async function findEngineEndpoints(environment: EngineEnvironment): Promise<readonly EngineEndpoint[]> {
  const { env } = environment;
  const dockerHost = env['DOCKER_HOST'];
  if (dockerHost !== undefined && dockerHost !== '') {
    return [parseEndpoint(dockerHost, { source: 'DOCKER_HOST', tls: await readEnvironmentTls(environment) })];
  }
  const configDirectory = env['DOCKER_CONFIG'] ?? join(environment.homeDirectory, '.docker');
  const contextName = env['DOCKER_CONTEXT'] ?? (await readCurrentContext(configDirectory));
  if (contextName !== undefined && contextName !== '' && contextName !== 'default') {
    return [await readContext(configDirectory, contextName)];
  }
  return defaultSockets(environment).map((path) => ({ kind: 'socket', path }));
}

/** How an endpoint is called in messages, as DOCKER_HOST has it. */
export function formatEndpoint(endpoint: EngineEndpoint): string {
  switch (endpoint.kind) {
    case 'socket':
      return `unix://${endpoint.path}`;
    case 'tcp':
      return `tcp://${endpoint.host}:${String(endpoint.port)}`;
  }
}

function defaultSockets({ platform, env, homeDirectory }: EngineEnvironment): readonly string[] {
  if (platform === 'win32') return ['//./pipe/docker_engine', '//./pipe/dockerDesktopLinuxEngine'];
  const runtimeDirectory = env['XDG_RUNTIME_DIR'];
  return [
    '/var/run/docker.sock',
    ...(runtimeDirectory === undefined || runtimeDirectory === '' ? [] : [join(runtimeDirectory, 'docker.sock')]),
    ...['.docker/run', '.docker/desktop', '.orbstack/run', '.colima/default', '.colima', '.rd'].map((directory) =>
      join(homeDirectory, directory, 'docker.sock'),
    ),
  ];
}

function parseEndpoint(
  text: string,
  { source, tls }: { readonly source: string; readonly tls: TlsFiles | undefined },
): EngineEndpoint {
  const socket = /^(?:unix|npipe):\/\/(.+)$/.exec(text)?.[1];
  if (socket !== undefined) return { kind: 'socket', path: socket };
  // The docker client takes a bare host:port as well.
  const address = text.includes('://') ? text : `tcp://${text}`;
  const url = URL.canParse(address) ? new URL(address) : null;
  if (url?.protocol === 'ssh:') throw remoteEngine(text, source);
  if (url === null || !['tcp:', 'http:', 'https:'].includes(url.protocol) || url.hostname === '') {
    throw new SandbarError('DOCKER_MISSING', `${source} names no Docker engine: ${text}`, {
      hint: 'unset it, or use unix:///path/to/docker.sock',
    });
  }
  const host = url.hostname.replace(/^\[|\]$/g, '');
  if (!isLoopback(host)) throw remoteEngine(text, source);
  const hasTls = tls !== undefined || url.protocol === 'https:';
  const port = url.port === '' ? (hasTls ? 2376 : 2375) : Number(url.port);
  const noFiles = { ca: undefined, cert: undefined, key: undefined, isUnverified: false };
  return { kind: 'tcp', host, port, tls: hasTls ? (tls ?? noFiles) : undefined };
}

function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || /^127(?:\.\d{1,3}){3}$/.test(host);
}

function remoteEngine(address: string, source: string): SandbarError {
  return new SandbarError(
    'DOCKER_REMOTE',
    `${source} names a Docker engine on another machine, ${address}: local folders and ports on 127.0.0.1 cannot work there`,
    { hint: source === 'DOCKER_HOST' ? 'unset DOCKER_HOST' : 'docker context use default' },
  );
}

async function readEnvironmentTls({ env, homeDirectory }: EngineEnvironment): Promise<TlsFiles | undefined> {
  const isVerified = (env['DOCKER_TLS_VERIFY'] ?? '') !== '';
  if (!isVerified && (env['DOCKER_TLS'] ?? '') === '') return undefined;
  return readTls(env['DOCKER_CERT_PATH'] ?? join(homeDirectory, '.docker'), { isUnverified: !isVerified });
}

async function readTls(
  directory: string,
  { isUnverified }: { readonly isUnverified: boolean },
): Promise<TlsFiles | undefined> {
  const [ca, cert, key] = await Promise.all(
    ['ca.pem', 'cert.pem', 'key.pem'].map((name) => readTextFile(join(directory, name))),
  );
  if (ca === undefined && cert === undefined && !isUnverified) return undefined;
  return { ca, cert, key, isUnverified };
}

async function readCurrentContext(configDirectory: string): Promise<string | undefined> {
  const text = await readTextFile(join(configDirectory, 'config.json'));
  return text === undefined ? undefined : (parseJson(text) as { currentContext?: string } | undefined)?.currentContext;
}

async function readContext(configDirectory: string, contextName: string): Promise<EngineEndpoint> {
  // The context store names its folders by the hash of the context's name.
  const folder = createHash('sha256').update(contextName).digest('hex');
  const text = await readTextFile(join(configDirectory, 'contexts', 'meta', folder, 'meta.json'));
  const meta = text === undefined ? undefined : (parseJson(text) as ContextMeta | undefined);
  const endpoint = meta?.Endpoints?.docker;
  if (endpoint?.Host === undefined || endpoint.Host === '') {
    throw new SandbarError('DOCKER_MISSING', `the docker context "${contextName}" is not there`, {
      hint: 'docker context ls shows those that are, docker context use default takes the local engine',
    });
  }
  const tls = await readTls(join(configDirectory, 'contexts', 'tls', folder, 'docker'), {
    isUnverified: endpoint.SkipTLSVerify === true,
  });
  return parseEndpoint(endpoint.Host, { source: `the docker context "${contextName}"`, tls });
}

type ContextMeta = {
  readonly Endpoints?: { readonly docker?: { readonly Host?: string; readonly SkipTLSVerify?: boolean } };
};

async function readTextFile(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8');
  } catch {
    // Absent or not readable: then it decides nothing.
    return undefined;
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // A broken docker configuration is the docker client's to report.
    return undefined;
  }
}
