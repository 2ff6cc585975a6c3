/** `trust`: makes this machine accept what the ingress shows for names below `localhost`, or takes that back. */
import { SandbarError } from '../model/errors.ts';
import { rootName } from '../model/local-authority.ts';
import type { Host } from '../model/ports.ts';
import { findRootCertificate, provideRoot, rootCertificatePath, type RootMeans } from './local-authority.ts';
import {
  addTrust,
  findTrustStores,
  isNamed,
  isTrusted,
  removeTrust,
  type TrustedRoot,
  type TrustStore,
} from './trust-stores.ts';

export type StoreTrust = { readonly kind: TrustStore['kind']; readonly place: string; readonly isTrusted: boolean };

export type TrustResult = {
  /** Path of the root's certificate. */
  readonly certificate: string;
  readonly stores: readonly (StoreTrust & { readonly change: 'added' | 'removed' | 'none' })[];
  /** What has to be done by hand elsewhere. */
  readonly notes: readonly string[];
};

/** Adds the root to every store that lacks it. All that can be done is done before a failure is thrown. */
export async function trust(means: RootMeans): Promise<TrustResult> {
  const { host } = means.ports;
  const root = await provideTrustedRoot(means);
  requireStores(host, root, 'add');
  return changeStores(host, root, async (store) => {
    if (await isTrusted(store, root, host)) return 'none';
    await addTrust(store, root, host);
    return 'added';
  });
}

/** Takes the root out of every store that `trust` has put it into. */
export async function distrust(host: Host): Promise<TrustResult> {
  await requireOwnRoot(host);
  const root = { ...describeRoot(host), certificate: (await findRootCertificate(host)) ?? '' };
  requireStores(host, root, 'remove');
  return changeStores(host, root, async (store) => {
    if (!(await isNamed(store, root, host))) return 'none';
    await removeTrust(store, root, host);
    return 'removed';
  });
}

/** The root's certificate for clients with a list of their own; made where there is none. */
export async function provideTrustedRoot(means: RootMeans): Promise<TrustedRoot> {
  const { host } = means.ports;
  await requireOwnRoot(host);
  const { certificate } = await provideRoot(means, { isDryRun: false });
  return { ...describeRoot(host), certificate };
}

/** Through sudo, where the home directory is root's, there is nothing of the user who called it. */
async function requireOwnRoot(host: Host): Promise<void> {
  const user = host.env['SUDO_USER'];
  if (!host.isRoot || user === undefined || user === 'root' || (await findRootCertificate(host)) !== undefined) return;
  throw new SandbarError('TRUST_FAILED', `through sudo this would be about root's certificates, not those of ${user}`, {
    hint: 'sandbar trust without sudo: it says which command needs root',
  });
}

/** Which stores trust the root, as far as this can be told without asking anybody. */
export async function observeTrust(host: Host): Promise<readonly StoreTrust[]> {
  const [stores, certificate] = await Promise.all([findTrustStores(host), findRootCertificate(host)]);
  if (certificate === undefined) return stores.map(({ kind, place }) => ({ kind, place, isTrusted: false }));
  return Promise.all(stores.map((store) => describe(store, { ...describeRoot(host), certificate }, host)));
}

function describeRoot(host: Host): Omit<TrustedRoot, 'certificate'> {
  return { name: rootName(host.homeDirectory), path: rootCertificatePath(host) };
}

async function describe(store: TrustStore, root: TrustedRoot, host: Host): Promise<StoreTrust> {
  const { kind, place } = store;
  return { kind, place, isTrusted: await isTrusted(store, root, host) };
}

async function changeStores(
  host: Host,
  root: TrustedRoot,
  change: (store: TrustStore) => Promise<'added' | 'removed' | 'none'>,
): Promise<TrustResult> {
  const done: TrustResult['stores'][number][] = [];
  const failures: SandbarError[] = [];
  for (const store of await findTrustStores(host)) {
    try {
      const changed = await change(store);
      done.push({ ...(await describe(store, root, host)), change: changed });
    } catch (error) {
      if (!(error instanceof SandbarError)) throw error;
      failures.push(error);
    }
  }
  const [first, ...others] = distinct(failures);
  if (first === undefined) return { certificate: root.path, stores: done, notes: notesFor(host, root) };
  throw new SandbarError('TRUST_FAILED', first.message, {
    ...(first.hint === undefined ? {} : { hint: first.hint }),
    details: [
      ...others.map(({ message, hint }) => (hint === undefined ? message : `${message}: ${hint}`)),
      ...done.map(({ place, change: changed }) => `${place}: ${changed === 'none' ? 'as it was' : changed}`),
    ],
    cause: first,
  });
}

/** A program that is missing is missing for each database. */
function distinct(failures: readonly SandbarError[]): readonly SandbarError[] {
  return failures.filter(({ message }, index) => failures.findIndex((other) => other.message === message) === index);
}

/** Windows has programs of its own for this, and asks its user. */
function requireStores(host: Host, { name, path }: TrustedRoot, deed: 'add' | 'remove'): void {
  if (host.platform !== 'win32') return;
  throw new SandbarError('TRUST_FAILED', 'sandbar does not change the stores of Windows itself', {
    hint: deed === 'add' ? `certutil -user -addstore Root "${path}"` : `certutil -user -delstore Root "${name}"`,
  });
}

/** Browsers of Windows see the same addresses and know nothing of the stores in here. */
function notesFor(host: Host, { path }: TrustedRoot): readonly string[] {
  const distribution = host.env['WSL_DISTRO_NAME'];
  if (distribution === undefined) return [];
  const windowsPath = `\\\\wsl.localhost\\${distribution}${path.replaceAll('/', '\\')}`;
  return [`for browsers of Windows, in PowerShell: certutil -user -addstore Root "${windowsPath}"`];
}
