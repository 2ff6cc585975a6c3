import { readFileSync } from 'node:fs';
import { parse } from 'yaml';
import { describe, expect, it } from 'vitest';
import { containersOf } from '../../src/components/cluster.ts';
import { desiredFor } from '../builders/cluster.ts';

type Options = Parameters<typeof desiredFor>[0];

/** What a container is given in one of its files. */
function fileOf(owner: string, path: string, options?: Options): string {
  const container = containersOf(desiredFor(options).docker).find((found) => found.owner === owner);
  return container?.files.find((file) => file.path === path)?.content ?? '';
}

const classOf = (options?: Options): unknown =>
  (JSON.parse(fileOf('control-plane', '/etc/sandbar/config.json', options)) as { gatewayClass: unknown }).gatewayClass;

const traefikOf = (options?: Options): { entryPoints: object; providers: object } =>
  parse(fileOf('ingress', '/etc/sandbar/traefik.yaml', options)) as { entryPoints: object; providers: object };

const rulesOf = (options?: Options): string =>
  JSON.stringify(desiredFor(options).inside.find(({ id }) => id.includes('ClusterRole.') && id.includes('ingress')));

describe('the Gateway API', () => {
  const off = { gatewayApi: { isEnabled: false } };

  it('has a class, a provider whose Gateways have the address of the ingress, and a role', () => {
    expect(classOf()).toEqual({ name: 'sandbar', controllerName: 'traefik.io/gateway-controller' });
    expect(traefikOf().providers).toMatchObject({ kubernetesGateway: { statusAddress: { ip: '172.30.0.5' } } });
    expect(Object.keys(traefikOf().entryPoints)).toEqual(['web', 'websecure', 'alternate']);
    expect(rulesOf()).toContain('httproutes/status');
  });

  it('leaves nothing of that where it is off', () => {
    expect(classOf(off)).toBeNull();
    expect(traefikOf(off).providers).not.toHaveProperty('kubernetesGateway');
    expect(Object.keys(traefikOf(off).entryPoints)).toEqual(['web', 'websecure']);
    expect(rulesOf(off)).not.toContain('gateway');
    const ingress = containersOf(desiredFor(off).docker).find(({ owner }) => owner === 'ingress');
    expect(ingress?.probes.map(({ kind }) => kind)).toEqual(['http']);
  });

  it.each(['gateway-api'])('has the version that the ingress is built with, in %s', (folder) => {
    const versionIn = (name: string): string | undefined =>
      /sigs\.k8s\.io\/gateway-api (v\S+)/.exec(
        readFileSync(new URL(`../../images/${name}/go.mod`, import.meta.url), 'utf8'),
      )?.[1];
    expect(versionIn(folder)).toMatch(/^v1\./);
    expect(versionIn(folder)).toBe(versionIn('ingress'));
  });
});
