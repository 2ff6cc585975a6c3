/** A Deployment of two pods that ask for a name as soon as they run. */
import { buildImage } from './images.ts';
import type { Subject } from './subject.ts';

export const WORKLOAD_IMAGE = 'sandbar-bench/workload:1';

/** A shell and a resolver out of the node's own image: nothing else is sure to be there. */
const DOCKERFILE = `ARG NODE
FROM \${NODE} AS node
RUN mkdir /image && for file in /bin/sh /bin/sleep /usr/bin/getent; do \\
      cp --dereference --parents "$file" $(ldd "$file" | grep -o '/[^ )]*') /image; \\
    done
FROM scratch
COPY --from=node /image /
CMD ["/bin/sh", "-c", "until getent ahostsv4 kubernetes.default.svc.cluster.local; do sleep 0.05; done; exec sleep 100000"]
`;

/** A Deployment of pods that are Ready as soon as they run. */
export function deploymentOf({
  name,
  replicas,
  namespace = 'default',
  podSpec = {},
}: {
  readonly name: string;
  readonly replicas: number;
  readonly namespace?: string;
  readonly podSpec?: object;
}): object {
  return {
    apiVersion: 'apps/v1',
    kind: 'Deployment',
    metadata: { name, namespace },
    spec: {
      replicas,
      selector: { matchLabels: { app: name } },
      template: {
        metadata: { labels: { app: name } },
        spec: {
          terminationGracePeriodSeconds: 0,
          containers: [{ name, image: WORKLOAD_IMAGE, imagePullPolicy: 'IfNotPresent' }],
          ...podSpec,
        },
      },
    },
  };
}

/** A claim of 1 MiB: what is written there is not measured against it. */
export function claimOf({
  name,
  namespace = 'default',
}: {
  readonly name: string;
  readonly namespace?: string;
}): object {
  const spec = { accessModes: ['ReadWriteOnce'], resources: { requests: { storage: '1Mi' } } };
  return { apiVersion: 'v1', kind: 'PersistentVolumeClaim', metadata: { name, namespace }, spec };
}

/** Builds the pods' image. */
export async function provideWorkloadImage(subject: Subject): Promise<void> {
  const { stdout } = await subject.sandbar('image', 'ls', '-o', 'json');
  const images = JSON.parse(stdout) as { name: string; ref: string }[];
  const buildArguments = { NODE: images.find(({ name }) => name === 'agent')?.ref ?? '' };
  await buildImage(subject.docker, WORKLOAD_IMAGE, {
    files: [{ path: 'Dockerfile', content: DOCKERFILE }],
    buildArguments,
  });
}

/** Brings the pods' image into the cluster, which takes no part in the time of the Deployment. */
export async function loadWorkloadImage(subject: Subject): Promise<void> {
  await subject.sandbar('image', 'load', WORKLOAD_IMAGE);
}

/** Seconds from the call of `kubectl apply` to both pods Ready, and to both having had a name answered. */
export async function deploy(subject: Subject): Promise<{ readonly ready: number; readonly answered: number }> {
  const startedAt = performance.now();
  await subject.kubectl(['apply', '-f', '-'], JSON.stringify(deploymentOf({ name: 'bench', replicas: 2 })));
  await subject.kubectl(['rollout', 'status', 'deployment/bench', '--timeout=60s']);
  const ready = (performance.now() - startedAt) / 1000;
  await subject.until('a name answered in both pods', async () => {
    const { stdout } = await subject.kubectl(['logs', '--selector=app=bench', '--prefix']);
    const pods = new Set([...stdout.matchAll(/^\[pod\/(\S+)\/bench\] 10\.96\.0\.1\s/gm)].map(([, pod]) => pod));
    return pods.size === 2 ? true : undefined;
  });
  return { ready, answered: (performance.now() - startedAt) / 1000 };
}
