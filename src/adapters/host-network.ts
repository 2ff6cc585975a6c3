/** Ports and routes of this machine, as Linux and macOS tell of them. */
import { readdir, readFile, readlink } from 'node:fs/promises';
import type { execa } from 'execa';
import { connect, createServer } from 'node:net';
import { addressAt, formatCidr, parseCidr } from '../model/cidr.ts';

const PROBE_MS = 1_000;

/** True when nothing listens on 127.0.0.1:port, nor on every address. */
export async function isPortFree(port: number): Promise<boolean> {
  // macOS lets one bind 127.0.0.1 beside somebody who listens on every address: a connection tells.
  return !(await canConnect(port)) && (await canListen(port));
}

function canConnect(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ host: '127.0.0.1', port, timeout: PROBE_MS });
    const settle = (isAnswering: boolean): void => {
      socket.destroy();
      resolve(isAnswering);
    };
    socket.on('connect', () => {
      settle(true);
    });
    socket.on('error', () => {
      settle(false);
    });
    socket.on('timeout', () => {
      settle(false);
    });
  });
}

function canListen(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.on('error', (error: NodeJS.ErrnoException) => {
      // Ports below 1024 are Docker's to bind, not this user's: whether one is free, only the connection could tell.
      resolve(error.code === 'EACCES');
    });
    server.listen({ host: '127.0.0.1', port, exclusive: true }, () => {
      server.close(() => {
        resolve(true);
      });
    });
  });
}

/** Who listens on a port, e.g. `nginx (pid 411)`, where this user may know. */
export async function findPortOwner(platform: NodeJS.Platform, port: number): Promise<string | undefined> {
  switch (platform) {
    case 'linux':
      return findLinuxPortOwner(port);
    case 'darwin':
      return findMacPortOwner(port);
    default:
      return undefined;
  }
}

async function findLinuxPortOwner(port: number): Promise<string | undefined> {
  const tables = await Promise.all(['/proc/net/tcp', '/proc/net/tcp6'].map(readText));
  const inodes = tables.flatMap((table) => parseListeningInodes(table, port));
  if (inodes.length === 0) return undefined;
  const wanted = new Set(inodes.map((inode) => `socket:[${inode}]`));
  const processes = (await readdir('/proc')).filter((entry) => /^\d+$/.test(entry));
  for (const pid of processes) {
    // Other users' processes do not show their files, and any process may end meanwhile.
    const files = await readdir(`/proc/${pid}/fd`).catch(() => []);
    for (const file of files) {
      const target = await readlink(`/proc/${pid}/fd/${file}`).catch(() => '');
      if (wanted.has(target)) return `${(await readText(`/proc/${pid}/comm`)).trim()} (pid ${pid})`;
    }
  }
  return undefined;
}

/** Whether somebody has a port of this machine. Linux says so without anybody being connected to. */
export async function isListening(
  platform: NodeJS.Platform,
  port: number,
  protocol: 'TCP' | 'UDP',
): Promise<boolean | undefined> {
  if (platform !== 'linux') return protocol === 'TCP' ? canConnect(port) : undefined;
  const name = protocol.toLowerCase();
  const tables = await Promise.all([`/proc/net/${name}`, `/proc/net/${name}6`].map(readText));
  return tables.some((table) => parseListeningInodes(table, port, protocol).length > 0);
}

/** Inodes of the sockets that listen on a port, from the text of /proc/net/tcp or udp. */
export function parseListeningInodes(table: string, port: number, protocol: 'TCP' | 'UDP' = 'TCP'): readonly string[] {
  const suffix = `:${port.toString(16).toUpperCase().padStart(4, '0')}`;
  return table.split('\n').flatMap((line) => {
    const [, local = '', , state, , , , , , inode] = line.trim().split(/\s+/);
    // Bound and not connected, of UDP.
    const isListening = state === (protocol === 'TCP' ? '0A' : '07');
    return isListening && local.endsWith(suffix) && inode !== undefined ? [inode] : [];
  });
}

async function findMacPortOwner(port: number): Promise<string | undefined> {
  const execa = await loadExeca();
  const { stdout } = await execa('lsof', ['-nP', `-iTCP:${String(port)}`, '-sTCP:LISTEN', '-Fpc'], { reject: false });
  return parseLsof(stdout);
}

/** First process of `lsof -Fpc`: lines `p<pid>` and `c<command>`. */
export function parseLsof(output: string): string | undefined {
  const pid = /^p(\d+)$/m.exec(output)?.[1];
  const command = /^c(.+)$/m.exec(output)?.[1];
  return pid === undefined || command === undefined ? undefined : `${command} (pid ${pid})`;
}

/** IPv4 subnets that this machine routes to, without the default route. */
export async function listRoutes(platform: NodeJS.Platform): Promise<readonly string[]> {
  switch (platform) {
    case 'linux':
      return parseLinuxRoutes(await readText('/proc/net/route'));
    case 'darwin': {
      const execa = await loadExeca();
      const { stdout } = await execa('netstat', ['-rn', '-f', 'inet'], { reject: false });
      return parseMacRoutes(stdout);
    }
    default:
      return [];
  }
}

/** Destinations of /proc/net/route, whose addresses are hexadecimal numbers of reversed bytes. */
export function parseLinuxRoutes(table: string): readonly string[] {
  const routes = table
    .split('\n')
    .slice(1)
    .flatMap((line) => {
      const [, destination, , flags, , , , mask] = line.trim().split(/\s+/);
      if (destination === undefined || mask === undefined || (parseInt(flags ?? '0', 16) & 1) === 0) return [];
      const prefix = reversedBytes(mask).toString(2).replace(/0+$/, '').length;
      return prefix === 0 ? [] : [formatCidr({ base: reversedBytes(destination), prefix })];
    });
  return [...new Set(routes)];
}

function reversedBytes(hex: string): number {
  const bytes = hex.match(/../g) ?? [];
  return Number.parseInt(bytes.reverse().join(''), 16);
}

/** Destinations of `netstat -rn`, which leaves trailing zero octets out: `10`, `172.16/12`, `192.168.1`. */
export function parseMacRoutes(output: string): readonly string[] {
  const routes = output.split('\n').flatMap((line) => {
    const destination = line.trim().split(/\s+/, 1).join('');
    const match = /^(\d{1,3}(?:\.\d{1,3}){0,3})(?:\/(\d{1,2}))?$/.exec(destination);
    if (match === null) return [];
    const octets = (match[1] ?? '').split('.');
    const address = [...octets, '0', '0', '0'].slice(0, 4).join('.');
    const cidr = parseCidr(`${address}/${match[2] ?? String(octets.length * 8)}`);
    const isLocal = cidr === undefined || cidr.prefix === 0 || addressAt(cidr, 0).startsWith('127.');
    return isLocal ? [] : [formatCidr(cidr)];
  });
  return [...new Set(routes)];
}

async function readText(file: string): Promise<string> {
  // A kernel without IPv6 has no tcp6.
  return readFile(file, 'utf8').catch(() => '');
}

/** Only where a question needs a program: it costs 20 ms, and every command has a host. */
async function loadExeca(): Promise<typeof execa> {
  return (await import('execa')).execa;
}
