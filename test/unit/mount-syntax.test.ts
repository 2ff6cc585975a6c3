/** Mounts as they are written: Compose's short syntax, and workloads as kubectl names them. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  findModeProblem,
  formatVolume,
  parseExcluded,
  parseMountTarget,
  parseVolume,
  parseWorkload,
  VOLUME_MODES,
} from '../../src/config/mount-syntax.ts';
import { formatWorkload } from '../../src/model/mounts.ts';

const DEFAULT = { namespace: 'default' };

function volumeIn(text: string): string {
  const parsed = parseVolume(text);
  if ('problem' in parsed) return parsed.problem;
  const { volume } = parsed;
  if (volume.kind === 'anonymous') return `anonymous ${volume.target}`;
  return `${volume.source} at ${volume.target}${volume.isReadOnly ? ' read-only' : ''}`;
}

describe("Compose's short syntax", () => {
  it.each([
    ['./src:/app/src', './src at /app/src'],
    ['./src:/app/src:ro', './src at /app/src read-only'],
    ['./src:/app/src:rw', './src at /app/src'],
    ['./src:/app/src:ro,z', './src at /app/src read-only'],
    ['./src:/app/src:cached', './src at /app/src'],
    ['./src:/app/src:Z,delegated,ro', './src at /app/src read-only'],
    ['.:/app', '. at /app'],
    ['..:/app', '.. at /app'],
    ['~:/app', '~ at /app'],
    ['~/src:/app', '~/src at /app'],
    ['/srv/x:/app/./a//b/', '/srv/x at /app/a/b'],
    ['./with space:/an app', './with space at /an app'],
    ['./ünï, cödé,日本:/app, x', './ünï, cödé,日本 at /app, x'],
    ['C:\\src:/app', 'C:\\src at /app'],
    ['c:/src:/app:ro', 'c:/src at /app read-only'],
    ['\\\\server\\share:/app', '\\\\server\\share at /app'],
    ['/app/node_modules', 'anonymous /app/node_modules'],
    ['/app/', 'anonymous /app'],
    ['.hidden:/app', '.hidden at /app'],
  ])('reads %s', (text, expected) => {
    expect(volumeIn(text)).toBe(expected);
  });

  it.each([
    ['', 'a mount is empty'],
    [':', '":" has an empty part beside a colon'],
    ['./src:', '"./src:" has an empty part beside a colon'],
    [':/app', '":/app" has an empty part beside a colon'],
    ['./src:/app:', '"./src:/app:" has an empty part beside a colon'],
    ['./src', '"./src" has no target'],
    ['src', '"src" has no target'],
    ['C:\\src', '"C:\\src" has no target'],
    ['data:/x', '"data:/x" wants a volume named data, which only Compose has'],
    ['./a:b:/app', '"./a:b:/app" has too many colons: the short syntax cannot say that one belongs to a path'],
    [
      './src:/app:ro:x',
      '"./src:/app:ro:x" has too many colons: the short syntax cannot say that one belongs to a path',
    ],
    ['./src:/a:/b', '"./src:/a:/b" has too many colons: the short syntax cannot say that one belongs to a path'],
    ['./src:app', 'target "app" is not an absolute path in the container'],
    ['./src:C:\\app', 'target "C:\\app" is not an absolute path in the container'],
    ['./src:/app/../etc', 'target /app/../etc contains ..'],
    ['~bob/src:/app', '"~bob/src:/app": ~bob is no path'],
    ['./src:/app:r', '"./src:/app:r": unknown mode "r"'],
    ['./src:/app:ro,rw', '"./src:/app:ro,rw": ro and rw exclude each other'],
    [
      './src:/app:rshared',
      '"./src:/app:rshared": mode rshared cannot be had: what is mounted below the source later is not passed on',
    ],
    [
      './src:/app:nocopy',
      '"./src:/app:nocopy": mode nocopy cannot be had: it belongs to volumes, and this is a bind mount',
    ],
  ])('refuses %s', (text, problem) => {
    expect(volumeIn(text)).toBe(problem);
  });

  it('says what to write instead', () => {
    expect(parseVolume('data:/x')).toMatchObject({
      suggestion: 'write ./data:/x for a folder, or give the workload a PersistentVolumeClaim',
    });
    expect(parseVolume('./a:b:/app')).toMatchObject({ suggestion: expect.stringContaining('long syntax') as string });
    expect(parseVolume('./src:/app:read_only')).toMatchObject({
      suggestion: 'known modes: rw, ro, z, Z, cached, delegated, consistent, rprivate, private',
    });
    expect(parseVolume('./src:/app:cache')).toMatchObject({ suggestion: 'did you mean cached?' });
    expect(findModeProblem('z', 'propagation')).toMatchObject({ suggestion: 'known modes: rprivate, private' });
  });

  const word = fc.string({ unit: 'grapheme', minLength: 1, maxLength: 10 });
  const part = word.filter((text) => !/[/\\:\0]/.test(text) && text !== '.' && text !== '..');
  const target = fc.array(part, { minLength: 1, maxLength: 4 }).map((parts) => `/${parts.join('/')}`);
  const source = fc
    .tuple(fc.constantFrom('./', '../', '/', '~/', 'C:\\'), fc.array(part, { minLength: 1, maxLength: 4 }))
    .map(([start, parts]) => `${start}${parts.join('/')}`);
  const bind = fc.record({
    kind: fc.constant('bind' as const),
    source,
    target,
    isReadOnly: fc.boolean(),
    createsSource: fc.constant(true),
    excluded: fc.constant<string[]>([]),
  });

  it('reads what it has written, with any modes that have no effect', () => {
    const harmless = Object.keys(VOLUME_MODES).filter((mode) => mode !== 'ro' && mode !== 'rw');
    fc.assert(
      fc.property(bind, fc.subarray(harmless), (volume, modes) => {
        const text = formatVolume(volume);
        expect(text).toBeDefined();
        const suffix = modes.length === 0 ? '' : `${volume.isReadOnly ? ',' : ':'}${modes.join(',')}`;
        expect(parseVolume(`${text ?? ''}${suffix}`)).toEqual({ volume });
      }),
    );
  });

  it('is not written where it would say something else', () => {
    const anything = fc.record({ ...{ kind: fc.constant('bind' as const), source: word, target: word } });
    fc.assert(
      fc.property(anything, fc.boolean(), ({ kind, source: from, target: at }, isReadOnly) => {
        const volume = { kind, source: from, target: at, isReadOnly, createsSource: true, excluded: [] };
        const text = formatVolume(volume);
        if (text !== undefined) expect(parseVolume(text)).toEqual({ volume });
      }),
    );
    const volume = { kind: 'bind', source: './a', target: '/app', isReadOnly: false } as const;
    expect(formatVolume({ ...volume, createsSource: true, excluded: ['x'] })).toBeUndefined();
    expect(formatVolume({ ...volume, createsSource: false, excluded: [] })).toBeUndefined();
    expect(formatVolume({ ...volume, source: './a:b', createsSource: true, excluded: [] })).toBeUndefined();
    expect(formatVolume({ ...volume, source: 'a', createsSource: true, excluded: [] })).toBeUndefined();
  });

  it('is never a reason to break down', () => {
    const likely = fc
      .array(fc.constantFrom(':', '/', '.', '~', 'a', 'C', '\\', 'ro', ',', ' ', 'deployment', '*'), { maxLength: 12 })
      .map((parts) => parts.join(''));
    fc.assert(
      fc.property(fc.oneof(fc.string({ unit: 'binary' }), likely), (text) => {
        for (const parsed of [parseVolume(text), parseMountTarget(text, DEFAULT), parseWorkload(text, DEFAULT)]) {
          if ('problem' in parsed) expect(parsed.problem).not.toBe('');
        }
        const excluded = parseExcluded(text, '/app');
        if ('path' in excluded) expect(excluded.path).toMatch(/^[^/]/);
      }),
    );
  });
});

describe('a workload', () => {
  it.each([
    ['deployment/web', 'deployment/web'],
    ['deploy/web', 'deployment/web'],
    ['Deployment/web', 'deployment/web'],
    ['deployment.apps/web', 'deployment/web'],
    ['cronjobs.batch/tidy', 'cronjob/tidy'],
    ['sts/db/main', 'statefulset/db/main'],
    ['shop/deploy/web', 'shop/deployment/web'],
    ['shop/deploy/web/main', 'shop/deployment/web/main'],
    ['job/web/main', 'job/web/main'],
    ['pod/a.b.c', 'pod/a.b.c'],
    ['job/ds/main', 'job/ds/main'],
  ])('is named by %s', (text, expected) => {
    const parsed = parseWorkload(text, DEFAULT);
    expect('workload' in parsed ? formatWorkload(parsed.workload) : parsed).toBe(expected);
  });

  it.each([
    ['', '"" names no workload', expect.stringContaining('the form is')],
    ['web', '"web" names no workload', 'for example deployment/web'],
    ['/web', '"/web" names no workload: its kind is empty', expect.stringContaining('kinds: deployment')],
    ['svc/web', '"svc/web" names no workload: svc is not a kind that has pods', expect.stringContaining('kinds: ')],
    [
      'deploymnt/web',
      '"deploymnt/web" names no workload: deploymnt is not a kind that has pods',
      'did you mean deployment?',
    ],
    [
      'deploymnt/web/main',
      '"deploymnt/web/main" names no workload: deploymnt is not a kind that has pods',
      'did you mean deployment?',
    ],
    ['deploy/Web', '"deploy/Web" names no workload: "Web" is not a name that Kubernetes has', expect.anything()],
    ['deploy/', '"deploy/" names no workload: "" is not a name that Kubernetes has', expect.anything()],
    ['deploy/web/', '"deploy/web/" names no workload: "" is not a container\'s name', expect.anything()],
    ['deploy/web/main/x', '"deploy/web/main/x" has too many parts', expect.anything()],
    ['a_b/deploy/web', '"a_b/deploy/web" names no workload: "a_b" is not the name of a namespace', expect.anything()],
  ])('is not named by "%s"', (text, problem, suggestion: unknown) => {
    expect(parseWorkload(text, DEFAULT)).toEqual({ problem, suggestion });
  });
});

describe('a target on the command line', () => {
  it('is a path in a workload, or only on the node', () => {
    expect(parseMountTarget('deploy/web/main:/app/', { namespace: 'shop' })).toEqual({
      target: {
        kind: 'workload',
        workload: { namespace: 'shop', kind: 'Deployment', name: 'web', container: 'main' },
        path: '/app',
      },
      path: '/app',
    });
    expect(parseMountTarget('/app', DEFAULT)).toEqual({ target: { kind: 'node' }, path: '/app' });
  });

  it.each([
    ['deploy/web', '"deploy/web" has no path in the container', 'for example deploy/web:/app'],
    ['app', '"app" is not a target', expect.stringContaining('deployment/web:/app')],
    ['deploy/web:app', 'target "app" is not an absolute path in the container', 'for example /app'],
    ['deploy/web:', 'target "" is not an absolute path in the container', 'for example /app'],
    ['deploy/web:C:\\app', 'target "C:\\app" is not an absolute path in the container', 'containers have no drives'],
    ['deploy/web:/a:b', 'target /a:b contains a colon', 'Kubernetes has no mount path with a colon'],
    ['/a/../b', 'target /a/../b contains ..', 'write the path without it'],
    ['web:/app', '"web" names no workload', 'for example deployment/web'],
  ])('is not %s', (text, problem, suggestion: unknown) => {
    expect(parseMountTarget(text, DEFAULT)).toEqual({ problem, suggestion });
  });
});

describe('an excluded path', () => {
  it.each([
    ['node_modules', 'node_modules'],
    ['./a//b/', 'a/b'],
    ['/app/dist', 'dist'],
    ['/app', '"/app" is not below /app'],
    ['/application', '"/application" is not below /app'],
    ['.', '"." would exclude the whole mount'],
    ['/app/', '"/app/" is not below /app'],
    ['a/../..', '"a/../.." contains ..'],
    ['**/node_modules', '"**/node_modules" is a pattern, not a path'],
  ])('%s is %s', (text, expected) => {
    const parsed = parseExcluded(text, '/app');
    expect('path' in parsed ? parsed.path : parsed.problem).toBe(expected);
  });
});
