/** Where programs of this machine look for roots that they trust: finds these stores, and changes them. */
import { X509Certificate } from 'node:crypto';
import { join } from 'node:path';
import { SandbarError } from '../model/errors.ts';
import type { Host } from '../model/ports.ts';

/** A user's root as stores know it. */
export type TrustedRoot = { readonly name: string; readonly path: string; readonly certificate: string };

export type TrustStore =
  /** A file in a folder of the system's, of which a program makes the bundles that programs read. Needs root. */
  | ({ readonly kind: 'system' } & SystemStore)
  /** A database of Chromium's or of a Firefox profile. */
  | { readonly kind: 'browser'; readonly place: string }
  | { readonly kind: 'keychain'; readonly place: string };

type SystemStore = {
  /** The folder. */
  readonly place: string;
  readonly bundle: string;
  readonly added: readonly [string, ...string[]];
  readonly removed: readonly [string, ...string[]];
};

/** Fedora, Debian, Arch, SUSE. */
const SYSTEM_STORES: readonly SystemStore[] = [
  {
    place: '/etc/pki/ca-trust/source/anchors',
    bundle: '/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem',
    added: ['update-ca-trust', 'extract'],
    removed: ['update-ca-trust', 'extract'],
  },
  {
    place: '/usr/local/share/ca-certificates',
    bundle: '/etc/ssl/certs/ca-certificates.crt',
    added: ['update-ca-certificates'],
    removed: ['update-ca-certificates', '--fresh'],
  },
  {
    place: '/etc/ca-certificates/trust-source/anchors',
    bundle: '/etc/ssl/certs/ca-certificates.crt',
    added: ['trust', 'extract-compat'],
    removed: ['trust', 'extract-compat'],
  },
  {
    place: '/etc/pki/trust/anchors',
    bundle: '/etc/ssl/ca-bundle.pem',
    added: ['update-ca-certificates'],
    removed: ['update-ca-certificates'],
  },
];

/** Below the home directory: databases of Chromium and its kin, and folders of Firefox profiles, each with its own. */
const BROWSER_DATABASES = [
  '.pki/nssdb',
  '.local/share/pki/nssdb',
  'snap/chromium/current/.pki/nssdb',
  '.var/app/org.chromium.Chromium/.pki/nssdb',
];
const FIREFOX_PROFILES = [
  '.mozilla/firefox',
  '.config/mozilla/firefox',
  'snap/firefox/common/.mozilla/firefox',
  '.var/app/org.mozilla.firefox/.mozilla/firefox',
];

/** Stores of this machine and this user. */
export async function findTrustStores(host: Host): Promise<readonly TrustStore[]> {
  const { platform, homeDirectory } = host;
  if (platform === 'darwin') {
    return [{ kind: 'keychain', place: join(homeDirectory, 'Library/Keychains/login.keychain-db') }];
  }
  if (platform !== 'linux') return [];
  const system = await firstThere(SYSTEM_STORES, ({ place }) => host.findFileType(place));
  const profiles = await Promise.all(
    FIREFOX_PROFILES.map(async (folder) => {
      const directory = join(homeDirectory, folder);
      const entries = (await host.listDirectory(directory)) ?? [];
      return entries.filter(({ isDirectory }) => isDirectory).map(({ name }) => join(directory, name));
    }),
  );
  const candidates = [...BROWSER_DATABASES.map((place) => join(homeDirectory, place)), ...profiles.flat()];
  const isThere = await Promise.all(candidates.map((place) => host.hasFile(join(place, 'cert9.db'))));
  return [
    ...(system === undefined ? [] : [{ kind: 'system' as const, ...system }]),
    ...candidates.filter((_, index) => isThere[index]).map((place) => ({ kind: 'browser' as const, place })),
  ];
}

/** Whether a store holds this very root; false also where that cannot be told. */
export async function isTrusted(store: TrustStore, root: TrustedRoot, host: Host): Promise<boolean> {
  if (root.certificate === '') return false;
  const held = await readHeld(store, root, host);
  return withoutSpace(held).includes(withoutSpace(root.certificate));
}

/** Whether a store holds something that was added under the root's name. */
export async function isNamed(store: TrustStore, root: TrustedRoot, host: Host): Promise<boolean> {
  if (store.kind === 'system') {
    // Without the file it is still trusted where the bundles were not made anew: a removal was interrupted there.
    return (await host.hasFile(anchorPath(store, root))) || isTrusted(store, root, host);
  }
  return (await readHeld(store, root, host)) !== '';
}

