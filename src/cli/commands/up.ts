import type { UpResult } from '../../operations/up.ts';
import { formatPlan, up } from '../../operations/up.ts';
import { addKubeconfigEntry } from '../../operations/kubeconfig.ts';
import { adminAccess } from '../../operations/access.ts';
import { foreseeImages, resolveImages } from '../../operations/images.ts';
import { settleAllEvents } from '../../operations/mount-events.ts';
import { SandbarError } from '../../model/errors.ts';
import { COMPONENTS, contextName } from '../../model/names.ts';
import type { ApiAccess } from '../../model/ports.ts';
import type { ConfigFlags } from '../../config/flags.ts';
import type { CliDependencies } from '../context.ts';
import { formatMs } from '../view/plain.ts';
import { loadSpec, type LoadedSpec } from '../load-spec.ts';
import { runCommand, type CommandContext, type CommandInput } from '../run-command.ts';

export type UpFlags = ConfigFlags & { readonly dryRun?: boolean; readonly imageRepository?: string };

export function runUp(input: CommandInput<UpFlags>): Promise<number> {
  return runCommand(input, async ({ ports, emit, confirm }) => {
    const { flags, globals, cli } = input;
    const startedAt = ports.clock.now();
    const loaded = await loadSpec({ ...globals, ...flags }, cli.host, emit);
    const result = await upWithContext(input, { ...loaded, ports, emit, confirm });
    return { result: describeUp(result), text: formatUp(result, ports.clock.now() - startedAt) };
  });
}

/** `up`, and its context in the user's kubeconfig; `run` is another way of it, for who holds the cluster's lock. */
export async function upWithContext(
  { cli, globals, flags }: CommandInput<UpFlags>,
  wish: Pick<CommandContext, 'ports' | 'emit' | 'confirm'> & LoadedSpec,
  run = up,
): Promise<UpResult> {
  const { ports, emit, confirm, spec, manifests, origin } = wish;
  const isDryRun = flags.dryRun === true;
  const result = await run(
    { spec, manifests, origin, isDryRun, confirm, timeoutMs: globals.timeout, signal: cli.signal },
    {
      ports,
      emit,
      mintIdentity: cli.mintIdentity,
      mintRoot: cli.mintRoot,
      ensureImages: async () => {
        const repository = flags.imageRepository ?? cli.host.env['SANDBAR_IMAGE_REPOSITORY'];
        const { version: kubernetes } = spec.kubernetes;
        const names = [...COMPONENTS, 'mount', 'registry'] as const;
        const wanted = { names, kubernetes, repository, signal: cli.signal };
        const refs = await (isDryRun ? foreseeImages : resolveImages)(ports, emit, wanted);
        return Object.fromEntries(refs) as UpResult['context']['imageRefs'];
      },
    },
  );
  if (!result.isDryRun) {
    const access = adminAccess(result.context.identity, result.context.ports.api);
    await addKubeconfigEntry(cli.host, { name: contextName(spec.name), access });
    await settleMountEvents({ clusterName: spec.name, access }, cli, { ports, emit });
  }
  return result;
}

/** A cluster is up whether or not its mounts' file events could be proven. */
export async function settleMountEvents(
  { clusterName, access }: { readonly clusterName: string; readonly access: ApiAccess },
  { startRelay, signal }: Pick<CliDependencies, 'startRelay' | 'signal'>,
  { ports, emit }: Pick<CommandContext, 'ports' | 'emit'>,
): Promise<void> {
  try {
    await settleAllEvents(clusterName, access, { ports, startRelay, signal });
  } catch (error) {
    if (!(error instanceof SandbarError) || signal.aborted) throw error;
    emit({ type: 'warning', text: error.message, ...(error.hint === undefined ? {} : { hint: error.hint }) });
  }
}

export function describeUp(result: UpResult): unknown {
  const { context } = result;
  return {
    cluster: result.clusterName,
    isDryRun: result.isDryRun,
    steps: result.plan
      .filter((step) => step.verb !== 'wait')
      .map(({ id, cause, losesData }) => ({ id, cause, losesData })),
    context: contextName(result.clusterName),
    ports: context.ports,
    ...(context.registry === undefined ? {} : { registry: `localhost:${String(context.registry.port)}` }),
  };
}

export function formatUp(result: UpResult, ms: number): string {
  const { clusterName, context } = result;
  const changes = formatPlan(result.plan);
  if (result.isDryRun) return changes === '' ? `cluster ${clusterName}: nothing to change` : changes;
  const { ports, spec } = context;
  const portIn = (port: number, usual: number): string => (port === usual ? '' : `:${String(port)}`);
  const headline =
    changes === ''
      ? `cluster ${clusterName} is up: nothing to change`
      : `cluster ${clusterName} is ready (${formatMs(ms)})`;
  return [
    headline,
    `  kubectl context  ${contextName(clusterName)}`,
    ...(spec.ingress.isEnabled
      ? [
          `  ingress          http://NAME.localhost${portIn(ports.http, 80)} for an Ingress with that host`,
          `                   https://NAME.localhost${portIn(ports.https, 443)} without warnings after sandbar trust`,
        ]
      : []),
    ...(spec.objectStore.isEnabled
      ? [`  object store     http://127.0.0.1:${String(ports.objectStore)} (keys: sandbar env)`]
      : []),
    ...(context.registry === undefined
      ? []
      : [`  registry         docker push localhost:${String(context.registry.port)}/NAME`]),
  ].join('\n');
}
