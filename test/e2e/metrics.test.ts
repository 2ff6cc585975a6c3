/** Metrics as their users see them: kubectl top, an autoscaler, and a cluster whose metrics are gone. */
import { beforeAll, describe, expect, it } from 'vitest';
import { TOOLBOX_IMAGE } from './fixtures/apps.ts';
import { createSandbox, eventually } from './support.ts';

const sandbox = createSandbox('metrics');

/** Looks at autoscalers more often than every 15 s, which would be most of what the test takes. */
const QUICK = 'kubernetes: { controllerManagerArguments: { horizontal-pod-autoscaler-sync-period: 3s } }\n';

/** Burns its share of a processor until it is told to rest. */
const BURN = `
const { existsSync } = require('node:fs');
setInterval(() => {
  const end = existsSync('/tmp/rest') ? 0 : Date.now() + 90;
  while (Date.now() < end);
}, 100);`;

const burner = {
  apiVersion: 'apps/v1',
  kind: 'Deployment',
  metadata: { name: 'burner' },
  spec: {
    selector: { matchLabels: { app: 'burner' } },
    template: {
      metadata: { labels: { app: 'burner' } },
      spec: {
        terminationGracePeriodSeconds: 0,
        containers: [
          {
            name: 'main',
            image: TOOLBOX_IMAGE,
            imagePullPolicy: 'IfNotPresent',
            command: ['node', '-e', BURN],
            resources: { requests: { cpu: '50m' }, limits: { cpu: '100m' } },
          },
        ],
      },
    },
  },
};

const autoscaler = {
  apiVersion: 'autoscaling/v2',
  kind: 'HorizontalPodAutoscaler',
  metadata: { name: 'burner' },
  spec: {
    scaleTargetRef: { apiVersion: 'apps/v1', kind: 'Deployment', name: 'burner' },
    minReplicas: 1,
    maxReplicas: 2,
    metrics: [{ type: 'Resource', resource: { name: 'cpu', target: { type: 'Utilization', averageUtilization: 80 } } }],
    behavior: { scaleUp: { stabilizationWindowSeconds: 0 }, scaleDown: { stabilizationWindowSeconds: 0 } },
  },
};

/** What kubectl complains of when it asks a cluster what there is, which it does before anything else. */
async function complaints(): Promise<string> {
  const fresh = `--cache-dir=${sandbox.home}/cache-${String(performance.now())}`;
  const { stderr } = await sandbox.kubectl(['get', 'pods', '--all-namespaces', fresh]);
  return stderr.replace('No resources found\n', '');
}

async function untilReplicas(wanted: number): Promise<void> {
  await eventually(`${String(wanted)} replicas`, async () => {
    const { status } = await sandbox.getObject('deployment', 'burner');
    return status['readyReplicas'] === wanted && status['replicas'] === wanted ? true : undefined;
  });
}

describe('metrics', () => {
  beforeAll(async () => {
    await sandbox.writeConfig(QUICK);
    await sandbox.up();
  }, 600_000);

  it('are there soon after up, and nobody is bothered before', async () => {
    await eventually('figures of the node', async () => {
      expect(await complaints()).toBe('');
      const { exitCode } = await sandbox.kubectl(['top', 'nodes']);
      return exitCode === 0 ? true : undefined;
    });
    expect(await sandbox.mustKubectl(['top', 'nodes', '--no-headers'])).toMatch(
      /^sandbar-\S+ +\d+m +\d+% +\d+Mi +\d+%/,
    );
    const { spec } = await sandbox.getObject('apiservice', 'v1beta1.metrics.k8s.io');
    expect(spec['insecureSkipTLSVerify']).toBeUndefined();
    expect(JSON.parse(await sandbox.must(['status', '-o', 'json']))).toMatchObject({ isReady: true });
  });

  it('have an autoscaler add a pod under load, and take it away afterwards', async () => {
    await sandbox.must(['image', 'load', TOOLBOX_IMAGE]);
    for (const object of [burner, autoscaler]) {
      await sandbox.mustKubectl(['apply', '-f', '-'], { stdin: JSON.stringify(object) });
    }
    await untilReplicas(2);
    expect(await sandbox.mustKubectl(['top', 'pods', '--no-headers'])).toMatch(/burner-\S+ +\d+m +\d+Mi/);
    const pods = (await sandbox.getObject('pods', '-l', 'app=burner')).items.map(({ metadata }) => metadata.name);
    await Promise.all(pods.map((pod) => sandbox.mustKubectl(['exec', pod, '--', 'touch', '/tmp/rest'])));
    await untilReplicas(1);
  }, 150_000);

  it('leave nothing broken behind when they stop, and up brings them back', async () => {
    await sandbox.mustKubectl(['create', 'namespace', 'short-lived']);
    await sandbox.docker.getContainer(sandbox.containerName('metrics')).stop();
    await sandbox.mustKubectl(['delete', 'namespace', 'short-lived', '--timeout=20s']);
    await eventually('no registration', async () => {
      expect(await complaints()).toBe('');
      const { exitCode } = await sandbox.kubectl(['get', 'apiservice', 'v1beta1.metrics.k8s.io']);
      return exitCode === 0 ? undefined : true;
    });
    const { exitCode, stdout } = await sandbox.run(['status']);
    expect(exitCode).toBe(1);
    expect(stdout).toMatch(/✖ metrics +it is exited/);
    const { steps } = await sandbox.up();
    expect(steps.map(({ id }) => id)).toEqual(['start container/metrics']);
    await eventually('figures', async () => {
      const { exitCode: topCode } = await sandbox.kubectl(['top', 'nodes']);
      return topCode === 0 ? true : undefined;
    });
  }, 150_000);

  it('are gone without a trace where they are switched off', async () => {
    await sandbox.writeConfig('metrics: false\n');
    await sandbox.up(['--yes']);
    expect(Object.keys(await sandbox.containerIds())).not.toContain('metrics');
    const { stderr } = await sandbox.kubectl(['top', 'nodes']);
    expect(stderr).toBe('error: Metrics API not available\n');
    const names = await sandbox.mustKubectl(['get', 'clusterroles,apiservices,services', '-A', '-o', 'name']);
    expect(names).not.toContain('metrics');
    expect(await complaints()).toBe('');
    expect(JSON.parse(await sandbox.must(['status', '-o', 'json']))).toMatchObject({ isReady: true });
  }, 60_000);
});
