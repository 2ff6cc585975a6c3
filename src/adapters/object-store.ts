/** An S3 endpoint over plain HTTP: buckets, and small objects in one piece. See docs/decisions/0003. */
import { createHash, createHmac } from 'node:crypto';
import { Agent, request } from 'node:http';
import { setTimeout as delay } from 'node:timers/promises';
import { SandbarError } from '../model/errors.ts';
import type { ObjectStore } from '../model/ports.ts';

const REQUEST_TIMEOUT_MS = 30_000;

export type ObjectStoreAccess = {
  readonly endpoint: string;
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly region: string;
};

type S3Request = {
  readonly method: 'GET' | 'HEAD' | 'PUT' | 'POST' | 'DELETE';
  readonly bucketName?: string;
  readonly key?: string;
  readonly query?: Readonly<Record<string, string>>;
  readonly body?: string | Buffer;
};

type Answer = { readonly status: number; readonly body: string; readonly content: Buffer };

type ObjectVersion = { readonly key: string; readonly versionId: string };

/** `ObjectStore` with path-style addresses, as every S3 server on a laptop wants them. */
export class S3ObjectStore implements ObjectStore {
  readonly #access: ObjectStoreAccess;
  readonly #agent = new Agent({ keepAlive: true, maxSockets: 8 });

  constructor(access: ObjectStoreAccess) {
    this.#access = access;
  }

  async listBuckets(): Promise<readonly { readonly name: string; readonly created: string }[]> {
    const { body } = await this.#ask({ method: 'GET' }, 'list the buckets');
    return xmlElements(body, 'Bucket').map((bucket) => ({
      name: xmlText(bucket, 'Name'),
      created: xmlText(bucket, 'CreationDate'),
    }));
  }

