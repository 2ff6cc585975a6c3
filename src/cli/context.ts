/** What commands are given: the operations' ports, opened when first needed, and where to print. */
import type { ImagePorts } from '../operations/images.ts';
import type { MintRoot } from '../operations/local-authority.ts';
import type { WatchFiles } from '../operations/relay.ts';
import type { MintIdentity } from '../operations/up-ground.ts';
import type { ImageBuilder } from '../model/images.ts';
import type { Clock, Host, Ports } from '../model/ports.ts';
import type { Emit } from '../model/events.ts';
import type { Terminal } from './terminal.ts';

export type AllPorts = Ports &
  ImagePorts & {
    /** Builds images from another folder than `images/`. */
    readonly openImages: (directory: string) => ImageBuilder;
  };

/** Runs a program on the user's terminal and returns its exit code. */
export type RunProgram = (
  file: string,
  args: readonly string[],
  options: { readonly env: Readonly<Record<string, string>> },
) => Promise<number>;

export type CliDependencies = {
  readonly host: Host;
  readonly clock: Clock;
  /** Connects to the engine; fails with an explanation where there is none. */
  readonly openPorts: () => Promise<AllPorts>;
  /** Makes sure that an engine answers, installing and starting one where that is ours to do. */
  readonly provideEngine: (emit: Emit) => Promise<void>;
  /** The app of `docs/examples/gallery`. */
  readonly gallery: ExampleFolder;
  readonly mintIdentity: MintIdentity;
  readonly mintRoot: MintRoot;
  readonly runProgram: RunProgram;
  /** Starts the relay of a cluster's file events, in a process that outlives this one. */
  readonly startRelay: (clusterName: string) => Promise<void>;
  readonly watchFiles: WatchFiles;
  readonly terminal: Terminal;
  /** Aborted by the first Ctrl-C. */
  readonly signal: AbortSignal;
  /** Package version. */
  readonly version: string;
};

export type ExampleFolder = {
  readonly path: string;
  readonly readBytes: (file: string) => Promise<Buffer>;
};

export const OUTPUT_FORMATS = ['text', 'json', 'ndjson'] as const;
export type OutputFormat = (typeof OUTPUT_FORMATS)[number];

/** Options that every command has. */
export type GlobalOptions = {
  readonly name?: string;
  readonly file?: string;
  readonly output: OutputFormat;
  readonly quiet?: boolean;
  readonly yes?: boolean;
  readonly debug?: boolean;
  readonly timeout?: number;
};
