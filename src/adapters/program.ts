import { execa } from 'execa';
import { constants } from 'node:os';
import { SandbarError } from '../model/errors.ts';

/**
 * Runs a program on the user's terminal and returns its exit code, as a shell would: 128 and the signal's number when
 * it was killed. Ctrl-C reaches it directly; we wait for what it makes of it.
 */
export async function runOnTerminal(
  file: string,
  args: readonly string[],
  options: { readonly env: Readonly<Record<string, string>> },
): Promise<number> {
  const result = await execa(file, args, { stdio: 'inherit', env: options.env, reject: false });
  if (result.exitCode !== undefined) return result.exitCode;
  if (result.signal !== undefined) return 128 + constants.signals[result.signal];
  throw new SandbarError('COMMAND_FAILED', `${file} could not be started: ${result.shortMessage ?? ''}`, {
    cause: result.cause,
  });
}
