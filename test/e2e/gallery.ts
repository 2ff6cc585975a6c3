/** The gallery's page as its user has it: in a browser, through the ingress. */
import { existsSync } from 'node:fs';
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { chromium, type Browser, type Page } from 'playwright-core';
import { expect } from 'vitest';

const ARTIFACTS = fileURLToPath(new URL('../../.sandbar/artifacts', import.meta.url));
const DESKTOP = { viewport: { width: 1280, height: 860 } } as const;
const PHONE = { viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, colorScheme: 'dark' } as const;
// Text, because it runs in the page: the tests are compiled without the browser's types.
const NEWEST_SIZE = `(async () => {
  const image = document.querySelector('.card img');
  await image.decode();
  return [image.naturalWidth, image.naturalHeight];
})()`;
const CAPTION = 'A test card, <b>not bold</b> & "quoted"';

/**
 * Adds a picture through the page, sees it listed with its caption, likes it, opens it; sees that a refused file is
 * explained and that nothing is wrong in the browser's own eyes. The picture stays, the screenshots are artifacts.
 * Returns the caption's text and the pods that answered.
 */
export async function checkGallery(
  url: string,
): Promise<{ readonly caption: string; readonly pods: readonly string[] }> {
  return withBrowser(async (browser) => {
    const page = await browser.newPage(DESKTOP);
    const problems = watchProblems(page);
    const pods = new Set<string>();
    page.on('response', (response) => pods.add(response.headers()['x-served-by'] ?? ''));

    await open(page, url);
    const before = await page.locator('.card').count();
    await page.locator('#file').setInputFiles({ name: 'notes.png', mimeType: 'text/plain', buffer: Buffer.from('no') });
    await expectText(page, '#problem', 'notes.png is not a PNG');

    const picture = await page.screenshot({ clip: { x: 0, y: 0, width: 640, height: 480 } });
    await page.locator('#file').setInputFiles({ name: 'card.png', mimeType: 'image/png', buffer: picture });
    await page.locator('#caption').fill(CAPTION);
    await page.getByRole('button', { name: 'Add picture' }).click();
    await page.locator('.card').nth(before).waitFor();
    const card = page.locator('.card').first();
    expect(await card.locator('.text').textContent()).toBe(CAPTION);
    expect(await page.evaluate<readonly number[]>(NEWEST_SIZE)).toEqual([640, 480]);

    await card.getByRole('button', { name: 'Like, 0 so far' }).click();
    await card.getByRole('button', { name: 'Like, 1 so far' }).waitFor();
    // Each of these may be answered by another pod: what one stored, all have.
    for (let visit = 0; visit < 5; visit += 1) {
      await open(page, url);
      expect(await page.locator('.card .text').first().textContent()).toBe(CAPTION);
      expect(await page.locator('.card .likes').first().textContent()).toBe('1');
    }
    await page.screenshot({ path: await artifact('gallery-desktop.png'), fullPage: true });
    await page.locator('.card .open').first().click();
    await page.locator('#viewer-picture').waitFor();
    await page.screenshot({ path: await artifact('gallery-viewer.png') });
    await page.keyboard.press('Escape');
    expect(await place(page)).toMatchObject({ host: new URL(url).host, bucket: 'pictures', claim: 'captions' });

    const phone = await browser.newPage(PHONE);
    await open(phone, url);
    const overhang = await phone.evaluate<number>('document.documentElement.scrollWidth - innerWidth');
    expect(overhang, 'nothing is wider than a phone').toBeLessThanOrEqual(0);
    await phone.screenshot({ path: await artifact('gallery-phone.png'), fullPage: true });
    expect(problems).toEqual([]);
    return { caption: CAPTION, pods: [...pods].filter((pod) => pod !== '') };
  });
}

/** Captions on the page, the newest picture's first. */
export async function readCaptions(url: string): Promise<readonly string[]> {
  return withBrowser(async (browser) => {
    const page = await browser.newPage();
    await open(page, url);
    return page.locator('.card .text').allTextContents();
  });
}

