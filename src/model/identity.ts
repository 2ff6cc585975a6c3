/**
 * A cluster's identity: its certificates, keys and object-store credentials, made once before anything starts and
 * kept in the volume `pki`. Nothing of it is ever in labels, arguments or environment variables.
 */

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
};

export type Identity = {
  readonly version: 1;
  readonly request: IdentityRequest;
  readonly ca: KeyPair;
  readonly frontProxyCa: KeyPair;
  readonly serviceAccount: { readonly privateKey: string; readonly publicKey: string };
  readonly certificates: Readonly<Record<CertificateName, KeyPair>>;
  readonly objectStore: { readonly accessKeyId: string; readonly secretAccessKey: string };
};

/** Path of the identity in the control plane's container. */
export const IDENTITY_PATH = '/etc/sandbar/identity.json';

/** Reads what `identity.json` holds; undefined when it is not a whole identity of this version. */
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
    identity.objectStore !== undefined &&
    CERTIFICATES.every((name) => identity.certificates?.[name] !== undefined);
  return isWhole ? (identity as Identity) : undefined;
}

/** True when an identity's certificates hold for these addresses and names. */
export function isIdentityFor(identity: Identity, request: IdentityRequest): boolean {
  return (Object.keys(request) as (keyof IdentityRequest)[]).every((key) => identity.request[key] === request[key]);
}
