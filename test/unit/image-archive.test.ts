import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { describe, expect, it } from 'vitest';
import {
  blobPath,
  digestOfPath,
  filterArchive,
  formatManifest,
  readArchiveManifest,
  type ArchivedImage,
} from '../../src/model/image-archive.ts';
import { createTar, readTar } from '../../src/model/tar.ts';

const DIGEST = `sha256:${'a'.repeat(64)}`;
const OTHER = `sha256:${'b'.repeat(64)}`;
const IMAGE: ArchivedImage = {
  config: `${'c'.repeat(64)}.json`,
  names: ['app:1'],
  layers: [blobPath(DIGEST), blobPath(OTHER)],
};

const archive = createTar([
  { path: blobPath(DIGEST), mode: 0o644, content: 'x'.repeat(3000) },
  { path: blobPath(OTHER), mode: 0o644, content: 'y'.repeat(10) },
  { path: 'manifest.json', mode: 0o644, content: formatManifest([IMAGE]) },
]);

const source = (): Readable => Readable.from([archive], { objectMode: false });

describe('filterArchive', () => {
  it('leaves out what is named and passes the rest on', async () => {
    const filtered = await buffer(filterArchive(source(), { skippedPaths: new Set([blobPath(DIGEST)]) }));
    const paths: string[] = [];
    for await (const member of readTar(Readable.from([filtered], { objectMode: false }))) paths.push(member.path);
    expect(paths).toEqual([blobPath(OTHER), 'manifest.json']);
  });

  it('changes nothing when nothing is named', async () => {
    expect(await buffer(filterArchive(source(), { skippedPaths: new Set() }))).toEqual(archive);
  });

  it('tells what the manifest says', async () => {
    const seen: (readonly ArchivedImage[])[] = [];
    await buffer(filterArchive(source(), { skippedPaths: new Set(), onManifest: (images) => seen.push(images) }));
    expect(seen).toEqual([[IMAGE]]);
    expect(await readArchiveManifest(source())).toEqual([IMAGE]);
  });
});

it('reads digests from the paths of new and old engines', () => {
  expect(digestOfPath(blobPath(DIGEST))).toBe(DIGEST);
  expect(digestOfPath(`${'c'.repeat(64)}.json`)).toBe(`sha256:${'c'.repeat(64)}`);
  expect(digestOfPath('manifest.json')).toBeUndefined();
});
