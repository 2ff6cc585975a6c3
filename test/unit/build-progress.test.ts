import { describe, expect, it } from 'vitest';
import { BuildProgress } from '../../src/adapters/build-progress.ts';
import { decodeTrace } from '../../src/adapters/buildkit-trace.ts';
import type { ImagePlan } from '../../src/model/images.ts';

/** A protobuf field whose value is bytes, for numbers up to 15. */
const field = (number: number, value: Buffer | string): Buffer => {
  const bytes = Buffer.from(value);
  const length: number[] = [];
  for (let left = bytes.length; ; left = Math.floor(left / 128)) {
    length.push(left < 128 ? left : (left % 128) + 128);
    if (left < 128) break;
  }
  return Buffer.concat([Buffer.from([number * 8 + 2, ...length]), bytes]);
};
const isTrue = (number: number): Buffer => Buffer.from([number * 8, 1]);
const timestamp = Buffer.from([8, 1]);
const digest = `sha256:${'0'.repeat(64)}`;

const trace = (...parts: readonly Buffer[]): string => Buffer.concat(parts).toString('base64');
const vertex = (...fields: readonly Buffer[]): Buffer => field(1, Buffer.concat([field(1, digest), ...fields]));
const log = (text: string): Buffer =>
  field(3, Buffer.concat([field(1, digest), field(2, timestamp), Buffer.from([24, 2]), field(4, text)]));

const plan = { name: 'dns' } as ImagePlan;
const step = '[build 5/5] RUN --mount=type=cache,id=a,target=/b go build -o /out/sandbar-dns .';

function progressOf(...traces: readonly string[]): { progress: BuildProgress; shown: string[]; logged: () => string } {
  const shown: string[] = [];
  const logged: string[] = [];
  const progress = new BuildProgress(
    (text) => shown.push(text),
    (text) => logged.push(text),
  );
  traces.forEach((each) => {
    progress.add(each);
  });
  return { progress, shown, logged: () => logged.join('') };
}

describe('decodeTrace', () => {
  it('reads steps and their output', () => {
    const status = decodeTrace(trace(vertex(field(3, step), isTrue(4), field(5, timestamp)), log('hello\n')));
    expect(status).toEqual({
      vertices: [{ digest, name: step, isCached: true, isStarted: true, isCompleted: false, error: '' }],
      logs: [{ vertex: digest, text: 'hello\n' }],
    });
  });

  it('reads an empty message', () => {
    expect(decodeTrace('')).toEqual({ vertices: [], logs: [] });
  });

  it('refuses a message that ends inside a number', () => {
    expect(() => decodeTrace(Buffer.from([0x0a, 0x80]).toString('base64'))).toThrow(RangeError);
  });
});

describe('BuildProgress', () => {
  const started = trace(vertex(field(3, step), field(5, timestamp)));

  it('shows a step once, without its mounts', () => {
    expect(progressOf(started, started).shown).toEqual(['go build -o /out/sandbar-dns .']);
  });

  it('shows neither cached steps nor the engine’s own', () => {
    const cached = trace(vertex(field(3, step), isTrue(4), field(5, timestamp)));
    const internal = trace(vertex(field(3, '[internal] load build context'), field(5, timestamp)));
    expect(progressOf(cached, internal).shown).toEqual([]);
  });

  it('names the failed step and shows the end of its output', () => {
    const output = Array.from({ length: 30 }, (_, index) => `line ${String(index)}`).join('\n');
    const { progress, logged } = progressOf(
      started,
      trace(log(output)),
      trace(vertex(field(3, step), field(5, timestamp), field(6, timestamp), field(7, 'exit code: 1'))),
    );
    const error = progress.toError(plan, { logPath: '/state/build-dns.log', cause: new Error('exit code: 1') });
    expect(error).toMatchObject({
      code: 'IMAGE_BUILD_FAILED',
      message: 'image dns cannot be built: go build -o /out/sandbar-dns . failed',
      hint: 'the whole log is in /state/build-dns.log',
    });
    expect(error.details).toHaveLength(21);
    expect(error.details.at(-2)).toBe('line 29');
    expect(logged()).toContain('line 0');
  });

  it('tells a full disk from other failures', () => {
    const { progress } = progressOf(started, trace(log('write /out/x: no space left on device\n')));
    expect(progress.toError(plan, { logPath: '/log', cause: new Error('exit code: 1') }).code).toBe('DISK_FULL');
  });
});
