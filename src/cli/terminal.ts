/** The two streams and the keyboard, and what each of them can do. */
import { createInterface } from 'node:readline/promises';

export type Terminal = {
  readonly stdout: NodeJS.WritableStream;
  readonly stderr: NodeJS.WriteStream;
  /** True when progress may move and colours show. */
  readonly isInteractive: boolean;
  readonly hasColours: boolean;
  /** Asks a yes-or-no question; undefined where nobody can be asked. */
  readonly ask: ((question: string, signal: AbortSignal) => Promise<boolean>) | undefined;
};

export function openTerminal(streams: {
  readonly stdin: NodeJS.ReadStream;
  readonly stdout: NodeJS.WriteStream;
  readonly stderr: NodeJS.WriteStream;
  readonly env: Readonly<Record<string, string | undefined>>;
}): Terminal {
  const { stdin, stdout, stderr, env } = streams;
  const isDumb = env['TERM'] === 'dumb';
  // A terminal without a size, as some CI runners and `docker exec -t` give: rows that move would be drawn for ever.
  const hasSize = stderr.columns > 0;
  const isInteractive = stderr.isTTY && hasSize && !isDumb && (env['CI'] ?? '') === '';
  const hasColours = stderr.isTTY && !isDumb && (env['NO_COLOR'] ?? '') === '';
  const ask = async (question: string, signal: AbortSignal): Promise<boolean> => {
    const reader = createInterface({ input: stdin, output: stderr });
    try {
      const answer = await reader.question(`${question}\ngo on? [y/N] `, { signal });
      return /^y(es)?$/i.test(answer.trim());
    } finally {
      reader.close();
    }
  };
  return { stdout, stderr, isInteractive, hasColours, ask: stdin.isTTY && isInteractive ? ask : undefined };
}

const CODES = { red: 31, green: 32, yellow: 33, blue: 34, dim: 2, bold: 1 } as const;

/** Colours a text where colours show. */
export function paint(text: string, colour: keyof typeof CODES, terminal: Pick<Terminal, 'hasColours'>): string {
  return terminal.hasColours ? `\u001B[${String(CODES[colour])}m${text}\u001B[0m` : text;
}
