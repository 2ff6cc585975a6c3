/** Images from the engine into the cluster. */
import { HundredMegabytes, removeImage } from '../images.ts';
import type { Measurements } from '../measures.ts';
import type { Subject } from '../subject.ts';

const TAG = 'sandbar-bench/hundred-megabytes:1';

export async function measureLoad(subject: Subject, measurements: Measurements): Promise<void> {
  // Converged in an earlier run, it stays as it is: new content is first seen all the same.
  await subject.up();
  const image = new HundredMegabytes(subject.docker, TAG);
  const load = async (): Promise<number> => (await subject.sandbar('image', 'load', TAG)).seconds;
  try {
    await image.build();
    measurements.record('load-first', await load());
    await image.changeLastLayer();
    measurements.record('load-layer', await load());
    measurements.record('load-same', await load());
  } finally {
    await removeImage(subject.docker, TAG);
  }
}
