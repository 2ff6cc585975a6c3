/** What is measured, and every value that was seen. */

export type Measure = {
  readonly id: string;
  readonly title: string;
  readonly unit: 's' | 'ms' | 'MiB' | '% of a core' | '/s' | '%';
  /** At most this, as the project has set it for two cores. */
  readonly goal?: number;
  /** At least this. */
  readonly floor?: number;
};

/** In the order of the table. */
const MEASURES: readonly Measure[] = [
  { id: 'up', title: '`up` from nothing until it returns', unit: 's', goal: 6 },
  { id: 'up-verified', title: '… until clients of their own have seen every part work', unit: 's' },
  { id: 'deployment', title: 'then a two-replica Deployment Ready', unit: 's', goal: 1.5 },
  { id: 'pod-dns', title: '… and its pods have a name answered', unit: 's' },
  {
    id: 'pod-start',
    title: '`kubectl run` of a present image until the pod is Running, median of 5',
    unit: 's',
    goal: 0.8,
  },
  { id: 'pods-100', title: '100 pods of one Deployment until Ready', unit: 's', goal: 25 },
  { id: 'up-again', title: '`up` again, nothing to change', unit: 's', goal: 0.6 },
  { id: 'status', title: '`status`', unit: 's', goal: 0.4 },
  { id: 'restart', title: 'control plane from `docker restart` to `/readyz`', unit: 's', goal: 3 },
  { id: 'restart-start', title: '… of it, from the start of the new process', unit: 's' },
  { id: 'down', title: '`down`', unit: 's', goal: 3 },
  { id: 'up-kept', title: '`up` with the data of an earlier one', unit: 's' },
  { id: 'down-volumes', title: '`down --volumes`', unit: 's', goal: 3 },
  { id: 'load-first', title: '`image load` of 100 MB, first', unit: 's', goal: 2.2 },
  { id: 'load-layer', title: '… after a change of its last layer, 1 MB', unit: 's', goal: 0.5 },
  { id: 'load-same', title: '… unchanged', unit: 's', goal: 0.2 },
  { id: 'memory', title: 'memory at rest, all containers', unit: 'MiB', goal: 430 },
  { id: 'cpu', title: 'CPU at rest, all containers', unit: '% of a core', goal: 5 },
  {
    id: 'mount-nested',
    title: '`mount` into running pods, from its call until a pod reads a file',
    unit: 's',
    goal: 0.7,
  },
  { id: 'mount-nested-returns', title: '… until it returns', unit: 's' },
  { id: 'mount-rolled', title: '`mount` with a rollout, until a new pod reads a file', unit: 's', goal: 2 },
  { id: 'mount-rolled-returns', title: '… until it returns', unit: 's' },
  { id: 'mount-event', title: 'edit on the host until its file event in a pod, median of 50', unit: 'ms', goal: 5 },
  { id: 'mount-event-p95', title: '… 95th percentile', unit: 'ms', goal: 5 },
  { id: 'mount-served', title: 'edit on the host until the ingress serves it, median of 50', unit: 'ms', goal: 20 },
  { id: 'mount-served-p95', title: '… 95th percentile', unit: 'ms', goal: 20 },
  { id: 'checkout-host', title: 'git checkout of 10,000 files, every event seen on the host', unit: 's' },
  { id: 'checkout-pod', title: '… the same, every event seen in a pod', unit: 's' },
  { id: 'mount-memory', title: "memory of a mount's container at rest", unit: 'MiB', goal: 2 },
  { id: 'mount-cpu', title: "CPU of a mount's container at rest, over a minute", unit: '% of a core', goal: 0.01 },
  { id: 'port-add', title: '`port add` until the first answer on the host', unit: 's', goal: 1 },
  { id: 'load-balancer', title: 'a LoadBalancer Service until the first answer on the host', unit: 's', goal: 1 },
  {
    id: 'reset',
    title: '`reset` of 20 pods, 5 namespaces, 3 CRDs with objects, 5 claims, until a new Deployment is accepted',
    unit: 's',
    goal: 1.5,
  },
  { id: 'reset-large', title: "… with 200 pods' worth of objects and 5,000 ConfigMaps", unit: 's', goal: 5 },
  { id: 'reset-hard', title: '`reset --hard`', unit: 's', goal: 5 },
  { id: 'reset-anew', title: 'the same by `down --volumes` and `up`', unit: 's' },
  { id: 'stop', title: '`stop`', unit: 's', goal: 3 },
  { id: 'start', title: '`start` until clients of their own have seen every part work', unit: 's', goal: 5 },
  { id: 'pause', title: '`pause`', unit: 's', goal: 0.5 },
  { id: 'resume', title: '`resume` until the API answers', unit: 's', goal: 0.5 },
  { id: 'snapshot-create', title: '`snapshot create` with 1 GiB in volumes', unit: 's', goal: 5 },
  { id: 'snapshot-restore', title: '`snapshot restore` of it until the API answers', unit: 's', goal: 5 },
  { id: 'engine-restart', title: 'engine restart until clients have seen every part work', unit: 's', goal: 10 },
  { id: 'http-rate', title: 'requests through the ingress to a pod, 50 connections', unit: '/s' },
  { id: 'http-p99', title: '… 99th percentile of their latency', unit: 'ms' },
  { id: 'http-share', title: "… as a share of Docker's own port", unit: '%', floor: 50 },
  { id: 'https-rate', title: 'the same with TLS', unit: '/s' },
  { id: 'https-p99', title: '… 99th percentile', unit: 'ms' },
  { id: 'https-share', title: "… as a share of Docker's own port", unit: '%', floor: 50 },
  { id: 'build-cold', title: 'cold build of all images', unit: 's', goal: 1200 },
  { id: 'build-changed', title: 'build after a change of a line of our own Go', unit: 's', goal: 60 },
];

