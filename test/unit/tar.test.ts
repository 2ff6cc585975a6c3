import { describe, expect, it } from 'vitest';
import { createTar, readMember, readTar, TAR_END, tarHeader, tarPadding } from '../../src/model/tar.ts';

async function membersOf(archive: Uint8Array, chunkSize = archive.length) {
  const members = [];
  for await (const member of readTar(chunksOf(archive, chunkSize))) {
    const content = (await readMember(member)).toString('utf8');
    members.push({ path: member.path, kind: member.kind, size: member.size, content });
  }
  return members;
}

async function* chunksOf(bytes: Uint8Array, size: number): AsyncGenerator<Uint8Array> {
  for (let start = 0; start < bytes.length; start += size) {
    await Promise.resolve();
    yield bytes.subarray(start, start + size);
  }
}

const LONG = `folder/${'x'.repeat(150)}/é.txt`;

describe('tar', () => {
  it('reads what it wrote, names over 100 bytes included', async () => {
    const archive = createTar([
      { path: '/etc/a', mode: 0o600, content: 'one' },
      { path: LONG, mode: 0o644, content: 'zwölf' },
      { path: 'empty', mode: 0o644, content: '' },
    ]);
    expect(await membersOf(archive)).toEqual([
      { path: 'etc/a', kind: 'file', size: 3, content: 'one' },
      { path: LONG, kind: 'file', size: 6, content: 'zwölf' },
      { path: 'empty', kind: 'file', size: 0, content: '' },
    ]);
  });

  it.each([1, 7, 511, 512, 513, 4096])('reads chunks of %i bytes', async (chunkSize) => {
    const files = [
      { path: 'a', mode: 0o644, content: 'x'.repeat(1000) },
      { path: LONG, mode: 0o644, content: 'y'.repeat(512) },
    ];
    const members = await membersOf(createTar(files), chunkSize);
    expect(members.map(({ path, content }) => [path, content])).toEqual(
      files.map(({ path, content }) => [path, content]),
    );
  });

  it('skips content that nobody reads', async () => {
    const archive = createTar([
      { path: 'a', mode: 0o644, content: 'x'.repeat(5000) },
      { path: 'b', mode: 0o644, content: 'y' },
    ]);
    const paths: string[] = [];
    for await (const member of readTar(chunksOf(archive, 100))) paths.push(member.path);
    expect(paths).toEqual(['a', 'b']);
  });

  it('writes sizes that the old field cannot hold into an extension', async () => {
    const size = 9 * 2 ** 30;
    const archive = Buffer.concat([tarHeader({ path: 'big', mode: 0o644, size }), Buffer.from('start')]);
    for await (const member of readTar(chunksOf(archive, 512))) {
      expect(member).toMatchObject({ path: 'big', size });
      return;
    }
  });

  it('passes headers on as they were', async () => {
    const archive = createTar([{ path: LONG, mode: 0o644, content: 'abc' }]);
    const parts: Uint8Array[] = [];
    for await (const member of readTar(chunksOf(archive, 512))) {
      parts.push(...member.headers, await readMember(member), tarPadding(member.size));
    }
    expect(Buffer.concat([...parts, TAR_END])).toEqual(archive);
  });

  it('says that an archive was cut off', async () => {
    const archive = createTar([{ path: 'a', mode: 0o644, content: 'x'.repeat(5000) }]);
    await expect(membersOf(archive.subarray(0, 2000))).rejects.toThrow('the archive ends too early');
  });
});
