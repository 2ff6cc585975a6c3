#!/usr/bin/env node
/** `npm run quickstart`: from a checkout to a running cluster with an app on it. Options are those of `sandbar quickstart`. */
import { prepare } from './prepare.js';

prepare();
const { main } = await import('../dist/main.js');
process.exitCode = await main(['quickstart', ...process.argv.slice(2)]);
