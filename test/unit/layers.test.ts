/** Which folder may import what, which package belongs to which file, and where the outside world may be touched. */
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';
import { describe, expect, it } from 'vitest';

const SOURCE = fileURLToPath(new URL('../../src', import.meta.url));

/** Folder → folders that it may import, besides itself. */
const LAYERS: Readonly<Record<string, readonly string[]>> = {
  model: [],
  mounts: ['model'],
  diagnosis: ['model'],
  config: ['model', 'mounts'],
  components: ['model'],
  engine: ['model'],
  operations: ['model', 'mounts', 'diagnosis', 'config', 'components', 'engine'],
  adapters: ['model'],
  cli: ['model', 'diagnosis', 'config', 'operations'],
};

/** The only file that sees both the command line and the adapters. */
const MAIN = 'main.ts';

/** Package → the files that may import it. A package that is not listed may not be imported at all. */
const PACKAGES: Readonly<Record<string, RegExp>> = {
  '@peculiar/x509': /^adapters\/pki/,
  ajv: /^config\/structure\.ts$/,
  aws4fetch: /^adapters\/object-store\.ts$/,
  commander: /^cli\//,
  dockerode: /^adapters\/(?:docker|image-builder|buildkit)/,
  execa: /^adapters\//,
  listr2: /^cli\/view\/tty\.ts$/,
  ora: /^cli\/view\//,
  'reflect-metadata': /^adapters\/pki/,
  tar: /^adapters\//,
  yaml: /^(?:config\/(?:document|save-mount)|model\/(?:manifests|kubeconfig)|components\/ingress)\.ts$/,
};

/** Modules of Node that only compute; every other one reaches outside of the program. */
const PURE_MODULES = [
  'buffer',
  'crypto',
  'path',
  'path/posix',
  'stream',
  'string_decoder',
  'tls',
  'url',
  'util',
  'zlib',
];
const OUTSIDE = /^(?:adapters\/|main\.ts$)/;
/** The terminal is the command line's own: its streams are handed in, readline and tty read and measure them. */
const CLI_MODULES: Readonly<Record<string, RegExp>> = {
  readline: /^cli\/terminal\.ts$/,
  'readline/promises': /^cli\/terminal\.ts$/,
  tty: /^cli\/terminal\.ts$/,
};

/** Expressions that reach outside → the files where they may stand. */
const REACHES: Readonly<Record<string, RegExp>> = {
  'process.': OUTSIDE,
  'process.env': /^(?:adapters\/host\.ts|main\.ts)$/,
  'process.exit': /^main\.ts$/,
  'console.': /^(?!)/,
  'Date.now': OUTSIDE,
  'Math.random': /^(?!)/,
  // A live display counts its own seconds.
  'performance.': /^(?:adapters\/|main\.ts$|cli\/view\/tty\.ts$)/,
};

const files = readdirSync(SOURCE, { recursive: true, encoding: 'utf8' })
  .filter((file) => file.endsWith('.ts'))
  .map((file) => file.split(path.sep).join('/'))
  .sort();

const textOf = (file: string): string => readFileSync(path.join(SOURCE, file), 'utf8');
const folderOf = (file: string): string => (file.includes('/') ? file.split('/', 1).join('') : file);
const importsOf = (file: string): readonly string[] =>
  ts.preProcessFile(textOf(file)).importedFiles.map(({ fileName }) => fileName);
const relativeImportsOf = (file: string): readonly string[] =>
  importsOf(file)
    .filter((name) => name.startsWith('.'))
    .map((name) => path.posix.join(path.posix.dirname(file), name));
const packageOf = (name: string): string => name.split('/', name.startsWith('@') ? 2 : 1).join('/');

