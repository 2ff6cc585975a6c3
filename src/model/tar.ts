/** The tar format, as far as engines and images use it: small archives written whole, large ones read as they come. */

const BLOCK = 512;

export type TarFile = { readonly path: string; readonly mode: number; readonly content: string | Uint8Array };

/** A member of an archive that is being read. Its content is gone once the next member was asked for. */
export type TarMember = {
  readonly path: string;
  readonly kind: 'file' | 'directory' | 'symlink' | 'hardlink' | 'other';
  readonly size: number;
  readonly linkPath: string;
  /** Its headers as they were, extension headers included, to be passed on unchanged. */
  readonly headers: readonly Uint8Array[];
  readonly content: AsyncIterable<Uint8Array>;
};

/** A whole archive of regular files owned by root. Folders are left to whoever unpacks it. */
export function createTar(files: readonly TarFile[]): Buffer {
  const parts: Uint8Array[] = [];
  for (const file of files) {
    const content = typeof file.content === 'string' ? Buffer.from(file.content) : file.content;
    parts.push(tarHeader({ path: file.path, mode: file.mode, size: content.length }), content);
    parts.push(tarPadding(content.length));
  }
  return Buffer.concat([...parts, TAR_END]);
}

/** What follows the last member. */
export const TAR_END: Uint8Array = Buffer.alloc(2 * BLOCK);

/** The zeros that fill a member's last block. */
export function tarPadding(size: number): Uint8Array {
  return Buffer.alloc((BLOCK - (size % BLOCK)) % BLOCK);
}

/** The header of a regular file; names and sizes that the old fields cannot hold go into an extension header before it. */
export function tarHeader({
  path,
  mode,
  size,
}: {
  readonly path: string;
  readonly mode: number;
  readonly size: number;
}): Uint8Array {
  const name = path.replace(/^\/+/, '');
  const records = [
    ...(Buffer.byteLength(name) > 100 ? [paxRecord('path', name)] : []),
    ...(size > 0o77777777777 ? [paxRecord('size', String(size))] : []),
  ].join('');
  const header = encodeHeader({ name, mode, size, type: '0' });
  if (records === '') return header;
  const recordsSize = Buffer.byteLength(records);
  return Buffer.concat([
    encodeHeader({ name: 'extension', mode: 0o644, size: recordsSize, type: 'x' }),
    Buffer.from(records),
    tarPadding(recordsSize),
    header,
  ]);
}

function encodeHeader({
  name,
  mode,
  size,
  type,
}: {
  readonly name: string;
  readonly mode: number;
  readonly size: number;
  readonly type: string;
}): Buffer {
  const header = Buffer.alloc(BLOCK);
  const octal = (value: number, offset: number, width: number): void => {
    header.write(
      `${value
        .toString(8)
        .padStart(width - 1, '0')
        .slice(-(width - 1))}\0`,
      offset,
      'ascii',
    );
  };
  Buffer.from(name).copy(header, 0, 0, 100);
  octal(mode, 100, 8);
  octal(0, 108, 8);
  octal(0, 116, 8);
  octal(size, 124, 12);
  octal(0, 136, 12);
  header.write(' '.repeat(8), 148, 'ascii');
  header.write(type, 156, 'ascii');
  header.write('ustar\x0000', 257, 'ascii');
  const checksum = header.reduce((sum, byte) => sum + byte, 0);
  header.write(`${checksum.toString(8).padStart(6, '0')}\0 `, 148, 'ascii');
  return header;
}

/** `LENGTH KEY=VALUE\n`, where the length counts itself. */
function paxRecord(key: string, value: string): string {
  const rest = ` ${key}=${value}\n`;
  const restSize = Buffer.byteLength(rest);
  const digits = String(restSize + String(restSize).length).length;
  return `${String(restSize + digits)}${rest}`;
}

