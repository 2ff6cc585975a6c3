/** `support-bundle`: what somebody else needs to understand a cluster, in one file, without its secrets. */
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import {
  redactJson,
  redactObject,
  redactText,
  redactYaml,
  secretsOfIdentity,
  secretsOfObject,
  secretValues,
} from '../diagnosis/redact.ts';
import { SandbarError } from '../model/errors.ts';
import type { Identity } from '../model/identity.ts';
import { LABELS } from '../model/names.ts';
import type { Cluster, ContainerSummary, Host, Ports } from '../model/ports.ts';
import type { KubernetesObject } from '../model/resources.ts';
import { createTar } from '../model/tar.ts';
import { openAccess, readIdentity, withCluster } from './access.ts';

export type SupportBundleRequest = {
  readonly clusterName: string;
  /** Where it is written to; must not be there yet. */
  readonly file: string;
  readonly versions: Readonly<Record<string, string>>;
  /** What doctor says. */
  readonly diagnose: () => Promise<unknown>;
  /** What `up` would do. */
  readonly plan: () => Promise<unknown>;
  /** The sandbar.yaml in use, if there is one. */
  readonly readConfig: () => Promise<string | undefined>;
};

export type SupportBundle = {
  readonly file: string;
  readonly sizeBytes: number;
  readonly contents: readonly string[];
  readonly missing: readonly { readonly what: string; readonly reason: string }[];
};

const LOG_LINES = 2000;

/** How long one question may take, as to an API server that hangs. */
const QUESTION_MS = 10_000;

const PRIVATE = 0o600;

/** Listed whole. Never Secrets; of what users define themselves, and of ConfigMaps, names alone. */
const KINDS = [
  'v1 Node',
  'v1 Namespace',
  'v1 Pod',
  'v1 Service',
  'v1 PersistentVolume',
  'v1 PersistentVolumeClaim',
  'v1 ConfigMap',
  'v1 ResourceQuota',
  'v1 LimitRange',
  'apps/v1 Deployment',
  'apps/v1 ReplicaSet',
  'apps/v1 StatefulSet',
  'apps/v1 DaemonSet',
  'batch/v1 Job',
  'batch/v1 CronJob',
  'networking.k8s.io/v1 Ingress',
  'networking.k8s.io/v1 NetworkPolicy',
  'discovery.k8s.io/v1 EndpointSlice',
  'storage.k8s.io/v1 StorageClass',
  'apiregistration.k8s.io/v1 APIService',
  'admissionregistration.k8s.io/v1 ValidatingWebhookConfiguration',
  'admissionregistration.k8s.io/v1 MutatingWebhookConfiguration',
  'v1 Event',
];

/** Works with parts of the cluster down: what could not be had is told, in the file too. */
export async function writeSupportBundle(request: SupportBundleRequest, ports: Ports): Promise<SupportBundle> {
  const { clusterName, file } = request;
  if (await ports.host.hasFile(file)) {
    throw new SandbarError('CONFLICT', `${file} is there already`, { hint: 'name another file, or remove it' });
  }
  const bundle = new Bundle();
  const containers = await ports.runtime.listContainers({ key: LABELS.cluster, value: clusterName });
  const identity = await readIdentity(ports.runtime, clusterName).catch(() => undefined);
  bundle.know(identity === undefined ? [] : secretsOfIdentity(identity));
  // Secrets are asked for before anything is put in: their values are what has to stay out of all of it.
  await addObjects(bundle, { clusterName, containers, identity }, ports);
  await Promise.all([
    bundle.addJson('versions.json', async () => ({
      ...request.versions,
      ...ports.host.system,
      platform: `${ports.host.platform} ${ports.host.architecture}`,
      engine: await ports.runtime.info(),
    })),
    bundle.addJson('doctor.json', request.diagnose),
    bundle.addJson('plan.json', request.plan),
    bundle.addYaml('sandbar.yaml', request.readConfig),
    addDocker(bundle, clusterName, containers, ports),
    ...containers.map(({ name }) => bundle.addText(`logs/${name}.log`, () => readLog(ports, name))),
    addHostLogs(bundle, ports.host),
  ]);
  const archive = gzipSync(bundle.archive(`sandbar-${clusterName}`));
  await ports.host.writeFileAtomically(file, archive, PRIVATE);
  return { file, sizeBytes: archive.length, contents: bundle.contents(), missing: bundle.missing };
}

/** Files as they come, each without secrets. */
class Bundle {
  readonly missing: { readonly what: string; readonly reason: string }[] = [];
  readonly #files = new Map<string, string>();
  #secrets: readonly string[] = [];

  /** These values are in no file that is added from now on. */
  know(values: readonly string[]): void {
    this.#secrets = secretValues([...this.#secrets, ...values]);
  }

