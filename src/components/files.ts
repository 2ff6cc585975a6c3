/** Files that components are given: JSON settings and kubeconfigs. */
import { formatKubeconfig } from '../model/kubeconfig.ts';
import type { CertificateName } from '../model/identity.ts';
import type { ContainerFile } from '../model/resources.ts';
import { apiServerUrl, type ComponentContext } from './context.ts';

/** Owner-only: most of these files hold keys, and all processes run as root without capabilities. */
const PRIVATE = 0o600;

export function jsonFile(path: string, value: unknown): ContainerFile {
  return { path, mode: PRIVATE, content: `${JSON.stringify(value, undefined, 2)}\n` };
}

export function textFile(path: string, content: string): ContainerFile {
  return { path, mode: PRIVATE, content };
}

/** A kubeconfig for a component's own user, whose certificate is of that name. */
export function kubeconfigFile(context: ComponentContext, path: string, certificate: CertificateName): ContainerFile {
  const pair = context.identity.certificates[certificate];
  const access = {
    server: apiServerUrl(context),
    ca: context.identity.ca.certificate,
    certificate: pair.certificate,
    key: pair.key,
  };
  return textFile(path, formatKubeconfig(access, 'sandbar'));
}
