/** `bucket ls|create|rm` and `env`: the object store from the host. */
import { findBucketNameProblem } from '../config/rules.ts';
import { SandbarError } from '../model/errors.ts';
import type { ObjectStore } from '../model/ports.ts';
import type { BucketSpec } from '../model/spec.ts';

export type ListedBucket = { readonly name: string; readonly created: string };

/** Buckets by name. */
export async function listBuckets(store: ObjectStore): Promise<readonly ListedBucket[]> {
  return (await store.listBuckets()).toSorted((a, b) => a.name.localeCompare(b.name));
}

/** Makes a bucket, or leaves one that is there, with versioning turned on where it is wanted. */
export async function createBucket(store: ObjectStore, bucket: BucketSpec): Promise<void> {
  const problem = findBucketNameProblem(bucket.name);
  if (problem !== undefined) {
    throw new SandbarError('USAGE', `bucket name "${bucket.name}" breaks S3's rules: ${problem}`);
  }
  await store.createBucket(bucket);
}

/** Removes a bucket; one that is not empty only when `isForced`, with all versions of all that is in it. */
export async function removeBucket(
  store: ObjectStore,
  bucketName: string,
  options: { readonly isForced: boolean },
): Promise<void> {
  await store.removeBucket(bucketName, options);
}

/** The variables that S3 clients read, and the text that sets them in a shell: `sh` (also bash, zsh), `fish`, `powershell`. */
export function formatEnvironment(
  access: {
    readonly endpoint: string;
    readonly accessKeyId: string;
    readonly secretAccessKey: string;
    readonly region: string;
  },
  shell = 'sh',
): { readonly variables: Readonly<Record<string, string>>; readonly text: string } {
  const variables = {
    AWS_ENDPOINT_URL_S3: access.endpoint,
    AWS_ACCESS_KEY_ID: access.accessKeyId,
    AWS_SECRET_ACCESS_KEY: access.secretAccessKey,
    AWS_REGION: access.region,
  };
  const lines = Object.entries(variables).map(([name, value]) => formatAssignment(name, value, shell));
  return { variables, text: lines.join('\n') };
}

function formatAssignment(name: string, value: string, shell: string): string {
  switch (shell) {
    case 'fish':
      return `set -gx ${name} '${value.replace(/[\\']/g, '\\$&')}'`;
    case 'powershell':
      return `$Env:${name} = '${value.replaceAll("'", "''")}'`;
    default:
      return `export ${name}='${value.replaceAll("'", `'\\''`)}'`;
  }
}
