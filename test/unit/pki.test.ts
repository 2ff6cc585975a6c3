import { createPrivateKey, X509Certificate } from 'node:crypto';
import { expect, it } from 'vitest';
import { mintIdentity, mintRoot } from '../../src/adapters/pki.ts';
import { isIdentityFor, parseIdentity } from '../../src/model/identity.ts';
import { isLocalAuthority, isUsableRoot, rootName } from '../../src/model/local-authority.ts';
import { fakeIdentity } from '../builders/cluster.ts';

const HOUR_MS = 60 * 60 * 1000;
const { request } = fakeIdentity();

// A battery that is empty, a second system that takes the clock for local time: either way by hours.
it.each([-14, 14])('makes certificates that hold when the clock jumps by %d hours', async (hours) => {
  const root = await mintRoot('test');
  const { ca, frontProxyCa, ingressAuthority, certificates } = await mintIdentity(request, root);
  const then = Date.now() + hours * HOUR_MS;
  const invalid = Object.entries({ root, ca, frontProxyCa, ingressAuthority, ...certificates }).filter(
    ([, { certificate }]) => {
      const { validFrom, validTo } = new X509Certificate(certificate);
      return Date.parse(validFrom) > then || Date.parse(validTo) < then;
    },
  );
  expect(invalid.map(([name]) => name)).toEqual([]);
});

it("signs each cluster's authority by the root, whose key stays outside of the identity", async () => {
  const root = await mintRoot(rootName('/home/ada'));
  const identity = await mintIdentity(request, root);
  const [signer, signed] = [root, identity.ingressAuthority].map(({ certificate }) => new X509Certificate(certificate));
  expect(signed!.checkIssued(signer!) && signed!.verify(signer!.publicKey)).toBe(true);
  expect(signed!.ca).toBe(true);
  expect(Date.parse(signed!.validTo)).toBeLessThanOrEqual(Date.parse(signer!.validTo));
  expect(signed!.checkPrivateKey(createPrivateKey(identity.ingressAuthority.key))).toBe(true);
  expect(JSON.stringify(identity)).not.toContain(root.key.split('\n')[1]);
});

it('knows the certificates of local authorities, and which root can be used', async () => {
  const [root, other] = await Promise.all([mintRoot('one'), mintRoot('other')]);
  const identity = await mintIdentity(request, root);
  const { ca, ingressAuthority } = identity;
  expect([root, ingressAuthority, ca].map(({ certificate }) => isLocalAuthority(certificate))).toEqual([
    true,
    true,
    false,
  ]);
  const endMs = Date.parse(new X509Certificate(root.certificate).validTo);
  expect(isUsableRoot(root, Date.now())).toBe(true);
  expect(isUsableRoot(root, endMs - 31 * 24 * HOUR_MS)).toBe(true);
  expect(isUsableRoot(root, endMs - 29 * 24 * HOUR_MS)).toBe(false);
  expect(isUsableRoot({ ...root, key: other.key }, Date.now())).toBe(false);
  expect(isUsableRoot({ ...root, key: '' }, Date.now())).toBe(false);
});

it('names a root after its user', () => {
  expect(rootName('/home/ada/')).toBe('Sandbar local root of ada');
  expect(rootName('C:\\Users\\Ada L')).toBe('Sandbar local root of Ada-L');
  expect(rootName('/')).toBe('Sandbar local root of everybody');
});

it('takes an identity that lacks the certificate of a newer component for one to be completed, not for none', () => {
  const whole = fakeIdentity();
  const certificates = Object.entries(whole.certificates).filter(([name]) => name !== 'metrics');
  const older = parseIdentity(JSON.stringify({ ...whole, certificates: Object.fromEntries(certificates) }));
  expect(older?.ca).toEqual(whole.ca);
  expect([whole, older!].map((identity) => isIdentityFor(identity, whole.request))).toEqual([true, false]);
});
