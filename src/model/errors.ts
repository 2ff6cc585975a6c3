/** What a code stands for; docs/errors.md is made from it. */
type ErrorKind = {
  /** 1 failed, 2 usage or configuration, 3 environment, 4 not found, 5 timed out, 130 interrupted. */
  readonly exitCode: 1 | 2 | 3 | 4 | 5 | 130;
  readonly meaning: string;
  readonly fix: string;
};

/** Every failure that Sandbar explains has a code here. */
export const ERRORS = {
  USAGE: {
    exitCode: 2,
    meaning: 'An argument of the command cannot be what it is.',
    fix: 'The message says what it must be; `--help` after the command shows examples.',
  },
  CONFIG_INVALID: {
    exitCode: 2,
    meaning: '`sandbar.yaml`, a flag or a variable has problems; all of them are listed, with file, line and column.',
    fix: 'Edit the places named. `sandbar config validate` checks again without touching anything.',
  },
  MOUNT_REFUSED: {
    exitCode: 2,
    meaning:
      'A folder is not mounted: it belongs to the system, holds credentials or is the socket of an engine, or the target would hide a path that the container needs.',
    fix: 'Mount a folder of the project, at a path of the application. `--allow-sensitive` agrees to credentials.',
  },
  MOUNT_FAILED: {
    exitCode: 1,
    meaning: 'A folder could not be brought into the cluster; what is in the way is in the message.',
    fix: '`sandbar mounts` shows the state of every mount, `sandbar up` repairs what is missing.',
  },
  CONFIRMATION_NEEDED: {
    exitCode: 2,
    meaning:
      'Data would be lost, or Kubernetes would become a newer version that nobody named, and there is no terminal to ask on.',
    fix: '`--yes` agrees. `sandbar up --dry-run` shows beforehand what would go.',
  },
  DOCKER_MISSING: {
    exitCode: 3,
    meaning: 'No Docker engine answers where one is expected.',
    fix: 'Start it, or install one; `npm run quickstart` does so on Debian and Ubuntu as root.',
  },
  DOCKER_DENIED: {
    exitCode: 3,
    meaning: 'The engine is there, but this user may not use it.',
    fix: 'Join the group `docker`, then log in again.',
  },
  DOCKER_TOO_OLD: {
    exitCode: 3,
    meaning: 'The engine is older than 20.10.',
    fix: 'Upgrade Docker.',
  },
  DOCKER_REMOTE: {
    exitCode: 3,
    meaning:
      'DOCKER_HOST or the Docker context names an engine on another machine, where local ports and folders are not.',
    fix: 'Unset DOCKER_HOST, or `docker context use default`.',
  },
  DOCKER_FAILED: {
    exitCode: 3,
    meaning: 'The engine refused something, or does not answer any more; its own words are in the message.',
    fix: 'Look at the log of the engine (`journalctl -u docker`), then run the command again.',
  },
  PORT_IN_USE: {
    exitCode: 3,
    meaning: 'A port on 127.0.0.1 that was asked for is taken; the owner is named where it can be known.',
    fix: 'Stop the owner, or set another port under `ports` in `sandbar.yaml`. Without a wish, the next free one is taken.',
  },
  PORT_UNREACHABLE: {
    exitCode: 3,
    meaning:
      "A published port is open in the network of the Docker engine, which is not this machine's: nothing here can reach it.",
    fix: 'Docker Desktop has a setting for it (Settings, Resources, Network, Enable host networking). A rootless engine or one on another machine cannot do it: [ports.md](ports.md) says what works there.',
  },
  SUBNET_IN_USE: {
    exitCode: 3,
    meaning: "The subnet of the cluster's network overlaps with another network.",
    fix: 'Set `network.subnet` in `sandbar.yaml` to a free one, or leave it out: a free one is chosen.',
  },
  DATASTORE_DAMAGED: {
    exitCode: 1,
    meaning:
      'The datastore of the cluster cannot be read: every Kubernetes object was in it. Volumes and buckets are whole.',
    fix: '`sandbar snapshot restore NAME` where there is a snapshot, else `sandbar reset --hard`. The damaged file is kept in the volume.',
  },
  GOLDEN_COPY_MISSING: {
    exitCode: 1,
    meaning: 'The copy of its first state, to which a cluster is reset, is not there or cannot be read.',
    fix: '`sandbar reset --hard` makes the datastore anew; images stay.',
  },
  SNAPSHOT_INVALID: {
    exitCode: 1,
    meaning: 'A snapshot, or a file to import one from, is not whole, is none at all, or does not fit this cluster.',
    fix: 'The message says what is wrong, and which cluster it fits.',
  },
  DISK_FULL: {
    exitCode: 3,
    meaning: 'The disk on which Docker keeps its data is full, or nearly so.',
    fix: '`docker system df` shows what takes the space, `docker system prune` frees what nothing uses.',
  },
  FILE_DENIED: {
    exitCode: 3,
    meaning: 'A file cannot be read or written by this user.',
    fix: 'Look at its owner and mode with `ls -ld`.',
  },
  HOST_LIMIT: {
    exitCode: 3,
    meaning: 'The system allows too little of something: inotify instances, memory of the engine, or ports below 1024.',
    fix: 'The command or setting that raises it stands in the message.',
  },
  NAME_TAKEN: {
    exitCode: 3,
    meaning: 'A container, network or volume with a name that the cluster needs is there, and was not made by it.',
    fix: 'Remove or rename it, or choose another cluster name with `--name`.',
  },
  IMAGE_BUILD_FAILED: {
    exitCode: 1,
    meaning: 'An image could not be built; the last lines of the build are shown.',
    fix: 'The whole log is kept at the path shown. After the cause is gone, run again: what was compiled is cached.',
  },
  IMAGE_UNAVAILABLE: {
    exitCode: 3,
    meaning: 'An image could not be pulled or pushed, or disappeared while it was needed.',
    fix: 'Check the repository name and `docker login`; without `--image-repository` images are built.',
  },
  IMAGE_NOT_FOUND: {
    exitCode: 4,
    meaning: 'The Docker engine has no image of the name given to `image load`.',
    fix: '`docker images` lists those it has; build or pull it first.',
  },
  CLUSTER_NOT_FOUND: {
    exitCode: 4,
    meaning: 'There is no cluster of this name.',
    fix: '`sandbar list` shows those that are; `sandbar up` makes one.',
  },
  UPGRADE_REFUSED: {
    exitCode: 3,
    meaning:
      'The data of the cluster are of a Kubernetes version that this Sandbar cannot go on from: a newer one, or one that is more than one minor version older.',
    fix: 'The message names the versions that can. `sandbar down --volumes` gives up the data for a new cluster.',
  },
  CLUSTER_NOT_RUNNING: {
    exitCode: 4,
    meaning: 'The cluster is there, but it is stopped or paused, or a part that the command needs does not run.',
    fix: '`sandbar start` after a stop, `sandbar resume` after a pause; `sandbar up` repairs what is missing.',
  },
  NOT_FOUND: {
    exitCode: 4,
    meaning: 'Something named in the command is not there: a component, a bucket, an object.',
    fix: 'The message lists what there is, or names the command that does.',
  },
  CONFLICT: {
    exitCode: 1,
    meaning: 'Something is in a state in which this cannot be done, such as a bucket that is not empty.',
    fix: 'The message says what is in the way; `--force` where the command has it.',
  },
  TIMED_OUT: {
    exitCode: 5,
    meaning: 'A part did not become ready in time; what it answered last and the end of its log are shown.',
    fix: '`sandbar logs COMPONENT` shows more, `sandbar up` goes on, `--timeout 5m` waits longer.',
  },
  COMPONENT_FAILED: {
    exitCode: 1,
    meaning: 'A part ended, or restarts over and over; the end of its log is shown.',
    fix: 'After a change of `sandbar.yaml`, undo it. `sandbar up` tries again.',
  },
  COMMAND_FAILED: {
    exitCode: 1,
    meaning: 'A program that Sandbar called failed, on this machine or in the node.',
    fix: 'Its own words are in the message.',
  },
  KUBERNETES_FAILED: {
    exitCode: 1,
    meaning: 'The API server refused something, most often an object of a manifest.',
    fix: 'Correct the object; the message has its name and what the server said.',
  },
  OBJECT_STORE_FAILED: {
    exitCode: 1,
    meaning: 'The object store refused something, or does not answer.',
    fix: '`sandbar status` shows whether it runs, `sandbar logs object-store` what it says.',
  },
  TRUST_FAILED: {
    exitCode: 3,
    meaning:
      'A store of trusted certificates was not changed: only root may, a program is missing that does it, or it failed.',
    fix: 'The message has the command; `sandbar trust` may be run again at any time.',
  },
  INTERRUPTED: {
    exitCode: 130,
    meaning: 'Ctrl-C, or the answer to a question was no.',
    fix: 'Run the same command again: it goes on from where it was.',
  },
} as const satisfies Readonly<Record<string, ErrorKind>>;

