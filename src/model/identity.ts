/**
 * A cluster's identity: its certificates, keys and object-store credentials, made once before anything starts and
 * kept in the volume `pki`. Nothing of it is ever in labels, arguments or environment variables.
 */

import { X509Certificate } from 'node:crypto';

/** PEM texts; the key is PKCS #8. */
export type KeyPair = { readonly certificate: string; readonly key: string };

export const CERTIFICATES = [
  'apiserver',
  'apiserver-kubelet-client',
  'front-proxy-client',
  'kubelet-serving',
  'kubelet',
  'kube-proxy',
  'volume-provisioner',
  'dns',
  'ingress',
  'ingress-serving',
  'metrics',
  'metrics-serving',
  'admin',
] as const;
export type CertificateName = (typeof CERTIFICATES)[number];

/** What the certificates must be valid for. */
export type IdentityRequest = {
  readonly clusterName: string;
  readonly nodeName: string;
  readonly controlPlaneAddress: string;
  readonly agentAddress: string;
  /** First address of the service subnet, where pods reach the API server. */
  readonly apiServiceAddress: string;
  /** The user's own root (PEM), by which the ingress' certificates are signed; empty where there is no ingress. */
  readonly rootCertificate: string;
};

export type Identity = {
  readonly version: 1;
  readonly request: IdentityRequest;
  readonly ca: KeyPair;
  readonly frontProxyCa: KeyPair;
  /** Signs what the ingress shows for names below `localhost`; is signed by the root of the request, empty without one. */
  readonly ingressAuthority: KeyPair;
  readonly serviceAccount: { readonly privateKey: string; readonly publicKey: string };
  readonly certificates: Readonly<Record<CertificateName, KeyPair>>;
  readonly objectStore: { readonly accessKeyId: string; readonly secretAccessKey: string };
  /** Base64 of 32 bytes: seals Secrets in the datastore, where that is asked for. */
  readonly encryptionKey: string;
};

/** Path of the identity in the control plane's container. */
export const IDENTITY_PATH = '/etc/sandbar/identity.json';

/**
 * Reads what `identity.json` holds; undefined when it is not a whole identity of this version. One that an older Sandbar
 * made may lack certificates of components that came later: it is no identity for any request, and `up` adds them.
 */
export function parseIdentity(text: string): Identity | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  const identity = value as Partial<Identity> | null;
  const isWhole =
    identity?.version === 1 &&
    identity.request !== undefined &&
    identity.ca !== undefined &&
    identity.frontProxyCa !== undefined &&
    identity.serviceAccount !== undefined &&
    identity.objectStore !== undefined &&
    identity.certificates?.admin !== undefined;
  // One that was made before there were roots names none in its request, so that it is made anew around what is kept.
  return isWhole ? ({ ingressAuthority: { certificate: '', key: '' }, ...identity } as Identity) : undefined;
}

/** True when an identity has every certificate, and they hold for these addresses and names. */
export function isIdentityFor(identity: Identity, request: IdentityRequest): boolean {
  const certificates: Partial<Identity['certificates']> = identity.certificates;
  const parts: Partial<Identity> = identity;
  return (
    parts.encryptionKey !== undefined &&
    CERTIFICATES.every((name) => certificates[name] !== undefined) &&
    (Object.keys(request) as (keyof IdentityRequest)[]).every((key) => identity.request[key] === request[key])
  );
}

/** What of an identity stays; a new identity is made around it. */
export type KeptIdentity = Partial<
  Pick<Identity, 'ca' | 'frontProxyCa' | 'serviceAccount' | 'objectStore' | 'encryptionKey' | 'certificates'>
>;

/** What stays for another request: the certificates too where only the root is another, as of another user. */
export function keptFor(identity: Identity, request: IdentityRequest): KeptIdentity {
  const { ca, frontProxyCa, serviceAccount, objectStore, encryptionKey, certificates } = identity;
  const { rootCertificate } = identity.request;
  // One that was made before there were roots names none, and is made anew with all that keeps it.
  const hasCertificates =
    'rootCertificate' in identity.request && isIdentityFor(identity, { ...request, rootCertificate });
  return { ca, frontProxyCa, serviceAccount, objectStore, encryptionKey, ...(hasCertificates ? { certificates } : {}) };
}

/** So long before its end a certificate is renewed: a laptop may not see an `up` for weeks. */
export const RENEWAL_MS = 30 * 24 * 60 * 60 * 1000;

/**
 * Whether certificates have ended or soon will: the first of their ends, and what stays of the identity when they are
 * renewed. An authority stays as long as it holds; tokens and data stay valid in any case.
 */
export function planRenewal(
  identity: Identity,
  nowMs: number,
): { readonly endsMs: number; readonly kept: KeptIdentity } | undefined {
  const isEnding = ({ certificate }: KeyPair): boolean => endOf(certificate) < nowMs + RENEWAL_MS;
  const { ca, frontProxyCa, ingressAuthority, serviceAccount, objectStore, encryptionKey, certificates } = identity;
  const ending = [ca, frontProxyCa, ingressAuthority, ...Object.values(certificates)].filter(isEnding);
  if (ending.length === 0) return undefined;
  return {
    endsMs: Math.min(...ending.map(({ certificate }) => endOf(certificate))),
    kept: {
      serviceAccount,
      objectStore,
      encryptionKey,
      ...(isEnding(ca) ? {} : { ca }),
      ...(isEnding(frontProxyCa) ? {} : { frontProxyCa }),
    },
  };
}

/** Infinity for a text that is no certificate: whoever is given it says so. */
export function endOf(certificate: string): number {
  try {
    return Date.parse(new X509Certificate(certificate).validTo);
  } catch {
    return Infinity;
  }
}
