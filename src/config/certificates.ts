/** CA certificates that the node trusts beyond those that every system trusts. */
import { X509Certificate } from 'node:crypto';
import path from 'node:path';
import { rootCertificates } from 'node:tls';
import type { Diagnostic } from '../model/errors.ts';
import { isLocalAuthority } from '../model/local-authority.ts';
import type { Host } from '../model/ports.ts';
import type { FileContent } from '../model/spec.ts';
import { readVariable } from './environment.ts';

const CERTIFICATE = /-----BEGIN CERTIFICATE-----[\s\S]*?-----END CERTIFICATE-----/g;

/** Certificates of a PEM text, and why it is not a text of CA certificates, if it is not. */
export function parseCertificates(text: string): {
  readonly certificates: readonly string[];
  readonly problem?: string;
} {
  const certificates = text.match(CERTIFICATE) ?? [];
  if (certificates.length === 0) {
    const hasKey = text.includes('PRIVATE KEY-----');
    return { certificates, problem: hasKey ? 'holds a private key, not a certificate' : 'holds no PEM certificate' };
  }
  const broken = certificates.findIndex((certificate) => !isCertificate(certificate));
  return broken === -1
    ? { certificates }
    : { certificates, problem: `holds a certificate (number ${String(broken + 1)}) that cannot be read` };
}

function isCertificate(text: string): boolean {
  try {
    new X509Certificate(text);
    return true;
  } catch {
    // Its only failure is a text that is no certificate.
    return false;
  }
}

/** The system's own bundles: public roots, and what the administrator of this machine has added to them. */
const SYSTEM_BUNDLES = [
  '/etc/ssl/certs/ca-certificates.crt',
  '/etc/pki/tls/certs/ca-bundle.crt',
  '/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem',
  '/etc/ssl/ca-bundle.pem',
  '/var/lib/ca-certificates/ca-bundle.pem',
  '/etc/ssl/cert.pem',
];

/** Where an administrator puts certificates that the system's bundle is to have: Debian, Fedora, SUSE, Arch. */
const LOCAL_DIRECTORIES = [
  '/usr/local/share/ca-certificates',
  '/etc/pki/ca-trust/source/anchors',
  '/etc/pki/trust/anchors',
  '/etc/ca-certificates/trust-source/anchors',
];

/**
 * Certificates that SSL_CERT_FILE and NODE_EXTRA_CA_CERTS stand for and that a node lacks. Where they name the system's
 * own bundle, those are the locally added ones. The root of `sandbar trust` is none of them: a node needs nothing from
 * names below `localhost`, and would be made anew. The bundle is not compared with a list of public roots: what a distribution
 * still has and such a list has dropped was often dropped because it is not to be trusted. Any other file counts whole
 * but for roots that everybody has, since a file for SSL_CERT_FILE mostly repeats them.
 */
export async function findEnvironmentCertificates(
  host: Pick<Host, 'env' | 'readFile' | 'listDirectory' | 'workingDirectory'>,
): Promise<{ readonly files: readonly FileContent[]; readonly warnings: readonly Diagnostic[] }> {
  const files = new Map<string, FileContent>();
  const warnings: Diagnostic[] = [];
  for (const name of ['SSL_CERT_FILE', 'NODE_EXTRA_CA_CERTS'] as const) {
    const written = readVariable(host.env, name);
    if (written === undefined) continue;
    const file = path.resolve(host.workingDirectory, written);
    if (SYSTEM_BUNDLES.includes(file)) {
      for (const local of await readLocalCertificates(host)) files.set(local.path, local);
      continue;
    }
    const text = await host.readFile(file);
    const { certificates, problem } = parseCertificates(text ?? '');
    if (problem === undefined) {
      const own = certificates.filter((certificate) => !isPublicRoot(certificate) && !isLocalAuthority(certificate));
      if (own.length > 0) files.set(file, { path: file, content: `${own.join('\n')}\n` });
    } else {
      warnings.push({ file: name, message: `${written} ${text === undefined ? 'does not exist' : problem}: ignored` });
    }
  }
  return { files: [...files.values()], warnings };
}

async function readLocalCertificates(host: Pick<Host, 'readFile' | 'listDirectory'>): Promise<readonly FileContent[]> {
  const files: FileContent[] = [];
  const directories = [...LOCAL_DIRECTORIES];
  for (let directory = directories.shift(); directory !== undefined; directory = directories.shift()) {
    const entries = [...((await host.listDirectory(directory)) ?? [])].sort((a, b) => (a.name < b.name ? -1 : 1));
    for (const entry of entries) {
      const file = path.join(directory, entry.name);
      if (entry.isDirectory) directories.push(file);
      else if (/\.(?:crt|pem)$/.test(entry.name)) {
        const { certificates, problem } = parseCertificates((await host.readFile(file)) ?? '');
        // A file that the system's own tools would skip is skipped here too.
        const own = problem === undefined ? certificates.filter((certificate) => !isLocalAuthority(certificate)) : [];
        if (own.length > 0) files.push({ path: file, content: `${own.join('\n')}\n` });
      }
    }
  }
  return files;
}

let publicRoots: ReadonlySet<string> | undefined;

function isPublicRoot(certificate: string): boolean {
  publicRoots ??= new Set(rootCertificates.map(withoutSpace));
  return publicRoots.has(withoutSpace(certificate));
}

function withoutSpace(text: string): string {
  return text.replace(/\s/g, '');
}
