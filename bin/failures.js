#!/usr/bin/env node
/** `node bin/failures.js REPORT…`: what failed in runs of vitest, by their JSON reports, each with why. */
import { readFileSync } from 'node:fs';
import { relative } from 'node:path';
import { stripVTControlCharacters } from 'node:util';

/** Of a message; its stack comes after. */
const LINES = 3;
const LENGTH = 300;

for (const report of process.argv.slice(2)) {
  const { testResults } = JSON.parse(readFileSync(report, 'utf8'));
  for (const file of testResults.filter(({ status }) => status === 'failed')) printFailures(file);
}

function printFailures({ name, message, assertionResults }) {
  const path = relative(process.cwd(), name);
  const having = (wanted) => assertionResults.filter(({ status }) => status === wanted);
  const failed = having('failed');
  for (const { fullName, failureMessages } of failed) print(`${path} > ${fullName}`, failureMessages.join('\n'));
  // What fails outside of tests, as in a hook, is in no test, and of a hook within a group not even in the message.
  const skipped = having('skipped').length;
  const isBroken = message !== '' || failed.length === 0;
  if (isBroken) print(path, [message, skipped === 0 ? '' : `${skipped} of its tests were skipped`].join('\n').trim());
}

function print(what, why) {
  const lines = stripVTControlCharacters(why).split('\n');
  const end = lines.findIndex((line) => /^\s+at /.test(line));
  const told = lines.slice(0, end === -1 ? lines.length : end).filter((line) => line.trim() !== '');
  console.log([`✖ ${what}`, ...told.slice(0, LINES).map((line) => `  ${line.slice(0, LENGTH)}`)].join('\n'));
}
