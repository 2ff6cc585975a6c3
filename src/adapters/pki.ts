/** Makes a cluster's certificates. ECDSA P-256 throughout: a whole identity takes some ten milliseconds. */
import { randomBytes, webcrypto } from 'node:crypto';
import type { Extension } from '@peculiar/x509';
import { LOCAL_AUTHORITY } from '../model/local-authority.ts';
import type { CertificateName, Identity, IdentityRequest, KeptIdentity, KeyPair } from '../model/identity.ts';
import { METRICS_SERVICE } from '../model/names.ts';

const ALGORITHM = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;
/** Ten years, for leaves too: they live and die with the sandbox, whose CA key lies beside them. */
const VALID_DAYS = 3650;
/** Two days: a clock may jump back by hours, and be behind that of the engine's virtual machine. */
const BACKDATED_MS = 48 * 60 * 60 * 1000;

/**
 * What the user's root and its authorities may sign for, whoever gets hold of their keys: servers named `localhost` or
 * below, and loopback addresses (RFC 5280, 4.2.1.10).
 */
const LOCAL_NAMES_ONLY = der(
  0x30,
  der(
    0xa0,
    ...[
      der(0x82, Buffer.from('localhost')),
      der(0x87, Buffer.from('7f000000ff000000', 'hex')),
      der(0x87, Buffer.from(`${'0'.repeat(31)}1${'f'.repeat(32)}`, 'hex')),
    ].map((name) => der(0x30, name)),
  ),
);

const NO_PAIR: KeyPair = { certificate: '', key: '' };

type Authority = {
  readonly pair: KeyPair;
  /** Its subject. */
  readonly name: string;
  readonly notAfter: Date;
  readonly signingKey: webcrypto.CryptoKey;
  /** For its leaves. */
  readonly keyIdentifier: Extension;
};
type Leaf = {
  readonly commonName: string;
  readonly organization?: string;
  readonly usage: 'client' | 'server';
  readonly dnsNames?: readonly string[];
  readonly addresses?: readonly string[];
};

/** Makes the root of a user's own authorities; `name` is what browsers show of it. */
export async function mintRoot(name: string): Promise<KeyPair> {
  const { pair } = await createAuthority(name, { isLocal: true });
  return pair;
}

/**
 * Makes an identity for `request`. What there is of the authorities, the service-account key and the object store's
 * credentials is kept, so that tokens and data stay valid; the rest is made anew. Of `root` the identity gets the
 * certificate alone, and an authority that it signs; without one it has neither.
 */
export async function mintIdentity(
  request: IdentityRequest,
  root: KeyPair | undefined,
  kept: KeptIdentity = {},
): Promise<Identity> {
  const [ca, frontProxyCa, serviceAccount, ingressAuthority] = await Promise.all([
    provideAuthority('sandbar-ca', kept.ca),
    provideAuthority('sandbar-front-proxy-ca', kept.frontProxyCa),
    kept.serviceAccount ?? createServiceAccountKey(),
    root === undefined ? NO_PAIR : createIngressAuthority(request.clusterName, root),
  ]);
  return {
    version: 1,
    request,
    ca: ca.pair,
    frontProxyCa: frontProxyCa.pair,
    ingressAuthority,
    serviceAccount,
    certificates: kept.certificates ?? (await issueAll(request, { ca, frontProxyCa })),
    objectStore: kept.objectStore ?? {
      accessKeyId: randomBytes(10).toString('hex'),
      secretAccessKey: randomBytes(20).toString('hex'),
    },
    encryptionKey: kept.encryptionKey ?? randomBytes(32).toString('base64'),
  };
}

