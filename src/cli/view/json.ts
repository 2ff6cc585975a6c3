import type { View } from './view.ts';

/** One line of JSON an event. */
export function jsonView(stream: NodeJS.WritableStream): View {
  return {
    emit: (event) => {
      stream.write(`${JSON.stringify(event)}\n`);
    },
    close: () => Promise.resolve(),
  };
}
