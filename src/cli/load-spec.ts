/** Configuration for commands: the whole spec for `up`, the cluster's name for all others. */
import { recordedFlags, type ConfigFlags } from '../config/flags.ts';
import { loadConfig, resolveClusterName, type ConfigHost } from '../config/load.ts';
import { configInvalid, formatDiagnostic } from '../model/errors.ts';
import type { Emit } from '../model/events.ts';
import type { KubernetesObject } from '../model/resources.ts';
import type { ClusterSpec } from '../model/spec.ts';
import type { UpOrigin } from '../operations/last-up.ts';

export type LoadedSpec = {
  readonly spec: ClusterSpec;
  /** Objects of its manifests. */
  readonly manifests: readonly KubernetesObject[];
  readonly origin: UpOrigin;
};

/** The spec and its manifests' objects; throws with every problem at once, warns of the rest. */
export async function loadSpec(flags: ConfigFlags, host: ConfigHost, emit: Emit): Promise<LoadedSpec> {
  const loaded = await loadConfig(host, flags);
  for (const warning of loaded.warnings) emit({ type: 'warning', text: formatDiagnostic(warning) });
  if (loaded.kind === 'invalid') throw configInvalid(loaded.diagnostics);
  const { parseManifest } = await import('../model/manifests.ts');
  const manifests = loaded.spec.manifests.flatMap((file) => parseManifest(file).objects.map(({ object }) => object));
  return { spec: loaded.spec, manifests, origin: { file: loaded.file ?? null, flags: recordedFlags(flags) } };
}

export async function clusterNameOf(flags: Pick<ConfigFlags, 'name' | 'file'>, host: ConfigHost): Promise<string> {
  const resolved = await resolveClusterName(host, flags);
  if ('diagnostics' in resolved) throw configInvalid(resolved.diagnostics);
  return resolved.name;
}
