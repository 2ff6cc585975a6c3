/** Images made on the fly, without any registry. */
import { randomBytes } from 'node:crypto';
import { Readable } from 'node:stream';
import { finished } from 'node:stream/promises';
import type Dockerode from 'dockerode';
import { createTar } from '../../src/model/tar.ts';

const MB = 1_000_000;

export type ContextFile = { readonly path: string; readonly content: Buffer | string };

/** Builds an image from a context in memory. */
export async function buildImage(
  docker: Dockerode,
  tag: string,
  {
    files,
    buildArguments = {},
  }: { readonly files: readonly ContextFile[]; readonly buildArguments?: Record<string, string> },
): Promise<void> {
  const context = createTar(files.map((file) => ({ ...file, mode: 0o644 })));
  const options = { t: tag, rm: true, buildargs: buildArguments };
  const answer = (await docker.buildImage(Readable.from([context]), options)) as Readable;
  let report = '';
  answer.on('data', (chunk: Buffer) => (report += chunk.toString('utf8')));
  await finished(answer);
  // The engine reports a failure as a line of an answer that succeeds.
  const failure = /"error":"(.*?)"[,}]/.exec(report);
  if (failure !== null) throw new Error(`could not build ${tag}: ${failure[1] ?? ''}`);
}

/** 100 MB that nothing can compress: three large layers, and one of 1 MB that `changeLastLayer` makes anew. */
export class HundredMegabytes {
  readonly tag: string;
  readonly #docker: Dockerode;
  readonly #layers: Buffer[] = [33 * MB, 33 * MB, 33 * MB, MB].map((size) => randomBytes(size));

  constructor(docker: Dockerode, tag: string) {
    this.#docker = docker;
    this.tag = tag;
  }

  async build(): Promise<void> {
    const names = this.#layers.map((_, index) => `layer-${String(index)}`);
    const dockerfile = ['FROM scratch', ...names.map((name) => `COPY ${name} /`), 'CMD ["/none"]'].join('\n');
    const layers = this.#layers.map((content, index) => ({ path: names[index] ?? '', content }));
    await buildImage(this.#docker, this.tag, { files: [{ path: 'Dockerfile', content: dockerfile }, ...layers] });
  }

  async changeLastLayer(): Promise<void> {
    this.#layers[this.#layers.length - 1] = randomBytes(MB);
    await this.build();
  }
}

export async function removeImage(docker: Dockerode, tag: string): Promise<void> {
  await docker
    .getImage(tag)
    .remove({ force: true })
    .catch(() => undefined);
}
