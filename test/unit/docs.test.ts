/** Published texts that are made from code: `npx vitest run --config test/vitest.config.ts --project unit -u` renews them. */
import { Ajv } from 'ajv';
import { describe, expect, it } from 'vitest';
import { formatCommandGuide, formatErrorGuide } from '../../src/cli/documentation.ts';
import { formatConfigurationGuide, formatSchema } from '../../src/config/documentation.ts';

describe('published texts', () => {
  it('have the schema that the code checks with', async () => {
    await expect(formatSchema()).toMatchFileSnapshot('../../docs/sandbar.schema.json');
    expect(new Ajv({ strict: false }).validateSchema(JSON.parse(formatSchema()) as object)).toBe(true);
  });

  it('have the guide to the configuration that the code makes', async () => {
    await expect(formatConfigurationGuide()).toMatchFileSnapshot('../../docs/configuration.md');
  });

  it('have the commands that the program has', async () => {
    await expect(formatCommandGuide()).toMatchFileSnapshot('../../docs/commands.md');
  });

  it('have every code that an error can have', async () => {
    await expect(formatErrorGuide()).toMatchFileSnapshot('../../docs/errors.md');
  });
});
