/** Looks, before anything is created, at what the machine lacks: an error where a cluster cannot work, else a warning. */
import { SandbarError } from '../model/errors.ts';
import type { Emit } from '../model/events.ts';
import type { EngineInfo, Host, InotifyLimits, Runtime } from '../model/ports.ts';

const MIB = 2 ** 20;

/** Below this a datastore or a pulled image fails half-way, which is worse than not starting. */
const DISK_NEEDED_BYTES = 1024 * MIB;
const DISK_WISHED_BYTES = 5 * 1024 * MIB;

/** A node's own parts hold about 30 instances and 200 watches; the rest is for pods and for what else runs as this user. */
const INOTIFY_NEEDED: InotifyLimits = { maxUserInstances: 64, maxUserWatches: 4096 };
/** Debian's default of 128 instances carries one cluster with some dozens of pods. */
const INOTIFY_WISHED: InotifyLimits = { maxUserInstances: 128, maxUserWatches: 8192 };

/** Throws HOST_LIMIT or DISK_FULL where a cluster cannot work; warns where it may not for long. */
export async function preflight(runtime: Runtime, host: Host, emit: Emit): Promise<void> {
  const engine = await runtime.info();
  await Promise.all([checkDisk(engine, host, emit), checkInotify(host, emit)]);
}

async function checkDisk(engine: EngineInfo, host: Host, emit: Emit): Promise<void> {
  // An engine in a virtual machine has a disk of its own, on which this path is not ours to ask.
  const free = await host.freeDiskBytes(engine.dataRoot);
  if (free === undefined || free >= DISK_WISHED_BYTES) return;
  const text = `only ${String(Math.floor(free / MIB))} MiB are free on the disk of ${engine.dataRoot}`;
  const hint = 'free some space there, e.g. with docker system prune (which removes what no container uses)';
  if (free < DISK_NEEDED_BYTES) throw new SandbarError('DISK_FULL', text, { hint });
  emit({ type: 'warning', text, hint });
}

async function checkInotify(host: Host, emit: Emit): Promise<void> {
  const limits = await host.findInotifyLimits();
  if (limits === undefined) return;
  const isBelow = (wanted: InotifyLimits): boolean =>
    limits.maxUserInstances < wanted.maxUserInstances || limits.maxUserWatches < wanted.maxUserWatches;
  if (!isBelow(INOTIFY_WISHED)) return;
  const text = `the inotify limits of this machine are low: ${String(limits.maxUserInstances)} instances, ${String(limits.maxUserWatches)} watches`;
  const hint = 'sudo sysctl -w fs.inotify.max_user_instances=512 fs.inotify.max_user_watches=524288';
  if (isBelow(INOTIFY_NEEDED)) throw new SandbarError('HOST_LIMIT', text, { hint });
  emit({ type: 'warning', text, hint });
}
