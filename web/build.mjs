// Builds the page and the element into dist/, or with --tests the tests into build/tests/.
import { execFileSync } from "node:child_process";
import { readdirSync, rmSync } from "node:fs";
import { build } from "esbuild";

const KERNELS = "build/kernels.wasm";
execFileSync(
  process.execPath,
  [
    "node_modules/assemblyscript/bin/asc.js",
    "kernels/index.ts",
    "-o",
    KERNELS,
    "-O3",
    "--runtime",
    "stub",
    "--enable",
    "simd",
    "--noAssert",
  ],
  {
    stdio: "inherit",
  },
);

const shared = { bundle: true, target: "es2022", loader: { ".wasm": "binary" }, logLevel: "warning" };
rmSync("build/tests", { recursive: true, force: true });
const tests = readdirSync("tests").filter((name) => name.endsWith(".test.ts"));
await build({
  ...shared,
  entryPoints: tests.map((name) => `tests/${name}`),
  outdir: "build/tests",
  platform: "node",
  format: "esm",
  outExtension: { ".js": ".mjs" },
  external: ["playwright-core"],
});
