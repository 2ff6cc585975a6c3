import { CONFIG_SCHEMA } from '../../config/schema.ts';
import { loadSpec } from '../load-spec.ts';
import { runLocally, type CommandInput } from '../run-command.ts';

/** Reads the configuration as `up` would, and says what is wrong with it or what it comes to. */
export function runConfigValidate(input: CommandInput<unknown>): Promise<number> {
  return runLocally(input, async (emit) => {
    const { spec, origin } = await loadSpec(input.globals, input.cli.host, emit);
    const source = origin.file ?? 'no sandbar.yaml: every default';
    return { result: { file: origin.file ?? undefined, spec }, text: `${source} is valid: cluster ${spec.name}` };
  });
}

export function runConfigSchema(input: CommandInput<unknown>): Promise<number> {
  return runLocally(input, () =>
    Promise.resolve({ result: CONFIG_SCHEMA, text: JSON.stringify(CONFIG_SCHEMA, undefined, 2) }),
  );
}
