/** An S3 endpoint over plain HTTP: buckets, and small objects in one piece. See docs/decisions/0003. */
import { Agent, request } from 'node:http';
import { setTimeout as delay } from 'node:timers/promises';
import { SandbarError } from '../model/errors.ts';
import type { ObjectStore } from '../model/ports.ts';
import { encodeStrictly, signedHeaders } from './object-store-signature.ts';

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
  /** Besides those of every request; names in lower case. */
  readonly headers?: Readonly<Record<string, string>>;
};

/** MinIO takes a bucket away with all that is in it, unless objects in it can be locked; other servers know no such thing. */
const NOT_AS_A_WHOLE = ['MethodNotAllowed', 'BucketNotEmpty'];

/** Of a retention in governance mode: the root user may. */
const BYPASS = { 'x-amz-bypass-governance-retention': 'true' };

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
    const removal = { method: 'DELETE' as const, bucketName };
    const subject = `remove bucket ${bucketName}`;
    const { status } = await this.#ask(removal, subject, { accepts: isForced ? ['BucketNotEmpty'] : [] });
    if (status < 300) return;
    const whole = { ...removal, headers: { 'x-minio-force-delete': 'true' } };
    const forced = await this.#ask(whole, subject, { accepts: NOT_AS_A_WHOLE });
    if (forced.status < 300) return;
    await this.#removeVersions(bucketName);
    await this.#ask(removal, subject);
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
        const removal = { method: 'DELETE' as const, bucketName, key, query: { versionId }, headers: BYPASS };
        await this.#ask(removal, `empty bucket ${bucketName}`);
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
        headers: BYPASS,
        body: `<Delete><Quiet>true</Quiet>${objects.join('')}</Delete>`,
      },
      `empty bucket ${bucketName}`,
    );
    // Refusals of single objects come inside an answer of success.
    const [refusal] = xmlElements(body, 'Error');
    if (refusal === undefined) return;
    const code = xmlText(refusal, 'Code');
    const message = `${xmlText(refusal, 'Key')}: ${xmlText(refusal, 'Message')}`;
    throw translateRefusal({ code, message, status: 0 }, `empty bucket ${bucketName}`);
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

  #send({ method, bucketName = '', key, query = {}, body = '', headers: extra = {} }: S3Request): Promise<Answer> {
    const path = `/${[bucketName, ...(key?.split('/') ?? [])].map(encodeStrictly).join('/')}`;
    const search = Object.entries(query)
      .map(([key, value]) => `${encodeStrictly(key)}=${encodeStrictly(value)}`)
      .toSorted()
      .join('&');
    const { protocol, hostname, port, host } = new URL(this.#access.endpoint);
    const headers = signedHeaders({ method, path, search, host, body, extra, access: this.#access, now: new Date() });
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

function translateRefusal(
  { code, message, status }: { readonly code: string; readonly message: string; readonly status: number },
  subject: string,
): SandbarError {
  const failed = `could not ${subject}: ${message === '' ? `the object store answered ${String(status)}` : message}`;
  // Of this refusal only the words tell it from others.
  if (/\bWORM\b/.test(message)) {
    return new SandbarError('CONFLICT', failed, {
      hint: 'its retention ends it; sandbar down --volumes removes all data',
    });
  }
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
