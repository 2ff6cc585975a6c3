import { SandbarError } from '../model/errors.ts';
import type { ImageBuild } from '../model/images.ts';
import { decodeTrace, type Vertex } from './buildkit-trace.ts';

const DETAIL_LINES = 20;
const SHOWN_LENGTH = 100;

/** Steps that only move files between the engine and itself. */
const INTERNAL_STEP = /^(?:\[internal\]|copy \/context )/;

/** Follows a build: one line of progress for the user, the full log for the file, and what failed for the error. */
export class BuildProgress {
  readonly #onProgress: (text: string) => void;
  readonly #writeLog: (text: string) => void;
  readonly #seen = new Map<string, Vertex>();
  readonly #outputs = new Map<string, string>();

  constructor(onProgress: (text: string) => void, writeLog: (text: string) => void) {
    this.#onProgress = onProgress;
    this.#writeLog = writeLog;
  }

  /** Takes one `moby.buildkit.trace` message. */
  add(trace: string): void {
    const { vertices, logs } = decodeTrace(trace);
    for (const vertex of vertices) this.#addVertex(vertex);
    for (const { vertex, text } of logs) {
      // Only the end is ever shown: keep no megabytes of it.
      this.#outputs.set(vertex, ((this.#outputs.get(vertex) ?? '') + text).slice(-20_000));
      this.#writeLog(text);
    }
  }

  /** The error for a build that ended with `cause`, with the step that failed and the end of what it printed. */
  toError(plan: ImageBuild, options: { readonly logPath: string; readonly cause: unknown }): SandbarError {
    const failed = [...this.#seen.values()].find((vertex) => vertex.error !== '' && !vertex.error.includes('canceled'));
    const reason = options.cause instanceof Error ? options.cause.message : String(options.cause);
    const output = failed === undefined ? '' : (this.#outputs.get(failed.digest) ?? '');
    const isDiskFull = [...this.#outputs.values(), reason].some((text) => text.includes('no space left on device'));
    return new SandbarError(
      isDiskFull ? 'DISK_FULL' : 'IMAGE_BUILD_FAILED',
      `image ${plan.name} cannot be built: ${isDiskFull ? 'the disk is full' : failed === undefined ? reason : `${shorten(failed.name)} failed`}`,
      {
        hint: isDiskFull
          ? 'free some space where Docker keeps its data, e.g. with docker builder prune, and try again'
          : `the whole log is in ${options.logPath}`,
        details: [...output.trimEnd().split('\n').slice(-DETAIL_LINES), reason].filter((line) => line !== ''),
        cause: options.cause,
      },
    );
  }

  #addVertex(vertex: Vertex): void {
    const before = this.#seen.get(vertex.digest);
    this.#seen.set(vertex.digest, vertex);
    if (vertex.isStarted && before?.isStarted !== true) {
      this.#writeLog(`\n${vertex.name}${vertex.isCached ? ' (cached)' : ''}\n`);
      if (!vertex.isCached && !INTERNAL_STEP.test(vertex.name)) this.#onProgress(shorten(vertex.name));
    }
    if (vertex.error !== '' && before?.error !== vertex.error) this.#writeLog(`${vertex.error}\n`);
  }
}

/** `[build 5/6] RUN --mount=… go build …` → `go build …` on one line. */
function shorten(name: string): string {
  const text = name
    .replace(/^\[[^\]]*\] (?:RUN )?/, '')
    .replace(/--mount=\S+ */g, '')
    .replace(/\s+/g, ' ');
  return text.length > SHOWN_LENGTH ? `${text.slice(0, SHOWN_LENGTH - 1)}…` : text;
}
