import { Writable } from 'node:stream';
import { expect } from 'vitest';
import type { CliDependencies } from '../../src/cli/context.ts';
import { runProgram } from '../../src/cli/program.ts';
import { RUNTIME_IMAGES, type ImageBuilder } from '../../src/model/images.ts';
import type { MintIdentity } from '../../src/operations/up-ground.ts';
import type { Machine } from './machine.ts';

type Outcome = { readonly exitCode: number; readonly stdout: string; readonly stderr: string };

/** The command line over a machine in memory, as a user calls it. */
export class Shell<M extends Machine = Machine> {
  readonly machine: M;
  /** Clusters for which a relay was started. */
  readonly relays: string[] = [];
  /** What a relay that was started does. */
  startRelay: () => void = () => undefined;

  constructor(machine: M) {
    this.machine = machine;
  }

  async run(...argv: readonly string[]): Promise<Outcome> {
    const [stdout, stderr] = [collector(), collector()];
    const terminal = { stdout, stderr, isInteractive: false, hasColours: false, ask: undefined };
    const { machine } = this;
    const cli = {
      version: '1.2.3',
      host: machine.host,
      clock: machine.clock,
      terminal,
      signal: new AbortController().signal,
      openPorts: () => Promise.resolve({ ...machine.ports, images: this.#images() }),
      startRelay: (clusterName: string) => {
        this.relays.push(clusterName);
        this.startRelay();
        return Promise.resolve();
      },
      watchFiles: () => Promise.resolve(),
      mintIdentity: (...args: Parameters<MintIdentity>) => machine.mintIdentity(...args),
      mintRoot: machine.mintRoot,
    } as unknown as CliDependencies;
    const exitCode = await runProgram(argv, cli);
    return { exitCode, stdout: stdout.text(), stderr: stderr.text() };
  }

  /** Lines of the result; an error is none. */
  async lines(...argv: readonly string[]): Promise<readonly string[]> {
    const { exitCode, stdout, stderr } = await this.run(...argv);
    expect(stderr.replace(/^[•✔].*\n/gm, '')).toBe('');
    expect(exitCode).toBe(0);
    return stdout.trimEnd().split('\n');
  }

  async json(...argv: readonly string[]): Promise<unknown> {
    const { stdout } = await this.run(...argv, '-o', 'json');
    return JSON.parse(stdout);
  }

  #images(): Partial<ImageBuilder> {
    const paths = ['base', 'builder', ...RUNTIME_IMAGES].map((name) => `${name}/Dockerfile`);
    return {
      listSources: () => Promise.resolve(paths.map((path) => ({ path, isExecutable: false, digest: path }))),
      findImage: (ref) => {
        this.machine.runtime.images.set(ref, {});
        return Promise.resolve({ id: ref, sizeBytes: 1 });
      },
    };
  }
}

function collector(): Writable & { readonly text: () => string } {
  const parts: string[] = [];
  const stream = new Writable({
    write: (chunk: Buffer, _encoding, done) => {
      parts.push(chunk.toString());
      done();
    },
  });
  return Object.assign(stream, { text: () => parts.join('') });
}
