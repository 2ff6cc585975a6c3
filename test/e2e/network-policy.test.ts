/** Network policies between real pods, looked at by clients in pods that connect or do not. */
import { once } from 'node:events';
import { request, type IncomingMessage } from 'node:http';
import { execa } from 'execa';
import { beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { ingress, TOOLBOX_IMAGE } from './fixtures/apps.ts';
import { pod, policy, policyScripts, serverContainer } from './fixtures/policies.ts';
import { createSandbox, eventually } from './support.ts';

const sandbox = createSandbox('network-policy');

/** How long a test waits for a change to be in force, on a machine that has other work too. */
const IN_FORCE_MS = 10_000;

const NAMESPACES = ['shop', 'other'];

/** Pod `web` of the namespace `shop`, and its clients. */
const addresses = new Map<string, string>();

const FOR_WEB = { podSelector: { matchLabels: { app: 'web' } } };
const FOR_CLIENT = { podSelector: { matchLabels: { app: 'client' } } };
const DNS_PEER = {
  namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': 'kube-system' } },
  podSelector: { matchLabels: { 'k8s-app': 'kube-dns' } },
};

async function applyObjects(objects: readonly object[]): Promise<void> {
  const list = { apiVersion: 'v1', kind: 'List', items: objects };
  await sandbox.mustKubectl(['apply', '-f', '-'], { stdin: JSON.stringify(list) });
}

/** Who answered a pod, target by target; `nobody` where nothing did. `web` in a target is that pod's address. */
async function ask(from: string, targets: readonly string[]): Promise<readonly string[]> {
  const [namespace = '', name = ''] = from.split('/');
  const urls = targets.map((target) => target.replace('web:', `${addresses.get('shop/web') ?? ''}:`));
  const run = ['exec', '-n', namespace, name, '--', 'node', '/scripts/policy-client.mjs', ...urls];
  return JSON.parse(await sandbox.mustKubectl(run)) as string[];
}

/** Waits until a pod reaches these targets and no other; `!` before a target: it is not reached. */
async function expectReach(from: string, targets: readonly string[]): Promise<void> {
  const plain = targets.map((target) => target.replace(/^!/, ''));
  let reached: readonly string[] = [];
  await eventually(
    `${from} reaches ${targets.join(', ')}`,
    async () => {
      const answers = await ask(from, plain);
      reached = plain.map((target, index) => (answers[index] === 'nobody' ? `!${target}` : target));
      return reached.join() === targets.join() ? true : undefined;
    },
    { timeoutMs: IN_FORCE_MS },
  ).catch(() => {
    expect(reached, `what ${from} reaches`).toEqual(targets);
  });
}

async function runOnNode(script: string): Promise<string> {
  const run = ['exec', sandbox.containerName('agent'), 'sh', '-c', script];
  return (await execa('docker', run, { reject: false })).stdout;
}

/** The packet filter and sets of the node, as far as they are those of policies. */
const rulesOnNode = (): Promise<string> =>
  runOnNode("iptables-save -t filter | grep -E '^:KUBE-(POD-FW|NWPLCY)' ; ipset list -n");

const killKubelet = (): Promise<string> =>
  runOnNode('kill -9 $(cat /proc/[0-9]*/stat | grep "(sandbar-kubelet)" | cut -d" " -f1)');

beforeAll(async () => {
  await sandbox.up();
  await sandbox.must(['image', 'load', TOOLBOX_IMAGE]);
  await applyObjects([
    ...NAMESPACES.flatMap((name) => [{ apiVersion: 'v1', kind: 'Namespace', metadata: { name } }, policyScripts(name)]),
    {
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { namespace: 'shop', name: 'web' },
      spec: { selector: { app: 'web' }, ports: [{ port: 80, targetPort: 8080 }] },
    },
    pod('shop', 'web'),
    pod('shop', 'client'),
    pod('shop', 'stranger'),
    pod('other', 'client'),
  ]);
  for (const name of NAMESPACES) {
    await sandbox.mustKubectl(['wait', '-n', name, '--for=condition=Ready', 'pod', '--all', '--timeout=60s']);
    for (const { metadata, status } of (await sandbox.getObject('pods', '-n', name)).items) {
      addresses.set(`${name}/${metadata.name}`, String(status['podIP']));
    }
  }
});

beforeEach(async () => {
  await sandbox.mustKubectl(['delete', 'networkpolicies', '-n', 'shop', '--all']);
});

describe('what comes in', () => {
  it('is refused by a policy without rules, by address and by Service, but not to the node', async () => {
    await expectReach('shop/client', ['tcp://web:8080', 'tcp://web.shop:80', 'udp://web:8053']);
    await applyObjects([policy('deny', { ...FOR_WEB, policyTypes: ['Ingress'] })]);
    await expectReach('shop/client', ['!tcp://web:8080', '!tcp://web.shop:80', '!udp://web:8053']);
    // By way of its Service, a pod reaches itself through the node.
    await expectReach('shop/web', ['tcp://web.shop:80', `tcp://${addresses.get('other/client') ?? ''}:8080`]);
    // Its probe, which fails the first time that it is not answered, comes from the node.
    await sandbox.mustKubectl(['wait', '-n', 'shop', '--for=condition=Ready', 'pod/web', '--timeout=0']);
    await sandbox.mustKubectl(['delete', 'networkpolicy', '-n', 'shop', 'deny']);
    await expectReach('shop/client', ['tcp://web:8080', 'tcp://web.shop:80', 'udp://web:8053']);
    expect(await eventually('no rule left', async () => ((await rulesOnNode()) === '' ? 'none' : undefined))).toBe(
      'none',
    );
  });

  it('is let in by labels of pods and namespaces, as they are at the time', async () => {
    const from = (peer: object): object => policy('from', { ...FOR_WEB, ingress: [{ from: [peer] }] });
    const shopClients = { podSelector: { matchLabels: { app: 'client' } } };
    await applyObjects([from(shopClients)]);
    await expectReach('shop/client', ['tcp://web:8080']);
    await expectReach('shop/stranger', ['!tcp://web:8080']);
    await expectReach('other/client', ['!tcp://web:8080']);
    await applyObjects([from({ ...shopClients, namespaceSelector: { matchLabels: { guest: 'yes' } } })]);
    await expectReach('shop/client', ['!tcp://web:8080']);
    await expectReach('other/client', ['!tcp://web:8080']);
    await sandbox.mustKubectl(['label', 'namespace', 'other', 'guest=yes']);
    await expectReach('other/client', ['tcp://web:8080']);
    await sandbox.mustKubectl(['label', '-n', 'other', 'pod', 'client', 'app=former', '--overwrite']);
    await expectReach('other/client', ['!tcp://web:8080']);
    await sandbox.mustKubectl(['label', '-n', 'other', 'pod', 'client', 'app=client', '--overwrite']);
  });

  it('is let in by port, range of ports and name of a port', async () => {
    const targets = (open: readonly string[]): string[] =>
      ['tcp://web:8080', 'tcp://web:8081', 'tcp://web:8090', 'udp://web:8053'].map((target) =>
        open.includes(target) ? target : `!${target}`,
      );
    const ports = (...list: readonly object[]): object => policy('ports', { ...FOR_WEB, ingress: [{ ports: list }] });
    await applyObjects([ports({ port: 8081 })]);
    await expectReach('shop/client', targets(['tcp://web:8081']));
    await applyObjects([ports({ port: 8081, endPort: 8090 })]);
    await expectReach('shop/client', targets(['tcp://web:8081', 'tcp://web:8090']));
    await applyObjects([ports({ port: 'admin' }, { port: 'dns', protocol: 'UDP' })]);
    await expectReach('shop/client', targets(['tcp://web:8081', 'udp://web:8053']));
    const noSuchPort = { from: [{ podSelector: {} }], ports: [{ port: 'no-such' }] };
    await applyObjects([policy('ports', { ...FOR_WEB, ingress: [noSuchPort] })]);
    await expectReach('shop/client', targets([]));
  });

  it('is let in by block of addresses, without what is excepted, unless another block has it', async () => {
    const client = `${addresses.get('shop/client') ?? ''}/32`;
    const pods = { cidr: '10.244.0.0/16', except: [client] };
    const from = (...blocks: readonly object[]): object =>
      policy('blocks', { ...FOR_WEB, ingress: [{ from: blocks.map((ipBlock) => ({ ipBlock })) }] });
    await applyObjects([from(pods)]);
    await expectReach('shop/client', ['!tcp://web:8080']);
    await expectReach('shop/stranger', ['tcp://web:8080']);
    await applyObjects([from(pods, { cidr: client })]);
    await expectReach('shop/client', ['tcp://web:8080']);
  });

  it('is let in from the ingress by the labels that stand for it', async () => {
    const { http: port } = await sandbox.ports();
    const status = async (): Promise<number> => {
      const outgoing = request({ host: '127.0.0.1', port, headers: { host: 'web.localhost' } }).end();
      const [response] = (await once(outgoing, 'response')) as [IncomingMessage];
      response.resume();
      return response.statusCode ?? 0;
    };
    const expectStatus = (wanted: number): Promise<number> =>
      eventually(`the ingress says ${String(wanted)}`, async () => ((await status()) === wanted ? wanted : undefined), {
        timeoutMs: 10_000,
      });
    const route = ingress('web', [{ host: 'web.localhost', paths: [{ path: '/', service: 'web' }] }]) as {
      metadata: object;
    };
    await applyObjects([policy('deny', { ...FOR_WEB, policyTypes: ['Ingress'] })]);
    // A connection that the ingress had before would go on.
    await expectReach('shop/client', ['!tcp://web:8080']);
    await applyObjects([{ ...route, metadata: { name: 'web', namespace: 'shop' } }]);
    await expectStatus(502);
    const peer = {
      namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': 'sandbar-system' } },
      podSelector: { matchLabels: { 'app.kubernetes.io/name': 'ingress' } },
    };
    await applyObjects([policy('from-ingress', { ...FOR_WEB, ingress: [{ from: [peer] }] })]);
    await expectStatus(200);
    await expectReach('shop/client', ['!tcp://web:8080']);
  });
});

describe('what goes out', () => {
  it('goes to nobody but those that rules name: pods, name service, API server, object store', async () => {
    // The API server has an answer even for who speaks no TLS.
    const everything = [
      'tcp://web.shop:80',
      'tcp://web:8081',
      'name://web.shop',
      'tcp://s3.sandbar-system:9000',
      'tcp://10.96.0.1:443',
    ];
    const only = (...open: readonly string[]): readonly string[] =>
      everything.map((target) => (open.includes(target) ? target : `!${target}`));
    const out = (...egress: readonly object[]): object =>
      policy('out', { ...FOR_CLIENT, policyTypes: ['Egress'], egress });
    await expectReach('shop/client', everything);
    await applyObjects([out()]);
    await expectReach('shop/client', only());
    await expectReach('shop/stranger', everything);
    // The other direction is nobody's business here.
    await expectReach('shop/stranger', [`tcp://${addresses.get('shop/client') ?? ''}:8080`]);
    const dns = {
      to: [DNS_PEER],
      ports: [
        { port: 53, protocol: 'UDP' },
        { port: 53, protocol: 'TCP' },
      ],
    };
    await applyObjects([
      out(dns, { to: [{ podSelector: { matchLabels: { app: 'web' } } }], ports: [{ port: 'http' }] }),
    ]);
    await expectReach('shop/client', only('tcp://web.shop:80', 'name://web.shop'));
    const [apiServer] = (await sandbox.getObject('endpoints', 'kubernetes'))['subsets'] as {
      readonly addresses: readonly { readonly ip: string }[];
    }[];
    const block = { ipBlock: { cidr: `${apiServer?.addresses[0]?.ip ?? ''}/32` } };
    await applyObjects([out({ to: [block], ports: [{ port: 6443 }] })]);
    await expectReach('shop/client', only('tcp://10.96.0.1:443'));
  });

  it('is judged apart from what comes in, in one policy for both', async () => {
    const both = { podSelector: {}, policyTypes: ['Ingress', 'Egress'], egress: [{}] };
    await applyObjects([policy('both', both)]);
    await expectReach('shop/client', ['!tcp://web:8080', `tcp://${addresses.get('other/client') ?? ''}:8080`]);
  });

  it('is refused from the first packet of a pod that starts', async () => {
    await applyObjects([policy('out', { podSelector: { matchLabels: { app: 'young' } }, policyTypes: ['Egress'] })]);
    // No program that takes its time to start: ordinary enforcement would have come by then.
    const once = `(exec 3<>/dev/tcp/${addresses.get('shop/web') ?? ''}/8080) 2>/dev/null && echo reached`;
    const command = ['bash', '-c', `for i in 1 2 3 4 5 6 7 8; do ${once}; done; echo tried`];
    await applyObjects([pod('shop', 'young', { restartPolicy: 'Never', containers: [serverContainer({ command })] })]);
    await sandbox.mustKubectl([
      'wait',
      '-n',
      'shop',
      '--for=jsonpath={.status.phase}=Succeeded',
      'pod/young',
      '--timeout=60s',
    ]);
    expect((await sandbox.mustKubectl(['logs', '-n', 'shop', 'young'])).trim()).toBe('tried');
  });
});

describe('the node', () => {
  it('enforces on through a restart of the kubelet, and takes what came and went meanwhile', async () => {
    await applyObjects([policy('deny', { ...FOR_WEB, policyTypes: ['Ingress'] })]);
    await expectReach('shop/client', ['!tcp://web:8080']);
    await killKubelet();
    await sandbox.mustKubectl(['delete', 'networkpolicy', '-n', 'shop', 'deny']);
    await eventually('no rule left', async () => ((await rulesOnNode()) === '' ? true : undefined));
    await eventually('the kubelet answers', async () => {
      const { exitCode } = await sandbox.kubectl(['exec', '-n', 'shop', 'client', '--', 'true']);
      return exitCode === 0 ? true : undefined;
    });
    await expectReach('shop/client', ['tcp://web:8080']);
  });

  it('enforces again, before what kube-proxy accepts, where somebody has emptied the packet filter', async () => {
    await applyObjects([policy('deny', { ...FOR_WEB, policyTypes: ['Ingress'] })]);
    await expectReach('shop/client', ['!tcp://web:8080']);
    await runOnNode('iptables -F FORWARD');
    await expectReach('shop/client', ['tcp://web:8080']);
    await applyObjects([policy('deny', { ...FOR_WEB, policyTypes: ['Ingress', 'Egress'] })]);
    await expectReach('shop/client', ['!tcp://web:8080']);
    await runOnNode('iptables -F FORWARD');
    await killKubelet();
    const jumps = await eventually('the jumps of both', async () => {
      const rules = await runOnNode('iptables -S FORWARD');
      return rules.includes('-j KUBE-FORWARD') && rules.includes('-j KUBE-ROUTER-FORWARD') ? rules : undefined;
    });
    expect(jumps.split('\n')[1]).toContain('-j KUBE-ROUTER-FORWARD');
    await eventually('the kubelet answers', async () => {
      const { exitCode } = await sandbox.kubectl(['exec', '-n', 'shop', 'client', '--', 'true']);
      return exitCode === 0 ? true : undefined;
    });
    await expectReach('shop/client', ['!tcp://web:8080']);
  });

  it('keeps in force what a reset keeps, and has no rule left after a whole one', async () => {
    await applyObjects([policy('deny', { ...FOR_WEB, policyTypes: ['Ingress'] })]);
    await expectReach('shop/client', ['!tcp://web:8080']);
    await sandbox.must(['reset', '--yes', '--keep', 'namespace/shop', '--keep', 'namespace/other']);
    await expectReach('shop/client', ['!tcp://web:8080']);
    await sandbox.must(['reset', '--yes']);
    await eventually('no rule left', async () => ((await rulesOnNode()) === '' ? true : undefined));
  });
});
