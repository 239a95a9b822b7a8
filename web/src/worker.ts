// Decodes files one after the other, urgent ones first, away from the page, and paints each level once it is decoded.

import kernels from "../build/kernels.wasm";
import { parse } from "./container.ts";
import { Decoder, fingerprintOf } from "./decoder.ts";
import { check, FormatError } from "./errors.ts";
import type { Answer, Request } from "./messages.ts";
import { applyOpacity, opacities } from "./opacity.ts";
import type { Codes } from "./prior.ts";

type Job = Extract<Request, { type: "decode" }>;

const decoders = new Map<string, Decoder>();
const cancelled = new Set<number>();
const module = new WebAssembly.Module(kernels);
const unusable = new Map<string, string>(); // weights that were refused, and why
const urgent: Job[] = [];
const waiting: Job[] = [];
let busy = false;

function answer(message: Answer, transfer: Transferable[] = []): void {
  self.postMessage(message, { transfer });
}

/** Lets messages in that have arrived, which may cancel the work. */
function pause(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve));
}

async function decode({ id, data, levels: most }: Job): Promise<void> {
  if (cancelled.has(id)) return;
  const file = parse(data);
  const { fingerprint } = file.header;
  const decoder = decoders.get(fingerprint);
  check(decoder, unusable.get(fingerprint) ?? `the weights ${fingerprint} are not here`);
  const opacity = opacities(file);
  const codes: Codes[] = [];
  const painting = decoder.painting(file);
  const clock = new Clock();
  for (const level of decoder.codes(file, most)) {
    clock.stop("prior");
    codes.push(level);
    for (const part of painting.paint(codes)) {
      clock.stop("network");
      if (opacity) applyOpacity(part, opacity, file.header.width);
      answer({ type: "part", id, levels: codes.length, part }, [part.rgba.buffer]);
      await pause();
      await hurry();
      if (cancelled.has(id)) return;
      clock.start();
    }
  }
  answer({ type: "done", id, damage: file.damage, ...clock.milliseconds });
}

/** The time that each half of the decoder takes. */
class Clock {
  readonly milliseconds = { prior: 0, network: 0 };
  #started = performance.now();

  start(): void {
    this.#started = performance.now();
  }

  stop(half: "prior" | "network"): void {
    this.milliseconds[half] += performance.now() - this.#started;
    this.start();
  }
}

/** Decodes a file, or says why not. */
async function finish(job: Job): Promise<void> {
  try {
    await decode(job);
  } catch (error) {
    const expected = error instanceof FormatError;
    answer({ type: "error", id: job.id, message: expected ? error.message : `cannot be decoded: ${error}` });
  }
  cancelled.delete(job.id);
}

/** Decodes the urgent files that have arrived, also while another file is being decoded. */
async function hurry(): Promise<void> {
  for (let job = urgent.shift(); job; job = urgent.shift()) await finish(job);
}

async function work(): Promise<void> {
  busy = true;
  await hurry();
  for (let job = waiting.shift(); job; job = waiting.shift()) {
    await finish(job);
    await hurry();
  }
  busy = false;
}

self.onmessage = ({ data: request }: MessageEvent<Request>): void => {
  if (request.type === "cancel") {
    cancelled.add(request.id);
  } else if (request.type === "weights") {
    const { fingerprint, data } = request;
    try {
      check(fingerprintOf(data) === fingerprint, `the weights ${fingerprint} are damaged`);
      decoders.set(fingerprint, new Decoder(module, data, fingerprint));
    } catch (error) {
      unusable.set(fingerprint, error instanceof Error ? error.message : String(error));
    }
  } else {
    (request.urgent ? urgent : waiting).push(request);
    if (!busy) work();
  }
};
