// Builds the page and the element into dist/; with --tests, also the tests into build/tests/.

import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { build } from "esbuild";

const shared = {
  bundle: true,
  minify: true,
  target: "es2022",
  loader: { ".wasm": "binary", ".txt": "text" },
  logLevel: "warning",
};

function kernels() {
  const asc = [
    "kernels/index.ts",
    "-o",
    "build/kernels.wasm",
    "-O3",
    "--runtime",
    "stub",
    "--enable",
    "simd",
    "--noAssert",
  ];
  execFileSync(process.execPath, ["node_modules/assemblyscript/bin/asc.js", ...asc], { stdio: "inherit" });
}

/** Weights by fingerprint, and again as scripts, for a page on file://, which cannot fetch. */
function weights() {
  mkdirSync("dist/weights", { recursive: true });
  for (const name of readdirSync("../weights").filter((file) => file.endsWith(".decoder.safetensors"))) {
    const data = readFileSync(`../weights/${name}`);
    const fingerprint = createHash("sha256").update(data).digest("hex").slice(0, 8);
    writeFileSync(`dist/weights/${fingerprint}.safetensors`, data);
    const script = `(globalThis.vqcodecWeights ??= {})["${fingerprint}"] = "${data.toString("base64")}";\n`;
    writeFileSync(`dist/weights/${fingerprint}.js`, script);
  }
}

/** The pictures of page/gallery/. */
function gallery() {
  const names = readdirSync("page/gallery").filter((name) => name.endsWith(".vq"));
  return names.map((name) => ({ name, base64: readFileSync(`page/gallery/${name}`).toString("base64") }));
}

kernels();
rmSync("dist", { recursive: true, force: true });
await build({ ...shared, entryPoints: ["src/worker.ts"], outfile: "build/worker.txt", format: "iife" });
await build({ ...shared, entryPoints: ["src/vq-img.ts"], outdir: "dist", format: "iife" });
const define = { GALLERY: JSON.stringify(gallery()) };
await build({ ...shared, entryPoints: ["src/page.ts"], outdir: "dist", format: "iife", define });
for (const name of ["index.html", "page.css"]) cpSync(`page/${name}`, `dist/${name}`);
weights();

if (process.argv.includes("--tests")) {
  rmSync("build/tests", { recursive: true, force: true });
  const entryPoints = readdirSync("tests")
    .filter((name) => name.endsWith(".test.ts"))
    .map((name) => `tests/${name}`);
  const node = { platform: "node", format: "esm", outExtension: { ".js": ".mjs" }, external: ["playwright-core"] };
  await build({ ...shared, ...node, minify: false, entryPoints, outdir: "build/tests" });
  await build({
    ...shared,
    ...node,
    minify: false,
    entryPoints: ["tests/decode.ts", "tests/onnx.ts"],
    outdir: "build",
  });
  await build({ ...shared, entryPoints: ["tests/codes.ts"], outdir: "build", format: "iife" });
}
