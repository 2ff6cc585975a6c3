/** Prints a failure as a person reads it, or as JSON, and says with which code to exit. */
import { SandbarError } from '../model/errors.ts';
import type { GlobalOptions } from './context.ts';
import { paint, type Terminal } from './terminal.ts';

const FAILED = 1;

export function reportError(
  error: unknown,
  options: Pick<GlobalOptions, 'output' | 'debug'>,
  terminal: Terminal,
): number {
  const known = error instanceof SandbarError ? error : undefined;
  if (options.output !== 'text') {
    const body = {
      code: known?.code ?? 'UNEXPECTED',
      message: messageOf(error),
      ...(known?.hint === undefined ? {} : { fix: known.hint }),
      ...(known === undefined || known.details.length === 0 ? {} : { details: known.details }),
    };
    terminal.stdout.write(`${JSON.stringify({ error: body })}\n`);
  } else {
    terminal.stderr.write(formatError(error, options.debug === true, terminal));
  }
  return known?.exitCode ?? FAILED;
}

function formatError(error: unknown, isDebug: boolean, terminal: Terminal): string {
  const lines = [`${paint('✖', 'red', terminal)} ${messageOf(error)}`];
  if (error instanceof SandbarError) {
    lines.push(...error.details.map((detail) => `    ${detail}`));
    if (error.hint !== undefined) lines.push(`  ${paint('fix:', 'bold', terminal)} ${error.hint}`);
  } else {
    lines.push('  this is a bug in sandbar: run again with --debug for the stack, and report it');
  }
  if (isDebug) lines.push(...stacks(error));
  return `${lines.join('\n')}\n`;
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function stacks(error: unknown): readonly string[] {
  if (!(error instanceof Error)) return [];
  const own = error.stack ?? error.message;
  return error.cause === undefined ? [own] : [own, 'caused by:', ...stacks(error.cause)];
}
