// What the visitor typed is only ever set as text, never as HTML.
const PAGE_SIZE = 24;
const MAX_BYTES = 10 * 1024 * 1024;
const HINT = document.getElementById('file-hint').textContent;
const find = (id) => document.getElementById(id);
const pictureUrl = (key) => `/picture?key=${encodeURIComponent(key)}`;

const servers = new Set();
let chosen;
let shown = [];
let viewed;
let isBusy = false;

/** Calls the API; a refusal becomes an error with the server's words. */
async function call(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error('The server does not answer. It may be starting: try again in a moment.');
  }
  noteServer(response);
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(sentence(body.error ?? `the server answered ${response.status}`));
  return body;
}

/** Several pods answer in turn; the page says which it has met. */
function noteServer(response) {
  const pod = response.headers.get('x-served-by');
  if (pod === null) return;
  servers.add(pod);
  find('place-pod').textContent = pod;
  find('place-pods').textContent =
    servers.size === 1 ? 'answered last' : `answered last, one of ${servers.size} that you have met`;
}

/* Listing */

async function refresh({ count = Math.max(PAGE_SIZE, shown.length) } = {}) {
  try {
    const { pictures, total, notice } = await call(`/api/pictures?limit=${count}`);
    show(pictures, total);
    say(find('notice'), notice);
  } catch (error) {
    say(find('notice'), error.message);
  }
  find('grid').setAttribute('aria-busy', 'false');
}

function show(pictures, total) {
  const known = new Map(shown.map(({ key }, index) => [key, find('grid').children[index]]));
  const isFirst = find('grid').getAttribute('aria-busy') === 'true';
  const cards = pictures.map((picture) => fill(known.get(picture.key) ?? makeCard({ isNew: !isFirst }), picture));
  find('grid').replaceChildren(...cards);
  shown = pictures;
  find('count').textContent = total === 0 ? '' : `${total} in the bucket`;
  find('empty').hidden = total > 0;
  find('more').hidden = pictures.length >= total;
}

function makeCard({ isNew }) {
  const card = find('card').content.firstElementChild.cloneNode(true);
  card.classList.toggle('is-new', isNew);
  card.querySelector('.open').addEventListener('click', () => view(card.dataset.key));
  card.querySelector('.like').addEventListener('click', () => like(card));
  return card;
}

function fill(card, { key, text, likes, modified }) {
  const image = card.querySelector('img');
  if (card.dataset.key !== key) image.src = pictureUrl(key);
  card.dataset.key = key;
  const title = text || nameOf(key);
  image.alt = title;
  card.querySelector('.open').setAttribute('aria-label', `Open: ${title}`);
  card.querySelector('.text').textContent = title;
  card.querySelector('.text').classList.toggle('is-missing', text === '');
  card.querySelector('time').dateTime = modified;
  card.querySelector('time').textContent = ago(new Date(modified));
  fillLikes(card, likes);
  return card;
}

function fillLikes(card, likes) {
  const button = card.querySelector('.like');
  button.querySelector('.likes').textContent = likes;
  button.setAttribute('aria-pressed', String(likes > 0));
  button.setAttribute('aria-label', `Like, ${likes} so far`);
}

async function like(card) {
  try {
    const { likes } = await call(`/api/likes?key=${encodeURIComponent(card.dataset.key)}`, { method: 'POST' });
    fillLikes(card, likes);
    say(find('notice'), null);
  } catch (error) {
    say(find('notice'), error.message);
  }
}

/* Adding */

function choose(file) {
  const problem = file && problemWith(file);
  say(find('problem'), problem);
  chosen = problem ? undefined : file;
  URL.revokeObjectURL(find('preview').src);
  find('preview').hidden = chosen === undefined;
  find('composer').classList.toggle('has-file', chosen !== undefined);
  find('file-name').textContent = chosen?.name ?? 'Choose a picture';
  find('file-hint').textContent = chosen === undefined ? HINT : `${formatSize(chosen.size)} · choose another one here`;
  find('add').disabled = chosen === undefined || isBusy;
  if (chosen === undefined) return;
  find('preview').src = URL.createObjectURL(chosen);
  find('caption').focus();
}

function problemWith(file) {
  if (!find('file').accept.split(',').includes(file.type)) {
    return `${file.name} is not a PNG, JPEG, GIF, WebP or AVIF picture.`;
  }
  if (file.size > MAX_BYTES) return `${file.name} is larger than 10 MiB.`;
  return undefined;
}

async function add(event) {
  event.preventDefault();
  if (chosen === undefined || isBusy) return;
  setBusy(true);
  try {
    const caption = encodeURIComponent(find('caption').value);
    const { notice } = await call(`/api/pictures?caption=${caption}`, {
      method: 'POST',
      headers: { 'content-type': chosen.type },
      body: chosen,
    });
    find('composer').reset();
    choose(undefined);
    await refresh();
    if (notice) say(find('notice'), notice);
    find('grid').firstElementChild?.querySelector('.open').focus({ preventScroll: true });
  } catch (error) {
    say(find('problem'), error.message);
  } finally {
    setBusy(false);
  }
}

function setBusy(value) {
  isBusy = value;
  find('add').disabled = value || chosen === undefined;
  find('add').textContent = value ? 'Adding…' : 'Add picture';
}

