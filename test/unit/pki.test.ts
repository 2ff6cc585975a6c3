import { X509Certificate } from 'node:crypto';
import { expect, it } from 'vitest';
import { mintIdentity } from '../../src/adapters/pki.ts';
import { identityRequest } from '../../src/components/context.ts';
import { SPEC, SUBNET } from '../builders/cluster.ts';

const HOUR_MS = 60 * 60 * 1000;

// A battery that is empty, a second system that takes the clock for local time: either way by hours.
it.each([-14, 14])('makes certificates that hold when the clock jumps by %d hours', async (hours) => {
  const { ca, frontProxyCa, certificates } = await mintIdentity(identityRequest(SPEC, SUBNET));
  const then = Date.now() + hours * HOUR_MS;
  const invalid = Object.entries({ ca, frontProxyCa, ...certificates }).filter(([, { certificate }]) => {
    const { validFrom, validTo } = new X509Certificate(certificate);
    return Date.parse(validFrom) > then || Date.parse(validTo) < then;
  });
  expect(invalid.map(([name]) => name)).toEqual([]);
});
