import { PassThrough, Writable } from 'node:stream';
import { expect, it } from 'vitest';
import { collectOutput } from '../../src/adapters/docker-streams.ts';

/** A piece of output behind its header, as the engine sends it. */
function piece(kind: 'out' | 'error', bytes: Buffer): Buffer {
  const header = Buffer.from([kind === 'out' ? 1 : 2, 0, 0, 0, 0, 0, 0, bytes.length]);
  return Buffer.concat([header, bytes]);
}

it('hands over output while the program still runs, characters whole, and returns all of it', async () => {
  const stream = new PassThrough();
  const seen: string[] = [];
  let told = (): void => undefined;
  const hasStarted = new Promise<void>((resolve) => (told = resolve));
  const running = collectOutput(stream, {
    onOutput: (text) => {
      seen.push(text);
      told();
    },
  });
  stream.write(piece('error', Buffer.from('on the other stream')));
  stream.write(piece('out', Buffer.from('ready ')));
  await hasStarted;
  expect(seen).toEqual(['ready ']);

  const letter = Buffer.from('ä');
  stream.write(piece('out', letter.subarray(0, 1)));
  stream.end(piece('out', letter.subarray(1)));
  expect(await running).toEqual({ stdout: 'ready ä', stderr: 'on the other stream' });
  expect(seen.join('')).toBe('ready ä');
});

/** A target that takes one write and never says what became of it, as a compressor does that nobody reads from. */
const stuck = (): Writable => new Writable({ write: () => undefined });

it('ends with the target of its output, and with the reason of that', async () => {
  const [stream, output] = [new PassThrough(), stuck()];
  output.on('error', () => undefined);
  const running = collectOutput(stream, { output });
  stream.write(piece('out', Buffer.from('more than it takes')));
  await new Promise((resolve) => setImmediate(resolve));
  output.destroy(new Error('the disk is full'));
  await expect(running).rejects.toThrow('the disk is full');
  expect(stream.destroyed).toBe(true);
});

it('ends with its signal while the target of its output takes nothing', async () => {
  const [stream, interruption] = [new PassThrough(), new AbortController()];
  const running = collectOutput(stream, { output: stuck(), signal: interruption.signal });
  stream.write(piece('out', Buffer.from('more than it takes')));
  await new Promise((resolve) => setImmediate(resolve));
  interruption.abort(new Error('interrupted'));
  await expect(running).rejects.toThrow('interrupted');
});
