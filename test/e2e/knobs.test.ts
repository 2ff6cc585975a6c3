/** Knobs of Kubernetes: a feature gate, the audit log, Secrets at rest, admission plugins, user namespaces. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import { beforeAll, describe, expect, it } from 'vitest';
import { TOOLBOX_IMAGE, toolboxPod } from './fixtures/apps.ts';
import { createSandbox } from './support.ts';

const sandbox = createSandbox('knobs');

/** An alpha gate, and what the API server accepts only with it. */
const ALPHA = 'featureGates: { HPAScaleToZero: true }';
const toZero = {
  apiVersion: 'autoscaling/v2',
  kind: 'HorizontalPodAutoscaler',
  metadata: { name: 'to-zero' },
  spec: {
    scaleTargetRef: { apiVersion: 'apps/v1', kind: 'Deployment', name: 'web' },
    minReplicas: 0,
    maxReplicas: 1,
    metrics: [{ type: 'External', external: { metric: { name: 'queue' }, target: { type: 'Value', value: '1' } } }],
  },
};

const POLICY = `
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - { level: Request, resources: [{ group: "", resources: [configmaps] }], namespaces: [watched] }
  - { level: None }
`;

const config = (...lines: readonly string[]): string => `kubernetes:\n${lines.map((line) => `  ${line}\n`).join('')}`;

type AuditEvent = {
  readonly verb: string;
  readonly user: { readonly username: string };
  readonly requestURI: string;
  readonly requestObject?: { readonly data?: Readonly<Record<string, string>> };
};

async function auditEvents(...args: readonly string[]): Promise<readonly AuditEvent[]> {
  const text = await sandbox.must(['logs', 'audit', ...args]);
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as AuditEvent);
}

/** The files of the datastore as they lie on the disk, copied out of the volume by Docker. */
async function datastoreBytes(): Promise<Buffer> {
  const directory = await mkdtemp(join(tmpdir(), 'sandbar-datastore-'));
  try {
    const container = sandbox.docker.getContainer(sandbox.containerName('control-plane'));
    const archive = await container.getArchive({ path: '/var/lib/etcd/data/member' });
    await writeFile(join(directory, 'member.tar'), archive);
    return await readFile(join(directory, 'member.tar'));
  } finally {
    await rm(directory, { recursive: true });
  }
}

const createSecret = (name: string, value: string): Promise<string> =>
  sandbox.mustKubectl(['create', 'secret', 'generic', name, `--from-literal=word=${value}`]);

const wordOf = async (name: string): Promise<string> => {
  const { data } = await sandbox.getObject('secret', name);
  return Buffer.from(data['word'] ?? '', 'base64').toString();
};

