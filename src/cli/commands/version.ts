import { COMPONENT_VERSIONS } from '../../model/versions.ts';
import { runLocally, type CommandInput } from '../run-command.ts';
import { formatTable } from '../view/table.ts';

export function runVersion(input: CommandInput<unknown>): Promise<number> {
  return runLocally(input, () => {
    const versions = { sandbar: input.cli.version, ...COMPONENT_VERSIONS };
    return Promise.resolve({ result: versions, text: formatTable(Object.entries(versions)) });
  });
}
