/** Every environment variable that Sandbar reads: declared and explained here, documented from here. */

export type Environment = Readonly<Record<string, string | undefined>>;

export const ENVIRONMENT_VARIABLES = {
  SANDBAR_NAME: 'Name of the cluster, where `--name` does not say it.',
  SANDBAR_FILE: 'Path of the configuration file, where `--file` does not say it.',
  SANDBAR_REGISTRY: 'Name of the registry that the cluster uses, as `registry.name`.',
  SANDBAR_IMAGE_REPOSITORY: 'Repository that images are pulled from before they are built, as `--image-repository`.',
  SANDBAR_REQUIRE_DOCKER: 'When `1`, tests that need Docker fail instead of being skipped where it is absent.',
  KUBECONFIG: 'Files that kubectl reads; the context is written to the first of them that exists.',
  DOCKER_HOST: 'Address of the Docker engine; wins over the Docker context.',
  DOCKER_CONTEXT: 'Docker context whose engine is used.',
  DOCKER_CONFIG: "Directory of Docker's client configuration, `~/.docker` by default.",
  HTTP_PROXY:
    'Proxy for `http://` that the node pulls images through and images are built through; also in lower case.',
  HTTPS_PROXY: 'The same for `https://`; also in lower case.',
  NO_PROXY: "Hosts that are reached without the proxy; the cluster's own are added. Also in lower case.",
  SSL_CERT_FILE:
    'CA certificates that this machine trusts; those that an ordinary system lacks are trusted by the node too.',
  NODE_EXTRA_CA_CERTS: 'The same.',
  GOPROXY: 'Go module proxy that images are built from.',
  NO_COLOR: 'When set, output has no colours.',
  TERM: 'When `dumb`, output has neither colours nor moving lines.',
  XDG_CACHE_HOME: 'Parent of the directory for downloads and built programs, `~/.cache` by default.',
  XDG_STATE_HOME: 'Parent of the directory for logs and locks, `~/.local/state` by default.',
} as const satisfies Readonly<Record<string, string>>;

export type EnvironmentVariable = keyof typeof ENVIRONMENT_VARIABLES;

/** Value of a variable; an empty one counts as not set. */
export function readVariable(env: Environment, name: EnvironmentVariable): string | undefined {
  const value = env[name];
  return value === '' ? undefined : value;
}

/** Value of a proxy variable in upper or lower case; upper case wins, as in Go's programs, which are what it is for. */
export function readProxyVariable(
  env: Environment,
  name: 'HTTP_PROXY' | 'HTTPS_PROXY' | 'NO_PROXY',
): string | undefined {
  const lowerCase = env[name.toLowerCase()];
  return readVariable(env, name) ?? (lowerCase === '' ? undefined : lowerCase);
}
