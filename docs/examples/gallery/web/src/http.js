/** The little that is missing from Node's HTTP server. */

/** An error that the visitor is told about. */
export function refusal(status, message) {
  return Object.assign(new Error(message), { status });
}

/** The whole body of a request, refused as soon as it is known to be larger than `maxBytes`. */
export async function readBody(request, maxBytes) {
  const tooLarge = () => refusal(413, `this file is larger than ${Math.floor(maxBytes / 1024 / 1024)} MiB`);
  if (Number(request.headers['content-length'] ?? 0) > maxBytes) throw tooLarge();
  const chunks = [];
  let size = 0;
  for await (const chunk of request) {
    size += chunk.length;
    if (size > maxBytes) throw tooLarge();
    chunks.push(chunk);
  }
  return Buffer.concat(chunks, size);
}

export function sendJson(response, status, body) {
  response.writeHead(status, { 'content-type': 'application/json; charset=utf-8', 'cache-control': 'no-store' });
  response.end(JSON.stringify(body));
}
