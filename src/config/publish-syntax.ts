/** How published ports are written: `[HOST:]PORT:KIND/NAME:PORT`, on the command line and in `sandbar.yaml`. */
import { TARGET_KINDS, type PortProtocol, type PublishSpec, type TargetKind } from '../model/published.ts';
import type { SyntaxProblem } from './mount-syntax.ts';
import { findNearest } from './nearest.ts';

export const PUBLISH_FORM = 'the form is [127.0.0.1:]PORT:KIND/NAME:PORT[/udp], for example 8080:service/web:80';

/** Nobody else's machine may reach what runs here, so only this one is listened on. */
const HOSTS = ['127.0.0.1', 'localhost'];

const HOST_AND_PORT = /^(?:(\[[^\]]*\]|[^:/]*):)?([^:/]+):(.+)$/;
const DNS_LABEL = /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/;
const DNS_SUBDOMAIN = /^(?=.{1,253}$)[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*$/;
/** As Kubernetes names ports: at least one letter, 15 characters at most. */
const PORT_NAME = /^(?=.*[a-z])(?!.*--)[a-z0-9](?:[a-z0-9-]{0,13}[a-z0-9])?$/;

/** Parses a port and what it leads to; `namespace` is meant where none is written. */
export function parsePublished(
  text: string,
  { namespace }: { readonly namespace: string },
): PublishSpec | SyntaxProblem {
  const [, host, portText = '', targetText = ''] = HOST_AND_PORT.exec(text) ?? [];
  // `service/web:80` and `8080:service/web` are the usual slips.
  if (!targetText.includes('/')) {
    return {
      problem: `"${text}" names no port of this machine and what it leads to`,
      suggestion: /^[A-Za-z]+\/[^:]+:/.test(text) ? `for example 8080:${text}` : PUBLISH_FORM,
    };
  }
  if (host !== undefined && !HOSTS.includes(host)) {
    return {
      problem: `"${text}" wants to listen on ${host === '' ? 'every address' : host}: ports are opened on 127.0.0.1 only`,
      suggestion: `write ${portText}:${targetText}`,
    };
  }
  const hostPort = parsePortNumber(portText);
  if (hostPort === undefined) {
    return { problem: `"${portText}" is no port of this machine`, suggestion: 'a number from 1 to 65535' };
  }
  const target = parseTarget(targetText, namespace);
  return 'problem' in target ? target : { hostPort, ...target };
}

/** `[127.0.0.1:]PORT[/udp]`, as `port rm` takes it. */
export function parseHostPort(text: string): Pick<PublishSpec, 'hostPort' | 'protocol'> | SyntaxProblem {
  const [address = '', protocolText, ...rest] = text.split('/');
  const protocol = parseProtocol(protocolText);
  const hostPort = parsePortNumber(address.replace(/^(?:127\.0\.0\.1|localhost):/, ''));
  if (hostPort === undefined || protocol === undefined || rest.length > 0) {
    return { problem: `"${text}" is no port of this machine`, suggestion: 'for example 8080, or 5353/udp' };
  }
  return { hostPort, protocol };
}

function parseTarget(text: string, defaultNamespace: string): Omit<PublishSpec, 'hostPort'> | SyntaxProblem {
  const [, placeText = text, port, protocolText] = /^(.+):([^:/]*)(?:\/([^/]*))?$/.exec(text) ?? [];
  const parts = placeText.split('/');
  const [namespace = '', kindWord = '', name = ''] = parts.length === 3 ? parts : [defaultNamespace, ...parts];
  if (parts.length < 2 || parts.length > 3) {
    return { problem: `"${text}" names nothing that a port can lead to`, suggestion: PUBLISH_FORM };
  }
  const kind = findKind(kindWord);
  if (kind === undefined) return unknownKind(kindWord, text);
  if (!DNS_LABEL.test(namespace)) {
    return { problem: `"${namespace}" is not the name of a namespace`, suggestion: PUBLISH_FORM };
  }
  if (!DNS_SUBDOMAIN.test(name)) {
    return { problem: `"${name}" is not a name that Kubernetes has`, suggestion: PUBLISH_FORM };
  }
  if (port === undefined) {
    return { problem: `"${text}" does not say which of its ports`, suggestion: `for example ${text}:80` };
  }
  if (parsePortNumber(port) === undefined && !PORT_NAME.test(port)) {
    return { problem: `"${port}" is neither a port's number nor a port's name`, suggestion: PUBLISH_FORM };
  }
  const protocol = parseProtocol(protocolText);
  if (protocol === undefined) {
    return {
      problem: `"${protocolText ?? ''}" is no protocol of a port`,
      suggestion: '/tcp, which is meant without it, or /udp',
    };
  }
  return { protocol, target: { namespace, kind, name, port } };
}

function findKind(word: string): TargetKind | undefined {
  const plain = word.toLowerCase().replace(/\.apps$/, '');
  const found = Object.entries(TARGET_KINDS).find(([, words]) => (words as readonly string[]).includes(plain));
  return found?.[0] as TargetKind | undefined;
}

function unknownKind(word: string, text: string): SyntaxProblem {
  const kinds = Object.values(TARGET_KINDS).map(([singular]) => singular);
  const nearest = word === '' ? undefined : findNearest(word.toLowerCase(), kinds);
  return {
    problem: `"${text}": ${word === '' ? 'its kind is empty' : `${word} is nothing that a port can lead to`}`,
    suggestion: nearest === undefined ? `kinds: ${kinds.join(', ')}` : `did you mean ${nearest}?`,
  };
}

function parseProtocol(text: string | undefined): PortProtocol | undefined {
  switch (text?.toLowerCase()) {
    case undefined:
    case 'tcp':
      return 'TCP';
    case 'udp':
      return 'UDP';
    default:
      return undefined;
  }
}

function parsePortNumber(text: string): number | undefined {
  const port = /^\d{1,5}$/.test(text) ? Number(text) : 0;
  return port >= 1 && port <= 65535 ? port : undefined;
}
