/** `logs`: what the components say, each line with its component where there are several. */
import { SandbarError } from '../model/errors.ts';
import { AUDIT_LOG_PATH, LABELS } from '../model/names.ts';
import type { ContainerSummary, Runtime } from '../model/ports.ts';
import { componentOf, findContainers } from './access.ts';

export type LogsRequest = {
  readonly clusterName: string;
  /** All components when undefined. */
  readonly component: string | undefined;
  readonly tail: number | undefined;
  readonly since: string | undefined;
  readonly isFollowing: boolean;
  readonly signal: AbortSignal;
};

/** Calls `onLine` for every line; lines of one component stay in order. Resolves when the logs end or the signal says so. */
export async function logs(
  request: LogsRequest,
  runtime: Runtime,
  onLine: (component: string, line: string) => void,
): Promise<void> {
  const containers = await findContainers(runtime, request.clusterName);
  if (request.component === 'audit') return auditLog(request, containers, { runtime, onLine });
  await Promise.all(
    select(containers, request.component).map(async (container) => {
      const component = container.labels[LABELS.component] ?? container.name;
      const { tail, since, isFollowing, signal } = request;
      const options = {
        isFollowing,
        signal,
        ...(tail === undefined ? {} : { tail }),
        ...(since === undefined ? {} : { since }),
      };
      for await (const line of runtime.logs(container.id, options)) onLine(component, line);
    }),
  );
}

/** A file of the API server's: it is read as it is. */
async function auditLog(
  { tail, since, isFollowing }: LogsRequest,
  containers: readonly ContainerSummary[],
  { runtime, onLine }: { readonly runtime: Runtime; readonly onLine: (component: string, line: string) => void },
): Promise<void> {
  if (since !== undefined || isFollowing) {
    throw new SandbarError('USAGE', 'the audit log knows neither --since nor --follow', {
      hint: 'sandbar logs audit --tail 20',
    });
  }
  const controlPlane = componentOf(containers, 'control-plane');
  const text = controlPlane && (await runtime.readFile(controlPlane.id, AUDIT_LOG_PATH));
  if (text === undefined) {
    throw new SandbarError('NOT_FOUND', 'there is no audit log', {
      hint: 'set kubernetes.auditLog: true in sandbar.yaml, then sandbar up',
    });
  }
  const lines = text.split('\n').slice(0, -1);
  for (const line of tail === undefined ? lines : lines.slice(Math.max(0, lines.length - tail))) onLine('audit', line);
}

function select(containers: readonly ContainerSummary[], component: string | undefined): readonly ContainerSummary[] {
  if (component === undefined) return containers;
  const found = componentOf(containers, component);
  if (found !== undefined) return [found];
  const known = containers.map((container) => container.labels[LABELS.component] ?? '').sort();
  throw new SandbarError('NOT_FOUND', `there is no component "${component}"`, {
    hint: `there are ${known.join(', ')}`,
  });
}
