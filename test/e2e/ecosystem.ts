/** Programs of others on a sandbox: Helm as it is called, and answers of apps through the ingress. */
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { execa } from 'execa';
import { provideFixtureImage, provideFixtureProgram } from './fixture-images.ts';
import { eventually, type Sandbox } from './support.ts';

const FIXTURES = fileURLToPath(new URL('fixtures/ecosystem', import.meta.url));

/** For what waits until pods are there. */
export const WAIT = '--timeout=60s';

/** The path of a file or folder below `fixtures/ecosystem/`. */
export const fixture = (...path: readonly string[]): string => join(FIXTURES, ...path);

/** What the tests' own programs and Helm are made from: built unless they are there. */
export async function providePrograms(): Promise<{ readonly helmPath: string }> {
  const image = await provideFixtureImage('programs');
  return { helmPath: await provideFixtureProgram(image, '/host/helm') };
}

/** Runs Helm on a sandbox; any exit code is fine. */
export async function runHelm(
  sandbox: Sandbox,
  helmPath: string,
  args: readonly string[],
): Promise<{ readonly exitCode: number; readonly stdout: string; readonly stderr: string }> {
  const options = { env: sandbox.env, cwd: sandbox.directory, reject: false } as const;
  const { exitCode = -1, stdout, stderr } = await execa(helmPath, args, options);
  return { exitCode, stdout, stderr };
}

/** Runs Helm, which has to succeed; returns stdout. */
export async function mustHelm(sandbox: Sandbox, helmPath: string, args: readonly string[]): Promise<string> {
  const { exitCode, stdout, stderr } = await runHelm(sandbox, helmPath, args);
  if (exitCode !== 0) throw new Error(`helm ${args.join(' ')} ended with ${String(exitCode)}:\n${stdout}\n${stderr}`);
  return stdout;
}

/** What an Ingress answers on the host; empty where nothing does. */
export async function ask(url: string): Promise<string> {
  return (await execa('curl', ['--silent', '--max-time', '5', url], { reject: false })).stdout;
}

export async function untilAnswered(url: string, text: string, options: { timeoutMs?: number } = {}): Promise<void> {
  await eventually(`${url} answers ${text}`, async () => ((await ask(url)) === text ? true : undefined), options);
}
