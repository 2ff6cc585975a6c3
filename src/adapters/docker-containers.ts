/** A container in the words of Docker's API. */
import { dirname } from 'node:path/posix';
import type Dockerode from 'dockerode';
import type { Labels } from '../model/ports.ts';
import type { ContainerFile, ContainerSpec } from '../model/resources.ts';

/** Capabilities in the kernel's numbering, up to the last one that Docker 20.10 has a name for. */
export const CAPABILITIES = [
  ...['CHOWN', 'DAC_OVERRIDE', 'DAC_READ_SEARCH', 'FOWNER', 'FSETID', 'KILL', 'SETGID', 'SETUID', 'SETPCAP'],
  ...['LINUX_IMMUTABLE', 'NET_BIND_SERVICE', 'NET_BROADCAST', 'NET_ADMIN', 'NET_RAW', 'IPC_LOCK', 'IPC_OWNER'],
  ...['SYS_MODULE', 'SYS_RAWIO', 'SYS_CHROOT', 'SYS_PTRACE', 'SYS_PACCT', 'SYS_ADMIN', 'SYS_BOOT', 'SYS_NICE'],
  ...['SYS_RESOURCE', 'SYS_TIME', 'SYS_TTY_CONFIG', 'MKNOD', 'LEASE', 'AUDIT_WRITE', 'AUDIT_CONTROL', 'SETFCAP'],
  ...['MAC_OVERRIDE', 'MAC_ADMIN', 'SYSLOG', 'WAKE_ALARM', 'BLOCK_SUSPEND', 'AUDIT_READ'],
] as const;

/** What a node gets: everything that the engine has (`--privileged`), or a list where the engine lacks something. */
export type NodeGrant = { readonly kind: 'all' } | { readonly kind: 'list'; readonly capabilities: readonly string[] };

/** The list for an engine that cannot grant everything and does not say what: CI machines lack this one. */
export const USUAL_GRANT: NodeGrant = {
  kind: 'list',
  capabilities: CAPABILITIES.filter((capability) => capability !== 'SYS_RESOURCE'),
};

/** The grant that an engine with this bounding set (as in /proc/PID/status) can give. */
export function grantFrom(boundingSet: bigint): NodeGrant {
  const capabilities = CAPABILITIES.filter((_, bit) => ((boundingSet >> BigInt(bit)) & 1n) === 1n);
  return capabilities.length === CAPABILITIES.length ? { kind: 'all' } : { kind: 'list', capabilities };
}

/** Files to be unpacked at `path` in the container. */
type Archive = { readonly path: string; readonly files: readonly ContainerFile[] };

export type CreateOptions = Dockerode.ContainerCreateOptions & { readonly name: string };

/** What the engine is asked to create, and what is written into it afterwards. */
export function formatContainer({
  container,
  files,
  labels,
  grant,
  loggingDriver,
}: {
  readonly container: ContainerSpec;
  readonly files: readonly ContainerFile[];
  readonly labels: Labels;
  readonly grant: NodeGrant;
  readonly loggingDriver: string;
}): { readonly options: CreateOptions; readonly archives: readonly Archive[] } {
  const { archives, ownFolders } = placeFiles(container, files);
  const options = {
    name: container.name,
    Hostname: container.hostname,
    Image: container.imageRef,
    ...(container.command === undefined ? {} : { Entrypoint: [...container.command], Cmd: [] }),
    Labels: { ...labels },
    StopTimeout: container.stopTimeoutS,
    ExposedPorts: Object.fromEntries(container.ports.map((port) => [`${String(port.containerPort)}/tcp`, {}])),
    HostConfig: {
      NetworkMode: container.networkName,
      PortBindings: portBindings(container),
      Mounts: [
        ...container.volumes.map(({ volumeName, path }) => ({
          Type: 'volume' as const,
          Source: volumeName,
          Target: path,
        })),
        // Docker refuses a source that is missing, instead of making a folder that belongs to root.
        ...container.binds.map(({ source, path }) => ({
          Type: 'bind' as const,
          Source: source,
          Target: path,
          BindOptions: { Propagation: 'rprivate' as const },
        })),
        ...ownFolders.map((path) => ({ Type: 'volume' as const, Source: '', Target: path })),
      ],
      Tmpfs: Object.fromEntries(container.tmpfs.map((path) => [path, ''])),
      ReadonlyRootfs: container.hasReadOnlyRoot,
      ExtraHosts: container.extraHosts.map(({ host, address }) => `${host}:${address}`),
      RestartPolicy: { Name: 'unless-stopped' },
      Init: false,
      ...logConfig(loggingDriver),
      ...privileges(container, grant),
    },
    NetworkingConfig: {
      EndpointsConfig: { [container.networkName]: { IPAMConfig: { IPv4Address: container.address } } },
    },
  };
  // The types of dockerode demand fields that the engine has defaults for.
  return { options: options, archives };
}

