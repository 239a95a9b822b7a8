// node onnx.mjs RUNTIME GRAPH WEIGHTS FOLDER ROWS COLUMNS QUALITY LAMBDA REPEATS
//
// Times the network against onnxruntime-web, in turn in one process with one thread, with the codes FOLDER/0, FOLDER/1, …
// (i64 [groups][rows][columns], coarsest first; ROWS × COLUMNS are those of level 0) and the expected FOLDER/x_hat. Prints
// JSON: milliseconds of processor time, and the largest difference from x_hat in grey levels. RUNTIME is the folder
// dist/ of the package onnxruntime-web.

import { readFileSync } from "node:fs";
import kernels from "../build/kernels.wasm";
import { Memory } from "../src/memory.ts";
import { Network } from "../src/network.ts";
import { Painting } from "../src/painting.ts";
import { Weights } from "../src/weights.ts";
import { paste, worst } from "./files.ts";

interface Runtime {
  env: { wasm: { numThreads: number; wasmPaths: string; wasmBinary: ArrayBuffer } };
  InferenceSession: {
    create(
      graph: Uint8Array,
      options: object,
    ): Promise<{ run(feeds: object): Promise<{ x_hat: { data: Float32Array } }> }>;
  };
  Tensor: new (type: string, data: BigInt64Array | Float32Array, shape: number[]) => object;
}

const [runtime, graph, weightsFile, folder, ...numbers] = process.argv.slice(2);
const [rows, columns, quality, lambda, repeats] = numbers.map(Number);

function file(path: string): ArrayBuffer {
  const { buffer, byteOffset, byteLength } = readFileSync(path);
  return buffer.slice(byteOffset, byteOffset + byteLength) as ArrayBuffer;
}

const weights = new Weights(new Uint8Array(file(weightsFile)));
const network = new Network(new Memory(new WebAssembly.Module(kernels)), weights);
const picture = { quality, grey: false, width: columns * network.stride, height: rows * network.stride };
const grids = weights.model.levels.map(({ stride, groups }, i) => {
  const factor = network.stride / stride;
  const values = new BigInt64Array(file(`${folder}/${i}`));
  return { rows: rows * factor, columns: columns * factor, groups, values };
});
const codes = grids.map((grid) => {
  const positions = grid.rows * grid.columns;
  const at = (i: number): number => (i % grid.groups) * positions + Math.floor(i / grid.groups);
  return { ...grid, codes: Int16Array.from(grid.values, (_, i) => Number(grid.values[at(i)])) };
});

const ort: Runtime = await import(`${runtime}/ort.wasm.min.mjs`);
ort.env.wasm.numThreads = 1;
ort.env.wasm.wasmPaths = `${runtime}/`;
ort.env.wasm.wasmBinary = file(`${runtime}/ort-wasm-simd-threaded.wasm`);
const session = await ort.InferenceSession.create(new Uint8Array(file(graph)), { executionProviders: ["wasm"] });
const feeds: Record<string, object> = { lmbda: new ort.Tensor("float32", Float32Array.of(lambda), [1]) };
for (const [i, grid] of grids.entries()) {
  feeds[`codes_${i}`] = new ort.Tensor("int64", grid.values, [1, grid.groups, grid.rows, grid.columns]);
}

/** The pixels [height][width][3] of x_hat [3][height][width]. */
function pixels(xHat: Float32Array): Uint8Array {
  const size = xHat.length / 3;
  return new Uint8Array(Uint8ClampedArray.from(xHat, (_, i) => 255 * xHat[(i % 3) * size + Math.floor(i / 3)]));
}

const expected = pixels(new Float32Array(file(`${folder}/x_hat`)));
const ways: Record<string, () => Promise<Uint8Array>> = {
  onnxruntime: async () => pixels((await session.run(feeds)).x_hat.data),
  vqcodec: async () => paste(new Painting(network, picture).paint(codes), picture),
};
const milliseconds: Record<string, number[]> = { onnxruntime: [], vqcodec: [] };
let difference = 0;
for (let run = 0; run <= repeats; run++) {
  for (const [name, way] of Object.entries(ways)) {
    const start = process.cpuUsage().user;
    const found = await way();
    const time = (process.cpuUsage().user - start) / 1000;
    if (run) milliseconds[name].push(time); // the first is a warm-up
    difference = Math.max(difference, worst(found, expected));
  }
}
console.log(JSON.stringify({ milliseconds, difference }));
