/** The parts of a cluster: containers, what they answer, and what of this machine belongs to them. */
import { overlaps, parseCidr } from '../model/cidr.ts';
import { planRenewal, type Identity } from '../model/identity.ts';
import { contextName, isAside } from '../model/names.ts';
import type { ApiAccess } from '../model/ports.ts';
import type { ContainerState } from '../model/resources.ts';
import { counted, oneLine, type Check } from './check.ts';
import { PATIENCE_MS } from './explanation.ts';
import { INOTIFY_FIX } from './machine.ts';

/** A component, or the container of a mount. */
export type Part = {
  readonly component: string;
  readonly containerName: string;
  readonly state: ContainerState | 'missing';
  readonly exitCode: number;
  /** The engine's words where it could not start it. */
  readonly error: string;
  /** What it answers instead of what it should; undefined where it does its work. */
  readonly problem: string | undefined;
  /** When it or the control plane was last started, of one that has such a problem. */
  readonly startedMs: number | undefined;
  /** The last line that it said, of one that does not run. */
  readonly lastLine: string | undefined;
};

/** With this the control plane ends when its datastore cannot be read. */
const DATASTORE_DAMAGED = 65;

const CLOCK_WISHED_MS = 3_000;
const CLOCK_NEEDED_MS = 5 * 60_000;

const UP = { fix: 'sandbar up', repair: { kind: 'up' } } as const;

export function checkParts(parts: readonly Part[], nowMs: number): readonly Check[] {
  const isApiDown = parts.some(
    ({ component, state, problem }) => component === 'control-plane' && (state !== 'running' || problem !== undefined),
  );
  return parts.flatMap((part) => {
    if (part.state === 'running' && part.problem === undefined) {
      return [{ id: 'part.ready', severity: 'ok', subject: part.component, message: 'it does its work' }];
    }
    if (part.state !== 'running') return [stopped(part)];
    // The Node object tells of the agent, and without the API nobody does: one cause, one line.
    if (part.component === 'agent' || (isApiDown && part.component !== 'control-plane')) return [];
    return [isStarting(part, nowMs) ? starting(part) : unready(part)];
  });
}

function stopped({ component, containerName, state, exitCode, error, lastLine }: Part): Check {
  const base = { severity: 'error', subject: component } as const;
  const cause = lastLine === undefined ? {} : { cause: oneLine(lastLine) };
  if (component === 'control-plane' && exitCode === DATASTORE_DAMAGED && state !== 'running') {
    return {
      ...base,
      ...cause,
      id: 'part.datastore',
      message: 'its datastore is damaged, so it cannot start',
      fix: 'sandbar reset --hard (or sandbar snapshot restore NAME)',
    };
  }
  // Whatever a container may open itself, which is a lot, it shares these with all others.
  if (/too many open files/i.test(lastLine ?? '')) {
    return {
      ...base,
      ...cause,
      id: 'part.inotify',
      message: 'it ends because it may watch no more files',
      fix: `${INOTIFY_FIX}, then sandbar up`,
    };
  }
  switch (state) {
    case 'missing':
      return { ...base, ...UP, id: 'part.missing', message: 'its container is missing' };
    case 'paused':
      return { ...base, ...UP, id: 'part.paused', message: 'it is paused', fix: 'sandbar resume (or sandbar up)' };
    case 'restarting':
      return {
        ...base,
        ...cause,
        id: 'part.restarting',
        message: `it ends with exit code ${String(exitCode)} and is started again and again`,
        fix: `sandbar logs ${component} --tail 20 (after a change of sandbar.yaml, undo it; then sandbar up)`,
      };
    case 'created':
    case 'exited':
    case 'dead':
    case 'removing':
    case 'running': {
      const killed = exitCode === 137 ? ': killed, by hand or for want of memory' : '';
      const end =
        state === 'created' ? 'it was never started' : `it is stopped (exit code ${String(exitCode)}${killed})`;
      const isMount = component.startsWith('mount-');
      return {
        ...base,
        ...(error === '' ? (exitCode === 0 || exitCode === 137 ? {} : cause) : { cause: oneLine(error) }),
        ...UP,
        id: 'part.stopped',
        subject: isMount ? containerName : component,
        message: end,
      };
    }
  }
}

/** Nobody waits for what is started aside: a moment after `up` it is not there yet. */
function isStarting({ component, startedMs }: Part, nowMs: number): boolean {
  return isAside(component) && startedMs !== undefined && nowMs - startedMs < PATIENCE_MS;
}

function starting({ component }: Part): Check {
  return { id: 'part.starting', severity: 'ok', subject: component, message: 'it has just been started' };
}

function unready({ component, problem = '' }: Part): Check {
  return {
    id: 'part.unready',
    // The cluster is ready without it.
    severity: isAside(component) ? 'warning' : 'error',
    subject: component,
    message: `it runs, but does not do its work: ${oneLine(problem)}`,
    fix: `sandbar logs ${component} --tail 20 (sandbar up waits for it and says more)`,
  };
}

