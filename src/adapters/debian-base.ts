/** A Debian base made on this machine from Debian's packages, for where no registry answers. */
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { execa } from 'execa';

/** What Debian's packages are signed with; not on Ubuntu unless it is installed. */
const DEBIAN_KEYRING = '/usr/share/keyrings/debian-archive-keyring.gpg';

export type BootstrapOptions = {
  readonly suite: string;
  /** Settings for dpkg: what the base leaves out. */
  readonly dpkgConfigPath: string;
  /** Where the root file system goes, as a tar archive. */
  readonly tarPath: string;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly onProgress: (text: string) => void;
  readonly signal?: AbortSignal | undefined;
};

/** Whether this machine has what it takes: apt, and root's privileges. */
export async function canBootstrap(isRoot: boolean): Promise<boolean> {
  if (!isRoot) return false;
  try {
    return /^ID(?:_LIKE)?=.*\bdebian\b/m.test(await readFile('/etc/os-release', 'utf8'));
  } catch {
    // Only Linux has the file.
    return false;
  }
}

/** Makes what `debian:…-slim` is made from: the essential packages, without manuals and translations. */
export async function bootstrapDebian(options: BootstrapOptions): Promise<void> {
  const { suite, tarPath, onProgress } = options;
  const run = {
    env: { ...options.env, DEBIAN_FRONTEND: 'noninteractive' },
    extendEnv: false,
    ...(options.signal === undefined ? {} : { cancelSignal: options.signal }),
  };
  const hasProgram = !(await execa('mmdebstrap', ['--version'], { ...run, reject: false })).failed;
  if (!hasProgram || !existsSync(DEBIAN_KEYRING)) {
    onProgress('installing mmdebstrap');
    // A source of packages that cannot be reached may have nothing to do with these two: the installation tells.
    await execa('apt-get', ['update'], { ...run, reject: false });
    await execa(
      'apt-get',
      ['install', '--yes', '--no-install-recommends', 'mmdebstrap', 'debian-archive-keyring'],
      run,
    );
  }
  onProgress(`bootstrapping Debian ${suite}`);
  const settings = ['--variant=minbase', `--dpkgopt=${options.dpkgConfigPath}`];
  await execa('mmdebstrap', [...settings, suite, tarPath, ...(await mirrorsOfHost(suite))], run);
}

/** The Debian mirrors that this machine is set to use; none: mmdebstrap's own default. */
async function mirrorsOfHost(suite: string): Promise<readonly string[]> {
  const format = '$(ORIGIN)|$(LABEL)|$(REPO_URI)';
  const targets = await execa('apt-get', ['indextargets', '--format', format, 'Identifier: Packages'], {
    reject: false,
  });
  const uriByLabel = new Map<string, string>();
  for (const line of targets.stdout.split('\n')) {
    const [origin, label = '', uri = ''] = line.split('|');
    if (origin === 'Debian' && uri.startsWith('http')) uriByLabel.set(label, uri);
  }
  const main = uriByLabel.get('Debian');
  if (main === undefined) return [];
  const security = uriByLabel.get('Debian-Security');
  return [
    `deb ${main} ${suite} main`,
    `deb ${main} ${suite}-updates main`,
    ...(security === undefined ? [] : [`deb ${security} ${suite}-security main`]),
  ];
}