  addJson(path: string, read: () => Promise<unknown>): Promise<void> {
    return this.#add(path, async () => {
      const value = await read();
      return value === undefined ? undefined : `${JSON.stringify(redactJson(value, this.#secrets), undefined, 1)}\n`;
    });
  }

  addObjects(path: string, read: () => Promise<readonly KubernetesObject[]>): Promise<void> {
    return this.addJson(path, async () => (await read()).map((object) => redactObject(object, this.#secrets)));
  }

  addText(path: string, read: () => Promise<string | undefined>): Promise<void> {
    return this.#add(path, async () => {
      const text = await read();
      return text === undefined ? undefined : redactText(text, this.#secrets);
    });
  }

  addYaml(path: string, read: () => Promise<string | undefined>): Promise<void> {
    return this.#add(path, async () => {
      const text = await read();
      return text === undefined ? undefined : redactYaml(text, this.#secrets);
    });
  }

  miss(what: string, reason: unknown): void {
    const text = reason instanceof Error ? reason.message : String(reason);
    this.missing.push({ what, reason: redactText(text, this.#secrets) });
  }

  contents(): readonly string[] {
    return [...this.#files.keys()].sort();
  }

  archive(folder: string): Buffer {
    const missing = `${JSON.stringify(this.missing, undefined, 1)}\n`;
    const files = [...this.#files, ['missing.json', missing] as const];
    return createTar(files.map(([path, content]) => ({ path: `${folder}/${path}`, mode: PRIVATE, content })));
  }

  async #add(path: string, read: () => Promise<string | undefined>): Promise<void> {
    try {
      const content = await withLimit(read());
      if (content !== undefined) this.#files.set(path, content);
    } catch (error) {
      // What cannot be had is told of; it must not keep back the rest.
      if (error instanceof SandbarError && error.code === 'INTERRUPTED') throw error;
      this.miss(path, error);
    }
  }
}

async function addObjects(
  bundle: Bundle,
  found: {
    readonly clusterName: string;
    readonly containers: readonly ContainerSummary[];
    readonly identity: Identity | undefined;
  },
  ports: Ports,
): Promise<void> {
  try {
    const access = openAccess(found.clusterName, found.containers, found.identity);
    await withCluster(access, ports, async (cluster) => {
      const secrets = await withLimit(cluster.list({ apiVersion: 'v1', kind: 'Secret' }, {}));
      bundle.know(secrets.flatMap(secretsOfObject));
      await Promise.all([
        bundle.addText('kubernetes/readyz.txt', async () => (await cluster.get('/readyz?verbose')).body),
        ...KINDS.map((entry) => addKind(bundle, cluster, entry)),
        bundle.addJson('kubernetes/CustomResourceDefinition.json', async () => {
          const kind = { apiVersion: 'apiextensions.k8s.io/v1', kind: 'CustomResourceDefinition' };
          return (await cluster.list(kind, {})).map(({ metadata, status }) => ({ name: metadata.name, status }));
        }),
      ]);
    });
  } catch (error) {
    // Without the API, or without knowing what its Secrets hold, there are no objects.
    bundle.miss('kubernetes/', error);
  }
}

function addKind(bundle: Bundle, cluster: Cluster, entry: string): Promise<void> {
  const [apiVersion = '', kind = ''] = entry.split(' ');
  return bundle.addObjects(`kubernetes/${kind}.json`, () => cluster.list({ apiVersion, kind }, {}));
}

async function addDocker(
  bundle: Bundle,
  clusterName: string,
  containers: readonly ContainerSummary[],
  { runtime }: Ports,
): Promise<void> {
  const label = { key: LABELS.cluster, value: clusterName };
  await Promise.all([
    ...containers.map(({ name }) => bundle.addJson(`docker/${name}.json`, () => runtime.describeContainer(name))),
    bundle.addJson('docker/networks.json', async () =>
      (await runtime.listNetworks()).map(({ name, subnets }) => ({ name, subnets })),
    ),
    bundle.addJson('docker/volumes.json', () => runtime.listVolumes(label)),
  ]);
}

async function readLog({ runtime }: Ports, ref: string): Promise<string> {
  const lines: string[] = [];
  for await (const line of runtime.logs(ref, { tail: LOG_LINES })) lines.push(line);
  return `${lines.join('\n')}\n`;
}

/** Of builds, and of the relays of file events. */
async function addHostLogs(bundle: Bundle, host: Host): Promise<void> {
  const directory = join(host.stateDirectory, 'logs');
  const entries = (await host.listDirectory(directory)) ?? [];
  await Promise.all(
    entries
      .filter(({ isDirectory }) => !isDirectory)
      .map(({ name }) =>
        bundle.addText(`host-logs/${name}`, async () => {
          const text = await host.readFile(join(directory, name));
          return text?.split('\n').slice(-LOG_LINES).join('\n');
        }),
      ),
  );
}

async function withLimit<T>(work: Promise<T>): Promise<T> {
  const limit = AbortSignal.timeout(QUESTION_MS);
  const late = new Promise<never>((_, reject) => {
    limit.addEventListener('abort', () => {
      reject(new SandbarError('TIMED_OUT', `no answer within ${String(QUESTION_MS / 1000)} s`));
    });
  });
  return Promise.race([work, late]);
}
