/** What `up` would do to a cluster, for those that only want to know. */
import type { Foreseen } from '../diagnosis/diagnose.ts';
import { SandbarError } from '../model/errors.ts';
import type { Emit } from '../model/events.ts';
import type { Plan } from '../model/resources.ts';
import type { AllPorts } from './context.ts';
import { upWithContext } from './commands/up.ts';
import { loadLastSpec } from './load-last-spec.ts';
import { loadSpec, type LoadedSpec } from './load-spec.ts';
import type { CommandInput } from './run-command.ts';

/** The spec that `up` was given last; of a cluster that is not there, the one that it would take here. */
export function loadSpecInUse(
  { cli, globals }: Pick<CommandInput<unknown>, 'cli' | 'globals'>,
  context: { readonly ports: AllPorts; readonly emit: Emit; readonly hasCluster: boolean },
): Promise<LoadedSpec> {
  return context.hasCluster ? loadLastSpec({ cli, globals }, context) : loadSpec(globals, cli.host, context.emit);
}

/** A dry run; where `up` would refuse, its reason. */
export async function foreseeUp(
  { cli, globals }: Pick<CommandInput<unknown>, 'cli' | 'globals'>,
  { ports, hasCluster }: { readonly ports: AllPorts; readonly hasCluster: boolean },
): Promise<Foreseen> {
  const notices: string[] = [];
  const emit: Emit = (event) => {
    if (event.type === 'notice' || event.type === 'warning') notices.push(event.text);
  };
  try {
    const loaded = await loadSpecInUse({ cli, globals }, { ports, emit, hasCluster });
    const wish = { ...loaded, ports, emit, confirm: undefined };
    const { plan, context } = await upWithContext({ cli, globals, flags: { dryRun: true } }, wish);
    const { podSubnet, serviceSubnet } = context.spec.network;
    const networks = { subnet: context.subnet, inside: [podSubnet, serviceSubnet] };
    return { drift: hasCluster ? driftOf(plan) : [], notices, refusal: undefined, networks };
  } catch (error) {
    if (!(error instanceof SandbarError)) throw error;
    const message = [error.message, ...error.details].join('; ');
    return { drift: [], notices, refusal: { message, hint: error.hint }, networks: undefined };
  }
}

/** One line a resource. That a container does not run, or is gone, is told of by itself. */
function driftOf(plan: Plan): readonly string[] {
  const ids = plan.map(({ id }) => id);
  return plan
    .filter((step) => step.verb !== 'wait' && step.verb !== 'start')
    .filter((step) => !(step.verb === 'remove' && ids.includes(step.id.replace(/^remove /, 'create '))))
    .filter((step) => !(step.verb === 'create' && step.resource.kind === 'container' && step.cause === 'missing'))
    .map(({ id, cause }) => `${id} (${cause})`);
}
