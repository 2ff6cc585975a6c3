/** What a cluster takes while nobody uses it. */
import { LABELS, networkName } from '../../../src/model/names.ts';
import type { Measurements } from '../measures.ts';
import type { Subject } from '../subject.ts';

const SETTLING_MS = 120_000;
const WATCHING_MS = 120_000;
const MIB = 2 ** 20;

export type Sample = {
  readonly component: string;
  readonly memoryMiB: number;
  readonly cpuNs: number;
  readonly atMs: number;
};

/** Memory two minutes after `up`, then CPU over two minutes. */
export async function measureRest(subject: Subject, measurements: Measurements): Promise<void> {
  await subject.sandbar('down', '--volumes', '--yes');
  await subject.up();
  await subject.pause(SETTLING_MS);
  const before = await sampleAll(subject);
  await subject.pause(WATCHING_MS);
  const after = await sampleAll(subject);

  let memory = 0;
  let cpu = 0;
  for (const { component, memoryMiB, cpuNs, atMs } of before) {
    const later = after.find((sample) => sample.component === component);
    if (later === undefined) throw new Error(`${component} is gone`);
    const percent = ((later.cpuNs - cpuNs) / 1e6 / (later.atMs - atMs)) * 100;
    measurements.record(`memory/${component}`, memoryMiB);
    measurements.record(`cpu/${component}`, percent);
    memory += memoryMiB;
    cpu += percent;
  }
  measurements.record('memory', memory);
  measurements.record('cpu', cpu);
  await subject.sandbar('down', '--volumes', '--yes');
}

/** What each container of the cluster takes just now, and the registry, which is of no cluster. */
export async function sampleAll(subject: Subject): Promise<readonly Sample[]> {
  const { docker, clusterName } = subject;
  const [own, registries] = await Promise.all([
    docker.listContainers({ filters: { label: [`${LABELS.cluster}=${clusterName}`] } }),
    docker.listContainers({ filters: { label: [LABELS.registry], network: [networkName(clusterName)] } }),
  ]);
  return Promise.all(
    [...own, ...registries].map(async ({ Id: id, Labels: labels }) => {
      const stats = await docker.getContainer(id).stats({ stream: false, 'one-shot': true });
      return {
        component: labels[LABELS.component] ?? (labels[LABELS.registry] === undefined ? id : 'registry'),
        memoryMiB: usedBytes(stats.memory_stats) / MIB,
        cpuNs: stats.cpu_stats.cpu_usage.total_usage,
        atMs: Date.parse(stats.read),
      };
    }),
  );
}

/** As `docker stats` has it: without the part of the page cache that can be dropped at any time. */
function usedBytes(memory: { readonly usage: number; readonly stats: object }): number {
  const { total_inactive_file: v1, inactive_file: v2 } = memory.stats as Readonly<Record<string, number | undefined>>;
  return memory.usage - (v1 ?? v2 ?? 0);
}
