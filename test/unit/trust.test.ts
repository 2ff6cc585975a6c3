import { X509Certificate } from 'node:crypto';
import { beforeEach, describe, expect, it } from 'vitest';
import { mintRoot } from '../../src/adapters/pki.ts';
import type { SandbarError } from '../../src/model/errors.ts';
import type { KeyPair } from '../../src/model/identity.ts';
import type { ExecResult, Host } from '../../src/model/ports.ts';
import { findEnvironmentCertificates } from '../../src/config/certificates.ts';
import { provideRoot, rootCertificatePath, type RootMeans } from '../../src/operations/local-authority.ts';
import { distrust, observeTrust, provideTrustedRoot, trust } from '../../src/operations/trust.ts';
import { fakeHost } from '../builders/host.ts';
import { FakeClock } from '../fakes/fake-clock.ts';
import type { FakeHost } from '../fakes/fake-host.ts';

const ANCHOR = '/usr/local/share/ca-certificates/sandbar-local-root-of-ada.crt';
const BUNDLE = '/etc/ssl/certs/ca-certificates.crt';
const DATABASE = '/home/ada/.pki/nssdb';
const DAY_MS = 24 * 60 * 60 * 1000;

const done: ExecResult = { exitCode: 0, stdout: '', stderr: '' };
const failed: ExecResult = { exitCode: 255, stdout: '', stderr: 'certutil: could not find it' };

let pair: KeyPair;
let host: FakeHost;
let clock: FakeClock;
let minted: number;
let notices: string[];

/** A Debian with a browser's database, and the programs that change both. */
function debian(overrides: Partial<Host> = {}): FakeHost {
  const machine = fakeHost(
    { [BUNDLE]: 'public roots\n', [`${DATABASE}/cert9.db`]: '', '/usr/local/share/ca-certificates/mine.crt': 'mine\n' },
    { isRoot: true, ...overrides },
  );
  const database = new Map<string, string>();
  machine.programs.set('update-ca-certificates', () => {
    const content = `public roots\n${machine.files.get(ANCHOR)?.content ?? ''}`;
    machine.files.set(BUNDLE, { content, mode: 0o644, ageMs: 0 });
    return done;
  });
  machine.programs.set('certutil', (args) => {
    const after = (flag: string): string => args[args.indexOf(flag) + 1] ?? '';
    const name = after('-n');
    switch (args[0]) {
      case '-A':
        database.set(name, machine.files.get(after('-i'))?.content ?? '');
        return done;
      case '-D':
        return database.delete(name) ? done : failed;
      default:
        return database.has(name) ? { ...done, stdout: database.get(name) ?? '' } : failed;
    }
  });
  return machine;
}

const means = (): RootMeans => ({
  ports: { host, clock },
  emit: (event) => {
    if (event.type === 'notice') notices.push(event.text);
  },
  mintRoot: (name) => {
    minted += 1;
    return mintRoot(name);
  },
});
const failureOf = async (work: Promise<unknown>): Promise<SandbarError> =>
  work.then(
    () => {
      throw new Error('it did not fail');
    },
    (error: unknown) => error as SandbarError,
  );
const changes = async (work: Promise<Awaited<ReturnType<typeof trust>>>): Promise<readonly string[]> =>
  (await work).stores.map(({ kind, isTrusted, change }) => `${kind} ${String(isTrusted)} ${change}`);

beforeEach(() => {
  host = debian();
  clock = new FakeClock();
  minted = 0;
  notices = [];
});

describe('the root', () => {
  it('is made once, its key for its user alone, by however many at once', async () => {
    const [one, other] = await Promise.all([1, 2].map(() => provideRoot(means(), { isDryRun: false })));
    pair = await provideRoot(means(), { isDryRun: false });
    expect([one, other]).toEqual([pair, pair]);
    expect(minted).toBe(1);
    expect(host.files.get('/data/ada/sandbar/root-ca.key')).toMatchObject({ content: pair.key, mode: 0o600 });
    expect(notices).toEqual([]);
  });

  it('is not kept by a dry run', async () => {
    await provideRoot(means(), { isDryRun: true });
    expect(await host.readFile(rootCertificatePath(host))).toBeUndefined();
  });

  it('is made anew before it ends, and where only half of it is there', async () => {
    pair = await provideRoot(means(), { isDryRun: false });
    const endMs = Date.parse(new X509Certificate(pair.certificate).validTo);
    await clock.advance(endMs - clock.now() - 31 * DAY_MS);
    expect(await provideRoot(means(), { isDryRun: true })).toEqual(pair);
    await clock.advance(2 * DAY_MS);
    expect((await provideRoot(means(), { isDryRun: true })).certificate).not.toBe(pair.certificate);
    clock = new FakeClock();
    await host.removeFile('/data/ada/sandbar/root-ca.key');
    expect((await provideRoot(means(), { isDryRun: false })).certificate).not.toBe(pair.certificate);
    expect(notices).toEqual([expect.stringContaining('sandbar trust')]);
  });
});

