/** What the figures were taken on. */
import { cpus, loadavg, platform, release, totalmem } from 'node:os';
import { execFileSync } from 'node:child_process';
import type Dockerode from 'dockerode';

export type Machine = {
  readonly cpu: string;
  readonly cores: number;
  readonly memoryGiB: number;
  readonly system: string;
  readonly engine: string;
  readonly node: string;
};

export async function describeMachine(docker: Dockerode): Promise<Machine> {
  type Info = { readonly Driver: string; readonly CgroupVersion?: string; readonly OperatingSystem: string };
  const [version, info] = await Promise.all([docker.version(), docker.info() as Promise<Info>]);
  return {
    cpu: cpus()[0]?.model ?? 'unknown',
    cores: cpus().length,
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    system: `${info.OperatingSystem}, ${platform()} ${release()}`,
    engine: `Docker ${version.Version}, ${info.Driver}, cgroup v${info.CgroupVersion ?? '1'}`,
    node: process.version,
  };
}

/** Processes that want to run, over the last minute: above the number of cores, figures mean little. */
export function currentLoad(): number {
  return Math.round((loadavg()[0] ?? 0) * 100) / 100;
}

/** Commit of a checkout, `-changed` where files differ from it; undefined elsewhere. */
export function findCommit(directory: string): string | undefined {
  try {
    const answer = execFileSync('git', ['describe', '--always', '--dirty=-changed'], {
      cwd: directory,
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    return answer.trim();
  } catch {
    return undefined;
  }
}