  async createBucket({
    name,
    hasVersioning,
  }: {
    readonly name: string;
    readonly hasVersioning: boolean;
  }): Promise<void> {
    const { region } = this.#access;
    const body = `<CreateBucketConfiguration><LocationConstraint>${xmlEscape(region)}</LocationConstraint></CreateBucketConfiguration>`;
    await this.#ask(
      // S3 wants this region unnamed.
      { method: 'PUT', bucketName: name, ...(region === 'us-east-1' ? {} : { body }) },
      `create bucket ${name}`,
      { accepts: ['BucketAlreadyOwnedByYou'] },
    );
    if (!hasVersioning) return;
    await this.#ask(
      {
        method: 'PUT',
        bucketName: name,
        query: { versioning: '' },
        body: '<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>',
      },
      `turn on versioning of bucket ${name}`,
    );
  }

  async isVersioned(bucketName: string): Promise<boolean> {
    const { body } = await this.#ask(
      { method: 'GET', bucketName, query: { versioning: '' } },
      `read the versioning of bucket ${bucketName}`,
    );
    return xmlText(body, 'Status') === 'Enabled';
  }

  async removeBucket(bucketName: string, { isForced }: { readonly isForced: boolean }): Promise<void> {
    if (isForced) await this.#removeVersions(bucketName);
    await this.#ask({ method: 'DELETE', bucketName }, `remove bucket ${bucketName}`);
  }

  async putObject(
    bucketName: string,
    { key, content }: { readonly key: string; readonly content: Buffer },
  ): Promise<void> {
    await this.#ask({ method: 'PUT', bucketName, key, body: content }, `put ${key} into bucket ${bucketName}`);
  }

  async getObject(bucketName: string, key: string): Promise<Buffer | undefined> {
    const { status, content } = await this.#ask(
      { method: 'GET', bucketName, key },
      `get ${key} from bucket ${bucketName}`,
      { accepts: ['NoSuchKey'] },
    );
    return status < 300 ? content : undefined;
  }

  close(): void {
    this.#agent.destroy();
  }

  async #removeVersions(bucketName: string): Promise<void> {
    for (;;) {
      // The first page again and again: what was on it is gone.
      const query = { versions: '', 'encoding-type': 'url', 'max-keys': '1000' };
      const { body } = await this.#ask({ method: 'GET', bucketName, query }, `list what is in bucket ${bucketName}`);
      const versions = [...xmlElements(body, 'Version'), ...xmlElements(body, 'DeleteMarker')].map((element) => ({
        key: decodeURIComponent(xmlText(element, 'Key').replaceAll('+', ' ')),
        versionId: xmlText(element, 'VersionId'),
      }));
      if (versions.length === 0) return;
      // XML has no way to write these, so they go one by one, named in the address.
      const unwritable = versions.filter(({ key }) => XML_UNWRITABLE.test(key));
      for (const { key, versionId } of unwritable) {
        await this.#ask({ method: 'DELETE', bucketName, key, query: { versionId } }, `empty bucket ${bucketName}`);
      }
      await this.#removeObjects(
        bucketName,
        versions.filter((version) => !unwritable.includes(version)),
      );
    }
  }

  async #removeObjects(bucketName: string, versions: readonly ObjectVersion[]): Promise<void> {
    if (versions.length === 0) return;
    const objects = versions.map(
      ({ key, versionId }) =>
        `<Object><Key>${xmlEscape(key)}</Key>${versionId === '' ? '' : `<VersionId>${xmlEscape(versionId)}</VersionId>`}</Object>`,
    );
    const { body } = await this.#ask(
      {
        method: 'POST',
        bucketName,
        query: { delete: '' },
        body: `<Delete><Quiet>true</Quiet>${objects.join('')}</Delete>`,
      },
      `empty bucket ${bucketName}`,
    );
    // Refusals of single objects come inside an answer of success.
    const [refusal] = xmlElements(body, 'Error');
    if (refusal === undefined) return;
    throw new SandbarError(
      'OBJECT_STORE_FAILED',
      `could not empty bucket ${bucketName}: ${xmlText(refusal, 'Key')}: ${xmlText(refusal, 'Message')}`,
    );
  }

  async #ask(
    s3Request: S3Request,
    subject: string,
    { accepts = [] }: { readonly accepts?: readonly string[] } = {},
  ): Promise<Answer> {
    const answer = await this.#sendPatiently(s3Request, subject);
    if (answer.status < 300) return answer;
    const code = xmlText(answer.body, 'Code');
    if (accepts.includes(code)) return answer;
    throw translateRefusal({ code, message: xmlText(answer.body, 'Message'), status: answer.status }, subject);
  }

  /** A server that is starting or busy says so; every request of ours may be made twice. */
  async #sendPatiently(s3Request: S3Request, subject: string): Promise<Answer> {
    for (let attempt = 1; ; attempt += 1) {
      try {
        const answer = await this.#send(s3Request);
        if (answer.status !== 503 || attempt === 6) return answer;
      } catch (cause) {
        const { isStale } = cause as { readonly isStale?: boolean };
        if (isStale !== true || attempt === 6) throw unreachable(this.#access.endpoint, subject, cause);
      }
      await delay(50 * 2 ** attempt);
    }
  }

  #send({ method, bucketName = '', key, query = {}, body = '' }: S3Request): Promise<Answer> {
    const path = `/${[bucketName, ...(key?.split('/') ?? [])].map(encodeStrictly).join('/')}`;
    const search = Object.entries(query)
      .map(([key, value]) => `${encodeStrictly(key)}=${encodeStrictly(value)}`)
      .toSorted()
      .join('&');
    const { protocol, hostname, port, host } = new URL(this.#access.endpoint);
    const headers = signedHeaders({ method, path, search, host, body, access: this.#access, now: new Date() });
    return new Promise((resolve, reject) => {
      const outgoing = request(
        {
          protocol,
          hostname,
          port,
          method,
          path: search === '' ? path : `${path}?${search}`,
          agent: this.#agent,
          signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS),
          headers: { ...headers, 'content-length': Buffer.byteLength(body) },
        },
        (response) => {
          const chunks: Buffer[] = [];
          response.on('data', (chunk: Buffer) => chunks.push(chunk));
          response.on('error', reject);
          response.on('end', () => {
            const content = Buffer.concat(chunks);
            resolve({ status: response.statusCode ?? 0, body: content.toString('utf8'), content });
          });
        },
      );
      outgoing.on('error', (cause) => {
        // A kept connection that the server closed meanwhile, as after its restart.
        reject(Object.assign(cause, { isStale: outgoing.reusedSocket }));
      });
      outgoing.end(body);
    });
  }
}

