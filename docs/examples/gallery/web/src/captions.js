/** The captions service, reached by the name of its Kubernetes Service. */

/** @param {string} baseUrl */
export function connectCaptions(baseUrl) {
  async function call(path, options = {}) {
    let response;
    try {
      response = await fetch(new URL(path, baseUrl), { ...options, signal: AbortSignal.timeout(3_000) });
    } catch (error) {
      console.error(`captions: ${error.cause?.message ?? error.message}`);
      throw Object.assign(new Error('the captions service does not answer', { cause: error }), { status: 502 });
    }
    const body = response.status === 204 ? undefined : await response.json().catch(() => undefined);
    if (response.ok) return body;
    throw Object.assign(new Error(body?.error ?? `the captions service answered ${response.status}`), { status: 502 });
  }
  const pathOf = (key) => `/captions/${encodeURIComponent(key)}`;

  return {
    /** Where the captions lie: the pod and the claim. */
    place: () => call('/'),
    /** Captions and likes by picture. */
    all: async () => new Map(Object.entries((await call('/captions')).captions)),
    setText: (key, text) =>
      call(pathOf(key), {
        method: 'PUT',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ text }),
      }),
    like: (key) => call(`${pathOf(key)}/likes`, { method: 'POST' }),
    remove: (key) => call(pathOf(key), { method: 'DELETE' }),
  };
}
