/** The root of this user's own authorities, made when it is first needed and kept in the user's data directory. */
import { join } from 'node:path';
import type { Emit } from '../model/events.ts';
import type { KeyPair } from '../model/identity.ts';
import { isUsableRoot, rootName } from '../model/local-authority.ts';
import type { Clock, Host } from '../model/ports.ts';

export type MintRoot = (name: string) => Promise<KeyPair>;

export type RootMeans = {
  readonly ports: { readonly host: Host; readonly clock: Clock };
  readonly emit: Emit;
  readonly mintRoot: MintRoot;
};

/** Path of the root's certificate, for clients with a list of their own. */
export function rootCertificatePath({ dataDirectory }: Pick<Host, 'dataDirectory'>): string {
  return join(dataDirectory, 'root-ca.crt');
}

/** The root; made anew where there is none, or where it ends soon. A dry run keeps none that it makes. */
export async function provideRoot(
  { ports: { host, clock }, emit, mintRoot }: RootMeans,
  { isDryRun }: { readonly isDryRun: boolean },
): Promise<KeyPair> {
  const kept = await readRoot(host);
  if (isUsable(kept, clock)) return kept;
  if (isDryRun) return mintRoot(rootName(host.homeDirectory));
  // Two clusters that are made at once have one root.
  return host.withLock('local-authority', { onWait: () => undefined }, async () => {
    const current = await readRoot(host);
    if (isUsable(current, clock)) return current;
    const made = await mintRoot(rootName(host.homeDirectory));
    // The key first: what is there halfway does not fit together, and is made anew.
    await host.writeFileAtomically(keyPath(host), made.key, 0o600);
    await host.writeFileAtomically(rootCertificatePath(host), made.certificate, 0o644);
    if (current.certificate !== '') {
      const text = 'the root of your local certificates is renewed: sandbar trust makes this machine accept it again';
      emit({ type: 'notice', text });
    }
    return made;
  });
}

/** The root's certificate, if there is a root. */
export async function findRootCertificate(host: Host): Promise<string | undefined> {
  return host.readFile(rootCertificatePath(host));
}

function isUsable(root: KeyPair, clock: Clock): boolean {
  return isUsableRoot(root, clock.now());
}

async function readRoot(host: Host): Promise<KeyPair> {
  const [certificate = '', key = ''] = await Promise.all([
    host.readFile(rootCertificatePath(host)),
    host.readFile(keyPath(host)),
  ]);
  return { certificate, key };
}

function keyPath({ dataDirectory }: Host): string {
  return join(dataDirectory, 'root-ca.key');
}
