/** What is not mounted, and where nothing is mounted, each with the reason. */
import { isBelow, isWithin, partsOf } from './paths.ts';

export type Refusal = { readonly message: string; readonly hint: string };

/** Folders that belong to the system, with all that is below them. On Windows: of any drive. */
const SYSTEM_FOLDERS: Readonly<Partial<Record<NodeJS.Platform, readonly string[]>>> = {
  linux: [
    ...['/bin', '/sbin', '/lib', '/lib32', '/lib64', '/libx32', '/usr', '/etc', '/boot', '/ostree', '/sysroot'],
    ...['/dev', '/proc', '/sys', '/run', '/var', '/lost+found'],
  ],
  darwin: [
    ...['/System', '/Library', '/bin', '/sbin', '/usr', '/dev', '/cores', '/private', '/etc', '/var'],
    ...['/Volumes/Recovery', '/Volumes/Preboot'],
  ],
  win32: [
    ...['/Windows', '/Program Files', '/Program Files (x86)', '/ProgramData', '/Recovery', '/Boot'],
    ...['/System Volume Information', '/$Recycle.Bin'],
  ],
};

/** Folders in the system's that hold what people put there: sources, web pages, drives, files for a short time. */
const OPEN_FOLDERS: Readonly<Partial<Record<NodeJS.Platform, readonly string[]>>> = {
  linux: [
    ...['/usr/src', '/usr/local/src', '/dev/shm', '/run/media', '/var/tmp', '/var/www', '/var/opt', '/var/local'],
    // Where /home, /srv and /mnt lead to on systems whose root folder cannot be changed.
    ...['/var/home', '/var/srv', '/var/mnt'],
  ],
  darwin: [
    ...['/usr/local', '/private/tmp', '/private/var/folders', '/private/var/tmp', '/private/var/www'],
    ...['/var/folders', '/var/tmp', '/var/www', '/Library/WebServer/Documents'],
  ],
};

/** What holds credentials, from the home folder on. */
const CREDENTIALS = [
  ...['.ssh', '.aws', '.kube', '.docker', '.gnupg', '.azure', '.config/gcloud', '.config/gh', '.password-store'],
  ...['.local/share/keyrings', '.netrc', '.git-credentials', 'Library/Keychains'],
];

const ENGINE_SOCKET = /^(?:docker|podman|containerd|buildkitd|crio)[\w.-]*\.sock$/i;

type SourceContext = {
  /** With symbolic links resolved, as the source. */
  readonly homeDirectory: string;
  readonly platform: NodeJS.Platform;
  readonly allowsSensitive: boolean;
  /** Folder that the source was said to be in: it may not leave it through a symbolic link. */
  readonly declaredRoot?: string | undefined;
  /** The engine's socket, where it is a file of this machine. */
  readonly socketPath?: string | undefined;
};

/** Why a folder or file of the host is not mounted; undefined when it is. `source` has its symbolic links resolved. */
export function findSourceProblem(source: string, context: SourceContext): Refusal | undefined {
  return (
    findEscape(source, context) ??
    findEngineSocket(source, context) ??
    findSystem(source, context) ??
    (context.allowsSensitive ? undefined : findSensitive(source, context))
  );
}

function findEscape(source: string, { declaredRoot, platform }: SourceContext): Refusal | undefined {
  if (declaredRoot === undefined || isWithin(partsOf(source, platform), partsOf(declaredRoot, platform))) {
    return undefined;
  }
  return {
    message: `a symbolic link leads out of ${declaredRoot}, to ${source}`,
    hint: `write ${source} itself where that is what you want`,
  };
}

function findEngineSocket(
  source: string,
  { platform, socketPath, allowsSensitive }: SourceContext,
): Refusal | undefined {
  const parts = partsOf(source, platform);
  const socket = socketPath === undefined ? undefined : partsOf(socketPath, platform);
  const isPipe = /^[\\/]{2}\.[\\/]/.test(source);
  const hint = 'leave it out: a pod reaches the cluster through its service account';
  if (isPipe || ENGINE_SOCKET.test(parts.at(-1) ?? '') || (socket !== undefined && isWithin(parts, socket))) {
    return { message: `${source} is a container engine's socket: whoever has it rules this machine`, hint };
  }
  if (allowsSensitive || socket === undefined || !isWithin(socket, parts)) return undefined;
  return { message: `${source} holds the container engine's socket: whoever has it rules this machine`, hint };
}