/** The members of an archive as they come; what is not read of a member's content is skipped. */
export async function* readTar(source: AsyncIterable<Uint8Array>): AsyncGenerator<TarMember> {
  const bytes = new ByteReader(source);
  let headers: Uint8Array[] = [];
  let extension: Extension = {};
  for (;;) {
    const block = await bytes.read(BLOCK);
    if (block === undefined) return;
    // Zeros end an archive; some writers add more of them.
    if (block.every((byte) => byte === 0)) continue;
    headers.push(block);
    const type = String.fromCharCode(block[156] ?? 0);
    const size = extension.size ?? readNumber(block.subarray(124, 136));
    const padding = (BLOCK - (size % BLOCK)) % BLOCK;
    if (type === 'x' || type === 'g' || type === 'L' || type === 'K') {
      const body = (await bytes.read(size + padding)) ?? truncated();
      headers.push(body);
      const text = readText(body.subarray(0, size), { isWhole: true });
      if (type === 'x') extension = { ...extension, ...parsePax(text) };
      if (type === 'L') extension = { ...extension, path: text.replace(/\0.*$/s, '') };
      if (type === 'K') extension = { ...extension, linkPath: text.replace(/\0.*$/s, '') };
      continue;
    }
    const prefix = readText(block.subarray(257, 262)) === 'ustar' ? readText(block.subarray(345, 500)) : '';
    const name = readText(block.subarray(0, 100));
    let left = size;
    const content = (async function* () {
      while (left > 0) {
        const part = (await bytes.readSome(left)) ?? truncated();
        left -= part.length;
        yield part;
      }
    })();
    yield {
      path: extension.path ?? (prefix === '' ? name : `${prefix}/${name}`),
      kind: memberKind(type),
      size,
      linkPath: extension.linkPath ?? readText(block.subarray(157, 257)),
      headers,
      content,
    };
    while (left > 0) left -= ((await bytes.readSome(left)) ?? truncated()).length;
    if (padding > 0) await bytes.read(padding);
    headers = [];
    extension = {};
  }
}

/** Content of a small member, whole. */
export async function readMember(member: TarMember): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  for await (const part of member.content) parts.push(part);
  return Buffer.concat(parts);
}

type Extension = { readonly path?: string; readonly linkPath?: string; readonly size?: number };

function memberKind(type: string): TarMember['kind'] {
  switch (type) {
    case '0':
    case '\0':
    case '7':
      return 'file';
    case '1':
      return 'hardlink';
    case '2':
      return 'symlink';
    case '5':
      return 'directory';
    default:
      return 'other';
  }
}

function parsePax(text: string): Extension {
  const extension: { path?: string; linkPath?: string; size?: number } = {};
  let bytes = Buffer.from(text);
  for (;;) {
    const length = Number(/^\d+(?= )/.exec(bytes.subarray(0, 24).toString('latin1'))?.[0]);
    if (!(length > 0)) return extension;
    const record = bytes.subarray(0, length - 1).toString();
    const [, key, value] = /^\d+ ([^=]*)=(.*)$/s.exec(record) ?? [];
    if (key === 'path' && value !== undefined) extension.path = value;
    if (key === 'linkpath' && value !== undefined) extension.linkPath = value;
    if (key === 'size') extension.size = Number(value);
    bytes = bytes.subarray(length);
  }
}

function readNumber(field: Uint8Array): number {
  // Sizes beyond 8 GiB are binary, marked by the highest bit.
  if (((field[0] ?? 0) & 0x80) !== 0) return field.slice(4).reduce((sum, byte) => sum * 256 + byte, 0);
  return Number.parseInt(readText(field).trim(), 8) || 0;
}

function readText(field: Uint8Array, { isWhole = false }: { readonly isWhole?: boolean } = {}): string {
  const end = isWhole ? -1 : field.indexOf(0);
  return Buffer.from(field.buffer, field.byteOffset, end === -1 ? field.length : end).toString('utf8');
}

function truncated(): never {
  throw new Error('the archive ends too early');
}

/** Reads exact amounts from chunks of any size, without copying where a chunk holds enough. */
class ByteReader {
  readonly #chunks: AsyncIterator<Uint8Array>;
  #rest: Uint8Array = new Uint8Array();

  constructor(source: AsyncIterable<Uint8Array>) {
    this.#chunks = source[Symbol.asyncIterator]();
  }

  /** Exactly `count` bytes, or undefined at the end. */
  async read(count: number): Promise<Uint8Array | undefined> {
    if (count === 0) return new Uint8Array();
    const parts: Uint8Array[] = [];
    let missing = count;
    while (missing > 0) {
      const part = await this.readSome(missing);
      if (part === undefined) return parts.length === 0 ? undefined : truncated();
      parts.push(part);
      missing -= part.length;
    }
    return parts.length === 1 && parts[0] !== undefined ? parts[0] : Buffer.concat(parts);
  }

  /** At least one byte and at most `limit`, or undefined at the end. */
  async readSome(limit: number): Promise<Uint8Array | undefined> {
    while (this.#rest.length === 0) {
      const next = await this.#chunks.next();
      if (next.done === true) return undefined;
      this.#rest = next.value;
    }
    const part = this.#rest.subarray(0, limit);
    this.#rest = this.#rest.subarray(part.length);
    return part;
  }
}