describe('knobs', () => {
  beforeAll(async () => {
    await writeFile(join(sandbox.directory, 'policy.yaml'), POLICY);
    await sandbox.writeConfig(
      config(
        ALPHA,
        'auditLog: true',
        'encryptionAtRest: true',
        'admissionPlugins:',
        '  enable: [AlwaysPullImages]',
        '  configuration:',
        '    PodSecurity:',
        '      apiVersion: pod-security.admission.config.k8s.io/v1',
        '      kind: PodSecurityConfiguration',
        '      defaults: { enforce: restricted }',
        '      exemptions: { namespaces: [kube-system, open] }',
      ),
    );
    await sandbox.up();
  }, 600_000);

  it('log who did what, without contents', async () => {
    await sandbox.mustKubectl(['create', 'configmap', 'seen', '--from-literal=word=unwritten']);
    const events = await auditEvents();
    const made = events.filter(({ requestURI }) => requestURI.startsWith('/api/v1/namespaces/default/configmaps'));
    expect(made.map(({ verb, user }) => `${verb} by ${user.username}`)).toContain('create by sandbar-admin');
    expect(JSON.stringify(events)).not.toContain('unwritten');
    expect(events.map(({ user }) => user.username)).not.toContain('system:kube-controller-manager');
    expect(await auditEvents('--tail', '1')).toHaveLength(1);
    expect((await sandbox.run(['logs', 'audit', '--follow'])).exitCode).toBe(2);
  });

  it('keep Secrets out of the files of the datastore, whatever resets and snapshots put back', async () => {
    await sandbox.mustKubectl(['create', 'configmap', 'plain', '--from-literal=word=an-open-word-in-a-file']);
    await createSecret('sealed', 'a-sealed-word-in-a-file');
    const bytes = await datastoreBytes();
    expect(bytes.includes('an-open-word-in-a-file')).toBe(true);
    expect(bytes.includes('a-sealed-word-in-a-file')).toBe(false);
    await sandbox.must(['snapshot', 'create', 'before']);
    await sandbox.must(['reset', '--yes']);
    expect(await sandbox.mustKubectl(['get', 'secrets', '-o', 'name'])).toBe('secret/object-store\n');
    await sandbox.must(['snapshot', 'restore', 'before', '--yes']);
    expect(await wordOf('sealed')).toBe('a-sealed-word-in-a-file');
    expect((await datastoreBytes()).includes('a-sealed-word-in-a-file')).toBe(false);
  }, 300_000);

  it('have admission plugins that are configured do their work', async () => {
    const { stderr } = await sandbox.kubectl(['run', 'root', '--image', TOOLBOX_IMAGE, '--privileged']);
    expect(stderr).toContain('violates PodSecurity "restricted:latest"');
    await sandbox.mustKubectl(['create', 'namespace', 'open']);
    await sandbox.mustKubectl(['run', 'pulled', '-n', 'open', '--image', TOOLBOX_IMAGE, '--image-pull-policy=Never']);
    const { spec } = await sandbox.getObject('pod', 'pulled', '-n', 'open');
    expect(spec['containers']).toMatchObject([{ imagePullPolicy: 'Always' }]);
  });

  it('have an alpha gate on', async () => {
    await sandbox.mustKubectl(['apply', '-f', '-'], { stdin: JSON.stringify(toZero) });
  });

  it('can be changed: Secrets are readable after, a policy of its own logs contents, pods are admitted', async () => {
    await sandbox.writeConfig(config('auditLog: ./policy.yaml'));
    await sandbox.up();
    expect(await wordOf('sealed')).toBe('a-sealed-word-in-a-file');
    await createSecret('open', 'an-unsealed-word-in-a-file');
    expect((await datastoreBytes()).includes('an-unsealed-word-in-a-file')).toBe(true);
    await sandbox.mustKubectl(['create', 'namespace', 'watched']);
    await sandbox.mustKubectl(['create', 'configmap', 'seen', '-n', 'watched', '--from-literal=word=written']);
    const [last] = await auditEvents('--tail', '1');
    expect(last).toMatchObject({ verb: 'create', requestObject: { data: { word: 'written' } } });
    const later = { ...toZero, metadata: { name: 'later' } };
    const { stderr } = await sandbox.kubectl(['apply', '-f', '-'], { stdin: JSON.stringify(later) });
    expect(stderr).toContain('spec.minReplicas: Invalid value: 0');
  }, 300_000);

  it('leave readable what resets and snapshots of before put back', async () => {
    expect(JSON.parse(await sandbox.must(['snapshot', 'create', 'open', '-o', 'json']))).not.toHaveProperty('keyId');
    const snapshots = JSON.parse(await sandbox.must(['snapshot', 'ls', '-o', 'json'])) as readonly object[];
    expect(snapshots[0]).toMatchObject({ name: 'before', keyId: expect.any(String) as string });
    await sandbox.must(['snapshot', 'restore', 'before', '--yes']);
    expect(await wordOf('sealed')).toBe('a-sealed-word-in-a-file');
    await sandbox.must(['reset', '--yes']);
    const { data } = await sandbox.getObject('secret', 'object-store');
    expect(Object.keys(data)).not.toEqual([]);
  }, 300_000);

  it('give a pod without users of the host users of its own, who are nobody outside', async () => {
    await sandbox.must(['image', 'load', TOOLBOX_IMAGE]);
    const pod = toolboxPod('apart', { hostUsers: false });
    await sandbox.mustKubectl(['apply', '-f', '-'], { stdin: JSON.stringify(pod) });
    await sandbox.mustKubectl(['wait', '--for=condition=Ready', 'pod/apart', '--timeout=60s']);
    const inPod = async (...command: readonly string[]): Promise<string> =>
      (await sandbox.mustKubectl(['exec', 'apart', '--', ...command])).trim();
    const [inside, outside] = (await inPod('cat', '/proc/self/uid_map')).split(/\s+/).map(Number);
    expect(inside).toBe(0);
    expect(outside).toBeGreaterThanOrEqual(65_536);
    // Files of the image are root's there, and not the shifted user's: the mount is mapped too.
    expect(await inPod('stat', '-c', '%u', '/etc/passwd')).toBe('0');
    const { stdout } = await execa('docker', [
      'exec',
      sandbox.containerName('agent'),
      'sh',
      '-c',
      'for p in /proc/[0-9]*; do read -r _ first _ < $p/uid_map; if [ "$first" -ge 65536 ]; then stat -c %u $p; fi; done',
    ]);
    const user = Number(await inPod('id', '-u'));
    expect(stdout.split('\n')).toContain(String((outside ?? 0) + user));
  }, 300_000);
});
