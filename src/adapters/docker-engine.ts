/** The connection to the Docker engine, and the translation of what it refuses. */
import { Agent as HttpAgent, request as httpRequest, type IncomingMessage } from 'node:http';
import { Agent as HttpsAgent, type AgentOptions, request as httpsRequest } from 'node:https';
import { inspect } from 'node:util';
import type Dockerode from 'dockerode';
import { SandbarError } from '../model/errors.ts';
import {
  findEngineEndpoints,
  formatEndpoint,
  type EngineEndpoint,
  type EngineEnvironment,
  type TlsFiles,
} from './docker-endpoint.ts';

/** Docker 20.10: the first that gives a container a cgroup namespace of its own on request. */
const MINIMUM_API_VERSION = '1.41';

/** An engine that is starting accepts connections before it answers. */
const FIRST_ANSWER_MS = 15_000;

export type Engine = {
  readonly docker: Dockerode;
  readonly apiVersion: string;
  readonly endpoint: EngineEndpoint;
  close(): void;
};

/** Connects to the engine that the environment means, and makes sure that it answers and is new enough. */
export async function connectEngine(environment: EngineEnvironment): Promise<Engine> {
  const endpoints = await findEngineEndpoints(environment);
  const failures: { readonly endpoint: EngineEndpoint; readonly cause: unknown }[] = [];
  for (const endpoint of endpoints) {
    const agent = createAgent(endpoint);
    try {
      const [apiVersion, { default: Docker }] = await Promise.all([ping(endpoint, agent), import('dockerode')]);
      if (isOlder(apiVersion, MINIMUM_API_VERSION)) throw tooOld(apiVersion);
      return {
        docker: new Docker(modemOptions(endpoint, agent)),
        apiVersion,
        endpoint,
        close: () => {
          agent.destroy();
        },
      };
    } catch (cause) {
      agent.destroy();
      if (cause instanceof SandbarError) throw cause;
      failures.push({ endpoint, cause });
    }
  }
  // A socket that is there but does not answer says more than one that is not.
  const failure = failures.find(({ cause }) => errorCode(cause) !== 'ENOENT') ?? failures[0];
  throw unreachable(failure?.endpoint ?? { kind: 'socket', path: '/var/run/docker.sock' }, failure?.cause, environment);
}

/** True when API version `a`, such as `1.40`, is older than `b`. */
export function isOlder(a: string, b: string): boolean {
  const [majorA = 0, minorA = 0] = a.split('.').map(Number);
  const [majorB = 0, minorB = 0] = b.split('.').map(Number);
  return majorA === majorB ? minorA < minorB : majorA < majorB;
}

/** A connection pool; unused connections never keep the process alive. */
function createAgent(endpoint: EngineEndpoint): HttpAgent {
  const agent =
    endpoint.kind === 'tcp' && endpoint.tls !== undefined
      ? new HttpsAgent({ keepAlive: true, ...tlsOptions(endpoint.tls) })
      : new HttpAgent({ keepAlive: true });
  // docker-modem formats its whole request for a debug line that is never printed, agent and sockets included.
  return Object.assign(agent, { [inspect.custom]: () => 'Agent' });
}

function tlsOptions({ ca, cert, key, isUnverified }: TlsFiles): AgentOptions {
  return {
    ...(ca === undefined ? {} : { ca }),
    ...(cert === undefined ? {} : { cert }),
    ...(key === undefined ? {} : { key }),
    rejectUnauthorized: !isUnverified,
  };
}

function modemOptions(endpoint: EngineEndpoint, agent: HttpAgent): Dockerode.DockerOptions {
  // `agent` is missing in the types. docker-modem prefers a host, and would take it from DOCKER_HOST.
  const shared = { agent, host: undefined } as object;
  switch (endpoint.kind) {
    case 'socket':
      return { ...shared, socketPath: endpoint.path, protocol: 'http' };
    case 'tcp':
      return {
        ...shared,
        host: endpoint.host,
        port: endpoint.port,
        protocol: endpoint.tls === undefined ? 'http' : 'https',
      };
  }
}

/** The engine's API version, from the answer to its cheapest question. dockerode hides the headers of answers. */
function ping(endpoint: EngineEndpoint, agent: HttpAgent): Promise<string> {
  const options = { path: '/_ping', agent, timeout: FIRST_ANSWER_MS };
  return new Promise((resolve, reject) => {
    const onAnswer = (response: IncomingMessage): void => {
      response.resume();
      const version = response.headers['api-version'];
      if (typeof version === 'string') resolve(version);
      else reject(new Error('what answers is not a Docker engine'));
    };
    const request =
      endpoint.kind === 'socket'
        ? httpRequest({ ...options, socketPath: endpoint.path }, onAnswer)
        : (endpoint.tls === undefined ? httpRequest : httpsRequest)(
            { ...options, host: endpoint.host, port: endpoint.port },
            onAnswer,
          );
    request.on('error', reject);
    request.on('timeout', () => {
      request.destroy(new Error(`no answer within ${String(FIRST_ANSWER_MS / 1000)} s`));
    });
    request.end();
  });
}

function tooOld(apiVersion: string): SandbarError {
  return new SandbarError(
    'DOCKER_TOO_OLD',
    `the Docker engine is too old: API ${apiVersion}, needed ${MINIMUM_API_VERSION}`,
    {
      hint: 'upgrade Docker to 20.10 or newer',
    },
  );
}