function findSystem(source: string, { homeDirectory, platform }: SourceContext): Refusal | undefined {
  const hint = `mount a folder of your own, for example one below ${homeDirectory}`;
  if (isWholeDisk(source, { homeDirectory, platform })) {
    return { message: `${source} is all of this machine`, hint };
  }
  const folder = findSystemFolder(source, { homeDirectory, platform });
  if (folder === undefined) return undefined;
  const isItself = partsOf(source, platform).length === partsOf(folder, platform).length;
  return { message: isItself ? `${source} is a system folder` : `${source} lies in the system folder ${folder}`, hint };
}

function isWholeDisk(source: string, { homeDirectory, platform }: Pick<SourceContext, 'homeDirectory' | 'platform'>) {
  const [drive, ...rest] = partsOf(source, platform);
  if (drive === undefined) return true;
  // Another drive may hold nothing but someone's work.
  return platform === 'win32' && rest.length === 0 && [partsOf(homeDirectory, platform)[0], 'c:'].includes(drive);
}

/** The system's folder that a path is, or lies in; undefined for one that is people's own. */
export function findSystemFolder(
  source: string,
  { homeDirectory, platform }: Pick<SourceContext, 'homeDirectory' | 'platform'>,
): string | undefined {
  const parts = partsOf(source, platform);
  const home = partsOf(homeDirectory, platform);
  // Accounts of services, and root on macOS, have their home folder below /var.
  const isHomeInVar = home.includes('var') && home.length > home.indexOf('var') + 1;
  if (isHomeInVar && isWithin(parts, home)) return undefined;
  const isAmong = (folders: readonly string[] | undefined, path: readonly string[]): string | undefined =>
    folders?.find((folder) => isWithin(path, partsOf(folder, platform)));
  if (isAmong(OPEN_FOLDERS[platform], parts) !== undefined) return undefined;
  switch (platform) {
    case 'win32':
      return withDrive(source.slice(0, 2), isAmong(SYSTEM_FOLDERS.win32, parts.slice(1)));
    case 'linux': {
      // Linux on Windows has the drives there.
      const onDrive = /^\/mnt\/[a-z](?=\/)/.exec(source)?.[0];
      const folder = SYSTEM_FOLDERS.win32?.find(
        (name) => onDrive !== undefined && isWithin(parts, partsOf(`${onDrive}${name}`, platform)),
      );
      return folder === undefined ? isAmong(SYSTEM_FOLDERS.linux, parts) : `${onDrive ?? ''}${folder}`;
    }
    default:
      return isAmong(SYSTEM_FOLDERS[platform], parts);
  }
}

function withDrive(drive: string, folder: string | undefined): string | undefined {
  return folder === undefined ? undefined : `${drive}${folder.replaceAll('/', '\\')}`;
}

function findSensitive(source: string, { homeDirectory, platform }: SourceContext): Refusal | undefined {
  const parts = partsOf(source, platform);
  const hint = 'mount a folder with nothing else in it, or say sandbar mount --allow-sensitive';
  const foldersOfHomes = ['/home', '/Users', 'C:\\Users'].map((folder) => partsOf(folder, platform));
  if (foldersOfHomes.some((folder) => isSame(parts, folder))) {
    return { message: `${source} holds the home folders, with their credentials`, hint };
  }
  for (const homeParts of [...homesAround(parts, platform), partsOf(homeDirectory, platform)]) {
    if (isSame(parts, homeParts)) return { message: `${source} is a home folder, which holds credentials`, hint };
    if (isWithin(homeParts, parts)) return { message: `${source} holds the home folder, with its credentials`, hint };
    for (const name of CREDENTIALS) {
      const credentials = [...homeParts, ...partsOf(name, platform)];
      if (isWithin(parts, credentials)) return { message: `${source} holds credentials (~/${name})`, hint };
      if (isBelow(credentials, parts)) return { message: `${source} may hold credentials (~/${name})`, hint };
    }
  }
  return undefined;
}

