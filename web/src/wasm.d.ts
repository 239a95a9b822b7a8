/** A binary file as bytes: esbuild's loader "binary". */
declare module "*.wasm" {
  const bytes: Uint8Array<ArrayBuffer>;
  export default bytes;
}