function unreachable(endpoint: EngineEndpoint, cause: unknown, { platform, env }: EngineEnvironment): SandbarError {
  const address = formatEndpoint(endpoint);
  const code = errorCode(cause);
  if (code === 'EACCES' || code === 'EPERM') {
    return new SandbarError('DOCKER_DENIED', `no permission to use the Docker engine at ${address}`, {
      hint:
        platform === 'linux' && env['USER'] !== undefined
          ? `sudo usermod -aG docker ${env['USER']}, then log in again`
          : 'join the group docker (sudo usermod -aG docker USER), then log in again',
      cause,
    });
  }
  if (code === 'ENOENT' || code === 'ECONNREFUSED' || code === 'ENOTFOUND') {
    return new SandbarError('DOCKER_MISSING', `no Docker engine answers at ${address}`, {
      hint: startHint(platform, { isInstalled: code === 'ECONNREFUSED' }),
      cause,
    });
  }
  return new SandbarError('DOCKER_FAILED', `the Docker engine at ${address} does not answer: ${messageOf(cause)}`, {
    hint: startHint(platform, { isInstalled: true }),
    cause,
  });
}

function startHint(platform: NodeJS.Platform, { isInstalled }: { readonly isInstalled: boolean }): string {
  switch (platform) {
    case 'darwin':
      return isInstalled
        ? 'start Docker Desktop, OrbStack or Colima (open -a Docker, colima start)'
        : 'install and start Docker Desktop, OrbStack or Colima (brew install colima docker && colima start)';
    case 'win32':
      return 'install and start Docker Desktop, and run this inside WSL 2';
    default:
      return isInstalled
        ? 'start it: sudo systemctl start docker'
        : 'start it (sudo systemctl start docker), or install it (Debian, Ubuntu: sudo apt-get install docker.io)';
  }
}

/** The status that the engine answered with, or undefined where it did not answer. */
export function engineStatus(cause: unknown): number | undefined {
  const status = (cause as { statusCode?: unknown } | null)?.statusCode;
  return typeof status === 'number' ? status : undefined;
}

/** The engine's own words, without the wrapping of the client library. */
export function engineMessage(cause: unknown): string {
  const json = (cause as { json?: unknown } | null)?.json;
  const message = (json as { message?: unknown } | null | undefined)?.message;
  return typeof message === 'string' ? message.trim() : messageOf(cause).trim();
}

/** Turns a refusal of the engine into ours; `subject` says what was wanted, e.g. `start container sandbar-dev-dns`. */
export function translateEngineError(cause: unknown, subject: string): SandbarError {
  if (cause instanceof SandbarError) return cause;
  const status = engineStatus(cause);
  const message = engineMessage(cause);
  const failed = `could not ${subject}: ${message}`;

  const port = takenPort(message);
  if (port !== undefined) {
    return new SandbarError('PORT_IN_USE', `port ${port} is in use: could not ${subject}`, {
      hint: `stop what listens on it (ss -ltnp 'sport = :${port}'), or set another under ports in sandbar.yaml`,
      cause,
    });
  }
  if (/privileged port|listen tcp\S* \S+: bind: permission denied/i.test(message)) {
    return new SandbarError('HOST_LIMIT', failed, {
      hint: 'set ports.http and ports.https above 1023 in sandbar.yaml',
      cause,
    });
  }
  if (/pool overlaps|address space|conflicts with network|all predefined address pools/i.test(message)) {
    return new SandbarError('SUBNET_IN_USE', failed, {
      hint: 'set network.subnet in sandbar.yaml to a free one',
      cause,
    });
  }
  if (/no space left on device|disk quota exceeded/i.test(message)) {
    return new SandbarError('DISK_FULL', failed, {
      hint: 'make room where Docker keeps its data: docker system df shows what takes it, docker system prune frees it',
      cause,
    });
  }
  const source = missingSource(message);
  if (source !== undefined) {
    return new SandbarError('NOT_FOUND', `the engine finds no ${source} to mount: could not ${subject}`, {
      hint: `make it (mkdir -p ${quote(source)}), or correct the path; Docker Desktop sees shared folders only (Settings, Resources, File sharing)`,
      cause,
    });
  }
  if (status === 404 && /no such image/i.test(message)) {
    return new SandbarError('IMAGE_UNAVAILABLE', failed, { hint: 'sandbar image build makes the images', cause });
  }
  if (status === 404) return new SandbarError('NOT_FOUND', failed, { cause });
  if (status === 409 && /is not running|is paused|is restarting/i.test(message)) {
    const hint = /is paused/i.test(message) ? 'sandbar resume' : 'sandbar up';
    return new SandbarError('CLUSTER_NOT_RUNNING', failed, { hint, cause });
  }
  if (status === 409) return new SandbarError('CONFLICT', failed, { cause });
  return new SandbarError('DOCKER_FAILED', failed, { cause });
}

/** The engines say it in their own ways: the proxy of the engine, its allocator, Docker Desktop's forwarder. */
function takenPort(message: string): string | undefined {
  if (
    !/address already in use|port is already allocated|ports are not available|Only one usage of each/i.test(message)
  ) {
    return undefined;
  }
  return /(?:\d{1,3}(?:\.\d{1,3}){3}|\[?::\d?\]?|localhost):(\d{1,5})\b/.exec(message)?.[1];
}

/** The source of a bind that is not there, or that the machine of the engine does not share. */
function missingSource(message: string): string | undefined {
  const missing = /bind source path does not exist: (.+)$/m.exec(message)?.[1];
  return missing ?? /mounts denied:[^/]*(\/.+?)\s+is not (?:shared|known)/is.exec(message)?.[1];
}

/** A word of a shell's command. */
function quote(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}

function errorCode(cause: unknown): string | undefined {
  const code = (cause as { code?: unknown } | null)?.code;
  return typeof code === 'string' ? code : undefined;
}

function messageOf(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause);
}
