/** The root of a user's own authorities: it signs, through an authority of each cluster, what the ingress shows. */
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { endOf, RENEWAL_MS, type KeyPair } from './identity.ts';

/** Organization of every certificate of a user's own authorities, by which they are known. */
export const LOCAL_AUTHORITY = 'Sandbar local authority';

/** Name of a user's root: the same whenever it is made, so that a new one takes the old one's place in every store. */
export function rootName(homeDirectory: string): string {
  const user = homeDirectory.split(/[/\\]/).findLast((part) => part !== '') ?? '';
  return `Sandbar local root of ${user.replace(/[^A-Za-z0-9._-]/g, '-') || 'everybody'}`;
}

/** True for a certificate and key that belong together and hold for a while yet. */
export function isUsableRoot({ certificate, key }: KeyPair, nowMs: number): boolean {
  try {
    const isPair = new X509Certificate(certificate).checkPrivateKey(createPrivateKey(key));
    return isPair && endOf(certificate) > nowMs + RENEWAL_MS;
  } catch {
    // Its only failure is a text that is no certificate, or no key.
    return false;
  }
}

/** True for a certificate of the user's own authorities, whichever cluster or user made it. */
export function isLocalAuthority(certificate: string): boolean {
  return new X509Certificate(certificate).subject.split('\n').includes(`O=${LOCAL_AUTHORITY}`);
}
