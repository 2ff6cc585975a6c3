import { buildExampleImage, resolveImages } from '../../operations/images.ts';
import { deployExample, type RunningExample } from '../../operations/quickstart.ts';
import type { Emit } from '../../model/events.ts';
import { RUNTIME_IMAGES } from '../../model/images.ts';
import { contextName } from '../../model/names.ts';
import type { AllPorts, CliDependencies } from '../context.ts';
import { loadSpec } from '../load-spec.ts';
import { runLocally, type CommandInput } from '../run-command.ts';
import { upWithContext, type UpFlags } from './up.ts';

export type QuickstartFlags = UpFlags & {
  /** All up to the images, and no cluster. */
  readonly prepare?: boolean;
};

const SERVICES = ['web', 'captions'] as const;

/** An engine, the images, a cluster, the gallery on it: whatever of that is missing. */
export function runQuickstart(input: CommandInput<QuickstartFlags>): Promise<number> {
  return runLocally(input, async (emit) => {
    const { cli, globals, flags } = input;
    await cli.provideEngine(emit);
    const ports = await cli.openPorts();
    const imageRefs = await prepareImages(cli, ports, emit);
    if (flags.prepare === true) return { result: { imageRefs }, text: '' };

    const file = `${cli.gallery.path}/sandbar.yaml`;
    const { spec, manifests, origin } = await loadSpec({ ...globals, file }, cli.host, emit);
    const confirm = globals.yes === true ? () => Promise.resolve(true) : undefined;
    const picture = { key: 'welcome.webp', read: () => cli.gallery.readBytes('welcome.webp') };
    const running = await deployExample(
      {
        clusterName: spec.name,
        app: { host: 'gallery.localhost', bucketName: 'pictures', picture, imageRefs, manifests },
        up: async (chosen) => {
          await upWithContext(input, { spec, manifests: chosen, origin, ports, emit, confirm });
        },
        signal: cli.signal,
      },
      ports,
      emit,
    );
    return { result: { cluster: spec.name, ...running }, text: formatResult(spec.name, running, cli) };
  });
}

async function prepareImages(cli: CliDependencies, ports: AllPorts, emit: Emit): Promise<readonly string[]> {
  const { signal } = cli;
  await resolveImages(ports, emit, {
    names: RUNTIME_IMAGES,
    repository: cli.host.env['SANDBAR_IMAGE_REPOSITORY'],
    signal,
  });
  const refs: string[] = [];
  for (const service of SERVICES) {
    const folder = ports.openImages(`${cli.gallery.path}/${service}`);
    refs.push(await buildExampleImage(ports, emit, { name: `gallery-${service}`, folder, signal }));
  }
  return refs;
}

function formatResult(clusterName: string, running: RunningExample, { gallery }: CliDependencies): string {
  const nameFlag = clusterName === 'dev' ? '' : ` --name ${clusterName}`;
  return `
The gallery runs on your cluster: ${running.url}

  kubectl context  ${contextName(clusterName)}
  object store     ${running.objectStoreEndpoint}  (S3; console at ${running.objectStoreConsole})
  its source       ${gallery.path}/web/src, mounted live

Things to try, with ${running.url} open in a browser:
  1. edit ${gallery.path}/web/src/public/index.html: change the word
     "Pictures", save, and the open page has it, nothing built and nothing restarted; style.css beside it
     works alike, and after an edit of web/src/server.js the server runs anew by itself
  2. add a picture; look for it in the bucket "pictures" of the console (keys: sandbar${nameFlag} env)
  3. sandbar${nameFlag} kubectl edit configmap gallery      another title or hue, there within a minute
  4. sandbar${nameFlag} kubectl delete pod -l app=web       new pods in a second or two, nothing is lost

The command "sandbar" comes with npm link; sandbar${nameFlag} down stops it all, with --volumes for good.`.trim();
}
