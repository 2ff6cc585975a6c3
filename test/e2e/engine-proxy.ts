/**
 * Stands between a client and the Docker engine, and counts what the client asks the engine to change. At the n-th
 * change the test may do something, such as killing the client, before the engine has heard of it or after.
 */
import { createServer, request, type IncomingMessage, type ServerResponse } from 'node:http';
import { connect, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';

export type Interruption = {
  readonly atChange: number;
  /** `before`: the engine never hears of it. `after`: it has done it, and the client hears nothing any more. */
  readonly moment: 'before' | 'during' | 'after';
  readonly act: () => void;
};

export type EngineProxy = {
  /** For DOCKER_HOST. */
  readonly address: string;
  /** Counts from one again. `undefined`: everything goes through. */
  interrupt(interruption: Interruption | undefined): void;
  close(): Promise<void>;
};

const CHANGES = [
  /^POST .*\/(?:networks|volumes|containers)\/create/,
  /^POST .*\/containers\/[^/]+\/(?:start|stop|kill|restart|pause|unpause|exec)/,
  /^PUT .*\/archive/,
  /^DELETE /,
];

/** Listens on a unix socket at `path`, before the engine's own at `enginePath`. */
export async function openEngineProxy(path: string, enginePath: string): Promise<EngineProxy> {
  let interruption: Interruption | undefined;
  let changes = 0;
  const sockets = new Set<Socket>();
  const server = createServer((incoming, outgoing) => {
    const isChange = CHANGES.some((change) => change.test(`${incoming.method ?? ''} ${incoming.url ?? ''}`));
    if (isChange) changes += 1;
    const current = isChange && changes === interruption?.atChange ? interruption : undefined;
    if (current?.moment === 'before') {
      current.act();
      incoming.socket.destroy();
      return;
    }
    if (current?.moment === 'during') current.act();
    forward(enginePath, incoming, outgoing, current?.moment === 'after' ? current.act : undefined);
  });
  // `docker exec` goes over to a stream of its own in the middle of a request.
  server.on('upgrade', (incoming: IncomingMessage, socket: Duplex, head: Buffer) => {
    const engine = connect(enginePath);
    const headers = incoming.rawHeaders.map((text, index) => (index % 2 === 0 ? `${text}: ` : `${text}\r\n`)).join('');
    engine.write(`${incoming.method ?? ''} ${incoming.url ?? ''} HTTP/1.1\r\n${headers}\r\n`);
    engine.write(head);
    engine.pipe(socket).pipe(engine);
    engine.on('error', () => socket.destroy());
    socket.on('error', () => engine.destroy());
  });
  server.on('connection', (socket) => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  return {
    address: `unix://${path}`,
    interrupt: (next) => {
      interruption = next;
      changes = 0;
    },
    close: () =>
      new Promise((resolve) => {
        server.close(() => {
          resolve();
        });
        for (const socket of sockets) socket.destroy();
      }),
  };
}

function forward(
  enginePath: string,
  incoming: IncomingMessage,
  outgoing: ServerResponse,
  instead: (() => void) | undefined,
): void {
  const { method, url, headers } = incoming;
  const engine = request({ socketPath: enginePath, method, path: url, headers }, (answer) => {
    if (instead !== undefined) {
      answer.resume().on('end', () => {
        instead();
        outgoing.destroy();
      });
      return;
    }
    outgoing.writeHead(answer.statusCode ?? 502, answer.headers);
    outgoing.flushHeaders();
    answer.pipe(outgoing);
  });
  engine.on('error', () => outgoing.destroy());
  incoming.on('error', () => engine.destroy());
  incoming.pipe(engine);
}