export type ErrorCode = keyof typeof ERRORS;

/** A failure with its explanation: the message says what failed with the value, the hint the command or edit that fixes it. */
export class SandbarError extends Error {
  readonly code: ErrorCode;
  readonly hint: string | undefined;
  /** Longer evidence (log lines, a list of problems), printed below the message. */
  readonly details: readonly string[];
  /** Overrides the code's exit code where a child process decides, as for `kubectl`. */
  readonly exitCode: number;

  constructor(
    code: ErrorCode,
    message: string,
    options: { hint?: string; details?: readonly string[]; cause?: unknown; exitCode?: number } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'SandbarError';
    this.code = code;
    this.hint = options.hint;
    this.details = options.details ?? [];
    this.exitCode = options.exitCode ?? ERRORS[code].exitCode;
  }
}

/** One problem of a configuration file or of a flag, with the place where it stands. */
export type Diagnostic = {
  readonly file: string;
  /** 1-based; absent where the problem has no place in a file. */
  readonly line?: number;
  readonly column?: number;
  readonly message: string;
  readonly suggestion?: string;
};

/** `file:line:column: message (suggestion)`, as editors and terminals link it. */
export function formatDiagnostic(diagnostic: Diagnostic): string {
  const place = [diagnostic.file, diagnostic.line, diagnostic.column].filter((part) => part !== undefined).join(':');
  return `${place}: ${diagnostic.message}${diagnostic.suggestion === undefined ? '' : ` (${diagnostic.suggestion})`}`;
}

/** The error for a set of diagnostics: all of them at once. */
export function configInvalid(diagnostics: readonly Diagnostic[]): SandbarError {
  const [first] = diagnostics;
  const count = diagnostics.length;
  const isInFile = diagnostics.some(({ line }) => line !== undefined);
  const hint = isInFile ? 'sandbar config validate checks the file' : 'sandbar up --help explains the flags';
  return new SandbarError(
    'CONFIG_INVALID',
    count === 1 && first !== undefined ? formatDiagnostic(first) : `${String(count)} problems in the configuration`,
    { details: count === 1 ? [] : diagnostics.map(formatDiagnostic), hint },
  );
}
