/** Requests through the ingress to a pod, beside the same server behind a port of Docker's own and on the host itself. */
import { spawn } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import autocannon from 'autocannon';
import { findFreePort } from '../../fixtures/free-port.ts';
import { buildImage, removeImage } from '../images.ts';
import type { Measurements } from '../measures.ts';
import type { Subject } from '../subject.ts';

const IMAGE = 'sandbar-bench/server:1';
const CONTAINER = 'sandbar-bench-server';
const HOST = 'traffic.localhost';
const CONNECTIONS = 50;
const WARM_UP_S = 2;
const DURATION_S = 8;

/** A kilobyte for every request, at the first address that it is given, and with TLS at the second. */
const SERVER = `package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"log"
	"math/big"
	"net/http"
	"os"
	"strings"
	"time"
)

var body = []byte(strings.Repeat("0123456789abcdef", 64))

func main() {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		log.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().AddDate(1, 0, 0), DNSNames: []string{"localhost"}}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		log.Fatal(err)
	}
	answer := http.HandlerFunc(func(writer http.ResponseWriter, _ *http.Request) { writer.Write(body) })
	secure := &http.Server{Addr: os.Args[2], Handler: answer, TLSConfig: &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{certificate}, PrivateKey: key}},
	}}
	go func() { log.Fatal(secure.ListenAndServeTLS("", "")) }()
	log.Fatal(http.ListenAndServe(os.Args[1], answer))
}
`;

const DOCKERFILE = `ARG BUILDER
FROM \${BUILDER} AS build
COPY main.go /src/main.go
RUN cd /src && go mod init server && go build -o /server .
FROM scratch
COPY --from=build /server /server
ENTRYPOINT ["/server"]
CMD [":8080", ":8443"]
`;

/** `name` goes behind that of a measure. */
type Place = {
  readonly name: '' | "/behind Docker's own port" | '/on the host itself';
  readonly port: number;
  readonly host: string;
};

/** Builds the server's image. */
export async function prepareTraffic(subject: Subject): Promise<void> {
  // The newest: it was made when the cluster's images were built here.
  const builders = await subject.docker.listImages({ filters: { reference: ['*/sandbar/builder'] } });
  const [builder] = builders.toSorted((a, b) => b.Created - a.Created);
  if (builder === undefined)
    throw new Error('there is no image sandbar/builder: it is there once images were built here');
  const buildArguments = { BUILDER: builder.RepoTags?.[0] ?? builder.Id };
  await buildImage(subject.docker, IMAGE, {
    files: [
      { path: 'Dockerfile', content: DOCKERFILE },
      { path: 'main.go', content: SERVER },
    ],
    buildArguments,
  });
}

/** Removes it. */
export function endTraffic(subject: Subject): Promise<void> {
  return removeImage(subject.docker, IMAGE);
}

/** Asks each place in turn, over HTTP and over TLS, so that none has the machine for itself at a better time. */
export async function measureTraffic(subject: Subject, measurements: Measurements): Promise<void> {
  const { ports } = await subject.up();
  await subject.sandbar('image', 'load', IMAGE);
  await subject.provideKubectl();
  await subject.kubectl(['apply', '-f', '-'], JSON.stringify(workload()));
  await subject.kubectl(['rollout', 'status', 'deployment/traffic', '--timeout=60s']);
  const ends: (() => Promise<void>)[] = [];
  try {
    const docker = await startInDocker(subject);
    ends.push(docker.end);
    // A program for Linux, wherever the engine is.
    const host = process.platform === 'linux' ? await startOnHost(subject) : undefined;
    if (host !== undefined) ends.push(host.end);
    for (const scheme of ['http', 'https'] as const) {
      const onHost: readonly Place[] =
        host === undefined ? [] : [{ name: '/on the host itself', port: host.ports[scheme], host: 'localhost' }];
      const places: readonly Place[] = [
        { name: '', port: ports[scheme], host: HOST },
        { name: "/behind Docker's own port", port: docker.ports[scheme], host: 'localhost' },
        ...onHost,
      ];
      const rates: number[] = [];
      for (const place of places) {
        await subject.until(`${scheme} to ${place.host} answers`, () => answers(scheme, place));
        await load(scheme, place, WARM_UP_S);
        const { requests, latency } = await load(scheme, place, DURATION_S);
        measurements.record(`${scheme}-rate${place.name}`, requests.average);
        measurements.record(`${scheme}-p99${place.name}`, latency.p99);
        rates.push(requests.average);
      }
      const [ingress = NaN, published = NaN] = rates;
      measurements.record(`${scheme}-share`, (ingress / published) * 100);
    }
  } finally {
    for (const end of ends) await end();
    await subject.sandbar('down', '--volumes', '--yes');
  }
}

