/** A machine in memory on which `up`, `down` and `status` run whole: an engine, a host, an API server, an object store. */
import { COMPONENTS } from '../../src/model/names.ts';
import type { SandbarEvent } from '../../src/model/events.ts';
import type { Identity } from '../../src/model/identity.ts';
import type { Ports, Runtime } from '../../src/model/ports.ts';
import type { ClusterSpec } from '../../src/model/spec.ts';
import { down, type DownResult } from '../../src/operations/down.ts';
import { formatPlan } from '../../src/engine/plan.ts';
import { status, type ClusterStatus } from '../../src/operations/status.ts';
import type { MintIdentity } from '../../src/operations/up-ground.ts';
import type { MintRoot } from '../../src/operations/local-authority.ts';
import { converge, up, type UpRequest, type UpResult } from '../../src/operations/up.ts';
import { FakeClock } from '../fakes/fake-clock.ts';
import { FakeCluster } from '../fakes/fake-cluster.ts';
import { FakeHost } from '../fakes/fake-host.ts';
import { FakeObjectStore } from '../fakes/fake-object-store.ts';
import { FakeRuntime } from '../fakes/fake-runtime.ts';
import { FAKE_ROOT, fakeIdentity, SPEC } from './cluster.ts';

const IMAGE_REFS = {
  'control-plane': 'sandbar/control-plane:1',
  agent: 'sandbar/agent:1',
  dns: 'sandbar/dns:1',
  ingress: 'sandbar/ingress:1',
  'object-store': 'sandbar/object-store:1',
  metrics: 'sandbar/metrics:1',
  ports: 'sandbar/ports:1',
  mount: 'sandbar/mount:1',
  registry: 'sandbar/registry:1',
};

const READY = JSON.stringify({ status: { conditions: [{ type: 'Ready', status: 'True' }] } });

type Wish = Partial<Pick<UpRequest, 'isDryRun' | 'confirm' | 'manifests' | 'origin' | 'signal' | 'timeoutMs'>> & {
  readonly spec?: Partial<ClusterSpec>;
};

export class Machine {
  readonly runtime = new FakeRuntime();
  readonly cluster = new FakeCluster();
  readonly objectStore = new FakeObjectStore();
  readonly clock = new FakeClock({ isSelfAdvancing: true });
  readonly events: SandbarEvent[] = [];
  host = new FakeHost();
  /** How many identities were made: a cluster has one for all its life. */
  identitiesMade = 0;
  /** What stands between the operations and the engine. */
  wrapRuntime: (runtime: Runtime) => Runtime = (runtime) => runtime;
  /** The same for everything outside. */
  wrapPorts: (ports: Ports) => Ports = (ports) => ports;

  constructor() {
    this.runtime.now = () => this.clock.now();
    for (const ref of Object.values(IMAGE_REFS)) this.runtime.images.set(ref, {});
    this.runtime.programs.set('sandbar-agent', () => ({ stdout: '10.96.0.1\n' }));
    this.runtime.programs.set('tar', () => ({}));
    this.runtime.programs.set('/sandbar-ports', () => ({}));
    this.cluster.answers.set('/api/v1/namespaces/default/serviceaccounts/default', { status: 200, body: '{}' });
    this.cluster.answers.set('/api/v1/nodes/sandbar-dev', { status: 200, body: READY });
    this.cluster.answers.set('/api/v1/nodes/sandbar-dev/proxy/healthz', { status: 200, body: 'ok' });
    this.#answerProbes();
  }

  get ports(): Ports {
    return this.wrapPorts({
      runtime: this.wrapRuntime(this.runtime),
      host: this.host,
      clock: this.clock,
      connectCluster: () => this.cluster,
      connectObjectStore: () => this.objectStore,
    });
  }

  up(wish: Wish = {}): Promise<UpResult> {
    return this.#up(up, wish);
  }

  /** The same for who holds the cluster's lock. */
  converge(): Promise<UpResult> {
    return this.#up(converge, {});
  }