export type Summary = Measure & {
  readonly median: number;
  readonly min: number;
  readonly max: number;
  readonly values: readonly number[];
};

export type StepSummary = {
  readonly id: string;
  /** Medians, in seconds since the command was called. */
  readonly start: number;
  readonly end: number;
  readonly runs: number;
};

/** Collects values; of each measure as many as there were runs. */
export class Measurements {
  readonly #values = new Map<string, number[]>();
  readonly #steps = new Map<string, { readonly starts: number[]; readonly ends: number[] }>();

  /** `id` is one of `MEASURES`, or one of them and a component: `memory/agent`. */
  record(id: string, value: number): void {
    const values = this.#values.get(id);
    if (values === undefined) this.#values.set(id, [value]);
    else values.push(value);
  }

  recordStep(id: string, start: number, end: number): void {
    const step = this.#steps.get(id) ?? { starts: [], ends: [] };
    step.starts.push(start);
    step.ends.push(end);
    this.#steps.set(id, step);
  }

  summaries(): readonly Summary[] {
    return MEASURES.flatMap((measure) => {
      const parts = [...this.#values.keys()].filter((id) => id.startsWith(`${measure.id}/`));
      const titled = parts.map((id) => ({ id, title: `… ${id.slice(measure.id.length + 1)}`, unit: measure.unit }));
      return [measure, ...titled].flatMap((each) => {
        const values = this.#values.get(each.id);
        return values === undefined ? [] : [summarize(each, values)];
      });
    });
  }

  /** In the order in which they end. */
  steps(): readonly StepSummary[] {
    return [...this.#steps]
      .map(([id, { starts, ends }]) => ({
        id,
        start: rounded(medianOf(starts)),
        end: rounded(medianOf(ends)),
        runs: ends.length,
      }))
      .toSorted((a, b) => a.end - b.end);
  }
}

function summarize(measure: Measure, values: readonly number[]): Summary {
  return {
    ...measure,
    median: rounded(medianOf(values)),
    min: rounded(Math.min(...values)),
    max: rounded(Math.max(...values)),
    values: values.map(rounded),
  };
}

export function percentileOf(values: readonly number[], percent: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.ceil((sorted.length * percent) / 100) - 1] ?? NaN;
}

export function medianOf(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length / 2;
  return ((sorted[Math.ceil(middle) - 1] ?? NaN) + (sorted[Math.floor(middle)] ?? NaN)) / 2;
}

function rounded(value: number): number {
  return Math.round(value * 1000) / 1000;
}
