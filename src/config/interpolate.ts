/** `$VAR`, `${VAR}`, `${VAR:-default}`, `${VAR:?message}`, `${VAR:+other}` and `$$`, with the meaning that Compose gives them. */
import type { Environment } from './environment.ts';

export type Interpolation = {
  readonly text: string;
  /** Whether anything was replaced: such a value has no type of its own. */
  readonly isInterpolated: boolean;
  readonly problems: readonly { readonly message: string; readonly suggestion?: string }[];
  /** Variables that are not set and have no default: they become the empty string. */
  readonly unsetVariables: readonly string[];
};

type Collected = { problems: { message: string; suggestion?: string }[]; unsetVariables: string[] };

const NAME = /[A-Za-z_][A-Za-z0-9_]*/y;
const OPERATOR = /:?[-?+]/y;

/** Replaces the variables of one value. */
export function interpolate(text: string, env: Environment): Interpolation {
  const collected: Collected = { problems: [], unsetVariables: [] };
  const result = expand(text, env, collected);
  return { text: result, isInterpolated: text.includes('$'), ...collected };
}

function expand(text: string, env: Environment, collected: Collected): string {
  let result = '';
  let position = 0;
  while (position < text.length) {
    const dollar = text.indexOf('$', position);
    if (dollar === -1) break;
    result += text.slice(position, dollar);
    const token = readToken(text, dollar);
    result += resolve(token, { text, env, collected });
    position = token.end;
  }
  return result + text.slice(position);
}

type Token = { readonly end: number } & (
  | { readonly kind: 'escape' }
  | { readonly kind: 'variable'; readonly name: string; readonly operator: string; readonly operand: string }
  | { readonly kind: 'invalid' }
);

function readToken(text: string, dollar: number): Token {
  const next = text[dollar + 1];
  if (next === '$') return { kind: 'escape', end: dollar + 2 };
  if (next !== '{') {
    const name = match(NAME, text, dollar + 1);
    if (name === '') return { kind: 'invalid', end: dollar + 1 };
    return { kind: 'variable', name, operator: '', operand: '', end: dollar + 1 + name.length };
  }
  const close = findClosingBrace(text, dollar + 2);
  const name = match(NAME, text, dollar + 2);
  if (close === -1 || name === '') return { kind: 'invalid', end: close === -1 ? text.length : close + 1 };
  const afterName = dollar + 2 + name.length;
  const operator = match(OPERATOR, text, afterName);
  const operand = text.slice(afterName + operator.length, close);
  if (operator === '' && operand !== '') return { kind: 'invalid', end: close + 1 };
  return { kind: 'variable', name, operator, operand, end: close + 1 };
}

function resolve(
  token: Token,
  context: { readonly text: string; readonly env: Environment; readonly collected: Collected },
): string {
  const { text, env, collected } = context;
  switch (token.kind) {
    case 'escape':
      return '$';
    case 'invalid':
      collected.problems.push({
        message: `"${text}" has a $ that names no variable`,
        suggestion: 'write $$ for a dollar sign, ${NAME} for a variable',
      });
      return '';
    case 'variable': {
      const value = env[token.name];
      const isMissing = token.operator.startsWith(':') ? value === undefined || value === '' : value === undefined;
      const operand = (): string => expand(token.operand, env, collected);
      switch (token.operator.at(-1)) {
        case '-':
          return isMissing ? operand() : (value ?? '');
        case '+':
          return isMissing ? '' : operand();
        case '?': {
          if (!isMissing) return value ?? '';
          const reason = operand();
          collected.problems.push({
            message: `variable ${token.name} is required${reason === '' ? '' : `: ${reason}`}`,
            suggestion: `set ${token.name} in the environment`,
          });
          return '';
        }
        default:
          if (value === undefined) collected.unsetVariables.push(token.name);
          return value ?? '';
      }
    }
  }
}

/** Index of the brace that closes the one before `start`, skipping those of variables within; -1 when there is none. */
function findClosingBrace(text: string, start: number): number {
  let depth = 1;
  for (let index = start; index < text.length; index += 1) {
    if (text.startsWith('${', index)) {
      depth += 1;
      index += 1;
    } else if (text[index] === '}') {
      depth -= 1;
      if (depth === 0) return index;
    }
  }
  return -1;
}

function match(pattern: RegExp, text: string, position: number): string {
  pattern.lastIndex = position;
  return pattern.exec(text)?.[0] ?? '';
}