  #up(run: typeof up, { spec, ...wish }: Wish): Promise<UpResult> {
    return run(
      {
        spec: { ...SPEC, ...spec },
        manifests: [],
        origin: { file: null, flags: {} },
        isDryRun: false,
        confirm: undefined,
        timeoutMs: undefined,
        signal: new AbortController().signal,
        ...wish,
      },
      {
        ports: this.ports,
        emit: (event) => this.events.push(event),
        ensureImages: () => Promise.resolve(IMAGE_REFS),
        mintIdentity: (...args) => this.mintIdentity(...args),
        mintRoot: this.mintRoot,
      },
    );
  }

  /** Made in form only, unless a test wants real certificates. */
  mint: MintIdentity = (request) => Promise.resolve({ ...fakeIdentity(), request });

  mintRoot: MintRoot = () => Promise.resolve(FAKE_ROOT);

  mintIdentity(...args: Parameters<MintIdentity>): Promise<Identity> {
    this.identitiesMade += 1;
    return this.mint(...args);
  }

  /** What `up` planned, one line a step. */
  async planned(wish: Wish = {}): Promise<string> {
    return formatPlan((await this.up(wish)).plan);
  }

  down(options: { readonly includesVolumes?: boolean; readonly isAgreed?: boolean } = {}): Promise<DownResult> {
    return down(
      {
        clusterName: SPEC.name,
        includesVolumes: options.includesVolumes ?? false,
        confirm: options.isAgreed === undefined ? undefined : () => Promise.resolve(options.isAgreed === true),
        signal: new AbortController().signal,
      },
      this.ports,
      (event) => this.events.push(event),
    );
  }

  status(): Promise<ClusterStatus> {
    return status(SPEC.name, this.ports, new AbortController().signal);
  }

  /** The command line's process is gone, and all that it held: locks end with it. */
  restartCommandLine(): void {
    const { listeners, routes } = this.host;
    this.host = new FakeHost();
    for (const [port, owner] of listeners) this.host.listeners.set(port, owner);
    this.host.routes = routes;
    this.#answerProbes();
    this.wrapRuntime = (runtime) => runtime;
    this.wrapPorts = (ports) => ports;
  }

  /** Ids of the containers, by component. */
  containerIds(): Readonly<Record<string, string>> {
    return Object.fromEntries(
      COMPONENTS.map((component) => [component, this.runtime.containers.get(`sandbar-dev-${component}`)?.id ?? '']),
    );
  }

  #answerProbes(): void {
    this.host.httpStatuses.set('http://127.0.0.1:5001/v2/', 200);
    for (const port of [80, 8080]) this.host.httpStatuses.set(`http://127.0.0.1:${String(port)}/`, 404);
    for (const port of [9000, 9002]) {
      this.host.httpStatuses.set(`http://127.0.0.1:${String(port)}/minio/health/ready`, 200);
    }
  }
}

/** Calls that change something. */
const CHANGES: readonly (keyof Runtime)[] = [
  'createNetwork',
  'removeNetwork',
  'connectNetwork',
  'disconnectNetwork',
  'createVolume',
  'removeVolume',
  'createContainer',
  'startContainer',
  'stopContainer',
  'removeContainer',
  'pauseContainer',
  'unpauseContainer',
  'restartContainer',
  'writeFile',
];

/**
 * An engine whose caller dies at the n-th change that it asks for: the engine has carried it out or not, and nothing
 * that the caller would have done next happens. `onDeath` is called then.
 */
export function dyingCaller(
  runtime: Runtime,
  death: { readonly atChange: number; readonly isCarriedOut: boolean; readonly onDeath: () => void },
): Runtime {
  let changesLeft = death.atChange;
  const never = new Promise<never>(() => undefined);
  return new Proxy(runtime, {
    get: (target, name: keyof Runtime) => {
      const method = target[name].bind(target) as (...args: unknown[]) => unknown;
      return async (...args: unknown[]) => {
        if (changesLeft === 0) return never;
        if (CHANGES.includes(name)) changesLeft -= 1;
        const isLast = changesLeft === 0;
        const result = !isLast || death.isCarriedOut ? await method(...args) : undefined;
        if (isLast) death.onDeath();
        // The engine's answer to what was on its way reaches nobody any more.
        return isLast || hasDied() ? never : result;
      };
    },
  });

  function hasDied(): boolean {
    return changesLeft === 0;
  }
}
