/** What the components are computed from: the spec, and what was settled before any resource is named. */
import { addressAt, formatCidr, parseCidr, type Cidr } from '../model/cidr.ts';
import type { Identity, IdentityRequest } from '../model/identity.ts';
import { nodeName, type Component } from '../model/names.ts';
import type { ClusterSpec } from '../model/spec.ts';

/** Host ports, settled: wished for, or the next free ones. */
export type SettledPorts = Readonly<Record<keyof ClusterSpec['ports'], number>>;

/** Images that run as containers; the value is a local reference. */
export type ImageRefs = Readonly<Record<Component | 'registry' | 'mount', string>>;

/** The registry as it is, or is to be made. */
export type SettledRegistry = {
  readonly name: string;
  readonly port: number;
  /** Other networks that it is on → its address there. */
  readonly otherNetworks: Readonly<Record<string, string>>;
};

export type ComponentContext = {
  readonly spec: ClusterSpec;
  readonly identity: Identity;
  /** CIDR of the Docker network. */
  readonly subnet: string;
  readonly ports: SettledPorts;
  readonly registry: SettledRegistry | undefined;
  readonly imageRefs: ImageRefs;
};

/** Offsets in the Docker network's subnet: fixed, so that every component knows the others before they start. */
const OFFSETS = {
  gateway: 1,
  controlPlane: 2,
  agent: 3,
  dns: 4,
  ingress: 5,
  objectStore: 6,
  metrics: 7,
  registry: 8,
} as const;

export type Addresses = Readonly<Record<keyof typeof OFFSETS, string>>;

export function addressesIn(subnet: string): Addresses {
  const cidr = cidrOf(subnet);
  const entries = Object.entries(OFFSETS).map(([name, offset]) => [name, addressAt(cidr, offset)]);
  return Object.fromEntries(entries) as Addresses;
}

/** The upper half of the network's subnet: addresses of Services of type LoadBalancer, which no container gets. */
export function loadBalancerSubnet(subnet: string): string {
  const { base, prefix } = cidrOf(subnet);
  return formatCidr({ base: base + 2 ** (31 - prefix), prefix: prefix + 1 });
}

/** The other half: what the engine may choose from for containers that ask for no address of their own. */
export function containerSubnet(subnet: string): string {
  const { base, prefix } = cidrOf(subnet);
  return formatCidr({ base, prefix: prefix + 1 });
}

/** 10.96.0.10 in the default service subnet, as every Kubernetes installer has it. */
export function dnsServiceAddress(spec: ClusterSpec): string {
  return addressAt(cidrOf(spec.network.serviceSubnet), 10);
}

export function apiServerUrl(context: ComponentContext): string {
  return `https://${addressesIn(context.subnet).controlPlane}:6443`;
}

/** What the identity's certificates must be valid for, given the network. */
export function identityRequest(spec: ClusterSpec, subnet: string, rootCertificate: string): IdentityRequest {
  const addresses = addressesIn(subnet);
  return {
    clusterName: spec.name,
    nodeName: nodeName(spec.name),
    controlPlaneAddress: addresses.controlPlane,
    agentAddress: addresses.agent,
    apiServiceAddress: addressAt(cidrOf(spec.network.serviceSubnet), 1),
    rootCertificate,
  };
}

/** Routes by which a container outside the node reaches Services and pods. */
export function clusterRoutes(context: ComponentContext): readonly { destination: string; via: string }[] {
  const via = addressesIn(context.subnet).agent;
  const { serviceSubnet, podSubnet } = context.spec.network;
  return [serviceSubnet, podSubnet].map((destination) => ({ destination, via }));
}

function cidrOf(text: string): Cidr {
  const cidr = parseCidr(text);
  if (cidr === undefined) throw new RangeError(`not an IPv4 subnet: ${text}`);
  return cidr;
}
