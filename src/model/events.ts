/** Everything that happens is one of these; views turn them into a screen, plain lines or JSON. Times in milliseconds. */
import type { Owner } from './resources.ts';

export type SandbarEvent =
  | {
      readonly type: 'plan';
      readonly steps: readonly { readonly id: string; readonly owner: Owner; readonly cause: string }[];
    }
  | { readonly type: 'step-started'; readonly stepId: string; readonly owner: Owner; readonly text: string }
  /** What a step that takes its time does or waits for just now. */
  | { readonly type: 'step-progress'; readonly stepId: string; readonly owner: Owner; readonly text: string }
  | {
      readonly type: 'step-finished';
      readonly stepId: string;
      readonly owner: Owner;
      readonly text: string;
      readonly ms: number;
    }
  | {
      readonly type: 'step-failed';
      readonly stepId: string;
      readonly owner: Owner;
      readonly message: string;
      readonly ms: number;
    }
  | { readonly type: 'step-skipped'; readonly stepId: string; readonly owner: Owner; readonly blockedBy: string }
  /** A phase outside of any plan, e.g. building an image; `text` may change while it runs. */
  | { readonly type: 'phase-started'; readonly phase: string; readonly text: string }
  | { readonly type: 'phase-progress'; readonly phase: string; readonly text: string }
  | { readonly type: 'phase-finished'; readonly phase: string; readonly text: string; readonly ms: number }
  | { readonly type: 'phase-failed'; readonly phase: string; readonly message: string; readonly ms: number }
  | { readonly type: 'notice'; readonly text: string }
  /** Another command works on the cluster: what it does comes first. */
  | { readonly type: 'waiting'; readonly text: string }
  | { readonly type: 'warning'; readonly text: string; readonly hint?: string };

export type Emit = (event: SandbarEvent) => void;