/** `answer`: of `/readyz?verbose`. Names the checks that fail. */
export function readyzProblem({
  status,
  body,
}: {
  readonly status: number;
  readonly body: string;
}): string | undefined {
  if (status === 200) return undefined;
  if (status === 0) return 'the API server does not answer';
  const failing = [...body.matchAll(/^\[-\](\S+) failed/gm)].map(([, name = '']) => name);
  return failing.length === 0
    ? `/readyz: HTTP ${String(status)}`
    : `/readyz: ${failing.join(', ')} ${failing.length === 1 ? 'fails' : 'fail'}`;
}

/** Told of when `up` would renew them. */
export function checkCertificates(identity: Identity, nowMs: number): Check {
  const base = { id: 'certificates', subject: 'certificates' };
  const renewal = planRenewal(identity, nowMs);
  if (renewal === undefined) return { ...base, severity: 'ok', message: 'none of them ends soon' };
  const [day = ''] = new Date(renewal.endsMs).toISOString().split('T');
  const isOver = renewal.endsMs <= nowMs;
  const message = isOver ? `they ended on ${day}: the parts refuse each other` : `they end on ${day}`;
  return { ...base, severity: isOver ? 'error' : 'warning', message, ...UP };
}

/** `nodeMs`: the time in the agent when it was `hostMs` here. */
export function checkClock(nodeMs: number, hostMs: number): Check {
  const differenceMs = Math.abs(nodeMs - hostMs);
  const base = { id: 'clock', subject: 'clock' };
  if (differenceMs < CLOCK_WISHED_MS)
    return { ...base, severity: 'ok', message: 'the engine has the time of this machine' };
  return {
    ...base,
    severity: differenceMs < CLOCK_NEEDED_MS ? 'warning' : 'error',
    message: `the engine's clock is ${String(Math.round(differenceMs / 1000))} s ${nodeMs < hostMs ? 'behind' : 'ahead of'} this machine's`,
    fix: 'restart the engine (Docker Desktop: quit and open it; colima restart): after sleep its clock may stand still',
  };
}

/** Routes of this machine that lead into the cluster's networks, as a VPN that came up later brings them. */
export function checkRoutes(
  routes: readonly string[],
  networks: { readonly subnet: string; readonly inside: readonly string[] },
): readonly Check[] {
  const own = parseCidr(networks.subnet);
  return routes.flatMap((route): readonly Check[] => {
    const other = parseCidr(route);
    if (other === undefined || other.prefix === 0 || route === networks.subnet) return [];
    // The longer prefix decides where packets go: a wider route takes nothing away from the cluster.
    if (own !== undefined && overlaps(own, other) && other.prefix >= own.prefix) {
      return [
        {
          id: 'network.route',
          severity: 'error',
          subject: 'network',
          message: `this machine sends ${route}, part of the cluster's subnet ${networks.subnet}, elsewhere (a VPN?)`,
          fix: 'set network.subnet in sandbar.yaml to a subnet without a route (ip route shows all), then sandbar up',
        },
      ];
    }
    const inside = networks.inside.find((text) => {
      const cidr = parseCidr(text);
      return cidr !== undefined && overlaps(cidr, other) && other.prefix >= cidr.prefix;
    });
    if (inside === undefined) return [];
    return [
      {
        id: 'network.route',
        severity: 'warning',
        subject: 'network',
        message: `pods cannot reach ${route} of this machine's network: the cluster has ${inside} for itself`,
        fix: 'set network.pods and network.services in sandbar.yaml to others (a new cluster is needed)',
      },
    ];
  });
}

/** `found`: the entry in the user's kubeconfig, if there is one. */
export function checkKubeconfig(
  clusterName: string,
  found: Pick<ApiAccess, 'server' | 'ca' | 'certificate'> | undefined,
  wanted: ApiAccess,
): Check {
  const base = { id: 'kubeconfig', subject: 'kubeconfig' };
  const name = contextName(clusterName);
  const mend = { fix: 'sandbar kubeconfig --merge', repair: { kind: 'up' } } as const;
  if (found === undefined) {
    return {
      ...base,
      severity: 'warning',
      message: `there is no context ${name}: kubectl cannot find the cluster`,
      ...mend,
    };
  }
  const stale = [
    ...(found.server === wanted.server ? [] : [`it has ${found.server}, the API server is at ${wanted.server}`]),
    ...(found.ca === wanted.ca ? [] : ['its certificate authority is that of another cluster']),
    ...(found.certificate === wanted.certificate ? [] : ['its certificate is an old one']),
  ];
  if (stale.length === 0) return { ...base, severity: 'ok', message: `context ${name}` };
  return { ...base, severity: 'error', message: `context ${name} is stale: ${stale.join(', ')}`, ...mend };
}

/** `steps`: what `up` would change, one line each; those of containers that do not run are told of as such. */
export function checkDrift(steps: readonly string[]): readonly Check[] {
  if (steps.length === 0) return [];
  const shown = steps.slice(0, 3).join('; ');
  return [
    {
      id: 'drift',
      severity: 'warning',
      subject: 'sandbar.yaml',
      message: `${counted(steps.length, 'thing')} of the cluster ${steps.length === 1 ? 'is' : 'are'} not as declared: ${shown}${steps.length > 3 ? '; …' : ''}`,
      fix: 'sandbar up (sandbar up --dry-run shows all of it)',
      repair: { kind: 'up' },
    },
  ];
}
