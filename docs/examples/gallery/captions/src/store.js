/** Captions and likes by picture, kept in one JSON file. */
import { mkdir, open, readFile, rename } from 'node:fs/promises';
import { dirname } from 'node:path';

export const MAX_CAPTION_CHARACTERS = 200;
const MAX_ENTRIES = 20_000;

/**
 * Opens the store at `path`. A change has reached the disk when its promise resolves.
 * @param {string} path
 */
export async function openStore(path) {
  await mkdir(dirname(path), { recursive: true });
  // A Map and not an object: a picture may be called `__proto__`.
  const entries = new Map(Object.entries(await readEntries(path)));
  const save = makeSaver(() => writeAtomically(path, JSON.stringify(Object.fromEntries(entries))));

  return {
    all: () => Object.fromEntries(entries),
    count: () => entries.size,

    /** @param {string} id @param {string} text */
    async setText(id, text) {
      if (!entries.has(id) && entries.size >= MAX_ENTRIES) throw new RangeError('too many captions');
      const entry = { likes: 0, ...entries.get(id), text: cleanCaption(text) };
      entries.set(id, entry);
      await save();
      return entry;
    },

    /** @param {string} id */
    async like(id) {
      if (!entries.has(id) && entries.size >= MAX_ENTRIES) throw new RangeError('too many captions');
      const entry = entries.get(id) ?? { text: '', likes: 0 };
      const liked = { ...entry, likes: entry.likes + 1 };
      entries.set(id, liked);
      await save();
      return liked;
    },

    /** @param {string} id */
    async remove(id) {
      if (entries.delete(id)) await save();
    },
  };
}

/**
 * A caption as it is kept: one line, no control characters, not too long. Characters that are markup elsewhere stay
 * as they are: whoever shows a caption shows it as text.
 * @param {unknown} text
 */
export function cleanCaption(text) {
  if (typeof text !== 'string') return '';
  const line = text
    .replace(/\p{Cc}+/gu, ' ')
    .replace(/\s+/g, ' ')
    .trim();
  // Spread and not `slice`: half of a character above U+FFFF is not a character.
  return [...line].slice(0, MAX_CAPTION_CHARACTERS).join('').trim();
}

async function readEntries(path) {
  let text;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    if (error.code === 'ENOENT') return {};
    throw error;
  }
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Error(`${path} is not JSON: move it away to start with no captions`, { cause: error });
  }
}

/** One write at a time; changes made while one runs share the next. */
function makeSaver(write) {
  let running = Promise.resolve();
  let next;
  return () => {
    next ??= running
      .catch(() => {}) // the failure belongs to the change that asked for that write
      .then(() => {
        running = next;
        next = undefined;
        return write();
      });
    return next;
  };
}

/** The old content or the new one is there, never half of it, also when the power fails. */
async function writeAtomically(path, content) {
  const temporary = `${path}.new`;
  const file = await open(temporary, 'w');
  try {
    await file.writeFile(content);
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(temporary, path);
}
