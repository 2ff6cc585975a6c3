import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { interpolate } from '../../src/config/interpolate.ts';

const ENV = { SET: 'value', EMPTY: '', OTHER: 'other' };

describe('variables in values', () => {
  it.each([
    ['plain', 'plain'],
    ['${SET}', 'value'],
    ['$SET-x', 'value-x'],
    ['a${SET}b${OTHER}', 'avaluebother'],
    ['${NONE}', ''],
    ['${SET:-default}', 'value'],
    ['${NONE:-default}', 'default'],
    ['${EMPTY:-default}', 'default'],
    ['${EMPTY-default}', ''],
    ['${NONE-default}', 'default'],
    ['${SET:+other}', 'other'],
    ['${EMPTY:+other}', ''],
    ['${EMPTY+other}', 'other'],
    ['${NONE+other}', ''],
    ['${NONE:-${SET}}', 'value'],
    ['${NONE:-a${EMPTY:-${OTHER}}b}', 'aotherb'],
    ['${NONE:-http://h:1/p?q}', 'http://h:1/p?q'],
    ['$$SET', '$SET'],
    ['$${SET}', '${SET}'],
    ['${NONE:-$$5}', '$5'],
    ['${SET:?must}', 'value'],
    ['${EMPTY?must}', ''],
  ])('turns %s into "%s"', (text, expected) => {
    expect(interpolate(text, ENV)).toMatchObject({ text: expected, problems: [] });
  });

  it.each([
    ['${NONE:?say it}', 'variable NONE is required: say it'],
    ['${EMPTY:?}', 'variable EMPTY is required'],
    ['${NONE?${SET}}', 'variable NONE is required: value'],
    ['costs 5$', 'has a $ that names no variable'],
    ['$1', 'has a $ that names no variable'],
    ['${SET', 'has a $ that names no variable'],
    ['${}', 'has a $ that names no variable'],
    ['${SET!x}', 'has a $ that names no variable'],
  ])('refuses %s', (text, expected) => {
    expect(interpolate(text, ENV).problems.map(({ message }) => message)).toEqual([expect.stringContaining(expected)]);
  });

  it('names variables that are not set and have no default', () => {
    expect(interpolate('${A}$B${C:-x}${SET}', ENV).unsetVariables).toEqual(['A', 'B']);
  });

  it('leaves any text alone whose dollars are doubled', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), (text) => {
        const result = interpolate(text.replaceAll('$', '$$$$'), ENV);
        expect(result).toMatchObject({ text, problems: [], unsetVariables: [] });
      }),
    );
  });

  it('puts any value in as it is, without reading it again', () => {
    fc.assert(
      fc.property(
        fc.string(),
        fc.string().map((text) => text.replaceAll('$', '')),
        (value, around) => {
          expect(interpolate(`${around}\${V}${around}`, { V: value }).text).toBe(`${around}${value}${around}`);
        },
      ),
    );
  });

  it('ends on any text', () => {
    const piece = fc.constantFrom('$', '{', '}', ':', '-', '?', '+', 'A', '1', ' ');
    fc.assert(
      fc.property(
        fc.array(piece).map((pieces) => pieces.join('')),
        (text) => {
          const result = interpolate(text, ENV);
          expect(result.isInterpolated).toBe(text.includes('$'));
        },
      ),
    );
  });
});
