import { describe, expect, it } from 'vitest';
import { CAPABILITIES, formatContainer, grantFrom, type NodeGrant } from '../../src/adapters/docker-containers.ts';
import type { ContainerFile, ContainerSpec } from '../../src/model/resources.ts';

const SPEC: ContainerSpec = {
  name: 'sandbar-dev-dns',
  hostname: 'dns',
  imageRef: 'sandbar/dns:1',
  networkName: 'sandbar-dev',
  address: '172.30.0.4',
  ports: [
    { hostPort: 8080, containerPort: 80 },
    { hostPort: 8081, containerPort: 80 },
  ],
  volumes: [{ volumeName: 'data', path: '/data' }],
  binds: [],
  tmpfs: ['/run'],
  hasReadOnlyRoot: true,
  privileges: { level: 'none', capabilities: ['NET_BIND_SERVICE'] },
  extraHosts: [{ host: 'host.sandbar.internal', address: 'host-gateway' }],
  stopTimeoutS: 10,
};

function format(
  container: Partial<ContainerSpec> = {},
  {
    files = [],
    grant = { kind: 'all' },
    loggingDriver = 'json-file',
  }: { readonly files?: readonly ContainerFile[]; readonly grant?: NodeGrant; readonly loggingDriver?: string } = {},
) {
  return formatContainer({ container: { ...SPEC, ...container }, files, labels: { a: 'b' }, grant, loggingDriver });
}

const file = (path: string): ContainerFile => ({ path, mode: 0o600, content: path });

describe('formatContainer', () => {
  it('publishes on loopback only', () => {
    expect(format().options.HostConfig?.PortBindings).toEqual({
      '80/tcp': [
        { HostIp: '127.0.0.1', HostPort: '8080' },
        { HostIp: '127.0.0.1', HostPort: '8081' },
      ],
    });
  });

  it('drops every capability but those listed', () => {
    expect(format().options.HostConfig).toMatchObject({
      CapDrop: ['ALL'],
      CapAdd: ['NET_BIND_SERVICE'],
      SecurityOpt: ['no-new-privileges'],
      ReadonlyRootfs: true,
    });
  });

  it('binds folders of the host as they are: none is made, relabelled, or seen by other containers', () => {
    const { HostConfig: hostConfig } = format({ binds: [{ source: '/home/ada/a b:c,d', path: '/source' }] }).options;
    expect(hostConfig?.Mounts?.find(({ Type }) => Type === 'bind')).toEqual({
      Type: 'bind',
      Source: '/home/ada/a b:c,d',
      Target: '/source',
      BindOptions: { Propagation: 'rprivate' },
    });
    expect(hostConfig?.SecurityOpt).toEqual(['no-new-privileges', 'label=disable']);
  });

  it('gives a node everything, or what there is', () => {
    const node = { privileges: { level: 'node' } } as const;
    const all = format(node).options.HostConfig;
    expect(all).toMatchObject({ Privileged: true, CgroupnsMode: 'private' });
    expect(all).not.toHaveProperty('CapAdd');
    const some = format(node, { grant: { kind: 'list', capabilities: ['SYS_ADMIN'] } }).options.HostConfig;
    expect(some).toMatchObject({ CapAdd: ['SYS_ADMIN'], DeviceCgroupRules: ['a *:* rwm'], CgroupnsMode: 'private' });
    expect(some).not.toHaveProperty('Privileged');
  });

  it('rotates logs that the engine keeps, and leaves a log service alone', () => {
    expect(format().options.HostConfig?.LogConfig).toMatchObject({ Type: 'json-file', Config: { 'max-file': '2' } });
    expect(format({}, { loggingDriver: 'journald' }).options.HostConfig).not.toHaveProperty('LogConfig');
  });

  it('unpacks at the root where that can be written', () => {
    const files = [file('/etc/a'), file('/data/b')];
    expect(format({ hasReadOnlyRoot: false }, { files }).archives).toEqual([{ path: '/', files }]);
  });

  it('unpacks into volumes where the root is read-only, with one of its own where there is none', () => {
    const files = [file('/etc/sandbar/config.json'), file('/etc/sandbar/pki/ca.crt'), file('/data/b')];
    const { archives, options } = format({}, { files });
    expect(archives.map(({ path, files: placed }) => [path, placed.map((one) => one.path)])).toEqual([
      ['/etc/sandbar', ['/config.json', '/pki/ca.crt']],
      ['/data', ['/b']],
    ]);
    expect(options.HostConfig?.Mounts?.map((mount) => [mount.Source, mount.Target])).toEqual([
      ['data', '/data'],
      ['', '/etc/sandbar'],
    ]);
  });
});

describe('grantFrom', () => {
  it('is everything when the engine lacks nothing that has a name', () => {
    expect(grantFrom(0x1ffffffffffn)).toEqual({ kind: 'all' });
  });

  it('lists what the engine has when it lacks something', () => {
    expect(grantFrom(0x1fffeffffffn)).toEqual({
      kind: 'list',
      capabilities: CAPABILITIES.filter((capability) => capability !== 'SYS_RESOURCE'),
    });
  });
});
