/** Knobs of the API server that need files: the audit log, encryption of Secrets, admission plugins. */
import { AUDIT_LOG_PATH } from '../model/names.ts';
import type { ContainerFile } from '../model/resources.ts';
import type { ComponentContext } from './context.ts';
import { jsonFile, textFile } from './files.ts';

const AUDIT_POLICY_PATH = '/etc/sandbar/audit-policy.yaml';
/** A change of this file is one of how Secrets are written. */
export const ENCRYPTION_PATH = '/etc/sandbar/encryption.json';
const ADMISSION_PATH = '/etc/sandbar/admission.json';

/** Of every file 10 MB, and three older ones: a sandbox writes that in hours of work. */
const AUDIT_LIMITS = { 'audit-log-maxsize': '10', 'audit-log-maxbackup': '3' };

/** Flags of the API server for what the spec asks for. */
export function hardeningArguments({ spec }: Pick<ComponentContext, 'spec'>): Readonly<Record<string, string>> {
  const { auditPolicy, admission } = spec.kubernetes;
  return {
    'enable-admission-plugins': ['NodeRestriction', ...admission.enabled].join(','),
    ...(admission.disabled.length === 0 ? {} : { 'disable-admission-plugins': admission.disabled.join(',') }),
    ...(isEmpty(admission.configuration) ? {} : { 'admission-control-config-file': ADMISSION_PATH }),
    ...(auditPolicy === undefined
      ? {}
      : { 'audit-policy-file': AUDIT_POLICY_PATH, 'audit-log-path': AUDIT_LOG_PATH, ...AUDIT_LIMITS }),
    'encryption-provider-config': ENCRYPTION_PATH,
  };
}

/** The files that these flags name. */
export function hardeningFiles({
  spec,
  identity,
}: Pick<ComponentContext, 'spec' | 'identity'>): readonly ContainerFile[] {
  const { auditPolicy, admission, isEncrypted } = spec.kubernetes;
  return [
    ...(auditPolicy === undefined ? [] : [textFile(AUDIT_POLICY_PATH, auditPolicy)]),
    ...(isEmpty(admission.configuration) ? [] : [jsonFile(ADMISSION_PATH, admissionConfiguration(admission))]),
    jsonFile(ENCRYPTION_PATH, encryptionConfiguration(identity.encryptionKey, { isEncrypted })),
  ];
}

/** The first provider writes, each reads what it has written: what was encrypted stays readable when this is switched off. */
function encryptionConfiguration(secret: string, { isEncrypted }: { readonly isEncrypted: boolean }): object {
  const sealed = { secretbox: { keys: [{ name: 'sandbar', secret }] } };
  const plain = { identity: {} };
  return {
    apiVersion: 'apiserver.config.k8s.io/v1',
    kind: 'EncryptionConfiguration',
    resources: [{ resources: ['secrets'], providers: isEncrypted ? [sealed, plain] : [plain, sealed] }],
  };
}

function admissionConfiguration({
  configuration,
}: Pick<ComponentContext['spec']['kubernetes']['admission'], 'configuration'>): object {
  return {
    apiVersion: 'apiserver.config.k8s.io/v1',
    kind: 'AdmissionConfiguration',
    plugins: Object.entries(configuration).map(([name, value]) => ({ name, configuration: value })),
  };
}

function isEmpty(mapping: Readonly<Record<string, unknown>>): boolean {
  return Object.keys(mapping).length === 0;
}
