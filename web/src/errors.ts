/** Data that the decoder refuses: a file, weights, or a picture beyond what it accepts. The message is one line. */
export class FormatError extends Error {
  override name = "FormatError";
}

/** Refuses the data with `message` unless `condition` holds. */
export function check(condition: unknown, message: string): asserts condition {
  if (!condition) throw new FormatError(message);
}
