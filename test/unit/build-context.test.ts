import { describe, expect, it } from 'vitest';
import { networkSettings } from '../../src/adapters/build-context.ts';
import { registryOf } from '../../src/adapters/registry-auth.ts';

describe('networkSettings', () => {
  it('passes on what the host needs to reach the network, and nothing else', () => {
    const env = {
      https_proxy: 'http://proxy.example:3128',
      GOPROXY: 'https://go.example',
      HTTP_PROXY: '',
      SECRET: 'x',
    };
    expect(networkSettings(env)).toEqual({
      buildArguments: { https_proxy: 'http://proxy.example:3128', GOPROXY: 'https://go.example' },
      needsHostNetwork: false,
    });
  });

  it.each([
    [{ HTTPS_PROXY: 'http://127.0.0.1:3128' }, true],
    [{ http_proxy: 'http://user:word@localhost:3128/' }, true],
    [{ http_proxy: 'localhost:3128' }, true],
    [{ GOPROXY: 'http://127.0.0.1:8081,direct' }, true],
    [{ ALL_PROXY: 'socks5://[::1]:1080' }, true],
    [{ HTTPS_PROXY: 'http://localhost.example:3128' }, false],
    [{ HTTPS_PROXY: 'http://proxy.example:3128', NO_PROXY: 'localhost,127.0.0.1' }, false],
  ])('%j needs the host’s network: %s', (env, needsHostNetwork) => {
    expect(networkSettings(env).needsHostNetwork).toBe(needsHostNetwork);
  });
});

describe('registryOf', () => {
  it.each([
    ['registry.example/team/dns:1', 'registry.example'],
    ['localhost/dns:1', 'localhost'],
    ['127.0.0.1:5000/team/dns:1', '127.0.0.1:5000'],
    ['team/dns:1', 'https://index.docker.io/v1/'],
    ['debian:trixie-slim', 'https://index.docker.io/v1/'],
  ])('%s lies in %s', (imageRef, registry) => {
    expect(registryOf(imageRef)).toBe(registry);
  });
});
