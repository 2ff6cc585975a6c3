import { readFile } from 'node:fs/promises';
import { join } from 'node:path';

/** As the Engine API takes it. */
export type RegistryAuth = {
  readonly username: string;
  readonly password: string;
  readonly serveraddress: string;
  readonly identitytoken?: string;
};

type DockerConfig = {
  readonly auths?: Readonly<Record<string, { readonly auth?: string; readonly identitytoken?: string }>>;
  readonly credsStore?: string;
  readonly credHelpers?: Readonly<Record<string, string>>;
};

/** Docker's own registry goes by this name in configurations, for historical reasons. */
const DOCKER_HUB = 'https://index.docker.io/v1/';

/** What `docker login` stored for the registry of an image, in Docker's configuration or in its credential store. */
export async function registryAuth(
  imageRef: string,
  options: { readonly homeDirectory: string; readonly env: Readonly<Record<string, string | undefined>> },
): Promise<RegistryAuth | undefined> {
  const directory = options.env['DOCKER_CONFIG'] ?? join(options.homeDirectory, '.docker');
  const config = await readConfig(join(directory, 'config.json'));
  const server = registryOf(imageRef);
  const store = config.credHelpers?.[server] ?? config.credsStore;
  if (store !== undefined) return askStore(store, { server, env: options.env });
  const entry = config.auths?.[server] ?? config.auths?.[`https://${server}`];
  if (entry === undefined) return undefined;
  const [username = '', ...password] = Buffer.from(entry.auth ?? '', 'base64')
    .toString('utf8')
    .split(':');
  return {
    username,
    password: password.join(':'),
    serveraddress: server,
    ...(entry.identitytoken === undefined ? {} : { identitytoken: entry.identitytoken }),
  };
}

/** The first part of a reference is a registry if it looks like a host, as Docker decides it. */
export function registryOf(imageRef: string): string {
  const [first = '', ...rest] = imageRef.split('/');
  return rest.length > 0 && (/[.:]/.test(first) || first === 'localhost') ? first : DOCKER_HUB;
}

async function askStore(
  store: string,
  options: { readonly server: string; readonly env: Readonly<Record<string, string | undefined>> },
): Promise<RegistryAuth | undefined> {
  const { execa } = await import('execa');
  const answer = await execa(`docker-credential-${store}`, ['get'], {
    input: options.server,
    env: options.env,
    extendEnv: false,
    reject: false,
  });
  // A store that has nothing for this server, or is gone, is as good as no login.
  if (answer.failed) return undefined;
  const { Username: username, Secret: secret } = JSON.parse(answer.stdout) as { Username: string; Secret: string };
  return username === '<token>'
    ? { username: '', password: '', serveraddress: options.server, identitytoken: secret }
    : { username, password: secret, serveraddress: options.server };
}

async function readConfig(path: string): Promise<DockerConfig> {
  try {
    return JSON.parse(await readFile(path, 'utf8')) as DockerConfig;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return {};
    throw error;
  }
}
