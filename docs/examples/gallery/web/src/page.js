/** The page and its files, read at every request: an edit is there with the next one. */
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { extname, join } from 'node:path';
import { refusal } from './http.js';
import { escapeHtml, parseCount } from './pictures.js';

export const PUBLIC_DIR = join(import.meta.dirname, 'public');
/** One file a setting, as a mounted ConfigMap has them. */
const { SETTINGS_DIR = '/etc/gallery' } = process.env;

const TYPES = {
  '.css': 'text/css; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.svg': 'image/svg+xml',
};
const POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/** @param {{ version: string }} options */
export async function sendPage(response, { version }) {
  const [template, title, tagline] = await Promise.all([
    readFile(join(PUBLIC_DIR, 'index.html'), 'utf8'),
    readSetting('title', 'Gallery'),
    readSetting('tagline', 'Pictures, kept in your own cluster.'),
  ]);
  const values = { title, tagline, version };
  response.writeHead(200, {
    'content-type': 'text/html; charset=utf-8',
    'cache-control': 'no-store',
    'content-security-policy': POLICY,
    'referrer-policy': 'no-referrer',
  });
  response.end(fillIn(template, values));
}

export async function sendPublicFile(request, response, path) {
  // One plain name and no folder: nothing outside of `public` can be asked for.
  const name = /^\/([a-z0-9-]+\.(?:css|js|svg))$/.exec(path)?.[1];
  const content = name === 'theme.css' ? await themeStyle() : await readPublicFile(name);
  if (content === undefined) throw refusal(404, 'there is nothing here');
  const etag = `"${createHash('sha256').update(content).digest('base64url').slice(0, 20)}"`;
  const isSame = request.headers['if-none-match'] === etag;
  response.writeHead(isSame ? 304 : 200, { 'content-type': TYPES[extname(name)], 'cache-control': 'no-cache', etag });
  response.end(isSame ? undefined : content);
}

/** Puts values for `{{name}}` into a template, as text. */
export function fillIn(template, values) {
  return template.replace(/\{\{(\w+)\}\}/g, (whole, name) => (name in values ? escapeHtml(values[name]) : whole));
}

async function themeStyle() {
  const hue = parseCount(await readSetting('hue', '285'), { fallback: 285, max: 360 });
  return `:root { --hue: ${hue}; }\n`;
}

async function readPublicFile(name) {
  return name === undefined ? undefined : readFile(join(PUBLIC_DIR, name)).catch(() => undefined);
}

async function readSetting(name, fallback) {
  const text = await readFile(join(SETTINGS_DIR, name), 'utf8').catch(() => '');
  return text.trim() || fallback;
}
