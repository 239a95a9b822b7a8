/** A binary file as bytes: esbuild's loader "binary". */
declare module "*.wasm" {
  const bytes: Uint8Array<ArrayBuffer>;
  export default bytes;
}

/** A file as a string: esbuild's loader "text". */
declare module "*.txt" {
  const text: string;
  export default text;
}
