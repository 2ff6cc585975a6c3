/** How S3 requests are signed. */
import { createHash, createHmac } from 'node:crypto';

type SigningAccess = {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly region: string;
};

/** AWS Signature Version 4 of one request, as the headers that carry it. */
export function signedHeaders({
  method,
  path,
  search,
  host,
  body,
  extra = {},
  access,
  now,
}: {
  readonly method: string;
  readonly path: string;
  /** Encoded and sorted. */
  readonly search: string;
  readonly host: string;
  readonly body: string | Buffer;
  /** Headers besides those of every request, with names in lower case. */
  readonly extra?: Readonly<Record<string, string>>;
  readonly access: SigningAccess;
  readonly now: Date;
}): Readonly<Record<string, string>> {
  const time = now.toISOString().replace(/[-:]|\.\d{3}/g, '');
  const date = time.slice(0, 8);
  const scope = `${date}/${access.region}/s3/aws4_request`;
  const unsorted = {
    ...extra,
    // Wanted for the removal of several objects.
    ...(body.length === 0 ? {} : { 'content-md5': createHash('md5').update(body).digest('base64') }),
    host,
    'x-amz-content-sha256': sha256(body),
    'x-amz-date': time,
  };
  const headers = Object.fromEntries(Object.entries(unsorted).toSorted(([a], [b]) => (a < b ? -1 : 1)));
  const names = Object.keys(headers).join(';');
  const lines = Object.entries(headers).map(([name, value]) => `${name}:${value}\n`);
  const canonicalRequest = [method, path, search, lines.join(''), names, sha256(body)].join('\n');
  const signedText = ['AWS4-HMAC-SHA256', time, scope, sha256(canonicalRequest)].join('\n');
  const key = [date, access.region, 's3', 'aws4_request'].reduce<Buffer | string>(
    (previous, part) => createHmac('sha256', previous).update(part).digest(),
    `AWS4${access.secretAccessKey}`,
  );
  const signature = createHmac('sha256', key).update(signedText).digest('hex');
  return {
    ...headers,
    authorization: `AWS4-HMAC-SHA256 Credential=${access.accessKeyId}/${scope}, SignedHeaders=${names}, Signature=${signature}`,
  };
}

/** All but the unreserved characters, as the signature demands. */
export function encodeStrictly(text: string): string {
  return encodeURIComponent(text).replace(
    /[!'()*]/g,
    (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`,
  );
}

function sha256(content: string | Buffer): string {
  return createHash('sha256').update(content).digest('hex');
}
