/** Configuration for commands that make a cluster again what it was. */
import { SandbarError } from '../model/errors.ts';
import type { Emit } from '../model/events.ts';
import { resolveImages } from '../operations/images.ts';
import { findLastUp } from '../operations/last-up.ts';
import { clusterNameOf, loadSpec, type LoadedSpec } from './load-spec.ts';
import type { CommandContext, CommandInput } from './run-command.ts';

/**
 * The spec that a cluster was made from, for commands that make it so again: the file and the flags that `up` was given
 * last, read anew; `--file` says where the file is now. Of a cluster without a record, what `up` would take here.
 */
export async function loadLastSpec(
  { cli, globals }: Pick<CommandInput<unknown>, 'cli' | 'globals'>,
  { ports, emit }: Pick<CommandContext, 'ports' | 'emit'>,
): Promise<LoadedSpec> {
  const name = await clusterNameOf(globals, cli.host);
  const last = await findLastUp(ports, name, async () => {
    const repository = cli.host.env['SANDBAR_IMAGE_REPOSITORY'];
    const refs = await resolveImages(ports, emit, { names: ['control-plane'], repository, signal: cli.signal });
    return refs.get('control-plane') ?? '';
  });
  const file = globals.file ?? last?.file;
  if (globals.file === undefined && typeof file === 'string' && !(await cli.host.hasFile(file))) {
    throw new SandbarError('CONFIG_INVALID', `the file that cluster "${name}" was made from is gone: ${file}`, {
      hint: 'name the one to use with --file; sandbar up makes the cluster what the file and the flags there say',
    });
  }
  return loadSpec({ ...last?.flags, name, ...(file === undefined ? {} : { file }) }, cli.host, emit);
}

export type LastSpecInTurn = {
  readonly loaded: LoadedSpec;
  /** For the operation; it tells whether another command came first. */
  readonly emit: Emit;
  /** As of now, for who holds the cluster's lock. */
  readonly current: () => Promise<LoadedSpec>;
};

/** The same for operations that take the cluster's lock themselves: after another command it is read anew. */
export async function loadLastSpecInTurn(
  input: Pick<CommandInput<unknown>, 'cli' | 'globals'>,
  context: Pick<CommandContext, 'ports' | 'emit'>,
): Promise<LastSpecInTurn> {
  const loaded = await loadLastSpec(input, context);
  let hasWaited = false;
  return {
    loaded,
    emit: (event) => {
      hasWaited ||= event.type === 'waiting';
      context.emit(event);
    },
    current: () => (hasWaited ? loadLastSpec(input, context) : Promise.resolve(loaded)),
  };
}