async function load(scheme: string, { port, host }: Place, duration: number): Promise<autocannon.Result> {
  const result = await autocannon({
    url: `${scheme}://127.0.0.1:${String(port)}/`,
    headers: { host },
    servername: host,
    connections: CONNECTIONS,
    duration,
  });
  const { errors, timeouts, non2xx } = result;
  if (errors + timeouts + non2xx > 0) {
    throw new Error(`${scheme} to ${host}:${String(port)}: ${JSON.stringify({ errors, timeouts, non2xx })}`);
  }
  return result;
}

/** True once a request is answered. */
async function answers(scheme: string, { port, host }: Place): Promise<true | undefined> {
  const { non2xx, errors, requests } = await autocannon({
    url: `${scheme}://127.0.0.1:${String(port)}/`,
    headers: { host },
    servername: host,
    connections: 1,
    amount: 1,
  });
  return requests.total === 1 && non2xx + errors === 0 ? true : undefined;
}

type Started = { readonly ports: Readonly<Record<'http' | 'https', number>>; readonly end: () => Promise<void> };

/** Published by the engine, with nothing of Sandbar on the way. */
async function startInDocker({ docker }: Subject): Promise<Started> {
  const published = [{ HostIp: '127.0.0.1', HostPort: '' }];
  const container = await docker.createContainer({
    name: CONTAINER,
    Image: IMAGE,
    ExposedPorts: { '8080/tcp': {}, '8443/tcp': {} },
    HostConfig: { PortBindings: { '8080/tcp': published, '8443/tcp': published } },
  });
  const end = async (): Promise<void> => {
    await container.remove({ force: true });
  };
  try {
    await container.start();
    const { Ports: ports } = (await container.inspect()).NetworkSettings;
    const portOf = (inside: string): number => Number(ports[inside]?.[0]?.HostPort);
    return { ports: { http: portOf('8080/tcp'), https: portOf('8443/tcp') }, end };
  } catch (error) {
    await end();
    throw error;
  }
}

/** A process like any other. */
async function startOnHost(subject: Subject): Promise<Started> {
  const file = join(subject.directory, 'server');
  await writeFile(file, await subject.readImageFile(IMAGE, '/server'), { mode: 0o755 });
  const ports = { http: await findFreePort(), https: await findFreePort() };
  const addresses = [ports.http, ports.https].map((port) => `127.0.0.1:${String(port)}`);
  const child = spawn(file, addresses, { stdio: 'ignore' });
  const exited = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  return {
    ports,
    end: () => {
      child.kill();
      return exited;
    },
  };
}

function workload(): object {
  const labels = { app: 'traffic' };
  const metadata = { name: 'traffic' };
  const backend = { service: { name: 'traffic', port: { number: 80 } } };
  return {
    apiVersion: 'v1',
    kind: 'List',
    items: [
      {
        apiVersion: 'apps/v1',
        kind: 'Deployment',
        metadata,
        spec: {
          replicas: 1,
          selector: { matchLabels: labels },
          template: {
            metadata: { labels },
            spec: { containers: [{ name: 'server', image: IMAGE, imagePullPolicy: 'IfNotPresent' }] },
          },
        },
      },
      {
        apiVersion: 'v1',
        kind: 'Service',
        metadata,
        spec: { selector: labels, ports: [{ port: 80, targetPort: 8080 }] },
      },
      {
        apiVersion: 'networking.k8s.io/v1',
        kind: 'Ingress',
        metadata,
        spec: { rules: [{ host: HOST, http: { paths: [{ path: '/', pathType: 'Prefix', backend }] } }] },
      },
    ],
  };
}