/** AWS Signature Version 4 of one request, as the headers that carry it. */
export function signedHeaders({
  method,
  path,
  search,
  host,
  body,
  access,
  now,
}: {
  readonly method: string;
  readonly path: string;
  /** Encoded and sorted. */
  readonly search: string;
  readonly host: string;
  readonly body: string | Buffer;
  readonly access: Omit<ObjectStoreAccess, 'endpoint'>;
  readonly now: Date;
}): Readonly<Record<string, string>> {
  const time = now.toISOString().replace(/[-:]|\.\d{3}/g, '');
  const date = time.slice(0, 8);
  const scope = `${date}/${access.region}/s3/aws4_request`;
  const headers = {
    // Wanted for the removal of several objects.
    ...(body.length === 0 ? {} : { 'content-md5': createHash('md5').update(body).digest('base64') }),
    host,
    'x-amz-content-sha256': sha256(body),
    'x-amz-date': time,
  };
  const names = Object.keys(headers).join(';');
  const lines = Object.entries(headers).map(([name, value]) => `${name}:${value}\n`);
  const canonicalRequest = [method, path, search, lines.join(''), names, headers['x-amz-content-sha256']].join('\n');
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

function sha256(content: string | Buffer): string {
  return createHash('sha256').update(content).digest('hex');
}

/** All but the unreserved characters, as the signature demands. */
function encodeStrictly(text: string): string {
  return encodeURIComponent(text).replace(
    /[!'()*]/g,
    (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`,
  );
}

function translateRefusal(
  { code, message, status }: { readonly code: string; readonly message: string; readonly status: number },
  subject: string,
): SandbarError {
  const failed = `could not ${subject}: ${message === '' ? `the object store answered ${String(status)}` : message}`;
  switch (code) {
    case 'NoSuchBucket':
      return new SandbarError('NOT_FOUND', failed, { hint: 'sandbar bucket ls shows those that are there' });
    case 'BucketNotEmpty':
      return new SandbarError('CONFLICT', failed, { hint: 'sandbar bucket rm --force removes what is in it as well' });
    case 'BucketAlreadyExists':
      return new SandbarError('CONFLICT', failed);
    case 'InvalidBucketName':
      return new SandbarError('USAGE', failed, {
        hint: '3 to 63 lower-case letters, digits, dots and hyphens, beginning and ending with a letter or digit',
      });
    default:
      return new SandbarError('OBJECT_STORE_FAILED', failed);
  }
}

function unreachable(endpoint: string, subject: string, cause: unknown): SandbarError {
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new SandbarError(
    'OBJECT_STORE_FAILED',
    `could not ${subject}: the object store at ${endpoint} does not answer (${reason})`,
    { hint: 'sandbar status shows what runs, sandbar up repairs it', cause },
  );
}

/** S3 answers in flat XML without attributes that matter, so that elements can be cut out by name. */
function xmlElements(xml: string, name: string): readonly string[] {
  return [...xml.matchAll(new RegExp(`<${name}(?:\\s[^>]*)?>(.*?)</${name}>`, 'gs'))].map(
    ([, content]) => content ?? '',
  );
}

function xmlText(xml: string, name: string): string {
  return (xmlElements(xml, name)[0] ?? '').replace(
    /&(?:#x([0-9a-f]+)|#(\d+)|(\w+));/gi,
    (entity: string, hex: string | undefined, decimal: string | undefined, named: string) => {
      if (hex !== undefined) return String.fromCodePoint(Number.parseInt(hex, 16));
      if (decimal !== undefined) return String.fromCodePoint(Number(decimal));
      return XML_ENTITIES[named] ?? entity;
    },
  );
}

const XML_ENTITIES: Readonly<Record<string, string>> = { amp: '&', lt: '<', gt: '>', quot: '"', apos: "'" };

const XML_UNWRITABLE = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/;

function xmlEscape(text: string): string {
  return text.replace(/[&<>"'\r\n]/g, (character) => `&#${String(character.charCodeAt(0))};`);
}