describe('trust', () => {
  it('adds the root to every store once, and takes it out again', async () => {
    expect(await changes(trust(means()))).toEqual(['system true added', 'browser true added']);
    expect(await changes(trust(means()))).toEqual(['system true none', 'browser true none']);
    expect(await observeTrust(host)).toMatchObject([{ isTrusted: true }, { isTrusted: true }]);
    expect(await changes(distrust(host))).toEqual(['system false removed', 'browser false removed']);
    expect(await changes(distrust(host))).toEqual(['system false none', 'browser false none']);
    expect(host.files.get(BUNDLE)?.content).toBe('public roots\n');
    expect(host.files.get('/usr/local/share/ca-certificates/mine.crt')?.content).toBe('mine\n');
  });

  it('puts a new root in the place of an old one', async () => {
    await trust(means());
    await host.removeFile('/data/ada/sandbar/root-ca.key');
    expect(await changes(trust(means()))).toEqual(['system true added', 'browser true added']);
    expect(host.files.get(BUNDLE)?.content.match(/BEGIN/g)).toHaveLength(1);
  });

  it('does what it can without root, and says the command for the rest', async () => {
    host = debian({ isRoot: false });
    const error = await failureOf(trust(means()));
    expect(error).toMatchObject({
      code: 'TRUST_FAILED',
      exitCode: 3,
      hint: `sudo install -m 644 /data/ada/sandbar/root-ca.crt ${ANCHOR} && sudo update-ca-certificates`,
      details: [`${DATABASE}: added`],
    });
    host.files.set(ANCHOR, { content: '', mode: 0o644, ageMs: 0 });
    expect((await failureOf(distrust(host))).hint).toBe(`sudo rm -f ${ANCHOR} && sudo update-ca-certificates --fresh`);
  });

  it('says what to install where databases of browsers cannot be changed', async () => {
    host.programs.delete('certutil');
    const error = await failureOf(trust(means()));
    expect(error.message).toContain('certutil is not installed');
    expect(error.hint).toContain('apt install libnss3-tools');
    expect(await observeTrust(host)).toMatchObject([{ isTrusted: true }, { isTrusted: false }]);
  });

  it('tells what a program that failed has said', async () => {
    host.programs.set('update-ca-certificates', () => ({ ...done, exitCode: 1, stderr: 'no space left\n' }));
    expect((await failureOf(trust(means()))).message).toBe('update-ca-certificates failed: no space left');
  });

  it('finds the profiles of Firefox, each with its database', async () => {
    host.files.set('/home/ada/.mozilla/firefox/x.default/cert9.db', { content: '', mode: 0o600, ageMs: 0 });
    host.files.set('/home/ada/.mozilla/firefox/Crash Reports/report', { content: '', mode: 0o600, ageMs: 0 });
    const places = (await observeTrust(host)).map(({ place }) => place);
    expect(places).toEqual(['/usr/local/share/ca-certificates', DATABASE, '/home/ada/.mozilla/firefox/x.default']);
  });

  it('is taken back to its end after an interruption in the middle', async () => {
    await trust(means());
    await host.removeFile(ANCHOR);
    expect(await changes(distrust(host))).toEqual(['system false removed', 'browser false removed']);
    expect(host.files.get(BUNDLE)?.content).toBe('public roots\n');
  });

  it("uses the login keychain on macOS, where a new root takes the old one's place", async () => {
    host = fakeHost({}, { platform: 'darwin' });
    const { certificate: neighbour } = await mintRoot('Sandbar local root of adam');
    let keychain: readonly string[] = [neighbour];
    const hashOf = (held: string): string => new X509Certificate(held).fingerprint.replaceAll(':', '');
    host.programs.set('security', (args) => {
      const last = args.at(-1) ?? '';
      if (args[0] === 'find-certificate') return { ...done, stdout: keychain.join('') };
      if (args[0] === 'add-trusted-cert') keychain = [...keychain, host.files.get(last)?.content ?? ''];
      else keychain = keychain.filter((held) => hashOf(held) !== args[args.indexOf('-Z') + 1]);
      return done;
    });
    expect(await changes(trust(means()))).toEqual(['keychain true added']);
    await host.removeFile('/data/ada/sandbar/root-ca.key');
    expect(await changes(trust(means()))).toEqual(['keychain true added']);
    expect(keychain).toEqual([neighbour, await host.readFile(rootCertificatePath(host))]);
    expect(await changes(distrust(host))).toEqual(['keychain false removed']);
    expect(keychain).toEqual([neighbour]);
  });

  it('is an instruction on Windows, and for its browsers beside a Linux in it', async () => {
    host = fakeHost({}, { platform: 'win32' });
    expect((await failureOf(trust(means()))).hint).toBe(
      'certutil -user -addstore Root "/data/ada/sandbar/root-ca.crt"',
    );
    host = debian();
    host.env['WSL_DISTRO_NAME'] = 'Debian';
    expect((await trust(means())).notes).toEqual([
      'for browsers of Windows, in PowerShell: certutil -user -addstore Root "\\\\wsl.localhost\\Debian\\data\\ada\\sandbar\\root-ca.crt"',
    ]);
  });

  it('refuses to be about another user than the one who called sudo', async () => {
    host.env['SUDO_USER'] = 'ada';
    for (const deed of [() => provideTrustedRoot(means()), () => distrust(host)]) {
      expect((await failureOf(deed())).hint).toContain('without sudo');
    }
    expect(minted).toBe(0);
  });

  it('is no reason to give the node another certificate', async () => {
    await trust(means());
    host.env['SSL_CERT_FILE'] = BUNDLE;
    host.env['NODE_EXTRA_CA_CERTS'] = rootCertificatePath(host);
    expect(await findEnvironmentCertificates(host)).toEqual({ files: [], warnings: [] });
  });
});
