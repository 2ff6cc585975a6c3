/** Paths of any of the three systems, compared by their parts. */

/** Systems whose file systems take `A` and `a` for the same name. */
const IGNORES_CASE: readonly NodeJS.Platform[] = ['darwin', 'win32'];

/** Names along an absolute path, ready to be compared; a Windows drive (`c:`) is one of them. */
export function partsOf(path: string, platform: NodeJS.Platform): readonly string[] {
  const plain = platform === 'win32' ? path.replace(/^\\\\\?\\/, '').replaceAll('\\', '/') : path;
  // The same files are below both of these paths of macOS.
  const short = platform === 'darwin' ? plain.replace(/^\/System\/Volumes\/Data(?=\/)/i, '') : plain;
  const parts = short.split('/').filter((part) => part !== '' && part !== '.');
  return IGNORES_CASE.includes(platform) ? parts.map((part) => part.toLowerCase()) : parts;
}

/** Whether a path is a folder or something below it. */
export function isWithin(path: readonly string[], folder: readonly string[]): boolean {
  return folder.length <= path.length && folder.every((part, index) => part === path[index]);
}

/** Whether a path is below a folder, and not the folder itself. */
export function isBelow(path: readonly string[], folder: readonly string[]): boolean {
  return path.length > folder.length && isWithin(path, folder);
}

/** The system that an absolute path is one of, as far as comparing it goes. */
export function platformOf(path: string): NodeJS.Platform {
  return /^(?:[A-Za-z]:[\\/]|\\\\)/.test(path) ? 'win32' : 'linux';
}
