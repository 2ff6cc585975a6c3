/** Lint rules: the strictest that typescript-eslint ships, and a few of our own (design and style in docs/development.md). */
import { fileURLToPath } from 'node:url';
import { defineConfig } from 'eslint/config';
import tseslint from 'typescript-eslint';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const PARAMETER_LIMIT = 4;

export default defineConfig(
  { ignores: ['**/node_modules/', '.sandbar/', 'dist/', 'images/', 'docs/'] },
  { linterOptions: { reportUnusedDisableDirectives: 'error' } },
  {
    files: ['**/*.ts'],
    extends: [tseslint.configs.strictTypeChecked],
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: ROOT } },
    rules: {
      '@typescript-eslint/consistent-type-imports': 'error',
      '@typescript-eslint/switch-exhaustiveness-check': ['error', { considerDefaultExhaustiveForUnions: true }],
      // A callback that ignores its caller's result is clear enough as an expression.
      '@typescript-eslint/no-confusing-void-expression': ['error', { ignoreArrowShorthand: true }],
      // `env['NAME']` marks a name that no type knows.
      '@typescript-eslint/dot-notation': 'off',
      // Two packages' types of one stream are enough to set it off.
      '@typescript-eslint/no-unsafe-class-instance-assignment': 'off',
      'no-console': 'error',
      'max-params': ['error', PARAMETER_LIMIT],
      'no-param-reassign': 'error',
    },
  },
  {
    files: ['test/**/*.ts'],
    rules: {
      // Fixtures and builders: their types are read off what they return.
      '@typescript-eslint/no-non-null-assertion': 'off',
    },
  },
  {
    files: ['**/*.js'],
    extends: [tseslint.configs.recommended],
    rules: { 'no-console': 'off' },
  },
);