describe('the layers', () => {
  it('are all there are', () => {
    const folders = new Set(files.map(folderOf));
    expect([...folders].filter((folder) => folder !== MAIN && !(folder in LAYERS))).toEqual([]);
  });

  it('import only what stands below them', () => {
    const wrong = files
      .filter((file) => file !== MAIN)
      .flatMap((file) =>
        relativeImportsOf(file)
          .filter((target) => ![folderOf(file), ...(LAYERS[folderOf(file)] ?? [])].includes(folderOf(target)))
          .map((target) => `${file} imports ${target}`),
      );
    expect(wrong).toEqual([]);
  });

  it('have no circles within them', () => {
    const circles: string[] = [];
    const finished = new Set<string>();
    const visit = (file: string, trail: readonly string[]): void => {
      if (trail.includes(file)) circles.push([...trail.slice(trail.indexOf(file)), file].join(' → '));
      if (trail.includes(file) || finished.has(file)) return;
      for (const target of valueImportsOf(file)) visit(target, [...trail, file]);
      finished.add(file);
    };
    for (const file of files) visit(file, []);
    expect(circles).toEqual([]);
  });

  it('keep each package in the files that it belongs to', () => {
    const wrong = files.flatMap((file) =>
      importsOf(file)
        .filter((name) => !name.startsWith('.') && !name.startsWith('node:'))
        .filter((name) => PACKAGES[packageOf(name)]?.test(file) !== true)
        .map((name) => `${file} imports ${name}`),
    );
    expect(wrong).toEqual([]);
  });

  it('leave files, sockets and processes to the adapters', () => {
    const wrong = files
      .filter((file) => !OUTSIDE.test(file))
      .flatMap((file) =>
        importsOf(file)
          .filter((name) => name.startsWith('node:'))
          .map((name) => name.slice('node:'.length))
          .filter((name) => !PURE_MODULES.includes(name) && CLI_MODULES[name]?.test(file) !== true)
          .filter((name) => !isTypeImport(file, `node:${name}`))
          .map((name) => `${file} imports node:${name}`),
      );
    expect(wrong).toEqual([]);
  });

  it('touch environment, clock and terminal only where these belong', () => {
    const wrong = files.flatMap((file) =>
      reachesOf(file)
        .filter((reach) => REACHES[reach]?.test(file) !== true)
        .map((reach) => `${file} uses ${reach}`),
    );
    expect(wrong).toEqual([]);
  });
});

const parsed = new Map<string, readonly ts.Statement[]>();

function statementsOf(file: string): readonly ts.Statement[] {
  const statements = parsed.get(file) ?? ts.createSourceFile(file, textOf(file), ts.ScriptTarget.ES2023).statements;
  parsed.set(file, statements);
  return statements;
}

function isTypeOnly(statement: ts.ImportDeclaration): boolean {
  return statement.importClause?.phaseModifier === ts.SyntaxKind.TypeKeyword;
}

/** Types may refer to each other in circles; values may not. */
function valueImportsOf(file: string): readonly string[] {
  return statementsOf(file)
    .filter(ts.isImportDeclaration)
    .filter((statement) => !isTypeOnly(statement) && ts.isStringLiteral(statement.moduleSpecifier))
    .map((statement) => (statement.moduleSpecifier as ts.StringLiteral).text)
    .filter((name) => name.startsWith('.'))
    .map((name) => path.posix.join(path.posix.dirname(file), name));
}

function isTypeImport(file: string, name: string): boolean {
  return statementsOf(file)
    .filter(ts.isImportDeclaration)
    .filter((statement) => ts.isStringLiteral(statement.moduleSpecifier) && statement.moduleSpecifier.text === name)
    .every(isTypeOnly);
}

/** The keys of REACHES that stand in a file as expressions (not in texts, comments or types). */
function reachesOf(file: string): readonly string[] {
  const found = new Set<string>();
  const visit = (node: ts.Node): void => {
    if (ts.isPropertyAccessExpression(node) && ts.isIdentifier(node.expression)) {
      const object = node.expression.text;
      const whole = `${object}.${node.name.text}`;
      if (whole in REACHES) found.add(whole);
      else if (`${object}.` in REACHES) found.add(`${object}.`);
    }
    ts.forEachChild(node, visit);
  };
  for (const statement of statementsOf(file)) visit(statement);
  return [...found];
}
