/**
 * The bucket with the pictures. Endpoint, region and credentials come from the environment (AWS_ENDPOINT_URL_S3,
 * AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY), where the SDK finds them by itself.
 */
import { isPictureKey } from './pictures.js';

/** @param {string} bucket */
export function openBucket(bucket) {
  // Loading the SDK takes longer than everything else at start: the server listens meanwhile.
  const opened = import('@aws-sdk/client-s3').then((sdk) => ({
    sdk,
    client: new sdk.S3Client({
      forcePathStyle: true,
      maxAttempts: 2,
      requestHandler: { connectionTimeout: 2_000, requestTimeout: 15_000 },
    }),
  }));

  async function send(makeCommand, options) {
    const { sdk, client } = await opened;
    try {
      return await client.send(makeCommand(sdk), options);
    } catch (error) {
      throw explain(error, bucket);
    }
  }

  return {
    /** Resolves when the SDK is loaded; says nothing of the object store. */
    opened,

    /** Every picture of the bucket. */
    async list() {
      const pictures = [];
      let ContinuationToken;
      do {
        const page = await send(
          (sdk) => new sdk.ListObjectsV2Command({ Bucket: bucket, ...(ContinuationToken && { ContinuationToken }) }),
        );
        for (const { Key, LastModified, Size } of page.Contents ?? []) {
          if (isPictureKey(Key)) pictures.push({ key: Key, modified: LastModified.toISOString(), bytes: Size });
        }
        ContinuationToken = page.NextContinuationToken;
      } while (ContinuationToken !== undefined);
      return pictures;
    },

    /** @param {string} key @param {Buffer} bytes @param {string} type */
    async put(key, bytes, type) {
      await send((sdk) => new sdk.PutObjectCommand({ Bucket: bucket, Key: key, Body: bytes, ContentType: type }));
    },

    /** A picture's content as a stream; `undefined` when the browser's copy (`etag`) is still right. */
    async get(key, etag, signal) {
      try {
        const { Body, ContentLength, ETag } = await send(
          (sdk) => new sdk.GetObjectCommand({ Bucket: bucket, Key: key, ...(etag && { IfNoneMatch: etag }) }),
          { abortSignal: signal },
        );
        return { body: Body, bytes: ContentLength, etag: ETag };
      } catch (error) {
        if (error.cause?.$metadata?.httpStatusCode === 304) return undefined;
        throw error;
      }
    },

    /** @param {string} key */
    async remove(key) {
      await send((sdk) => new sdk.DeleteObjectCommand({ Bucket: bucket, Key: key }));
    },
  };
}

/** The SDK's errors in the words of the page, with a status. */
function explain(error, bucket) {
  const words = {
    NoSuchKey: [404, 'this picture is gone'],
    NoSuchBucket: [503, `there is no bucket “${bucket}”: declare it under objectStore.buckets in sandbar.yaml`],
    InvalidAccessKeyId: [503, 'the object store does not know our access key: restart this Deployment'],
    SignatureDoesNotMatch: [503, 'the object store does not accept our secret key: restart this Deployment'],
    CredentialsProviderError: [503, 'no credentials: envFrom must name the Secret “object-store”'],
  };
  const [status, message] = words[error.name] ?? [502, 'the object store does not answer'];
  if (status === 502 && error.$metadata?.httpStatusCode !== 304)
    console.error(`object store: ${error.name}: ${error.message}`);
  return Object.assign(new Error(message, { cause: error }), { status });
}
