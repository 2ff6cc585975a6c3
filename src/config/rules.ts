/** What the schema cannot say: one small function a rule, each from a configuration to what is wrong with it. */
import { formatCidr, overlaps, parseCidr, type Cidr } from '../model/cidr.ts';
import { clusterNameProblem, HOST_HOSTNAME, suggestClusterName } from '../model/names.ts';
import { findFlagOwnership, findKubeletFieldOwnership, type ArgumentsKey } from './owned-settings.ts';
import { formatPath, type Path, type Problem } from './problem.ts';
import { DEFAULT_KUBERNETES, findKubernetes, KUBERNETES_VERSIONS } from '../model/versions.ts';
import { DEFAULTS, type WrittenConfig } from './schema.ts';

type Rule = (config: WrittenConfig) => readonly Problem[];

/** Everything that these rules find wrong, all at once. */
export function checkRules(config: WrittenConfig): readonly Problem[] {
  return RULES.flatMap((rule) => rule(config));
}

const RULES: readonly Rule[] = [
  checkName,
  checkVersion,
  checkAdmissionPlugins,
  checkFeatureGates,
  checkArguments,
  checkKubeletConfiguration,
  checkSubnets,
  checkSubnetOverlap,
  checkPorts,
  checkRegion,
  checkGatewayApi,
  checkBuckets,
  checkMirrors,
  checkRegistryName,
  checkRegistryMirrors,
  checkRegistryPort,
];

function checkName({ name }: WrittenConfig): readonly Problem[] {
  const message = name === undefined ? undefined : clusterNameProblem(name);
  if (name === undefined || message === undefined) return [];
  return [{ path: ['name'], message, suggestion: `for example ${suggestClusterName(name)}` }];
}

function checkVersion({ kubernetes }: WrittenConfig): readonly Problem[] {
  const version = String(kubernetes?.version ?? DEFAULT_KUBERNETES);
  if (findKubernetes(version) !== undefined) return [];
  return [
    {
      path: ['kubernetes', 'version'],
      message: `there is no Kubernetes ${version} in this Sandbar`,
      suggestion: `there are ${Object.keys(KUBERNETES_VERSIONS).join(', ')}`,
    },
  ];
}

/** Names only: which plugins there are, the API server knows and says. */
function checkAdmissionPlugins({ kubernetes }: WrittenConfig): readonly Problem[] {
  const { enable = [], disable = [], configuration = {} } = kubernetes?.admissionPlugins ?? {};
  const named = [
    ...enable.map((name, index) => ({ name, path: ['enable', index] })),
    ...disable.map((name, index) => ({ name, path: ['disable', index] })),
    ...Object.keys(configuration).map((name) => ({ name, path: ['configuration', name] })),
  ];
  return named.flatMap(({ name, path }): readonly Problem[] => {
    const at = { path: ['kubernetes', 'admissionPlugins', ...path], isAboutKey: path[0] === 'configuration' };
    if (name === undefined) return [];
    if (!/^[A-Z][A-Za-z]*$/.test(name)) {
      return [
        {
          ...at,
          message: `"${name}" is not the name of an admission plugin`,
          suggestion: 'for example AlwaysPullImages',
        },
      ];
    }
    if (path[0] === 'disable' && name === 'NodeRestriction') {
      return [{ ...at, message: 'NodeRestriction cannot be disabled: it keeps the node to its own pods' }];
    }
    const isBoth = path[0] === 'disable' && enable.includes(name);
    return isBoth
      ? [{ ...at, message: `${name} is both enabled and disabled`, suggestion: 'leave one of both out' }]
      : [];
  });
}

function checkFeatureGates({ kubernetes }: WrittenConfig): readonly Problem[] {
  return Object.keys(kubernetes?.featureGates ?? {})
    .filter((name) => !/^[A-Z][A-Za-z0-9]*$/.test(name))
    .map((name) => ({
      path: ['kubernetes', 'featureGates', name],
      message: `"${name}" is not the name of a feature gate`,
      suggestion: 'their names are like InPlacePodVerticalScaling',
      isAboutKey: true,
    }));
}

const ARGUMENTS: readonly ArgumentsKey[] = [
  'apiServerArguments',
  'controllerManagerArguments',
  'schedulerArguments',
  'kubeletArguments',
];