/* One picture, large */

function view(key) {
  viewed = shown.find((picture) => picture.key === key);
  find('viewer-picture').src = pictureUrl(key);
  find('viewer-picture').alt = viewed.text || nameOf(key);
  find('viewer-text').textContent = viewed.text || nameOf(key);
  find('viewer').showModal();
}

async function removeViewed() {
  find('viewer').close();
  try {
    await call(`/api/pictures?key=${encodeURIComponent(viewed.key)}`, { method: 'DELETE' });
    await refresh();
  } catch (error) {
    say(find('notice'), error.message);
  }
}

/* Where it all is */

async function showPlace() {
  find('place-host').textContent = location.host;
  try {
    const { web, objectStore, captions } = await call('/api/place');
    find('place-pods').title = web.node === '' ? '' : `on node ${web.node}`;
    find('place-bucket').textContent = objectStore.bucket;
    if (objectStore.endpoint !== '') find('place-endpoint').textContent = `at ${new URL(objectStore.endpoint).host}`;
    find('place-claim').textContent = captions?.claim || '–';
    find('place-captions').textContent =
      captions === null ? 'the captions service does not answer' : `used by ${captions.pod}`;
  } catch (error) {
    say(find('notice'), error.message);
  }
}

/* Small things */

function say(element, text) {
  element.textContent = text ?? '';
  element.hidden = !text;
}

/** What stands in for a caption: the name that somebody gave, where it is not one that the server made up. */
function nameOf(key) {
  return /^[\d-]{20,}-[\da-f]{12}\.\w+$/.test(key) ? 'No caption' : key;
}

function sentence(text) {
  return `${text[0].toUpperCase()}${text.slice(1)}${/[.!?]$/.test(text) ? '' : '.'}`;
}

function formatSize(bytes) {
  return bytes < 1024 * 1024 ? `${Math.ceil(bytes / 1024)} KiB` : `${(bytes / 1024 / 1024).toFixed(1)} MiB`;
}

function ago(date) {
  const seconds = Math.round((Date.now() - date.getTime()) / 1000);
  if (seconds < 45) return 'just now';
  const units = [
    ['year', 31_536_000],
    ['month', 2_592_000],
    ['day', 86_400],
    ['hour', 3_600],
    ['minute', 60],
  ];
  const [unit, size] = units.find(([, size]) => seconds >= size) ?? ['minute', 60];
  const format = new Intl.RelativeTimeFormat('en', { numeric: 'auto' });
  return format.format(-Math.max(1, Math.round(seconds / size)), unit);
}

/** While the source is being worked on: a style is exchanged in place, anything else loads the page again. */
function followEdits(version) {
  const events = new EventSource('/events');
  const on = (event, react) => events.addEventListener(event, ({ data }) => react(JSON.parse(data)));
  on('edit', (names) => {
    if (names.every((name) => name.endsWith('.css'))) names.forEach(exchangeStyle);
    else location.reload();
  });
  // Started from other source than the one that made this page. A picture that waits to be added is not thrown away,
  // and of two pods one may be a moment ahead: then a page that is hardly there waits for the other.
  on('server', (current) => {
    if (current === version || chosen !== undefined) return;
    setTimeout(() => location.reload(), performance.now() < 1000 ? 100 : 0);
  });
  on('captions', () => Promise.all([refresh(), showPlace()]));
  on('problem', (text) => say(find('notice'), text));
  // A browser goes back by itself to a server that ended, but not to one that refused.
  events.addEventListener('error', () => {
    if (events.readyState === EventSource.CLOSED) setTimeout(() => followEdits(version), 250);
  });
}

function exchangeStyle(name) {
  const link = document.querySelector(`link[rel=stylesheet][href^="/${CSS.escape(name)}"]`);
  if (link === null) return;
  const next = link.cloneNode();
  next.href = `/${name}?${Date.now()}`;
  next.addEventListener('load', () => link.remove());
  link.after(next);
}

find('composer').addEventListener('submit', add);
find('file').addEventListener('change', ({ target }) => choose(target.files[0]));
find('choose-first').addEventListener('click', () => find('file').click());
find('more').addEventListener('click', () => refresh({ count: shown.length + PAGE_SIZE }));
find('viewer-remove').addEventListener('click', removeViewed);
find('viewer').addEventListener('click', ({ target }) => target === find('viewer') && find('viewer').close());
document.addEventListener('paste', ({ clipboardData }) => clipboardData.files[0] && choose(clipboardData.files[0]));
document.addEventListener('dragover', (event) => {
  event.preventDefault();
  document.body.classList.add('is-dragging');
});
document.addEventListener('dragleave', ({ relatedTarget }) => {
  if (relatedTarget === null) document.body.classList.remove('is-dragging');
});
document.addEventListener('drop', (event) => {
  event.preventDefault();
  document.body.classList.remove('is-dragging');
  if (event.dataTransfer.files[0]) choose(event.dataTransfer.files[0]);
});
document.addEventListener('visibilitychange', () => document.visibilityState === 'visible' && refresh());

const { version } = document.body.dataset;
if (version !== '') followEdits(version);
await Promise.all([refresh(), showPlace()]);