function portBindings(container: ContainerSpec): Record<string, { HostIp: string; HostPort: string }[]> {
  const bindings: Record<string, { HostIp: string; HostPort: string }[]> = {};
  for (const { hostPort, containerPort } of container.ports) {
    (bindings[`${String(containerPort)}/tcp`] ??= []).push({ HostIp: '127.0.0.1', HostPort: String(hostPort) });
  }
  return bindings;
}

/** Logs are rotated where the engine keeps them itself; a log service that somebody set up is left as it is. */
function logConfig(loggingDriver: string): object {
  if (loggingDriver !== 'json-file' && loggingDriver !== 'local') return {};
  return { LogConfig: { Type: loggingDriver, Config: { 'max-size': '5m', 'max-file': '2' } } };
}

function privileges(container: ContainerSpec, grant: NodeGrant): object {
  if (container.privileges.level === 'none') {
    return {
      CapDrop: ['ALL'],
      CapAdd: [...container.privileges.capabilities],
      // SELinux would keep the container from the user's own files, and to relabel those is not for us.
      SecurityOpt: ['no-new-privileges', ...(container.binds.length === 0 ? [] : ['label=disable'])],
    };
  }
  switch (grant.kind) {
    case 'all':
      return { Privileged: true, CgroupnsMode: 'private' };
    case 'list':
      // All that `--privileged` means, spelt out.
      return {
        CapDrop: ['ALL'],
        CapAdd: [...grant.capabilities],
        SecurityOpt: ['seccomp=unconfined', 'apparmor=unconfined', 'label=disable'],
        MaskedPaths: [],
        ReadonlyPaths: [],
        DeviceCgroupRules: ['a *:* rwm'],
        CgroupnsMode: 'private',
      };
  }
}

/**
 * Docker unpacks nothing into a read-only root, only into volumes: there each file goes through the volume that holds
 * it, and folders that no volume holds become nameless volumes, which are removed with their container.
 */
function placeFiles(
  container: ContainerSpec,
  files: readonly ContainerFile[],
): { readonly archives: readonly Archive[]; readonly ownFolders: readonly string[] } {
  if (files.length === 0) return { archives: [], ownFolders: [] };
  if (!container.hasReadOnlyRoot) return { archives: [{ path: '/', files }], ownFolders: [] };
  const volumePaths = container.volumes.map(({ path }) => path);
  const uncovered = files.map(({ path }) => dirname(path)).filter((folder) => !isBelowAny(folder, volumePaths));
  const ownFolders = [...new Set(uncovered)].filter(
    (folder, _, folders) =>
      !isBelowAny(
        folder,
        folders.filter((other) => other !== folder),
      ),
  );
  const places = [...volumePaths, ...ownFolders].toSorted((a, b) => b.length - a.length);
  const filesByPlace = new Map<string, ContainerFile[]>();
  for (const file of files) {
    const place = places.find((path) => isBelowAny(file.path, [path])) ?? '/';
    const relative = { ...file, path: file.path.slice(place.length) };
    filesByPlace.set(place, [...(filesByPlace.get(place) ?? []), relative]);
  }
  return { archives: [...filesByPlace].map(([path, placed]) => ({ path, files: placed })), ownFolders };
}

function isBelowAny(path: string, folders: readonly string[]): boolean {
  return folders.some((folder) => path === folder || path.startsWith(`${folder}/`));
}
