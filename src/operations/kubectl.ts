/** `kubectl`: the cluster's own version for the host's system, kept in the user's cache. */
import { join } from 'node:path';
import type { Emit } from '../model/events.ts';
import { formatKubeconfig } from '../model/kubeconfig.ts';
import { contextName } from '../model/names.ts';
import type { Host, Ports } from '../model/ports.ts';
import { DEFAULT_KUBERNETES, findKubernetes, minorOf, type KubernetesMinor } from '../model/versions.ts';
import { accessCluster, withCluster, type ClusterAccess } from './access.ts';
import { resolveImages, type ImagePorts } from './images.ts';
import { readLastUp } from './last-up.ts';

const EXECUTABLE = 0o755;
const PRIVATE = 0o600;

/** An API server that takes longer has other troubles, which kubectl itself tells best. */
const VERSION_MS = 1_000;

type KubectlOptions = { readonly repository: string | undefined; readonly signal: AbortSignal };

/** Paths of a kubectl of a cluster's version and of a kubeconfig for that cluster alone. */
export async function prepareKubectl(
  ports: ImagePorts & Ports,
  clusterName: string,
  emit: Emit,
  options: KubectlOptions,
): Promise<{ readonly kubectl: string; readonly kubeconfig: string }> {
  const access = await accessCluster(ports.runtime, clusterName);
  const [kubectl, kubeconfig] = await Promise.all([
    askVersion(access, ports).then((kubernetes) => provideKubectl(ports, emit, { ...options, kubernetes })),
    writeOwnKubeconfig(access, ports.host),
  ]);
  return { kubectl, kubeconfig };
}

/** The version that a cluster has; while its API is slow, what the last `up` made it. */
async function askVersion(access: ClusterAccess, ports: Ports): Promise<KubernetesMinor> {
  const answer = await withCluster(access, ports, (cluster) => cluster.get('/version', { timeoutMs: VERSION_MS }));
  const version =
    answer.status === 200
      ? (JSON.parse(answer.body) as { readonly gitVersion?: string }).gitVersion
      : (await readLastUp(ports.runtime, access.name))?.kubernetes;
  // Another patch version does as well.
  return findKubernetes(`1.${String(minorOf(version ?? ''))}`) ?? DEFAULT_KUBERNETES;
}

/** Path of a kubectl for this host; copied out of its image when the cache has none of that version yet. */
async function provideKubectl(
  ports: ImagePorts,
  emit: Emit,
  options: KubectlOptions & { readonly kubernetes: KubernetesMinor },
): Promise<string> {
  const { host } = ports;
  const refs = await resolveImages(ports, emit, { names: ['kubectl'], ...options });
  const ref = refs.get('kubectl') ?? '';
  const file = host.platform === 'win32' ? 'kubectl.exe' : 'kubectl';
  const path = join(host.cacheDirectory, 'kubectl', ref.replace(/^.*:/, ''), file);
  if (await host.hasFile(path)) return path;
  const content = await ports.runtime.readImageFile(ref, '/kubectl');
  await host.writeFileAtomically(path, content, EXECUTABLE);
  return path;
}

/** A kubeconfig for one cluster alone, apart from the user's own file, which may have been changed since `up`. */
async function writeOwnKubeconfig({ name, api }: ClusterAccess, host: Host): Promise<string> {
  const path = join(host.stateDirectory, 'kubeconfig', `${name}.yaml`);
  const content = formatKubeconfig(api, contextName(name));
  if ((await host.readFile(path)) !== content) await host.writeFileAtomically(path, content, PRIVATE);
  return path;
}
