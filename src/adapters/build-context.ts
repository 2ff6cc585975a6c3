/** What a build is given besides its sources: the host's way to the network. */
import { chmod, copyFile, mkdir, mkdtemp, readFile, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import type { ImageSource } from '../model/images.ts';

type Environment = Readonly<Record<string, string | undefined>>;

/** Environment variables that a build needs to reach the network as the host does. */
const PASSED_VARIABLES = [
  ...['HTTP_PROXY', 'HTTPS_PROXY', 'NO_PROXY', 'ALL_PROXY'].flatMap((name) => [name, name.toLowerCase()]),
  ...['GOPROXY', 'GOSUMDB', 'GOFLAGS'],
];

/** Where the usual systems keep all CA certificates in one file. */
const SYSTEM_CA_BUNDLES = [
  '/etc/ssl/certs/ca-certificates.crt',
  '/etc/pki/tls/certs/ca-bundle.crt',
  '/etc/ssl/cert.pem',
];

/** Copies the context to a new folder, with the same modes whatever the checkout's umask was; returns its path. */
export async function stageContext(
  sources: readonly ImageSource[],
  options: { readonly imagesDirectory: string; readonly env: Environment },
): Promise<string> {
  const stage = await mkdtemp(join(tmpdir(), 'sandbar-build-'));
  for (const source of sources) {
    const target = join(stage, source.path);
    await mkdir(dirname(target), { recursive: true });
    await copyFile(join(options.imagesDirectory, source.path), target);
    await chmod(target, source.isExecutable ? 0o755 : 0o644);
  }
  await writeFile(join(stage, 'host-ca.crt'), await hostCertificates(options.env));
  return stage;
}

/** Build arguments for the host's proxies and Go settings, and whether the build must share the host's network. */
export function networkSettings(env: Environment): {
  readonly buildArguments: Readonly<Record<string, string>>;
  readonly needsHostNetwork: boolean;
} {
  const buildArguments: Record<string, string> = {};
  for (const name of PASSED_VARIABLES) {
    const value = env[name];
    if (value !== undefined && value !== '') buildArguments[name] = value;
  }
  // What listens on the host's loopback is out of reach from any other network.
  const needsHostNetwork = Object.entries(buildArguments).some(
    ([name, value]) => /proxy$/i.test(name) && !/^no_proxy$/i.test(name) && value.split(',').some(isLoopbackUrl),
  );
  return { buildArguments, needsHostNetwork };
}

/** The host's CA certificates; empty where it has none in a known place: then the builder's own have to do. */
async function hostCertificates(env: Environment): Promise<string> {
  const named = [env['SSL_CERT_FILE'], env['NODE_EXTRA_CA_CERTS']].filter((path) => path !== undefined && path !== '');
  const contents = await Promise.all([...new Set(named)].map((path) => readIfThere(path ?? '')));
  const found = contents.filter((content) => content !== undefined);
  if (found.length > 0) return found.join('\n');
  for (const path of SYSTEM_CA_BUNDLES) {
    const content = await readIfThere(path);
    if (content !== undefined) return content;
  }
  return '';
}

function isLoopbackUrl(value: string): boolean {
  return /^(?:\w+:\/\/)?(?:[^@/]*@)?(?:localhost|127\.[0-9.]+|\[::1\])(?:[:/]|$)/.test(value);
}

async function readIfThere(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}
