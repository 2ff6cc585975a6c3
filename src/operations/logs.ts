/** `logs`: what the components say, each line with its component where there are several. */
import { SandbarError } from '../model/errors.ts';
import { LABELS } from '../model/names.ts';
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

function select(containers: readonly ContainerSummary[], component: string | undefined): readonly ContainerSummary[] {
  if (component === undefined) return containers;
  const found = componentOf(containers, component);
  if (found !== undefined) return [found];
  const known = containers.map((container) => container.labels[LABELS.component] ?? '').sort();
  throw new SandbarError('NOT_FOUND', `there is no component "${component}"`, {
    hint: `there are ${known.join(', ')}`,
  });
}
