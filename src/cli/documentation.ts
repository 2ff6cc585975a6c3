/** docs/commands.md and docs/errors.md, made from what the code itself uses. */
import type { Argument, Command, Option } from 'commander';
import { ERRORS } from '../model/errors.ts';
import { visibleCommands } from './completion.ts';
import type { CliDependencies } from './context.ts';
import { buildProgram } from './program.ts';

/** Text of docs/commands.md. */
export function formatCommandGuide(): string {
  // Nothing is called: the table of commands needs no more than a version.
  const program = buildProgram({ version: '' } as CliDependencies, () => undefined);
  const common = new Set(program.options.map((option) => option.long));
  const isCommon = (option: Option): boolean => common.has(option.long);
  return [
    '# Commands',
    '',
    '<!-- Made from src/cli/program.ts by its unit test; change it there. -->',
    '',
    'Results go to stdout; progress, warnings and errors to stderr. Without a terminal every finished step is one plain',
    'line, nothing moves and nothing is asked. `NO_COLOR` and `TERM=dumb` are honoured. Every command can be',
    'interrupted at any moment and run again.',
    '',
    '## Options of every command',
    '',
    'Before or after the command; what stands later wins.',
    '',
    ...optionTable(program.options.filter(({ long }) => long !== '--version')),
    '',
    '`-o json` prints one document; `-o ndjson` prints the events too, one a line, and the result last.',
    '',
    '## Exit codes',
    '',
    ...table(['code', 'meaning'], EXIT_CODES),
    '',
    'Errors have codes of their own: [errors.md](errors.md).',
    '',
    ...commandsBelow(program).flatMap((command) => commandSection(command, isCommon)),
  ].join('\n');
}

/** Text of docs/errors.md. */
export function formatErrorGuide(): string {
  const rows = Object.entries(ERRORS).map(([code, { exitCode, meaning, fix }]) => [
    `\`${code}\``,
    String(exitCode),
    meaning,
    fix,
  ]);
  return [
    '# Errors',
    '',
    '<!-- Made from src/model/errors.ts by its unit test; change it there. -->',
    '',
    'The first line of an error says what failed, with the value; the line `fix:` has the command or edit that helps.',
    'With `-o json` the same is a document: `{"error":{"code":…,"message":…,"fix":…,"details":[…]}}`. `--debug` adds stacks.',
    '',
    ...table(['code', 'exits with', 'meaning', 'what to do'], rows),
    '',
    '`UNEXPECTED`, with exit code 1, is a mistake of Sandbar itself: `--debug` shows where.',
    '',
  ].join('\n');
}

const EXIT_CODES = [
  ['0', 'done'],
  ['1', 'failed; of `status`: not everything is ready'],
  ['2', 'wrong usage or configuration; nothing was touched'],
  ['3', 'the environment is in the way: Docker, a port, the disk'],
  ['4', 'there is no such cluster, image or object'],
  ['5', 'timed out'],
  ['130', 'interrupted'],
  ['another', "of `kubectl`: kubectl's own"],
];

/** The commands that do something, in the order of the help; a group does where an example calls it alone. */
function commandsBelow(command: Command): readonly Command[] {
  return visibleCommands(command).flatMap((sub) => {
    const isGroup = sub.commands.length > 0;
    return [...(!isGroup || exampleLines(sub).includes(`$ ${pathOf(sub)}`) ? [sub] : []), ...commandsBelow(sub)];
  });
}

function commandSection(command: Command, isCommon: (option: Option) => boolean): readonly string[] {
  const options = command.options.filter((option) => !isCommon(option));
  const words = [
    pathOf(command),
    ...(options.length > 0 ? ['[options]'] : []),
    ...command.registeredArguments.map(usage),
  ];
  const description = command.description();
  return [
    `## \`${pathOf(command)}\``,
    '',
    `${description.charAt(0).toUpperCase()}${description.slice(1)}.`,
    '',
    '```',
    words.join(' '),
    '```',
    '',
    ...(options.length > 0 ? [...optionTable(options), ''] : []),
    ...exampleLines(command),
  ];
}

function pathOf(command: Command): string {
  return command.parent === null ? command.name() : `${pathOf(command.parent)} ${command.name()}`;
}

function usage(argument: Argument): string {
  const words = `${argument.argChoices?.join('|') ?? argument.name()}${argument.variadic ? '...' : ''}`;
  return argument.required ? `<${words}>` : `[${words}]`;
}

function optionTable(options: readonly Option[]): readonly string[] {
  const rows = options.map(({ flags, description, argChoices }) => [
    `\`${flags}\``,
    `${description}${argChoices === undefined ? '' : `: ${argChoices.join(', ')}`}`,
  ]);
  return table(['option', 'meaning'], rows);
}

/** The lines after `Examples:` of the command's help. */
function exampleLines(command: Command): readonly string[] {
  let text = '';
  command.configureOutput({ writeOut: (part) => (text += part) }).outputHelp();
  const [, examples] = text.split('\nExamples:\n');
  if (examples === undefined) return [];
  return [
    '```',
    ...examples
      .trimEnd()
      .split('\n')
      .map((line) => line.trim()),
    '```',
    '',
  ];
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): readonly string[] {
  const line = (cells: readonly string[]): string =>
    `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`;
  return [line(head), line(head.map(() => '---')), ...rows.map(line)];
}
