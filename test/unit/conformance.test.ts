import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { COMPONENT_VERSIONS } from '../../src/model/versions.ts';
import { findCause, formatConformance, readReport, summarize, unexplained } from '../conformance/report.ts';

const spec = (text: string, state: string, more: object = {}): object => ({
  ContainerHierarchyTexts: ['[sig-apps] Deployment'],
  LeafNodeType: 'It',
  LeafNodeText: text,
  State: state,
  RunTime: 1_500_000_000,
  ...more,
});

const report = (chosen: number, specs: readonly object[], reasons: readonly string[] | null = null): string =>
  JSON.stringify([
    { SpecialSuiteFailureReasons: reasons, PreRunStats: { SpecsThatWillRun: chosen }, SpecReports: specs },
  ]);

const results = readReport(
  report(4, [
    spec('rolls [Serial]', 'passed'),
    spec('was not chosen', 'skipped'),
    spec('needs more', 'skipped', { Failure: { Message: 'needs 2 nodes' } }),
    spec('breaks', 'failed', { Failure: { Message: 'timed out\nin the end' } }),
    spec('takes too long', 'timedout'),
    spec('', 'passed', { LeafNodeType: 'BeforeSuite', ContainerHierarchyTexts: null }),
    spec('', 'panicked', { LeafNodeType: 'AfterSuite', ContainerHierarchyTexts: null }),
  ]),
);

const causes = [{ test: /needs more/, message: /2 nodes/, cause: 'there is one node' }];

describe('the report of a conformance run', () => {
  it('has the tests that were chosen, and whatever else of the suite failed', () => {
    expect(results.map(({ name, outcome }) => `${outcome}: ${name}`)).toEqual([
      'passed: [sig-apps] Deployment rolls [Serial]',
      'skipped: [sig-apps] Deployment needs more',
      'failed: [sig-apps] Deployment breaks',
      'failed: [sig-apps] Deployment takes too long',
      'failed: AfterSuite',
    ]);
    expect(results[0]).toMatchObject({ seconds: 1.5, isSerial: true });
    expect(summarize(results)).toBe('1 of 5 passed, 1 not run here, 3 failed');
  });

  it.each([
    ['2 of 3 tests were run', report(3, [spec('a', 'passed'), spec('b', 'failed'), spec('c', 'skipped')])],
    ['Suite Timeout Elapsed', report(1, [spec('a', 'passed')], ['Suite Timeout Elapsed'])],
    ['0 of 0 tests were run', report(0, [spec('a', 'skipped')])],
    [
      '0 of 1 tests were run; BeforeSuite: no node',
      report(1, [
        spec('', 'failed', {
          LeafNodeType: 'BeforeSuite',
          ContainerHierarchyTexts: null,
          Failure: { Message: 'no node' },
        }),
        spec('a', 'skipped'),
      ]),
    ],
  ])('is none of a run that was cut short: %s', (reason, text) => {
    expect(() => readReport(text)).toThrow(`the run was cut short: ${reason}`);
  });

  it('explains a test only where its message is the one that the cause was found for', () => {
    const [, skipped] = results;
    expect(skipped && findCause(skipped, causes)).toBe('there is one node');
    expect(skipped && findCause({ ...skipped, message: 'another' }, causes)).toBeUndefined();
    expect(unexplained(results, causes).map(({ name }) => name)).toEqual([
      '[sig-apps] Deployment breaks',
      '[sig-apps] Deployment takes too long',
      'AfterSuite',
    ]);
  });

  it('is a page that names each test that did not pass, with its cause', () => {
    const machine = { cpu: 'CPU', cores: 2, memoryGiB: 8, system: 'Linux', engine: 'Docker', node: 'v20' };
    const versions = { Kubernetes: 'v1.36.3' };
    const run = { date: '2026-01-02', versions, commit: 'abc', machine, processes: 4, minutes: 12.4 };
    const page = formatConformance(results, causes, run).split('\n');
    expect(page).toContain('| Duration | 12 minutes: 4 tests in 4 processes, then 1 one after the other |');
    expect(page).toContain(String.raw`| \[sig-apps\] Deployment needs more | not run here | there is one node |`);
    expect(page).toContain(String.raw`| \[sig-apps\] Deployment breaks | failed | unexplained: timed out |`);
    expect(page).toContain('| sig-apps | 1 | 4 |');
  });
});

it('the suite is of the version that clusters have', () => {
  const goMod = readFileSync(new URL('../../images/conformance/go.mod', import.meta.url), 'utf8');
  expect(/^\tk8s\.io\/kubernetes (\S+)$/m.exec(goMod)?.[1]).toBe(COMPONENT_VERSIONS.kubernetes);
});
