/** `kubectl`: the cluster's own version for the host's system, kept in the user's cache. */
import { join } from 'node:path';
import type { Emit } from '../model/events.ts';
import { contextName } from '../model/names.ts';
import { formatKubeconfig } from '../model/kubeconfig.ts';
import { accessCluster } from './access.ts';
import { resolveImages, type ImagePorts } from './images.ts';

const EXECUTABLE = 0o755;
const PRIVATE = 0o600;

/** Path of a kubectl for this host; copied out of its image when the cache has none of that version yet. */
export async function provideKubectl(
  ports: ImagePorts,
  emit: Emit,
  options: { readonly repository: string | undefined; readonly signal: AbortSignal },
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
export async function writeOwnKubeconfig(ports: ImagePorts, clusterName: string): Promise<string> {
  const { host, runtime } = ports;
  const { api } = await accessCluster(runtime, clusterName);
  const path = join(host.stateDirectory, 'kubeconfig', `${clusterName}.yaml`);
  const content = formatKubeconfig(api, contextName(clusterName));
  if ((await host.readFile(path)) !== content) await host.writeFileAtomically(path, content, PRIVATE);
  return path;
}
