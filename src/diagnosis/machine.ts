/** Preconditions of a cluster: the engine, its disk, and limits of the machine it runs on. `up` asks the same. */
import type { ErrorCode } from '../model/errors.ts';
import type { EngineInfo, InotifyLimits } from '../model/ports.ts';
import type { Check } from './check.ts';

/** `code`: with what `up` refuses to begin where the severity is `error`. */
export type MachineCheck = Check & { readonly code: ErrorCode };

export type Machine = {
  readonly engine: EngineInfo;
  /** Undefined where it is not this machine's to know, as of an engine in a virtual machine. */
  readonly freeDiskBytes: number | undefined;
  /** Undefined where the machine has none of its own. */
  readonly inotifyLimits: InotifyLimits | undefined;
};

const MIB = 2 ** 20;

/** Below this a datastore or a pulled image fails half-way, which is worse than not starting. */
const DISK_NEEDED_BYTES = 1024 * MIB;
const DISK_WISHED_BYTES = 5 * 1024 * MIB;

/** The parts of a cluster hold about 450 MiB at rest; the rest is for pods. */
const MEMORY_NEEDED_BYTES = 768 * MIB;
const MEMORY_WISHED_BYTES = 1900 * MIB;

/** A node's own parts hold about 30 instances and 200 watches; the rest is for pods and for what else runs as this user. */
const INOTIFY_NEEDED: InotifyLimits = { maxUserInstances: 64, maxUserWatches: 4096 };
/** Debian's default of 128 instances carries one cluster with some dozens of pods. */
const INOTIFY_WISHED: InotifyLimits = { maxUserInstances: 128, maxUserWatches: 8192 };

export const INOTIFY_FIX = 'sudo sysctl -w fs.inotify.max_user_instances=512 fs.inotify.max_user_watches=524288';

/** Every precondition; those that hold are `ok`. */
export function checkMachine({ engine, freeDiskBytes, inotifyLimits }: Machine): readonly MachineCheck[] {
  return [
    checkEngine(engine),
    checkMemory(engine),
    checkStorage(engine),
    ...(freeDiskBytes === undefined ? [] : [checkDisk(freeDiskBytes, engine.dataRoot)]),
    ...(inotifyLimits === undefined ? [] : [checkInotify(inotifyLimits)]),
  ];
}

/** Room where the engine keeps its data, as this machine or as a container of it sees it. */
export function checkDisk(freeBytes: number, place: string): MachineCheck {
  const base = { id: 'machine.disk', subject: 'disk', code: 'DISK_FULL' } as const;
  const free = `${String(Math.floor(freeBytes / MIB))} MiB are free on the disk of ${place}`;
  if (freeBytes >= DISK_WISHED_BYTES) return { ...base, severity: 'ok', message: free };
  return {
    ...base,
    severity: freeBytes < DISK_NEEDED_BYTES ? 'error' : 'warning',
    message: `only ${free}`,
    fix: 'free some space there, e.g. with docker system prune (which removes what no container uses)',
  };
}

/** Limits for files that programs watch, which all containers share. */
export function checkInotify(limits: InotifyLimits): MachineCheck {
  const base = { id: 'machine.inotify', subject: 'inotify limits', code: 'HOST_LIMIT' } as const;
  const numbers = `${String(limits.maxUserInstances)} instances, ${String(limits.maxUserWatches)} watches`;
  const isBelow = (wanted: InotifyLimits): boolean =>
    limits.maxUserInstances < wanted.maxUserInstances || limits.maxUserWatches < wanted.maxUserWatches;
  if (!isBelow(INOTIFY_WISHED)) return { ...base, severity: 'ok', message: numbers };
  return {
    ...base,
    severity: isBelow(INOTIFY_NEEDED) ? 'error' : 'warning',
    message: `the inotify limits of this machine are low: ${numbers}`,
    fix: INOTIFY_FIX,
  };
}

function checkEngine(engine: EngineInfo): MachineCheck {
  const base = { id: 'machine.engine', subject: 'engine', code: 'DOCKER_FAILED' } as const;
  const message = `Docker ${engine.version} on ${engine.operatingSystem}, cgroup v${String(engine.cgroupVersion)}`;
  if (!engine.isRootless) return { ...base, severity: 'ok', message };
  return {
    ...base,
    severity: 'warning',
    message: `${message}, rootless: a node needs more than such an engine may grant`,
    fix: 'docker context use default (an engine that runs as root)',
  };
}

function checkMemory({ memoryBytes, cpus }: EngineInfo): MachineCheck {
  const base = { id: 'machine.memory', subject: 'memory', code: 'HOST_LIMIT' } as const;
  const has = `the engine has ${String(Math.floor(memoryBytes / MIB))} MiB of memory and ${String(cpus)} CPUs`;
  if (memoryBytes >= MEMORY_WISHED_BYTES && cpus >= 2) return { ...base, severity: 'ok', message: has };
  return {
    ...base,
    severity: memoryBytes < MEMORY_NEEDED_BYTES ? 'error' : 'warning',
    message: memoryBytes < MEMORY_WISHED_BYTES ? `${has}: few pods fit` : `${has}: everything takes long`,
    fix: 'give its virtual machine 4 GiB and 2 CPUs (Docker Desktop: Settings, Resources; colima start --memory 4 --cpu 2)',
  };
}

function checkStorage({ storageDriver }: EngineInfo): MachineCheck {
  const base = { id: 'machine.storage', subject: 'storage driver', code: 'DOCKER_FAILED' } as const;
  if (storageDriver !== 'vfs') return { ...base, severity: 'ok', message: storageDriver };
  return {
    ...base,
    severity: 'warning',
    message:
      'the engine keeps images with the driver vfs, which copies every layer whole: slow, and many times the space',
    fix: 'set "storage-driver": "overlay2" in /etc/docker/daemon.json, then sudo systemctl restart docker',
  };
}
