import type { ProxySettings } from './spec.ts';

/** Settings that reach these hosts and subnets without the proxy; without a proxy there is nothing to add to. */
export function withoutProxyFor(proxy: ProxySettings, hosts: readonly string[]): ProxySettings {
  if (proxy.httpProxy === '' && proxy.httpsProxy === '') return proxy;
  const present = proxy.noProxy.split(',').filter((host) => host !== '');
  return { ...proxy, noProxy: [...new Set([...present, ...hosts])].join(',') };
}