/** Edits of the gallery's source, each with what an open page has to show then. */
const EDITS = [
  {
    file: 'web/src/public/style.css',
    from: 'min-height: 100vh;',
    to: 'min-height: 100vh; outline: 7px solid;',
    shows: `getComputedStyle(document.body).outlineWidth === '7px'`,
    // A style is exchanged; the page stays as it is, with whatever was typed into it.
    isReloaded: false,
  },
  {
    file: 'web/src/public/index.html',
    from: '>Pictures</h2>',
    to: '>Photographs</h2>',
    shows: `document.getElementById('pictures-title')?.textContent === 'Photographs'`,
    isReloaded: true,
  },
  {
    file: 'web/src/public/app.js',
    from: "find('place-host').textContent = location.host;",
    to: "find('place-host').textContent = 'edited.js';",
    shows: `document.getElementById('place-host')?.textContent === 'edited.js'`,
    isReloaded: true,
  },
  {
    file: 'web/src/page.js',
    from: 'const values = { title,',
    to: "const values = { title: 'An edited server',",
    shows: `document.querySelector('h1')?.textContent === 'An edited server'`,
    isReloaded: true,
  },
  {
    file: 'captions/src/server.js',
    from: 'return { body: { pod: POD_NAME, claim: CLAIM, captions: store.count() } };',
    to: "return { body: { pod: POD_NAME, claim: 'edited', captions: store.count() } };",
    shows: `document.getElementById('place-claim')?.textContent === 'edited'`,
    isReloaded: false,
  },
] as const;

/**
 * Edits the mounted source while a page is open, and sees each edit there, and that it is taken back, without touching
 * the page. The files are as they were afterwards. Returns milliseconds from each edit until the page shows it.
 */
export async function checkEdits(url: string, directory: string): Promise<Readonly<Record<string, number>>> {
  return withBrowser(async (browser) => {
    const page = await browser.newPage(DESKTOP);
    const took: Record<string, number> = {};
    const followed = page.waitForResponse((response) => response.url().endsWith('/events'));
    await open(page, url);
    await followed;
    for (const { file, from, to, shows, isReloaded } of EDITS) {
      const path = join(directory, file);
      const before = await readFile(path, 'utf8');
      expect(before, file).toContain(from);
      await page.evaluate('window.isSame = true');
      try {
        const startedAt = performance.now();
        await saveAsEditor(path, before.replace(from, to));
        await untilShown(page, shows);
        took[file] = Math.round(performance.now() - startedAt);
        expect(await page.evaluate('window.isSame === true'), file).toBe(!isReloaded);
      } finally {
        await saveAsEditor(path, before);
      }
      await untilShown(page, `!(${shows})`);
    }
    return took;
  });
}

/** Asks the page again and again; one that is just being loaded has no answer. Its own policy forbids to wait inside. */
async function untilShown(page: Page, expression: string): Promise<void> {
  const deadline = performance.now() + 15_000;
  while ((await page.evaluate(`document.readyState === 'complete' && ${expression}`).catch(() => false)) !== true) {
    if (performance.now() > deadline) throw new Error(`after 15 s not shown: ${expression}`);
  }
}

/** Another file takes the place of the edited one, as most editors save. */
async function saveAsEditor(path: string, text: string): Promise<void> {
  const temporary = `${path}~`;
  await writeFile(temporary, text);
  await rename(temporary, path);
}

/** `env` is the browser's own in place of this process'. */
export async function withBrowser<T>(
  work: (browser: Browser) => Promise<T>,
  env: Readonly<Record<string, string | undefined>> = process.env,
): Promise<T> {
  const browser = await chromium.launch({
    executablePath: findChromium(),
    env: { ...env },
    // As root there is no sandbox, and nothing but the page is to be fetched.
    args: [
      ...['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run'],
      ...['--disable-background-networking', '--disable-component-update', '--disable-sync'],
    ],
  });
  try {
    return await work(browser);
  } finally {
    await browser.close();
  }
}

function findChromium(): string {
  const names = ['chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable'];
  const folders = (process.env['PATH'] ?? '').split(delimiter);
  const candidates = folders.flatMap((folder) => names.map((name) => join(folder, name)));
  const found = [process.env['CHROMIUM'] ?? '', ...candidates].find((path) => path !== '' && existsSync(path));
  if (found === undefined) throw new Error('no Chromium found: apt-get install chromium, or name it with CHROMIUM');
  return found;
}

async function open(page: Page, url: string): Promise<void> {
  await page.goto(url);
  await page.locator('#grid[aria-busy="false"]').waitFor({ state: 'attached' });
}

/** Everything that the browser complains of: failed scripts, refused or failed requests. */
function watchProblems(page: Page): readonly string[] {
  const problems: string[] = [];
  page.on('pageerror', (error) => problems.push(error.message));
  page.on('console', (message) => {
    if (['error', 'warning'].includes(message.type())) problems.push(message.text());
  });
  return problems;
}

async function expectText(page: Page, selector: string, text: string): Promise<void> {
  await page.locator(selector).filter({ hasText: text }).waitFor();
}

async function place(page: Page): Promise<Readonly<Record<string, string>>> {
  const [host = '', pod = '', bucket = '', claim = ''] = await page.locator('.route code').allTextContents();
  return { host, pod, bucket, claim };
}

async function artifact(name: string): Promise<string> {
  await mkdir(ARTIFACTS, { recursive: true });
  return join(ARTIFACTS, name);
}
