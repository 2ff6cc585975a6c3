import { Writable } from 'node:stream';
import { describe, expect, it } from 'vitest';
import type { CliDependencies } from '../../src/cli/context.ts';
import { runProgram } from '../../src/cli/program.ts';

/** `version` needs nothing but a place to print. */
async function print(...argv: readonly string[]): Promise<string> {
  const printed: string[] = [];
  const stream = new Writable({
    write: (chunk: Buffer, _encoding, done) => {
      printed.push(chunk.toString());
      done();
    },
  });
  const terminal = { stdout: stream, stderr: stream, isInteractive: false, hasColours: false, ask: undefined };
  const cli = { terminal, version: '1.2.3', signal: new AbortController().signal };
  await runProgram(argv, cli as unknown as CliDependencies);
  return printed.join('');
}

describe('options that every command has', () => {
  it('mean the same before and after the command', async () => {
    const after = await print('version', '-o', 'json');
    expect(JSON.parse(after)).toMatchObject({ sandbar: '1.2.3' });
    expect(await print('-o', 'json', 'version')).toBe(after);
  });

  it('are taken from the end of the line where they are given twice', async () => {
    expect(await print('-o', 'json', 'version', '-o', 'text')).toContain('sandbar');
    expect(await print('-o', 'json', 'version', '-o', 'text')).not.toContain('{');
  });

  it('have no short form of --name, since -n is a namespace where there is one', async () => {
    expect(await print('version', '-n', 'shop')).toContain("unknown option '-n'");
    expect(await print('version', '--name', 'shop')).toContain('1.2.3');
  });
});

describe('commands that only other commands call', () => {
  it('are in no help and no completion', async () => {
    for (const argv of [['--help'], ['completion', 'bash'], ['completion', 'fish']]) {
      const text = await print(...argv);
      expect(text).toContain('unmount');
      expect(text).not.toContain('relay');
    }
  });
});
