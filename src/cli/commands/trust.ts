import { distrust, provideTrustedRoot, trust, type TrustResult } from '../../operations/trust.ts';
import { SandbarError } from '../../model/errors.ts';
import { runLocally, type CommandInput } from '../run-command.ts';
import { formatTable } from '../view/table.ts';

export type TrustFlags = { readonly remove?: boolean; readonly print?: boolean };

/** Makes this machine accept the ingress' certificates, takes that back, or says where the root's certificate is. */
export function runTrust(input: CommandInput<TrustFlags>): Promise<number> {
  return runLocally(input, async (emit) => {
    const { cli, flags } = input;
    const { host, clock, mintRoot } = cli;
    if (flags.remove === true && flags.print === true) {
      throw new SandbarError('USAGE', '--remove and --print do not go together', { hint: 'choose one of them' });
    }
    const means = { ports: { host, clock }, emit, mintRoot };
    if (flags.print === true) {
      const { path } = await provideTrustedRoot(means);
      return { result: { certificate: path }, text: path };
    }
    const result = await (flags.remove === true ? distrust(host) : trust(means));
    return { result, text: formatTrust(result) };
  });
}

function formatTrust({ certificate, stores, notes }: TrustResult): string {
  const rows = stores.map(({ kind, place, isTrusted, change }) => [
    kind,
    place,
    change === 'none' ? `${isTrusted ? 'trusted' : 'not trusted'} already` : change,
  ]);
  const places = rows.length === 0 ? 'there is no store of certificates here that sandbar knows' : formatTable(rows);
  return [places, ...notes, '', `for clients with a list of their own: ${certificate}`].join('\n');
}
