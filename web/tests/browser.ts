// What tests in a browser share: Debian's Chromium, headless, and a server of files below web/.

import { readFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import { delimiter, extname, join } from "node:path";
import type { Browser } from "playwright-core";
import { chromium } from "playwright-core";

const NAMES = ["chromium", "chromium-browser", "google-chrome"];
const TYPES: Record<string, string> = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css" };

/** The path of Chromium or Chrome, or undefined if there is none; with CI=true there must be one. */
export function executable(): string | undefined {
  for (const folder of (process.env.PATH ?? "").split(delimiter)) {
    for (const name of NAMES) {
      try {
        readFileSync(join(folder, name));
        return join(folder, name);
      } catch {
        // the next one
      }
    }
  }
  if (process.env.CI) throw new Error(`none of ${NAMES.join(", ")} is on the path`);
  return undefined;
}

export function launch(executablePath: string): Promise<Browser> {
  return chromium.launch({ executablePath, args: ["--no-sandbox"] });
}

/** A server of the files in `folder`, and its address. */
export async function serve(folder: string): Promise<[Server, string]> {
  const server = createServer((request, response) => {
    try {
      const path = new URL(request.url ?? "/", "http://localhost").pathname;
      const data = readFileSync(join(folder, path === "/" ? "index.html" : path));
      response.setHeader(
        "Content-Type",
        TYPES[extname(path === "/" ? ".html" : path) || ".html"] ?? "application/octet-stream",
      );
      response.end(data);
    } catch {
      response.writeHead(404).end();
    }
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  return [server, `http://127.0.0.1:${typeof address === "object" ? address?.port : ""}/`];
}