function checkArguments({ kubernetes }: WrittenConfig): readonly Problem[] {
  return ARGUMENTS.flatMap((component) =>
    Object.entries(kubernetes?.[component] ?? {}).flatMap(([flag, value]): readonly Problem[] => {
      const path = ['kubernetes', component, flag];
      if (!/^[a-z][a-z0-9-]*$/.test(flag)) {
        const plain = flag.replace(/^-+/, '').replace(/=.*$/, '').replaceAll('_', '-').toLowerCase();
        return [
          { path, message: `"${flag}" is not a flag's name`, suggestion: `write ${plain}: value`, isAboutKey: true },
        ];
      }
      const reason = findFlagOwnership(component, flag, value);
      return reason === undefined ? [] : [{ path, message: `--${flag} cannot be set: ${reason}`, isAboutKey: true }];
    }),
  );
}

function checkKubeletConfiguration({ kubernetes }: WrittenConfig): readonly Problem[] {
  const expected: Readonly<Record<string, string>> = {
    apiVersion: 'kubelet.config.k8s.io/v1beta1',
    kind: 'KubeletConfiguration',
  };
  return Object.entries(kubernetes?.kubeletConfiguration ?? {}).flatMap(([field, value]): readonly Problem[] => {
    const path = ['kubernetes', 'kubeletConfiguration', field];
    const wanted = expected[field];
    if (wanted !== undefined && value !== wanted) {
      return [{ path, message: `${field} of the kubelet's configuration is ${wanted}`, suggestion: 'leave it out' }];
    }
    const reason = findKubeletFieldOwnership(field);
    return reason === undefined ? [] : [{ path, message: `${field} cannot be set: ${reason}`, isAboutKey: true }];
  });
}

type SubnetKey = 'subnet' | 'pods' | 'services';

/**
 * Prefix lengths that work. Network: every component has an address, and mounts and ports get more. Pods: a /24 is what
 * a node gets. Services: DNS has the tenth address; kube-apiserver refuses ranges of more than 2^20 addresses.
 */
const PREFIXES: Readonly<Record<SubnetKey, readonly [number, number]>> = {
  subnet: [16, 26],
  pods: [8, 24],
  services: [12, 24],
};

const PRIVATE_RANGES = ['10.0.0.0/8', '172.16.0.0/12', '192.168.0.0/16', '100.64.0.0/10'].map(getCidr);

function checkSubnets({ network }: WrittenConfig): readonly Problem[] {
  return (['subnet', 'pods', 'services'] as const).flatMap((key): readonly Problem[] => {
    const text = network?.[key];
    return text === undefined ? [] : checkSubnet(key, text);
  });
}

function checkSubnet(key: SubnetKey, text: string): readonly Problem[] {
  const path = ['network', key];
  const example = { subnet: '172.30.0.0/24', pods: DEFAULTS.podSubnet, services: DEFAULTS.serviceSubnet }[key];
  const cidr = parseCidr(text);
  if (cidr === undefined) {
    const base = findSubnetAround(text);
    const reason = text.includes(':') ? 'IPv6 is not supported' : 'an address, a slash and a prefix length are needed';
    return base === undefined
      ? [
          {
            path,
            message: `network.${key} "${text}" is not an IPv4 subnet: ${reason}`,
            suggestion: `for example ${example}`,
          },
        ]
      : [{ path, message: `network.${key} ${text} is not the start of its subnet`, suggestion: `write ${base}` }];
  }
  const [largest, smallest] = PREFIXES[key];
  if (cidr.prefix > smallest || cidr.prefix < largest) {
    const size = cidr.prefix > smallest ? 'small' : 'large';
    const suggestion = `between /${String(largest)} and /${String(smallest)}, for example ${example}`;
    return [{ path, message: `network.${key} ${text} is too ${size}`, suggestion }];
  }
  const isPrivate = PRIVATE_RANGES.some((range) => range.prefix <= cidr.prefix && overlaps(range, cidr));
  if (isPrivate) return [];
  const message = `network.${key} ${text} is not in a private range: hosts there could not be reached any more`;
  return [{ path, message, suggestion: `for example ${example}` }];
}

/** `172.30.0.5/24` lies in `172.30.0.0/24`; undefined when it is no IPv4 address with a prefix length. */
function findSubnetAround(text: string): string | undefined {
  const [address = '', prefix = ''] = text.split('/', 2);
  const host = parseCidr(`${address}/32`);
  if (host === undefined || !/^\d{1,2}$/.test(prefix) || Number(prefix) > 32) return undefined;
  const size = 2 ** (32 - Number(prefix));
  return formatCidr({ base: Math.floor(host.base / size) * size, prefix: Number(prefix) });
}