/** Adds a root, in place of an earlier one of its name. */
export async function addTrust(store: TrustStore, root: TrustedRoot, host: Host): Promise<void> {
  switch (store.kind) {
    case 'system': {
      const anchor = anchorPath(store, root);
      requireRoot(host, store, `install -m 644 ${quoted(root.path)} ${quoted(anchor)}`, store.added);
      await host.writeFileAtomically(anchor, root.certificate, 0o644);
      await must(host, store.added);
      break;
    }
    case 'browser':
      if (await isNamed(store, root, host)) await removeTrust(store, root, host);
      await must(host, ['certutil', '-A', '-d', `sql:${store.place}`, '-t', 'C,,', '-n', root.name, '-i', root.path]);
      break;
    case 'keychain':
      if (await isNamed(store, root, host)) await removeTrust(store, root, host);
      await must(host, ['security', 'add-trusted-cert', '-r', 'trustRoot', '-p', 'ssl', '-k', store.place, root.path]);
      break;
  }
}

/** Removes what was added under the root's name. */
export async function removeTrust(store: TrustStore, root: TrustedRoot, host: Host): Promise<void> {
  switch (store.kind) {
    case 'system': {
      const anchor = anchorPath(store, root);
      requireRoot(host, store, `rm -f ${quoted(anchor)}`, store.removed);
      await host.removeFile(anchor);
      await must(host, store.removed);
      break;
    }
    case 'browser':
      await must(host, ['certutil', '-D', '-d', `sql:${store.place}`, '-n', root.name]);
      break;
    case 'keychain':
      // By their hashes: a name that several have, it refuses.
      for (const held of certificatesIn(await readHeld(store, root, host))) {
        const hash = new X509Certificate(held).fingerprint.replaceAll(':', '');
        await must(host, ['security', 'delete-certificate', '-Z', hash, '-t', store.place]);
      }
      break;
  }
}

async function readHeld(store: TrustStore, root: TrustedRoot, host: Host): Promise<string> {
  switch (store.kind) {
    case 'system':
      return (await host.readFile(store.bundle)) ?? '';
    case 'browser':
      return outputOf(host, ['certutil', '-L', '-d', `sql:${store.place}`, '-n', root.name, '-a']);
    case 'keychain': {
      const found = await outputOf(host, ['security', 'find-certificate', '-a', '-c', root.name, '-p', store.place]);
      // It finds names that only contain this one too.
      return certificatesIn(found).filter(isNamedSo(root)).join('\n');
    }
  }
}

function certificatesIn(text: string): readonly string[] {
  return text.match(/-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----/g) ?? [];
}

function isNamedSo({ name }: TrustedRoot): (certificate: string) => boolean {
  return (certificate) => new X509Certificate(certificate).subject.split('\n').includes(`CN=${name}`);
}

/** Empty where the program fails, as it does for a certificate that it does not have. */
async function outputOf(host: Host, [file, ...args]: readonly [string, ...string[]]): Promise<string> {
  const result = await host.run(file, args);
  return result?.exitCode === 0 ? result.stdout : '';
}

async function must(host: Host, [file, ...args]: readonly [string, ...string[]]): Promise<void> {
  const result = await host.run(file, args);
  if (result === undefined) {
    const hint = PACKAGES[file] ?? `install ${file}`;
    throw new SandbarError('TRUST_FAILED', `${file} is not installed, which changes ${describeTool(file)}`, { hint });
  }
  if (result.exitCode === 0) return;
  const said = `${result.stderr}\n${result.stdout}`.trim().split('\n')[0] ?? '';
  throw new SandbarError('TRUST_FAILED', `${[file, ...args].map(quoted).join(' ')} failed: ${said}`, {
    hint: 'run it by hand to see all that it says',
  });
}

const PACKAGES: Readonly<Record<string, string>> = {
  certutil: 'apt install libnss3-tools, dnf install nss-tools, pacman -S nss or zypper install mozilla-nss-tools',
  'update-ca-certificates': 'install the package ca-certificates',
};

function describeTool(file: string): string {
  return file === 'certutil' ? "browsers' databases of certificates" : "the system's store of certificates";
}

function requireRoot(host: Host, store: TrustStore, deed: string, update: readonly string[]): void {
  if (host.isRoot) return;
  throw new SandbarError('TRUST_FAILED', `only root may change ${store.place}`, {
    hint: `sudo ${deed} && sudo ${update.join(' ')}`,
  });
}

function anchorPath({ place }: SystemStore, { name }: TrustedRoot): string {
  return join(place, `${name.toLowerCase().replace(/[^a-z0-9._-]+/g, '-')}.crt`);
}

async function firstThere<T>(candidates: readonly T[], find: (item: T) => Promise<unknown>): Promise<T | undefined> {
  for (const candidate of candidates) if ((await find(candidate)) !== undefined) return candidate;
  return undefined;
}

/** As a shell takes it for one word. */
function quoted(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}

function withoutSpace(text: string): string {
  return text.replace(/\s/g, '');
}
