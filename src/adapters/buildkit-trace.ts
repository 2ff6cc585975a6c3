/**
 * Reads `moby.buildkit.trace` messages: base64 of the protobuf message moby.buildkit.v1.StatusResponse.
 * The engine's API client formats them as text, which loses which step a line belongs to; the few fields needed
 * here take less code than a protobuf library and its schema files, which a bundled program would have to carry.
 */

/** One step of a build, as of one moment. A step is reported several times. */
export type Vertex = {
  readonly digest: string;
  /** E.g. `[build 5/6] RUN go build …`. */
  readonly name: string;
  readonly isCached: boolean;
  readonly isStarted: boolean;
  readonly isCompleted: boolean;
  /** Empty unless the step failed. */
  readonly error: string;
};

export type BuildStatus = {
  readonly vertices: readonly Vertex[];
  readonly logs: readonly { readonly vertex: string; readonly text: string }[];
};

type Field = { readonly number: number; readonly bytes: Buffer };

export function decodeTrace(base64: string): BuildStatus {
  const fields = readFields(Buffer.from(base64, 'base64'));
  return {
    vertices: fields.filter(({ number }) => number === 1).map(({ bytes }) => decodeVertex(bytes)),
    logs: fields.filter(({ number }) => number === 3).map(({ bytes }) => decodeLog(bytes)),
  };
}

function decodeVertex(bytes: Buffer): Vertex {
  const fields = readFields(bytes);
  return {
    digest: textOf(fields, 1),
    name: textOf(fields, 3),
    // Proto3 leaves out a boolean that is false.
    isCached: hasField(fields, 4),
    isStarted: hasField(fields, 5),
    isCompleted: hasField(fields, 6),
    error: textOf(fields, 7),
  };
}

function decodeLog(bytes: Buffer): { vertex: string; text: string } {
  const fields = readFields(bytes);
  return { vertex: textOf(fields, 1), text: textOf(fields, 4) };
}

function textOf(fields: readonly Field[], number: number): string {
  return fields.find((field) => field.number === number)?.bytes.toString('utf8') ?? '';
}

function hasField(fields: readonly Field[], number: number): boolean {
  return fields.some((field) => field.number === number);
}

/** Splits a protobuf message into its fields; numbers are kept as their own bytes, since none of them is needed. */
function readFields(message: Buffer): readonly Field[] {
  const fields: Field[] = [];
  let offset = 0;
  const readVarint = (): number => {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      const byte = message[offset++];
      if (byte === undefined) throw new RangeError('BuildKit status ends inside a number');
      value += (byte % 128) * scale;
      if (byte < 128) return value;
    }
  };
  while (offset < message.length) {
    const tag = readVarint();
    const start = offset;
    switch (tag % 8) {
      case 0:
        readVarint();
        fields.push({ number: Math.floor(tag / 8), bytes: message.subarray(start, offset) });
        break;
      case 1:
        offset += 8;
        break;
      case 2: {
        const length = readVarint();
        fields.push({ number: Math.floor(tag / 8), bytes: message.subarray(offset, offset + length) });
        offset += length;
        break;
      }
      case 5:
        offset += 4;
        break;
      default:
        throw new RangeError(`BuildKit status has a field of the unknown type ${String(tag % 8)}`);
    }
  }
  return fields;
}
