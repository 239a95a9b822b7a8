// A script for a page next to weights/: codesOf(file) is the SHA-256 of the codes that the browser decodes.

import kernels from "../build/kernels.wasm";
import { parse } from "../src/container.ts";
import { Decoder } from "../src/decoder.ts";
import { codesDigest } from "./digest.ts";

const decoders = new Map<string, Promise<Decoder>>();

async function load(fingerprint: string): Promise<Decoder> {
  const response = await fetch(`weights/${fingerprint}.safetensors`);
  const data = new Uint8Array(await response.arrayBuffer());
  return new Decoder(await WebAssembly.compile(kernels), data, fingerprint);
}

async function codesOf(data: Uint8Array): Promise<string> {
  const file = parse(data);
  const { fingerprint } = file.header;
  const decoder = decoders.get(fingerprint) ?? load(fingerprint);
  decoders.set(fingerprint, decoder);
  return codesDigest([...(await decoder).codes(file)]);
}

Object.assign(globalThis, { codesOf });
