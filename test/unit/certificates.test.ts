import { X509Certificate } from 'node:crypto';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { mintIdentity, mintRoot } from '../../src/adapters/pki.ts';
import { IDENTITY_PATH, parseIdentity, type Identity, type KeyPair } from '../../src/model/identity.ts';
import { fakeIdentity } from '../builders/cluster.ts';
import { Machine } from '../builders/machine.ts';

const DAY_MS = 24 * 60 * 60 * 1000;
const VALID_MS = 3650 * DAY_MS;
const { request } = fakeIdentity();
let root: KeyPair;

/** An identity whose new certificates end so many days from now. */
async function mintEndingIn(
  days: number,
  { ca, frontProxyCa, serviceAccount, objectStore }: Partial<Identity> = {},
): Promise<Identity> {
  const kept = Object.entries({ ca, frontProxyCa, serviceAccount, objectStore }).filter(
    ([, part]) => part !== undefined,
  );
  const now = Date.now();
  vi.setSystemTime(now + days * DAY_MS - VALID_MS);
  try {
    return await mintIdentity({ ...request, rootCertificate: root.certificate }, root, Object.fromEntries(kept));
  } finally {
    vi.setSystemTime(now);
  }
}

describe('certificates near their end', () => {
  let machine: Machine;

  beforeEach(async () => {
    machine = new Machine();
    vi.useFakeTimers({ toFake: ['Date'], now: machine.clock.now() });
    root = await mintRoot('test');
    machine.mintRoot = () => Promise.resolve(root);
    machine.mint = mintIdentity;
    await machine.up();
    machine.events.length = 0;
  });

  afterEach(() => {
    vi.useRealTimers();
  });

  const read = async (): Promise<Identity> => {
    const text = await machine.runtime.readFile('sandbar-dev-control-plane', IDENTITY_PATH);
    return parseIdentity(text ?? '')!;
  };
  const put = (identity: Identity): Promise<void> =>
    machine.runtime.writeFile('sandbar-dev-control-plane', {
      path: IDENTITY_PATH,
      mode: 0o600,
      content: JSON.stringify(identity),
    });
  const notices = (): readonly string[] =>
    machine.events.flatMap((event) => (event.type === 'notice' ? [event.text] : []));
  const daysLeft = (certificate: string): number =>
    Math.round((Date.parse(new X509Certificate(certificate).validTo) - Date.now()) / DAY_MS);

  it.each([-400, -1, 29])('are renewed when %d days are left, and the rest of the identity stays', async (days) => {
    const before = await read();
    await put(await mintEndingIn(days, before));
    const planned = await machine.planned();
    expect(planned).toContain('/etc/sandbar/pki/apiserver.crt,');
    expect(planned).not.toContain('volume/');
    const after = await read();
    expect(Object.values(after.certificates).map(({ certificate }) => daysLeft(certificate))).toEqual(
      Object.values(after.certificates).map(() => 3650),
    );
    const { ca, frontProxyCa, serviceAccount, objectStore } = before;
    expect(after).toMatchObject({ ca, frontProxyCa, serviceAccount, objectStore });
    const day = new Date(Date.now() + days * DAY_MS).toISOString().slice(0, 10);
    expect(notices()).toEqual([`certificates that end on ${day} are renewed; data, tokens and credentials stay valid`]);
    expect(await machine.planned()).toBe('');
  });

  it('are left alone as long as they hold', async () => {
    const made = machine.identitiesMade;
    await put(await mintEndingIn(31, await read()));
    await machine.up();
    expect(machine.identitiesMade).toBe(made);
    expect(notices()).toEqual([]);
  });

  it('take a new authority where that ends too, and the key of the tokens stays', async () => {
    const before = await read();
    const { serviceAccount, objectStore } = before;
    await put(await mintEndingIn(-1, { serviceAccount, objectStore }));
    expect(await machine.planned()).toContain('/etc/sandbar/pki/ca.crt,');
    const after = await read();
    expect(daysLeft(after.ca.certificate)).toBe(3650);
    expect(after).toMatchObject({ serviceAccount, objectStore });
    const issued = new X509Certificate(after.certificates.admin.certificate);
    expect(issued.verify(new X509Certificate(after.ca.certificate).publicKey)).toBe(true);
    expect(notices()).toEqual([expect.stringContaining('an authority among them') as string]);
    expect(await machine.planned()).toBe('');
  });

  it("stay where another user's root signs for the ingress", async () => {
    const before = await read();
    root = await mintRoot('another');
    await machine.host.removeFile('/data/ada/sandbar/root-ca.key');
    // The control plane gives pods the root.
    expect((await machine.planned()).match(/create container\/\S+ \([^)]*\)/g)).toEqual([
      'create container/control-plane (/etc/sandbar/pki/root-ca.crt changed)',
      'create container/ingress (/etc/sandbar/authority.crt, /etc/sandbar/authority.key changed)',
    ]);
    const { certificates, ca, request: asked } = await read();
    expect({ certificates, ca }).toEqual({ certificates: before.certificates, ca: before.ca });
    expect(asked.rootCertificate).toBe(root.certificate);
    expect(await machine.planned()).toBe('');
  });

  it('are made anew with an identity that was made before there were roots', async () => {
    const before = await read();
    const request = Object.fromEntries(Object.entries(before.request).filter(([key]) => key !== 'rootCertificate'));
    await put({ ...before, request } as unknown as Identity);
    await machine.up();
    expect(await machine.planned()).toBe('');
  });

  it('need no root of the user where there is no ingress, and get one with it', async () => {
    machine = new Machine();
    machine.mint = mintIdentity;
    machine.mintRoot = () => Promise.reject(new Error('the home directory is read-only'));
    await machine.up({ spec: { ingress: { isEnabled: false }, gatewayApi: { isEnabled: false } } });
    expect((await read()).request.rootCertificate).toBe('');
    machine.mintRoot = () => Promise.resolve(root);
    await machine.up();
    const signer = new X509Certificate(root.certificate);
    expect(new X509Certificate((await read()).ingressAuthority.certificate).verify(signer.publicKey)).toBe(true);
  });

  it('are foreseen by a dry run, which renews nothing', async () => {
    const ending = await mintEndingIn(3, await read());
    await put(ending);
    expect(await machine.planned({ isDryRun: true })).toContain('create container/agent');
    expect(notices()).toEqual([expect.stringContaining('are renewed') as string]);
    expect(await read()).toEqual(ending);
  });
});
