import { execa } from 'execa';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, open } from 'node:fs/promises';
import { constants } from 'node:os';
import path from 'node:path';
import { SandbarError } from '../model/errors.ts';
import type { ExecResult } from '../model/ports.ts';

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

/** Runs a program that asks nobody, and whose output is the result; undefined where there is none of that name. */
export async function runUnattended(file: string, args: readonly string[]): Promise<ExecResult | undefined> {
  const result = await execa(file, args, { stdin: 'ignore', reject: false });
  if (result.code === 'ENOENT') return undefined;
  const { stdout, stderr, shortMessage } = result;
  // One that was killed or may not be run has failed too, and says nothing itself.
  return {
    exitCode: result.exitCode ?? 1,
    stdout,
    stderr: result.exitCode === undefined ? (shortMessage ?? '') : stderr,
  };
}

/** Starts another process of this program that outlives this one; what it says goes into a file. */
export async function startDetached(file: string, args: readonly string[], logFile: string): Promise<void> {
  await mkdir(path.dirname(logFile), { recursive: true });
  const log = await open(logFile, 'a', 0o600);
  try {
    const started = spawn(process.execPath, [file, ...args], {
      detached: true,
      // A folder that it would hold could not be unmounted.
      cwd: path.parse(file).root,
      stdio: ['ignore', log.fd, log.fd],
      windowsHide: true,
    });
    await once(started, 'spawn');
    started.unref();
  } finally {
    await log.close();
  }
}
