/**
 * Every failure that Sandbar explains has a code here. The exit code belongs to the code (docs/errors.md):
 * 1 failed, 2 usage or configuration, 3 environment, 4 not found, 5 timed out, 130 interrupted.
 */
export const ERROR_EXIT_CODES = {
  USAGE: 2,
  CONFIG_INVALID: 2,
  CONFIRMATION_NEEDED: 2,
  DOCKER_MISSING: 3,
  DOCKER_DENIED: 3,
  DOCKER_TOO_OLD: 3,
  DOCKER_REMOTE: 3,
  DOCKER_FAILED: 3,
  PORT_IN_USE: 3,
  SUBNET_IN_USE: 3,
  DISK_FULL: 3,
  FILE_DENIED: 3,
  HOST_LIMIT: 3,
  NAME_TAKEN: 3,
  IMAGE_BUILD_FAILED: 1,
  IMAGE_UNAVAILABLE: 3,
  IMAGE_NOT_FOUND: 4,
  CLUSTER_NOT_FOUND: 4,
  CLUSTER_NOT_RUNNING: 4,
  NOT_FOUND: 4,
  CONFLICT: 1,
  TIMED_OUT: 5,
  COMPONENT_FAILED: 1,
  APPLY_FAILED: 1,
  COMMAND_FAILED: 1,
  KUBERNETES_FAILED: 1,
  OBJECT_STORE_FAILED: 1,
  BUSY: 1,
  INTERRUPTED: 130,
} as const;

export type ErrorCode = keyof typeof ERROR_EXIT_CODES;

/** A failure with its explanation: the message says what failed with the value, the hint the command or edit that fixes it. */
export class SandbarError extends Error {
  readonly code: ErrorCode;
  readonly hint: string | undefined;
  /** Longer evidence (log lines, a list of problems), printed below the message. */
  readonly details: readonly string[];
  /** Overrides the code's exit code where a child process decides, as for `kubectl`. */
  readonly exitCode: number;

  constructor(
    code: ErrorCode,
    message: string,
    options: { hint?: string; details?: readonly string[]; cause?: unknown; exitCode?: number } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'SandbarError';
    this.code = code;
    this.hint = options.hint;
    this.details = options.details ?? [];
    this.exitCode = options.exitCode ?? ERROR_EXIT_CODES[code];
  }
}

/** One problem of a configuration file or of a flag, with the place where it stands. */
export type Diagnostic = {
  readonly file: string;
  /** 1-based; absent where the problem has no place in a file. */
  readonly line?: number;
  readonly column?: number;
  readonly message: string;
  readonly suggestion?: string;
};

/** `file:line:column: message (suggestion)`, as editors and terminals link it. */
export function formatDiagnostic(diagnostic: Diagnostic): string {
  const place = [diagnostic.file, diagnostic.line, diagnostic.column].filter((part) => part !== undefined).join(':');
  return `${place}: ${diagnostic.message}${diagnostic.suggestion === undefined ? '' : ` (${diagnostic.suggestion})`}`;
}

/** The error for a set of diagnostics: all of them at once. */
export function configInvalid(diagnostics: readonly Diagnostic[]): SandbarError {
  const [first] = diagnostics;
  const count = diagnostics.length;
  return new SandbarError(
    'CONFIG_INVALID',
    count === 1 && first !== undefined ? formatDiagnostic(first) : `${String(count)} problems in the configuration`,
    { details: count === 1 ? [] : diagnostics.map(formatDiagnostic), hint: 'sandbar config validate checks the file' },
  );
}
