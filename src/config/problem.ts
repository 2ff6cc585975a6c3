/** What is wrong with a value, before it is known where that value was written. */

/** Keys and list indexes from the top of the configuration. */
export type Path = readonly (string | number)[];

export type Problem = {
  readonly path: Path;
  readonly message: string;
  readonly suggestion?: string;
  /** The key itself is wrong, not its value. */
  readonly isAboutKey?: boolean;
};

/** `network.pods`, `objectStore.buckets[1]`: as a person would say it. */
export function formatPath(path: Path): string {
  return path
    .map((part, index) => {
      if (typeof part === 'number') return `[${String(part)}]`;
      const isPlain = /^[A-Za-z_][\w-]*$/.test(part);
      if (!isPlain) return `["${part}"]`;
      return index === 0 ? part : `.${part}`;
    })
    .join('');
}
