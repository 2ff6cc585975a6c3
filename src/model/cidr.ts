/** IPv4 subnets in CIDR notation, as arithmetic on 32-bit numbers. */

export type Cidr = { readonly base: number; readonly prefix: number };

/** Parses `172.30.0.0/24`; undefined when it is not IPv4 CIDR or has host bits set. */
export function parseCidr(text: string): Cidr | undefined {
  const match = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})\/(\d{1,2})$/.exec(text);
  if (match === null) return undefined;
  const [a, b, c, d, prefix] = match.slice(1).map(Number) as [number, number, number, number, number];
  if ([a, b, c, d].some((octet) => octet > 255) || prefix > 32) return undefined;
  const base = ((a << 24) | (b << 16) | (c << 8) | d) >>> 0;
  return base % 2 ** (32 - prefix) === 0 ? { base, prefix } : undefined;
}

export function formatCidr(cidr: Cidr): string {
  return `${formatAddress(cidr.base)}/${String(cidr.prefix)}`;
}

/** The address at `offset` in a subnet: `addressAt(10.96.0.0/16, 10)` is `10.96.0.10`. */
export function addressAt(cidr: Cidr, offset: number): string {
  if (offset < 0 || offset >= 2 ** (32 - cidr.prefix)) {
    throw new RangeError(`no address ${String(offset)} in ${formatCidr(cidr)}`);
  }
  return formatAddress(cidr.base + offset);
}

/** True when the subnets have an address in common. */
export function overlaps(first: Cidr, second: Cidr): boolean {
  const size = 2 ** (32 - Math.min(first.prefix, second.prefix));
  return Math.floor(first.base / size) === Math.floor(second.base / size);
}

/**
 * The first /24 of 172.30.0.0/16 that shares no address with the taken ones, or undefined. This range is the last but
 * one that Docker hands out by itself, so other projects seldom have it.
 */
export function chooseSubnet(taken: readonly string[]): string | undefined {
  const others = taken.map(parseCidr).filter((cidr) => cidr !== undefined);
  for (let third = 0; third < 256; third += 1) {
    const candidate: Cidr = { base: ((172 << 24) | (30 << 16) | (third << 8)) >>> 0, prefix: 24 };
    if (!others.some((other) => other.prefix > 0 && overlaps(candidate, other))) return formatCidr(candidate);
  }
  return undefined;
}

function formatAddress(value: number): string {
  return [24, 16, 8, 0].map((shift) => String((value >>> shift) & 255)).join('.');
}
