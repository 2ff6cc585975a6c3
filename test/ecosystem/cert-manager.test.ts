/** cert-manager with its own chart, its webhook and CA injector, and certificates of it in use. */
import { writeFile } from 'node:fs/promises';
import { X509Certificate } from 'node:crypto';
import { join } from 'node:path';
import { execa } from 'execa';
import { beforeAll, describe, expect, it } from 'vitest';
import { fixture, mustHelm, providePrograms, WAIT } from '../e2e/ecosystem.ts';
import { provideFixtureImage, provideFixtureProgram } from '../e2e/fixture-images.ts';
import { createSandbox, eventually } from '../e2e/support.ts';

describe('cert-manager', () => {
  const sandbox = createSandbox('cert-manager');
  let httpsPort: number;

  beforeAll(async () => {
    const { helmPath } = await providePrograms();
    const image = await provideFixtureImage('cert-manager');
    const chart = await provideFixtureProgram(image, '/host/chart.tgz');
    await sandbox.up();
    ({ https: httpsPort } = await sandbox.ports());
    await sandbox.must(['image', 'load', 'sandbar-test/cert-manager:latest', 'sandbar-test/programs:latest']);
    const release = ['cert-manager', chart, '--namespace', 'cert-manager', '--create-namespace'];
    const values = ['--values', fixture('cert-manager', 'values.yaml')];
    await mustHelm(sandbox, helmPath, ['install', ...release, ...values, '--wait', '--timeout', '120s']);
    // The webhook is asked only with the CA that the injector gives to its configuration.
    await eventually('the webhook answers', async () => {
      const args = ['apply', '-f', fixture('manifests', 'certificates.yaml')];
      return (await sandbox.kubectl(args)).exitCode === 0 ? true : undefined;
    });
  }, 1_800_000);

  it('refuses by its webhook what its CRDs let through', async () => {
    const stdin = JSON.stringify({
      apiVersion: 'cert-manager.io/v1',
      kind: 'Certificate',
      metadata: { name: 'bad' },
      spec: { secretName: 'bad', issuerRef: { name: 'root', kind: 'ClusterIssuer' } },
    });
    const { exitCode, stderr } = await sandbox.kubectl(['apply', '-f', '-'], { stdin });
    expect(exitCode).toBe(1);
    expect(stderr).toContain('admission webhook "webhook.cert-manager.io" denied the request');
  });

  it('issues a certificate for an Ingress from a CA of its own, which the ingress then shows', async () => {
    await sandbox.mustKubectl(['wait', '--for=condition=Ready', 'clusterissuer/root', WAIT]);
    await sandbox.mustKubectl(['wait', '--for=create', 'certificate/secured', WAIT]);
    await sandbox.mustKubectl(['wait', '--for=condition=Ready', 'certificate/secured', WAIT]);
    await sandbox.mustKubectl(['rollout', 'status', 'deployment/hello', WAIT]);

    const { data } = await sandbox.getObject('secret', 'secured');
    const authority = Buffer.from(data['ca.crt'] ?? '', 'base64').toString();
    const leaf = new X509Certificate(Buffer.from(data['tls.crt'] ?? '', 'base64'));
    expect(leaf.subjectAltName).toBe('DNS:secured.localhost');
    expect(new X509Certificate(authority).subject).toBe('CN=ecosystem root');

    const file = join(sandbox.directory, 'root.crt');
    await writeFile(file, authority);
    const url = `https://secured.localhost:${String(httpsPort)}/`;
    await eventually(`${url} answers with that certificate`, async () => {
      const { stdout } = await execa('curl', ['--silent', '--cacert', file, url], { reject: false });
      return stdout === 'secured' ? true : undefined;
    });
  });

  it('issues anew when the secret is deleted', async () => {
    const before = await sandbox.getObject('secret', 'secured');
    await sandbox.mustKubectl(['delete', 'secret', 'secured']);
    await eventually('another certificate', async () => {
      const { exitCode, stdout } = await sandbox.kubectl(['get', 'secret', 'secured', '-o', 'json']);
      if (exitCode !== 0) return undefined;
      const { data } = JSON.parse(stdout) as typeof before;
      return data['tls.crt'] !== undefined && data['tls.crt'] !== before.data['tls.crt'] ? true : undefined;
    });
  });
});