/** Home folders of others that a path may be about: `sudo` and Linux on Windows reach those too. */
function homesAround(parts: readonly string[], platform: NodeJS.Platform): readonly (readonly string[])[] {
  const folders = {
    linux: ['/home', '/var/home', '/Users', '/mnt/?/Users'],
    darwin: ['/Users'],
    win32: ['?:\\Users'],
  }[platform as 'linux' | 'darwin' | 'win32'];
  const others = folders
    .map((folder) => partsOf(folder, platform))
    .flatMap((folder) => {
      const isHere = folder.every(
        (part, index) => part === parts[index] || (part.includes('?') && parts[index] !== undefined),
      );
      return isHere && parts.length > folder.length ? [parts.slice(0, folder.length + 1)] : [];
    });
  return [...others, ...(platform === 'linux' ? [['root']] : [])];
}

function isSame(first: readonly string[], second: readonly string[]): boolean {
  return first.length === second.length && isWithin(first, second);
}

/** Paths of a container that a mount would hide; what is below them is not hidden. */
const CONTAINER_FOLDERS = [
  ...['/bin', '/sbin', '/lib', '/lib32', '/lib64', '/libx32', '/etc', '/boot', '/run', '/var', '/var/run', '/var/lib'],
  ...['/usr', '/usr/bin', '/usr/sbin', '/usr/lib', '/usr/lib32', '/usr/lib64', '/usr/libx32', '/usr/libexec'],
  ...['/usr/share', '/usr/local', '/usr/local/bin', '/usr/local/sbin', '/usr/local/lib'],
  ...['/run/secrets', '/var/run/secrets', '/etc/ssl', '/etc/ssl/certs', '/etc/pki'],
];

/** Where distributions keep the libraries of an architecture: `/usr/lib/x86_64-linux-gnu`. */
const LIBRARIES = /^(?:\/usr)?\/lib\/[a-z0-9_]+-linux-[a-z]+\/?$/;

/** Paths of a container that the kernel or the kubelet fills, with all that is below them. */
const FILLED_FOLDERS: Readonly<Record<string, string>> = {
  '/proc': "the kernel's",
  '/sys': "the kernel's",
  '/dev': "the kernel's",
  '/etc/hosts': "the kubelet's",
  '/etc/hostname': "the kubelet's",
  '/etc/resolv.conf': "the kubelet's",
  '/run/secrets/kubernetes.io': "the pod's service account",
  '/var/run/secrets/kubernetes.io': "the pod's service account",
};

/** Why nothing is mounted at a path of a container; undefined when that is fine. */
export function findTargetProblem(target: string): Refusal | undefined {
  const hint = 'name a folder of the application, for example /app';
  if (!target.startsWith('/')) return { message: `target "${target}" is not an absolute path`, hint };
  if (target.split('/').includes('..')) {
    return { message: `target ${target} contains ..`, hint: 'write the path without it' };
  }
  if (target.includes(':') || target.includes('\0')) {
    return { message: `target ${target} contains a colon, which Kubernetes does not allow`, hint };
  }
  const parts = partsOf(target, 'linux');
  if (parts.length === 0) return { message: 'target / would hide the whole container', hint };
  const filled = Object.entries(FILLED_FOLDERS).find(([folder]) => isWithin(parts, partsOf(folder, 'linux')));
  if (filled !== undefined) return { message: `target ${target} is ${filled[1]} in a container`, hint };
  const isSystem = CONTAINER_FOLDERS.some((folder) => isSame(parts, partsOf(folder, 'linux')));
  if (!isSystem && !LIBRARIES.test(target)) return undefined;
  return { message: `target ${target} would hide a system path of the container`, hint };
}
