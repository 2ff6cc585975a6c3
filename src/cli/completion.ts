/** Completion scripts, made from the table of commands: they list words and call nothing, so they are instant. */
import type { Command } from 'commander';

export const SHELLS = ['bash', 'zsh', 'fish'] as const;

type Node = {
  readonly path: string;
  readonly words: readonly { readonly word: string; readonly description: string }[];
};

export function completionScript(shell: (typeof SHELLS)[number], program: Command): string {
  const nodes = nodesOf(program, '');
  switch (shell) {
    case 'bash':
      return bashScript(nodes);
    case 'zsh':
      return `#compdef sandbar\nautoload -U +X bashcompinit && bashcompinit\n${bashScript(nodes)}`;
    case 'fish':
      return fishScript(nodes);
  }
}

function nodesOf(command: Command, path: string): readonly Node[] {
  const subcommands = visibleCommands(command);
  const choices = command.registeredArguments.flatMap((argument) => argument.argChoices ?? []);
  const options = command.options.filter((option) => option.long !== undefined && !option.hidden);
  const words = [
    ...subcommands.map((sub) => ({ word: sub.name(), description: sub.description() })),
    ...choices.map((word) => ({ word, description: '' })),
    ...options.map((option) => ({ word: option.long ?? '', description: option.description })),
  ];
  return [{ path, words }, ...subcommands.flatMap((sub) => nodesOf(sub, `${path} ${sub.name()}`.trim()))];
}

/** Those that people call, in the order of the help. */
export function visibleCommands(command: Command): readonly Command[] {
  return command
    .createHelp()
    .visibleCommands(command)
    .filter((sub) => sub.name() !== 'help');
}

function bashScript(nodes: readonly Node[]): string {
  const cases = nodes.map(({ path, words }) => `    "${path}") words="${words.map(({ word }) => word).join(' ')}" ;;`);
  const paths = nodes.map(({ path }) => `"${path}"`).join('|');
  return `_sandbar() {
  local current path word words index
  current="\${COMP_WORDS[COMP_CWORD]}"
  path=""
  for ((index = 1; index < COMP_CWORD; index++)); do
    word="\${COMP_WORDS[index]}"
    case "\${path:+$path }$word" in
      ${paths}) path="\${path:+$path }$word" ;;
    esac
  done
  case "$path" in
${cases.join('\n')}
  esac
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}
complete -o default -F _sandbar sandbar
`;
}

function fishScript(nodes: readonly Node[]): string {
  const quote = (text: string): string => `'${text.replace(/'/g, String.raw`\'`)}'`;
  const lines = nodes.flatMap(({ path, words }) => {
    const parts = path.split(' ').filter((part) => part !== '');
    const siblings = words.map(({ word }) => word).filter((word) => !word.startsWith('-'));
    const isHere = parts.map((part) => `__fish_seen_subcommand_from ${part}`).join('; and ');
    const isNotDeeper = siblings.length === 0 ? '' : `not __fish_seen_subcommand_from ${siblings.join(' ')}`;
    const condition = [isHere, isNotDeeper].filter((part) => part !== '').join('; and ');
    return words.map(({ word, description }) => {
      const what = word.startsWith('--') ? `-l ${word.slice(2)}` : `-f -a ${quote(word)}`;
      return `complete -c sandbar -n ${quote(condition)} ${what} -d ${quote(description)}`;
    });
  });
  return `${lines.join('\n')}\n`;
}