function checkSubnetOverlap({ network }: WrittenConfig): readonly Problem[] {
  const subnets = [
    { key: 'subnet', text: network?.subnet, isWritten: network?.subnet !== undefined },
    { key: 'pods', text: network?.pods ?? DEFAULTS.podSubnet, isWritten: network?.pods !== undefined },
    { key: 'services', text: network?.services ?? DEFAULTS.serviceSubnet, isWritten: network?.services !== undefined },
  ];
  return subnets.flatMap((second, index) =>
    subnets.slice(0, index).flatMap((first): readonly Problem[] => {
      const [firstCidr, secondCidr] = [first, second].map(({ text }) =>
        text === undefined ? undefined : parseCidr(text),
      );
      if (firstCidr === undefined || secondCidr === undefined || !overlaps(firstCidr, secondCidr)) return [];
      const [blamed, other] = second.isWritten ? [second, first] : [first, second];
      const otherName = `network.${other.key} ${other.text ?? ''}${other.isWritten ? '' : ' (the default)'}`;
      return [
        {
          path: ['network', blamed.key],
          message: `network.${blamed.key} ${blamed.text ?? ''} overlaps ${otherName}`,
          suggestion: 'take subnets that share no address',
        },
      ];
    }),
  );
}

function checkPorts({ ports }: WrittenConfig): readonly Problem[] {
  const written = Object.entries(ports ?? {});
  return written.flatMap(([key, port], index): readonly Problem[] => {
    const earlier = written.slice(0, index).find(([, other]) => other === port);
    if (earlier === undefined) return [];
    return [
      {
        path: ['ports', key],
        message: `ports.${key} and ports.${earlier[0]} are both ${String(port)}`,
        suggestion: 'leave one out, and the next free port is taken',
      },
    ];
  });
}

function checkRegion({ objectStore }: WrittenConfig): readonly Problem[] {
  const region = objectStore?.region;
  if (region === undefined || /^[a-z0-9-]{1,63}$/.test(region)) return [];
  return [
    {
      path: ['objectStore', 'region'],
      message: `objectStore.region "${region}" is not the name of a region`,
      suggestion: `for example ${DEFAULTS.region}`,
    },
  ];
}

function checkGatewayApi({ ingress, gatewayApi }: WrittenConfig): readonly Problem[] {
  if (ingress?.enabled !== false || gatewayApi !== true) return [];
  const message = 'gatewayApi needs the ingress, which is not enabled';
  return [{ path: ['gatewayApi'], message, suggestion: 'remove one of both' }];
}

function checkBuckets({ objectStore }: WrittenConfig): readonly Problem[] {
  const buckets = (objectStore?.buckets ?? []).map((bucket, index) => ({
    name: typeof bucket === 'object' ? bucket.name : bucket,
    path: ['objectStore', 'buckets', index, ...(typeof bucket === 'object' ? ['name'] : [])] satisfies Path,
  }));
  if (objectStore?.enabled === false && buckets.length > 0) {
    const message = 'objectStore.buckets needs the object store, which is not enabled';
    return [{ path: ['objectStore', 'buckets'], message, suggestion: 'remove one of both' }];
  }
  return buckets.flatMap(({ name, path }, index): readonly Problem[] => {
    if (name === undefined) return [];
    const reason = findBucketNameProblem(name);
    if (reason !== undefined) {
      const message = `bucket name "${name}" breaks S3's rules: ${reason}`;
      return [{ path, message, suggestion: `for example ${suggestBucketName(name)}` }];
    }
    const isRepeated = buckets.slice(0, index).some((other) => other.name === name);
    return isRepeated ? [{ path, message: `bucket ${name} is declared twice` }] : [];
  });
}

/** Why S3 refuses a bucket name, or undefined when it takes it. */
export function findBucketNameProblem(name: string): string | undefined {
  if (name.length < 3 || name.length > 63) return 'it has 3 to 63 characters';
  if (!/^[a-z0-9.-]+$/.test(name)) return 'it has lower-case letters, digits, dots and hyphens';
  if (!/^[a-z0-9].*[a-z0-9]$/.test(name)) return 'it starts and ends with a letter or digit';
  if (name.includes('..')) return 'no two dots stand side by side';
  if (/^\d+\.\d+\.\d+\.\d+$/.test(name)) return 'it is not like an IP address';
  const prefix = ['xn--', 'sthree-', 'amzn-s3-demo-'].find((reserved) => name.startsWith(reserved));
  if (prefix !== undefined) return `${prefix} at the start is reserved`;
  const suffix = ['-s3alias', '--ol-s3', '.mrap', '--x-s3', '--table-s3'].find((reserved) => name.endsWith(reserved));
  return suffix === undefined ? undefined : `${suffix} at the end is reserved`;
}

