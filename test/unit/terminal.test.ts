import { expect, it } from 'vitest';
import { openTerminal } from '../../src/cli/terminal.ts';

function terminalOf(columns: number, env: Readonly<Record<string, string>> = {}): ReturnType<typeof openTerminal> {
  const stream = { isTTY: true, columns } as NodeJS.WriteStream;
  return openTerminal({ stdin: { isTTY: true } as NodeJS.ReadStream, stdout: stream, stderr: stream, env });
}

it('moves lines and asks on a terminal', () => {
  expect(terminalOf(80).isInteractive).toBe(true);
  expect(terminalOf(80).ask).toBeDefined();
});

it('prints plain lines on a terminal without a size, in CI, and where TERM is dumb', () => {
  const plain = [terminalOf(0), terminalOf(80, { CI: 'true' }), terminalOf(80, { TERM: 'dumb' })];
  expect(plain.map(({ isInteractive }) => isInteractive)).toEqual([false, false, false]);
});
