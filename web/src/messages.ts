// What the page and its worker say to each other.

import type { Part } from "./painting.ts";

/** What became of a file: its damage, if any, and the milliseconds that each half of the decoder computed. */
export interface Outcome {
  damage: string | null;
  prior: number;
  network: number;
}

/** To the worker: weights, once for each fingerprint; then files. `cancel` ends the work on a file. */
export type Request =
  | { type: "weights"; fingerprint: string; data: Uint8Array<ArrayBuffer> }
  | { type: "decode"; id: number; data: Uint8Array; levels: number; urgent: boolean }
  | { type: "cancel"; id: number };

/** From the worker: parts of the picture of the first `levels` levels; then, once, `done` or `error`. */
export type Answer =
  | { type: "part"; id: number; levels: number; part: Part }
  | ({ type: "done"; id: number } & Outcome)
  | { type: "error"; id: number; message: string };