async function issueAll(
  request: IdentityRequest,
  { ca, frontProxyCa }: { readonly ca: Authority; readonly frontProxyCa: Authority },
): Promise<Identity['certificates']> {
  const leaves: Record<CertificateName, Leaf & { readonly authority?: Authority }> = {
    apiserver: {
      commonName: 'kube-apiserver',
      usage: 'server',
      dnsNames: [
        'localhost',
        'kubernetes',
        'kubernetes.default',
        'kubernetes.default.svc',
        'kubernetes.default.svc.cluster.local',
        `sandbar-${request.clusterName}-control-plane`,
      ],
      addresses: ['127.0.0.1', request.controlPlaneAddress, request.apiServiceAddress],
    },
    'apiserver-kubelet-client': {
      commonName: 'kube-apiserver-kubelet-client',
      organization: 'system:masters',
      usage: 'client',
    },
    'front-proxy-client': { commonName: 'front-proxy-client', usage: 'client', authority: frontProxyCa },
    'kubelet-serving': {
      commonName: `system:node:${request.nodeName}`,
      organization: 'system:nodes',
      usage: 'server',
      dnsNames: [request.nodeName],
      addresses: [request.agentAddress, '127.0.0.1'],
    },
    kubelet: { commonName: `system:node:${request.nodeName}`, organization: 'system:nodes', usage: 'client' },
    'kube-proxy': { commonName: 'system:kube-proxy', usage: 'client' },
    'volume-provisioner': { commonName: 'system:sandbar:volume-provisioner', usage: 'client' },
    dns: { commonName: 'system:sandbar:dns', usage: 'client' },
    ingress: { commonName: 'system:sandbar:ingress', usage: 'client' },
    // For host names outside of `localhost` that no Ingress brings a certificate for.
    'ingress-serving': { commonName: 'sandbar-ingress', usage: 'server', dnsNames: ['localhost'] },
    metrics: { commonName: 'system:sandbar:metrics', usage: 'client' },
    'metrics-serving': {
      commonName: METRICS_SERVICE.name,
      usage: 'server',
      // The API server asks for it by the name of its Service.
      dnsNames: [`${METRICS_SERVICE.name}.${METRICS_SERVICE.namespace}.svc`],
    },
    admin: { commonName: 'sandbar-admin', organization: 'system:masters', usage: 'client' },
  };
  const issued = await Promise.all(
    Object.entries(leaves).map(async ([name, leaf]) => [name, await issue(leaf, leaf.authority ?? ca)] as const),
  );
  return Object.fromEntries(issued) as Record<CertificateName, KeyPair>;
}

async function createIngressAuthority(clusterName: string, root: KeyPair): Promise<KeyPair> {
  const issuer = await loadAuthority(root);
  const { pair } = await createAuthority(`Sandbar cluster ${clusterName}`, { isLocal: true, issuer });
  return pair;
}

function provideAuthority(name: string, pair: KeyPair | undefined): Promise<Authority> {
  return pair === undefined ? createAuthority(name, { isLocal: false }) : loadAuthority(pair);
}

/** Without an issuer it signs itself. */
async function createAuthority(
  name: string,
  { isLocal, issuer }: { readonly isLocal: boolean; readonly issuer?: Authority },
): Promise<Authority> {
  const x509 = await loadX509();
  const keys = await generateKeys();
  const fields = commonFields(isLocal ? `CN=${name}, O=${LOCAL_AUTHORITY}` : `CN=${name}`);
  const certificate = await x509.X509CertificateGenerator.create(
    {
      ...fields,
      issuer: issuer?.name ?? fields.subject,
      // Nothing holds longer than what it is signed with.
      notAfter: issuer === undefined ? fields.notAfter : earlier(fields.notAfter, issuer.notAfter),
      publicKey: keys.publicKey,
      signingKey: issuer?.signingKey ?? keys.privateKey,
      extensions: [
        new x509.BasicConstraintsExtension(true, issuer === undefined ? undefined : 0, true),
        new x509.KeyUsagesExtension(
          x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign | x509.KeyUsageFlags.digitalSignature,
          true,
        ),
        await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
        ...(issuer === undefined ? [] : [issuer.keyIdentifier]),
        ...(isLocal
          ? [
              new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth]),
              new x509.Extension('2.5.29.30', true, LOCAL_NAMES_ONLY),
            ]
          : []),
      ],
    },
    webcrypto,
  );
  return {
    name: certificate.subject,
    notAfter: certificate.notAfter,
    pair: { certificate: toPem(certificate.toString('pem')), key: await exportKey(keys.privateKey) },
    signingKey: keys.privateKey,
    keyIdentifier: await x509.AuthorityKeyIdentifierExtension.create(keys.publicKey),
  };
}

