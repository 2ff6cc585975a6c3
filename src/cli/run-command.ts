/** The frame around every command: opens the engine, the view and the prompts; prints the result; settles the exit code. */
import type { Emit } from '../model/events.ts';
import { SandbarError } from '../model/errors.ts';
import type { AllPorts, CliDependencies, GlobalOptions } from './context.ts';
import { reportError } from './report-error.ts';
import type { Terminal } from './terminal.ts';
import { openView } from './view/view.ts';

export type CommandInput<Flags> = {
  readonly cli: CliDependencies;
  readonly globals: GlobalOptions;
  readonly flags: Flags;
};

export type CommandContext = {
  readonly ports: AllPorts;
  readonly emit: Emit;
  readonly terminal: Terminal;
  /** Undefined where nobody can be asked and `--yes` was not given. */
  readonly confirm: ((question: string) => Promise<boolean>) | undefined;
};

/** `result` is what `-o json` prints, `text` what a person reads; both go to stdout. An empty text prints nothing. */
export type CommandOutput = { readonly result: unknown; readonly text: string; readonly exitCode?: number };

/** Runs a command that needs the engine; returns the exit code. */
export function runCommand<Flags>(
  input: CommandInput<Flags>,
  work: (context: CommandContext) => Promise<CommandOutput>,
): Promise<number> {
  const { cli, globals } = input;
  return runFramed(input, async (emit, closeView) => {
    const ports = await cli.openPorts();
    return work({ ports, emit, terminal: cli.terminal, confirm: confirmation(cli, globals, closeView) });
  });
}

/** Runs a command that needs no engine. */
export function runLocally<Flags>(
  input: CommandInput<Flags>,
  work: (emit: Emit) => Promise<CommandOutput>,
): Promise<number> {
  return runFramed(input, (emit) => work(emit));
}

async function runFramed<Flags>(
  { cli, globals }: CommandInput<Flags>,
  work: (emit: Emit, closeView: () => Promise<void>) => Promise<CommandOutput>,
): Promise<number> {
  const view = await openView(globals, cli.terminal);
  try {
    const { result, text, exitCode } = await work(view.emit, view.close);
    await view.close();
    const output = globals.output === 'text' ? text : formatResult(result, globals);
    if (output !== '') cli.terminal.stdout.write(`${output}\n`);
    return exitCode ?? 0;
  } catch (error) {
    await view.close();
    return reportError(cli.signal.aborted ? interrupted(error) : error, globals, cli.terminal);
  }
}

function formatResult(result: unknown, globals: GlobalOptions): string {
  if (result === undefined) return '';
  return JSON.stringify(globals.output === 'ndjson' ? { type: 'result', result } : result);
}

function confirmation(
  cli: CliDependencies,
  globals: GlobalOptions,
  closeView: () => Promise<void>,
): CommandContext['confirm'] {
  if (globals.yes === true) return () => Promise.resolve(true);
  const { ask } = cli.terminal;
  if (ask === undefined) return undefined;
  return async (question) => {
    await closeView();
    return ask(question, cli.signal);
  };
}

function interrupted(cause: unknown): SandbarError {
  if (cause instanceof SandbarError && cause.code === 'INTERRUPTED') return cause;
  return new SandbarError('INTERRUPTED', 'interrupted', {
    hint: 'run the same command again: it goes on from here',
    cause,
  });
}
