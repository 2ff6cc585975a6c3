/** Ports of this machine that lead into the cluster: which of them are not open, and what opens them. */
import { UNREACHABLE_FIX } from '../model/published.ts';
import type { Check } from './check.ts';

export type OpenPort = {
  readonly hostPort: number;
  readonly protocol: string;
  readonly namespace: string;
  readonly target: string;
  readonly origin: string;
  readonly state: string;
  readonly detail: string;
};

export function checkPublished(ports: readonly OpenPort[]): readonly Check[] {
  return ports.flatMap((port): readonly Check[] => {
    const { hostPort, protocol, namespace, target, origin, state, detail } = port;
    const number = `${String(hostPort)}${protocol === 'TCP' ? '' : `/${protocol.toLowerCase()}`}`;
    const base = { id: 'port', severity: 'warning', subject: `port ${number}` } as const;
    const place = `${target} in namespace ${namespace}`;
    switch (state) {
      case 'open':
        return [];
      case 'unreachable':
        return [
          { ...base, severity: 'error', message: `nothing here reaches ${place}: ${detail}`, fix: UNREACHABLE_FIX },
        ];
      case 'lost':
        return [{ ...base, message: `there is no ${place}`, fix: `sandbar port rm ${number} (or make it)` }];
      case 'taken':
        return [
          {
            ...base,
            message: `another program has it, so it does not lead to ${place}`,
            fix: `stop that: the port is opened as soon as it is free (or sandbar port rm ${number})`,
          },
        ];
      case 'closed':
        return [{ ...base, message: `it is not opened for ${place}: ${detail}`, ...fixFor(origin, namespace, target) }];
      default:
        return [{ ...base, severity: 'error', message: `it is not open for ${place}: ${detail}`, fix: 'sandbar up' }];
    }
  });
}

function fixFor(origin: string, namespace: string, target: string): { readonly fix?: string } {
  if (origin !== 'load-balancer') return {};
  const service = target.replace(/:[^:]*$/, '');
  return { fix: `sandbar kubectl -n ${namespace} edit ${service}` };
}
