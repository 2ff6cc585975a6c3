import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { GATEWAY_CAUSES } from '../conformance/causes.ts';
import { formatGateway, readGatewayOutput, replaceSection } from '../conformance/gateway-report.ts';
import { unexplained } from '../conformance/report.ts';

const output = [
  '=== RUN   Conformance',
  '    suite.go:364: Test Setup',
  '=== RUN   Conformance/HTTPRouteSimple',
  '=== RUN   Conformance/HTTPRouteSimple/answers',
  '=== RUN   Conformance/MeshBasic',
  '    conformance.go:54: Skipping MeshBasic: suite does not support Mesh',
  '=== RUN   Conformance/HTTPRouteWeight',
  '=== RUN   Conformance/HTTPRouteWeight/spreads',
  '        \tError:      \tReceived unexpected error:',
  '        \t            \tall went to one',
  '        \tTest:       \tConformance/HTTPRouteWeight',
  '--- FAIL: Conformance (170.01s)',
  '    --- PASS: Conformance/HTTPRouteSimple (1.27s)',
  '        --- PASS: Conformance/HTTPRouteSimple/answers (0.02s)',
  '    --- SKIP: Conformance/MeshBasic (0.00s)',
  '    --- FAIL: Conformance/HTTPRouteWeight (0.33s)',
  '        --- FAIL: Conformance/HTTPRouteWeight/spreads (0.33s)',
  'FAIL',
].join('\n');

it("reads each test of the Gateway API's suite once, with what its parts said", () => {
  const results = readGatewayOutput(output);
  expect(results.map(({ name, outcome }) => `${outcome}: ${name}`)).toEqual([
    'passed: HTTPRouteSimple',
    'skipped: MeshBasic',
    'failed: HTTPRouteWeight',
  ]);
  expect(results[2]?.message).toBe('Error: Received unexpected error: all went to one');
  expect(unexplained(results, GATEWAY_CAUSES).map(({ name }) => name)).toEqual(['HTTPRouteWeight']);
});

it('a suite that fails before its first test is a failure', () => {
  const results = readGatewayOutput(
    '=== RUN   Conformance\n    main.go:52: no such class\n--- FAIL: Conformance (0.01s)',
  );
  expect(results).toMatchObject([{ name: 'Conformance', outcome: 'failed', message: 'main.go:52: no such class' }]);
});

it('is the last chapter of a page, replaced by the next run', () => {
  const run = { date: '2026-01-02', versions: { Traefik: 'v3' }, commit: 'abc', minutes: 2.6 };
  const chapter = formatGateway(readGatewayOutput(output), GATEWAY_CAUSES, run);
  expect(chapter).toContain(
    '**1 of 3 passed, 1 not run here, 1 failed** (2026-01-02, Traefik v3, Sandbar abc, 3 minutes)',
  );
  expect(chapter).toContain(
    '- `HTTPRouteWeight` failed: unexplained: Error: Received unexpected error: all went to one.',
  );
  expect(chapter).toContain('no definition for it: Mesh.');
  const page = replaceSection('# Page\n\nText.\n', chapter);
  expect(page).toBe(`# Page\n\nText.\n\n${chapter}`);
  expect(replaceSection(page, chapter)).toBe(page);
});

it('the suite is of the version that the definitions have', () => {
  const [suite, definitions] = ['gateway-conformance', 'gateway-api'].map((folder) => {
    const goMod = readFileSync(new URL(`../../images/${folder}/go.mod`, import.meta.url), 'utf8');
    return /^\tsigs\.k8s\.io\/gateway-api (\S+)$/m.exec(goMod)?.[1];
  });
  expect(suite).toMatch(/^v\d/);
  expect(suite).toBe(definitions);
});
