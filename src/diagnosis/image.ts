/** Why a container has no image. */
import { lastPart, oneLine } from './check.ts';
import type { Explanation, Subject } from './explanation.ts';
import type { Container } from './kubernetes.ts';

/** `message` is what the kubelet says of its try. */
export function explainImage({ pod, container, status, world }: Subject, message: string): Explanation {
  const image = container?.image ?? '';
  const isOnNode = world.nodeImages?.has(wholeName(image)) === true;
  const base = { id: 'pod.image' };
  if (isOnNode && isPulledAlways(container)) {
    return {
      ...base,
      message: `image ${image} is on the node, but imagePullPolicy Always asks a registry, which does not have it`,
      fix: `set imagePullPolicy: IfNotPresent for container ${status.name}`,
    };
  }
  if (isOnNode) {
    return {
      ...base,
      severity: 'warning',
      message: `image ${image} is on the node by now: the kubelet tries again within seconds`,
      fix: `sandbar kubectl get pod ${pod.metadata.name} -n ${pod.metadata.namespace ?? 'default'}`,
    };
  }
  if (world.engineImages.has(image)) {
    return {
      ...base,
      message: `image ${image} is in the Docker engine, but not on the node`,
      fix: `sandbar image load ${image}`,
      repair: { kind: 'load-image', imageRef: image },
    };
  }
  return {
    ...base,
    message: `image ${image} is neither on the node nor in the Docker engine${
      isNeverPulled(container) ? ', and imagePullPolicy is Never' : ', and it cannot be pulled'
    }`,
    ...(message === '' || isNeverPulled(container) ? {} : { cause: oneLine(lastPart(message)) }),
    fix: `correct the name, or: docker build -t ${image} . && sandbar image load ${image}`,
  };
}

/** Kubernetes' own rule: the tag `latest`, or none, is asked for anew each time. */
function isPulledAlways(container: Container | undefined): boolean {
  const policy = container?.imagePullPolicy;
  return policy === 'Always' || (policy === undefined && /(?:^|\/)[^/:@]+(?::latest)?$/.test(container?.image ?? ''));
}

function isNeverPulled(container: Container | undefined): boolean {
  return container?.imagePullPolicy === 'Never';
}

/** `shop` → `docker.io/library/shop:latest`, as the node names it. */
export function wholeName(image: string): string {
  const [first = '', ...rest] = image.split('/');
  const hasHost = rest.length > 0 && (first.includes('.') || first.includes(':') || first === 'localhost');
  const named = hasHost ? image : `docker.io/${rest.length === 0 ? 'library/' : ''}${image}`;
  return /[:@][^/]*$/.test(named) ? named : `${named}:latest`;
}