function suggestBucketName(name: string): string {
  const cleaned = name
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '-')
    .slice(0, 63)
    .replace(/^-+|-+$/g, '');
  return findBucketNameProblem(cleaned) === undefined ? cleaned : 'pictures';
}

function checkMirrors({ mirrors }: WrittenConfig): readonly Problem[] {
  return Object.entries(mirrors ?? {}).flatMap(([registry, endpoints]) => [
    ...checkRegistryHost(['mirrors', registry], registry, { isAboutKey: true }),
    ...endpoints.flatMap((endpoint, index) =>
      endpoint === undefined ? [] : checkMirrorUrl(['mirrors', registry, index], endpoint),
    ),
  ]);
}

function checkRegistryName({ registry }: WrittenConfig): readonly Problem[] {
  const name = typeof registry === 'object' ? registry.name : undefined;
  if (name === undefined || /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/.test(name)) return [];
  return [
    {
      path: ['registry', 'name'],
      message: `registry.name "${name}" is not usable: up to 63 lower-case letters, digits and inner hyphens`,
      suggestion: `for example ${DEFAULTS.registry.name}`,
    },
  ];
}

function checkRegistryMirrors({ registry }: WrittenConfig): readonly Problem[] {
  if (typeof registry !== 'object') return [];
  return (registry.mirrors ?? []).flatMap((host, index): readonly Problem[] => {
    if (host === undefined) return [];
    const path = ['registry', 'mirrors', index];
    const problems = checkRegistryHost(path, host, {});
    if (problems.length > 0 || !isLoopback(host.replace(/:\d+$/, ''))) return problems;
    const message = `${formatPath(path)} "${host}" is on this machine: its images need no copy`;
    return [{ path, message, suggestion: 'leave it out' }];
  });
}

function checkRegistryPort({ registry, ports }: WrittenConfig): readonly Problem[] {
  const wished = typeof registry === 'object' ? registry.port : undefined;
  const other = Object.entries(ports ?? {}).find(([, port]) => port === wished);
  if (wished === undefined || other === undefined) return [];
  return [
    {
      path: ['registry', 'port'],
      message: `registry.port and ports.${other[0]} are both ${String(wished)}`,
      suggestion: 'leave one out, and the next free port is taken',
    },
  ];
}

function checkRegistryHost(path: Path, registry: string, about: Pick<Problem, 'isAboutKey'>): readonly Problem[] {
  if (/^[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:\d{1,5})?$/.test(registry)) return [];
  const lowered = registry.toLowerCase();
  const host = /^[a-z]+:\/\/([^/]+)/.exec(lowered)?.[1] ?? lowered.split('/', 1).join('');
  return [
    {
      path,
      message: `"${registry}" is not a registry's host as image names have it`,
      suggestion: `for example ${host === '' ? 'docker.io' : host}`,
      ...about,
    },
  ];
}

function checkMirrorUrl(path: Path, endpoint: string): readonly Problem[] {
  const url = URL.canParse(endpoint) ? new URL(endpoint) : undefined;
  const name = formatPath(path);
  if (url === undefined || (url.protocol !== 'http:' && url.protocol !== 'https:')) {
    const suggestion = `for example https://${endpoint.replace(/^[a-z]*:?\/*/i, '') || 'mirror.example'}`;
    return [{ path, message: `${name} "${endpoint}" is not an http or https URL`, suggestion }];
  }
  if (url.username !== '' || url.password !== '') {
    return [{ path, message: `${name} has credentials in its URL, which containerd does not send` }];
  }
  if (url.search !== '' || url.hash !== '') {
    return [
      {
        path,
        message: `${name} "${endpoint}" has more than a host and a path`,
        suggestion: `${url.origin}${url.pathname}`,
      },
    ];
  }
  if (isLoopback(url.hostname)) {
    url.hostname = HOST_HOSTNAME;
    const message = `${name} "${endpoint}" means the node itself there, not this machine`;
    return [{ path, message, suggestion: `write ${url.origin}` }];
  }
  return [];
}

/** Whether a URL's host is the machine itself. */
export function isLoopback(hostname: string): boolean {
  return hostname === 'localhost' || hostname.endsWith('.localhost') || hostname === '[::1]' || /^127\./.test(hostname);
}

function getCidr(text: string): Cidr {
  const cidr = parseCidr(text);
  if (cidr === undefined) throw new RangeError(`not an IPv4 subnet: ${text}`);
  return cidr;
}
