/** Before the first test of faults: the machine they may break. */
import { install, isOwnMachine, powerOff } from './machine.ts';

export async function setup(): Promise<void> {
  if (isOwnMachine) await install();
  else process.stderr.write('skipped: faults need a machine of their own: npm run faults\n');
}

export async function teardown(): Promise<void> {
  if (isOwnMachine) await powerOff();
}
