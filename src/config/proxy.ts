/** The proxy of this machine, as the node has to see it. */
import { HOST_HOSTNAME } from '../model/names.ts';
import { withoutProxyFor } from '../model/proxy.ts';
import type { Diagnostic } from '../model/errors.ts';
import type { ClusterSpec, ProxySettings } from '../model/spec.ts';
import { readProxyVariable, type Environment } from './environment.ts';
import { isLoopback } from './rules.ts';

/** Settings for the node's pulls; the cluster's own hosts and subnets are reached without the proxy. */
export function proxySettings(
  env: Environment,
  network: ClusterSpec['network'],
): { readonly proxy: ProxySettings; readonly diagnostics: readonly Diagnostic[] } {
  const diagnostics: Diagnostic[] = [];
  const read = (name: 'HTTP_PROXY' | 'HTTPS_PROXY'): string => {
    const text = readProxyVariable(env, name);
    if (text === undefined) return '';
    const url = proxyUrl(text);
    if (url === undefined) {
      diagnostics.push({
        file: name,
        message: `"${text}" is not the URL of a proxy`,
        suggestion: 'for example http://proxy.example:3128',
      });
    }
    return url ?? '';
  };
  const proxy = {
    httpProxy: read('HTTP_PROXY'),
    httpsProxy: read('HTTPS_PROXY'),
    noProxy: (readProxyVariable(env, 'NO_PROXY') ?? '').replace(/[\s,]+/g, ','),
  };
  if (proxy.httpProxy === '' && proxy.httpsProxy === '') return { proxy: { ...proxy, noProxy: '' }, diagnostics };
  const { subnet, podSubnet, serviceSubnet } = network;
  const own = ['localhost', '127.0.0.1', '::1', HOST_HOSTNAME, '.svc', '.cluster.local', podSubnet, serviceSubnet];
  return { proxy: withoutProxyFor(proxy, subnet === undefined ? own : [...own, subnet]), diagnostics };
}

/** Programs take a proxy without a scheme for an http one. One on loopback is behind another name inside a container. */
function proxyUrl(text: string): string | undefined {
  const full = /^[a-z][a-z0-9+.-]*:\/\//i.test(text) ? text : `http://${text}`;
  if (!URL.canParse(full)) return undefined;
  const url = new URL(full);
  if (!['http:', 'https:', 'socks5:', 'socks5h:'].includes(url.protocol) || url.hostname === '') return undefined;
  if (isLoopback(url.hostname)) url.hostname = HOST_HOSTNAME;
  return url.pathname === '/' && url.search === '' ? url.href.replace(/\/$/, '') : url.href;
}
