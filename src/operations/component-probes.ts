/** How a component of a cluster is asked whether it does its work, by what Docker knows of it alone. */
import { containerName, nodeName, type Component } from '../model/names.ts';
import type { ContainerSummary } from '../model/ports.ts';
import type { Probe } from '../model/resources.ts';
import { hostPortOf } from './access.ts';

export function probesFor(
  component: Component,
  clusterName: string,
  { containers, timeoutMs }: { readonly containers: readonly ContainerSummary[]; readonly timeoutMs: number },
): readonly Probe[] {
  const local = (port: number, path: string): string =>
    `http://127.0.0.1:${String(hostPortOf(containers, component, port) ?? 0)}${path}`;
  const node = `/api/v1/nodes/${nodeName(clusterName)}`;
  switch (component) {
    case 'control-plane':
      return [{ kind: 'api', path: '/readyz', timeoutMs }];
    case 'agent':
      return [
        { kind: 'api', path: `${node}/proxy/healthz`, timeoutMs },
        { kind: 'node', path: node, containerName: containerName(clusterName, 'agent'), timeoutMs },
      ];
    case 'dns': {
      const command = ['sandbar-agent', 'resolve', 'kubernetes.default.svc.cluster.local', '--timeout', '2s'];
      return [{ kind: 'exec', containerName: containerName(clusterName, 'agent'), command, timeoutMs }];
    }
    case 'ingress':
      return [{ kind: 'http', url: local(80, '/'), acceptedStatuses: [200, 404], timeoutMs }];
    case 'metrics':
      return [{ kind: 'api', path: '/apis/metrics.k8s.io/v1beta1', timeoutMs }];
    case 'ports': {
      const own = containerName(clusterName, component);
      return [{ kind: 'exec', containerName: own, command: ['/sandbar-ports', 'check'], timeoutMs }];
    }
    case 'object-store':
      return [{ kind: 'http', url: local(9000, '/minio/health/ready'), acceptedStatuses: [200], timeoutMs }];
  }
}
