/** What counts as a picture and what it is called. Pure functions. */
import { extname } from 'node:path';

export const MAX_PICTURE_BYTES = 10 * 1024 * 1024;

const TYPES_BY_EXTENSION = new Map([
  ['.png', 'image/png'],
  ['.jpg', 'image/jpeg'],
  ['.jpeg', 'image/jpeg'],
  ['.gif', 'image/gif'],
  ['.webp', 'image/webp'],
  ['.avif', 'image/avif'],
]);

/**
 * The type of a picture by its first bytes, or undefined. What the browser says is not asked: a page with scripts in
 * it can be called `cat.png`, and SVG is left out because it can hold scripts as well.
 * @param {Buffer} bytes
 * @returns {{ type: string, extension: string } | undefined}
 */
export function detectPicture(bytes) {
  const text = (start, end) => bytes.toString('latin1', start, end);
  if (text(0, 8) === '\x89PNG\r\n\x1a\n') return { type: 'image/png', extension: '.png' };
  if (text(0, 3) === '\xff\xd8\xff') return { type: 'image/jpeg', extension: '.jpg' };
  if (text(0, 6) === 'GIF87a' || text(0, 6) === 'GIF89a') return { type: 'image/gif', extension: '.gif' };
  if (text(0, 4) === 'RIFF' && text(8, 12) === 'WEBP') return { type: 'image/webp', extension: '.webp' };
  if (text(4, 12) === 'ftypavif' || text(4, 12) === 'ftypavis') return { type: 'image/avif', extension: '.avif' };
  return undefined;
}

/**
 * The content type that an object is served with, by its name, or undefined when it is not a picture.
 * @param {string} key
 */
export function typeOfKey(key) {
  return TYPES_BY_EXTENSION.get(extname(key).toLowerCase());
}

/**
 * True for names that the gallery shows: also pictures that were put into the bucket by other means.
 * @param {string} key
 */
export function isPictureKey(key) {
  const isPlain = Buffer.byteLength(key) <= 1024 && !/\p{Cc}/u.test(key) && !key.startsWith('/');
  const segments = key.split('/');
  return isPlain && typeOfKey(key) !== undefined && !segments.some((part) => ['', '.', '..'].includes(part));
}

/**
 * A name for a new picture: sorted by time, not to be guessed, and nothing of what the user's file was called.
 * @param {{ now: Date, random: string, extension: string }} parts
 */
export function newPictureKey({ now, random, extension }) {
  const time = now.toISOString().replace('T', '-').replace(/[:.]/g, '').replace('Z', '');
  return `${time}-${random}${extension}`;
}

/**
 * The newest first, one page of it.
 * @template {{ key: string, modified: string }} T
 * @param {readonly T[]} pictures
 * @param {{ offset: number, limit: number }} page
 */
export function pageOfNewest(pictures, { offset, limit }) {
  const sorted = [...pictures].sort((a, b) => compare(b.modified, a.modified) || compare(b.key, a.key));
  return sorted.slice(offset, offset + limit);
}

/**
 * Text made safe for HTML, in and out of attributes.
 * @param {string} text
 */
export function escapeHtml(text) {
  return text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
}

/**
 * A whole number from a query, within bounds.
 * @param {string | null} text
 * @param {{ fallback: number, max: number }} bounds
 */
export function parseCount(text, { fallback, max }) {
  const value = /^\d{1,9}$/.test(text ?? '') ? Number(text) : fallback;
  return Math.min(value, max);
}

function compare(a, b) {
  return a < b ? -1 : a > b ? 1 : 0;
}
