// What the WebAssembly module exports. Callers place everything in its memory, from `base` on.

export const base: usize = __heap_base;
export * from "./exact";
export * from "./float";
