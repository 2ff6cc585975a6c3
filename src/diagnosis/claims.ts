/** Why a claim has no volume. */
import { oneLine } from './check.ts';
import { eventTimeMs, type Claim, type Objects } from './kubernetes.ts';

const DEFAULT_CLASS = 'storageclass.kubernetes.io/is-default-class';

/** Undefined for a claim that is bound, or that only waits for its first pod. */
export function explainClaim(
  claim: Claim,
  { storageClasses, events }: Pick<Objects, 'storageClasses' | 'events'>,
): { readonly message: string; readonly fix: string } | undefined {
  const { name, namespace = 'default' } = claim.metadata;
  const phase = claim.status?.phase;
  if (phase === 'Bound') return undefined;
  if (phase === 'Lost') {
    return {
      message: `its volume ${claim.spec?.volumeName ?? ''} is gone`,
      fix: `sandbar kubectl delete pvc ${name} -n ${namespace}, then create it again`,
    };
  }
  const className = claim.spec?.storageClassName;
  const names = storageClasses.map(({ metadata }) => metadata.name);
  if (className === undefined) {
    if (storageClasses.some(({ metadata }) => metadata.annotations?.[DEFAULT_CLASS] === 'true')) return undefined;
    return { message: 'there is no default StorageClass', fix: defaultClassFix(names) };
  }
  if (className === '') {
    if (claim.spec?.volumeName !== undefined) return undefined;
    return {
      message: 'it wants no StorageClass, and no PersistentVolume fits it',
      fix: 'create a PersistentVolume for it, or leave storageClassName out',
    };
  }
  const found = storageClasses.find(({ metadata }) => metadata.name === className);
  if (found === undefined) {
    return {
      message: `there is no StorageClass "${className}"`,
      fix: `set storageClassName to ${names.join(' or ')} (or leave it out) and create the claim again`,
    };
  }
  const failure = events
    .filter(
      ({ involvedObject, reason }) =>
        involvedObject.kind === 'PersistentVolumeClaim' &&
        involvedObject.name === name &&
        involvedObject.namespace === namespace &&
        reason === 'ProvisioningFailed',
    )
    .toSorted((a, b) => eventTimeMs(b) - eventTimeMs(a))[0];
  if (failure !== undefined) {
    return { message: oneLine(failure.message ?? ''), fix: `sandbar kubectl describe pvc ${name} -n ${namespace}` };
  }
  return undefined;
}

function defaultClassFix(names: readonly string[]): string {
  const [name] = names;
  if (name === undefined) return 'sandbar up (which makes the StorageClass "standard" again)';
  return `sandbar kubectl annotate storageclass ${name} ${DEFAULT_CLASS}=true --overwrite`;
}
