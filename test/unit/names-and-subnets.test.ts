import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { loadConfig } from '../../src/config/load.ts';
import { findNearest } from '../../src/config/nearest.ts';
import { findBucketNameProblem } from '../../src/config/rules.ts';
import { addressAt, chooseSubnet, formatCidr, overlaps, parseCidr, type Cidr } from '../../src/model/cidr.ts';
import { clusterNameProblem, containerName, suggestClusterName } from '../../src/model/names.ts';
import { fakeHost } from '../builders/host.ts';

const cidr = fc
  .record({ prefix: fc.integer({ min: 0, max: 32 }), address: fc.nat({ max: 0xffffffff }) })
  .map(({ prefix, address }): Cidr => ({
    prefix,
    base: Math.floor(address / 2 ** (32 - prefix)) * 2 ** (32 - prefix),
  }));

describe('cluster names', () => {
  it('suggested for any text are usable', () => {
    fc.assert(
      fc.property(
        fc.string({ unit: 'grapheme' }),
        (text) => clusterNameProblem(suggestClusterName(text)) === undefined,
      ),
    );
  });

  it('that are usable suggest themselves and make DNS labels', () => {
    fc.assert(
      fc.property(fc.stringMatching(/^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$/), (name) => {
        expect(clusterNameProblem(name)).toBeUndefined();
        expect(suggestClusterName(name)).toBe(name);
        expect(containerName(name, 'control-plane').length).toBeLessThanOrEqual(63);
      }),
    );
  });
});

describe('subnets', () => {
  it('are parsed from what they are written as', () => {
    fc.assert(
      fc.property(cidr, (subnet) => {
        expect(parseCidr(formatCidr(subnet))).toEqual(subnet);
      }),
    );
  });

  it('overlap whatever holds an address of theirs, in both directions', () => {
    fc.assert(
      fc.property(cidr, cidr, (first, second) => {
        const end = ({ base, prefix }: Cidr): number => base + 2 ** (32 - prefix);
        const expected = first.base < end(second) && second.base < end(first);
        expect(overlaps(first, second)).toBe(expected);
        expect(overlaps(second, first)).toBe(expected);
      }),
    );
  });

  it('that are chosen share no address with those taken', () => {
    const taken = fc.array(
      fc.integer({ min: 0, max: 255 }).map((third) => `172.30.${String(third)}.0/24`),
      { maxLength: 255 },
    );
    fc.assert(
      fc.property(taken, (subnets) => {
        const chosen = chooseSubnet(subnets);
        expect(chosen === undefined || !subnets.includes(chosen)).toBe(true);
        if (chosen !== undefined) expect(addressAt(parseCidr(chosen) ?? { base: 0, prefix: 0 }, 2)).toMatch(/\.2$/);
      }),
    );
  });

  it('of a configuration are used or refused, never changed', async () => {
    await fc.assert(
      fc.asyncProperty(cidr.map(formatCidr), async (subnet) => {
        const loaded = await loadConfig(fakeHost(), { podSubnet: subnet });
        if (loaded.kind === 'valid') expect(loaded.spec.network.podSubnet).toBe(subnet);
        else expect(loaded.diagnostics.every(({ file }) => file === '--pod-subnet')).toBe(true);
      }),
      { numRuns: 20 },
    );
  });
});

describe('bucket names', () => {
  it.each(['abc', 'my-bucket', 'my.bucket.2', 'a'.repeat(63), '1.2.3.4.5'])('takes %s', (name) => {
    expect(findBucketNameProblem(name)).toBeUndefined();
  });

  it.each([
    'ab',
    'a'.repeat(64),
    'Abc',
    'a_b',
    '-abc',
    'abc-',
    '.abc',
    'a..b',
    '10.0.0.1',
    'xn--abc',
    'x--ol-s3',
    'ä-umlaut',
  ])('refuses %s', (name) => {
    expect(findBucketNameProblem(name)).toBeDefined();
  });
});

describe('the nearest word', () => {
  const words = ['ports', 'network', 'objectStore', 'caCertificates'];

  it.each([
    ['prots', 'ports'],
    ['port', 'ports'],
    ['object-store', 'objectStore'],
    ['cacertificate', 'caCertificates'],
    ['netwrok', 'network'],
    ['volumes', undefined],
    ['x', undefined],
  ])('of %s is %s', (word, expected) => {
    expect(findNearest(word, words)).toBe(expected);
  });
});