async function loadAuthority(pair: KeyPair): Promise<Authority> {
  const key = Buffer.from(pair.key.replace(/-----[^-]+-----|\s/g, ''), 'base64');
  const signingKey = await webcrypto.subtle.importKey('pkcs8', key, ALGORITHM, false, ['sign']);
  const x509 = await loadX509();
  const certificate = new x509.X509Certificate(pair.certificate);
  const keyIdentifier = await x509.AuthorityKeyIdentifierExtension.create(certificate);
  return { name: certificate.subject, notAfter: certificate.notAfter, pair, signingKey, keyIdentifier };
}

async function issue(leaf: Leaf, authority: Authority): Promise<KeyPair> {
  const x509 = await loadX509();
  const keys = await generateKeys();
  const subject = leaf.organization === undefined ? '' : `, O=${leaf.organization}`;
  const usage = leaf.usage === 'server' ? x509.ExtendedKeyUsage.serverAuth : x509.ExtendedKeyUsage.clientAuth;
  const alternativeNames = [
    ...(leaf.dnsNames ?? []).map((value) => ({ type: 'dns' as const, value })),
    ...(leaf.addresses ?? []).map((value) => ({ type: 'ip' as const, value })),
  ];
  const certificate = await x509.X509CertificateGenerator.create(
    {
      ...commonFields(`CN=${leaf.commonName}${subject}`),
      issuer: authority.name,
      publicKey: keys.publicKey,
      signingKey: authority.signingKey,
      extensions: [
        new x509.BasicConstraintsExtension(false, undefined, true),
        new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
        new x509.ExtendedKeyUsageExtension([usage]),
        authority.keyIdentifier,
        ...(alternativeNames.length === 0 ? [] : [new x509.SubjectAlternativeNameExtension(alternativeNames)]),
      ],
    },
    webcrypto,
  );
  return { certificate: toPem(certificate.toString('pem')), key: await exportKey(keys.privateKey) };
}

/** Loaded when a certificate is made, which most commands never do; its dependency tsyringe wants the polyfill first. */
async function loadX509() {
  await import('reflect-metadata');
  return import('@peculiar/x509');
}

function commonFields(name: string) {
  const now = Date.now();
  return {
    // Positive and never zero, as RFC 5280 wants it.
    serialNumber: `01${randomBytes(15).toString('hex')}`,
    subject: name,
    notBefore: new Date(now - BACKDATED_MS),
    notAfter: new Date(now + VALID_DAYS * 24 * 60 * 60 * 1000),
    signingAlgorithm: ALGORITHM,
  };
}

async function createServiceAccountKey(): Promise<Identity['serviceAccount']> {
  const keys = await generateKeys();
  const spki = await webcrypto.subtle.exportKey('spki', keys.publicKey);
  return { privateKey: await exportKey(keys.privateKey), publicKey: pem('PUBLIC KEY', Buffer.from(spki)) };
}

function generateKeys(): Promise<webcrypto.CryptoKeyPair> {
  return webcrypto.subtle.generateKey(ALGORITHM, true, ['sign', 'verify']);
}

async function exportKey(key: webcrypto.CryptoKey): Promise<string> {
  return pem('PRIVATE KEY', Buffer.from(await webcrypto.subtle.exportKey('pkcs8', key)));
}

function pem(label: string, der: Buffer): string {
  const lines = der.toString('base64').match(/.{1,64}/g) ?? [];
  return `-----BEGIN ${label}-----\n${lines.join('\n')}\n-----END ${label}-----\n`;
}

/** A value of ASN.1's encoding whose length fits into one byte. */
function der(tag: number, ...content: readonly Buffer[]): Buffer {
  const whole = Buffer.concat(content);
  return Buffer.concat([Buffer.from([tag, whole.length]), whole]);
}

function earlier(one: Date, other: Date): Date {
  return one < other ? one : other;
}

function toPem(text: string): string {
  return text.endsWith('\n') ? text : `${text}\n`;
}
