// Decodes files one after the other, away from the page. Each level gives a finer picture of the whole.

import kernels from "../build/kernels.wasm";
import { parse } from "./container.ts";
import { Decoder, fingerprintOf } from "./decoder.ts";
import { check, FormatError } from "./errors.ts";
import type { Answer, Request } from "./messages.ts";
import type { Codes } from "./prior.ts";

const decoders = new Map<string, Decoder>();
const cancelled = new Set<number>();
const module = new WebAssembly.Module(kernels);
let queue = Promise.resolve();

function answer(message: Answer, transfer: Transferable[] = []): void {
  self.postMessage(message, { transfer });
}

/** Lets messages in that have arrived, which may cancel the work. */
function pause(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve));
}

async function decode({ id, data, levels: most }: Extract<Request, { type: "decode" }>): Promise<void> {
  const file = parse(data);
  const { fingerprint } = file.header;
  const decoder = decoders.get(fingerprint);
  check(decoder, `the weights ${fingerprint} are not here`);
  const codes: Codes[] = [];
  for (const level of decoder.codes(file, most)) {
    codes.push(level);
    for (const part of decoder.paint(codes, file)) {
      answer({ type: "part", id, levels: codes.length, part }, [part.rgba.buffer]);
      await pause();
      if (cancelled.has(id)) return;
    }
  }
  answer({ type: "done", id, damage: file.damage });
}

self.onmessage = ({ data: request }: MessageEvent<Request>): void => {
  if (request.type === "cancel") {
    cancelled.add(request.id);
    return;
  }
  queue = queue.then(async () => {
    try {
      if (request.type === "weights") {
        const fingerprint = fingerprintOf(request.data);
        if (!decoders.has(fingerprint)) decoders.set(fingerprint, new Decoder(module, request.data, fingerprint));
      } else if (!cancelled.has(request.id)) await decode(request);
    } catch (error) {
      if (request.type === "weights") return; // the files that need them will say that they are not here
      const expected = error instanceof FormatError;
      answer({ type: "error", id: request.id, message: expected ? error.message : `cannot be decoded: ${error}` });
    }
    if (request.type === "decode") cancelled.delete(request.id);
  });
};
