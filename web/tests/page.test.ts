// The page and <vq-img> in headless Chromium, over http and from file://.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, afterEach, before, test } from "node:test";
import { fileURLToPath, pathToFileURL } from "node:url";
import type { Browser, Page } from "playwright-core";
import { parse } from "../src/container.ts";
import { executable, launch, serve } from "./browser.ts";
import { file, join, random, read, readPng, sealed, text, worst } from "./files.ts";

const DIST = fileURLToPath(new URL("../../dist/", import.meta.url));
const GOLDEN = fileURLToPath(new URL("../../../tests/golden/", import.meta.url));
const CODES = fileURLToPath(new URL("../codes.js", import.meta.url));
const FACTS: Record<string, { codes: string; picture: string }> = JSON.parse(text("tests/golden/facts.json"));
const chromium = executable();
const options = { skip: chromium ? false : "no Chromium" };
let browser: Browser;
let server: Awaited<ReturnType<typeof serve>>[0];
let address: string;
const complaints: string[] = [];

before(async () => {
  if (!chromium) return;
  [server, address] = await serve(DIST);
  browser = await launch(chromium);
});
afterEach(async () => {
  for (const context of browser?.contexts() ?? []) await context.close(); // or its pages would go on decoding
});
after(async () => {
  await browser?.close();
  server?.close();
});

/** The page at `url`; what it complains of goes to `complaints`. */
async function visit(url: string, viewport = { width: 1280, height: 900 }): Promise<Page> {
  const page = await browser.newPage({ viewport });
  page.on("console", (message) => message.type() === "error" && complaints.push(message.text()));
  page.on("pageerror", (error) => complaints.push(String(error)));
  await page.goto(url);
  return page;
}

/** The state of the last opened picture once it is decided, and what the page says of it. */
async function outcome(page: Page): Promise<{ state: string; problem: string | null; about: string }> {
  await page.waitForFunction(() => {
    const image = document.querySelector("#opened vq-img") as (HTMLElement & { state: string }) | null;
    return image?.state === "complete" || image?.state === "error";
  });
  return page.evaluate(() => {
    const image = document.querySelector("#opened vq-img") as HTMLElement & { state: string; problem: string | null };
    return { state: image.state, problem: image.problem, about: document.querySelector(".facts")?.textContent ?? "" };
  });
}

/** The pixels [height][width][3] that the last opened picture shows. */
async function pixels(page: Page): Promise<Uint8Array> {
  const rgba = await page.evaluate(() => {
    const { canvas } = document.querySelector("#opened vq-img") as HTMLElement & { canvas: HTMLCanvasElement };
    return Array.from(canvas.getContext("2d")?.getImageData(0, 0, canvas.width, canvas.height).data ?? []);
  });
  return Uint8Array.from(rgba.filter((_, i) => i % 4 < 3));
}

test("every golden file is shown, within one grey level", options, async () => {
  const page = await visit(address);
  for (const [name, { picture }] of Object.entries(FACTS)) {
    await page.setInputFiles("#files", GOLDEN + name);
    const { state, problem, about } = await outcome(page);
    assert.deepEqual([state, problem], ["complete", null]);
    const expected = readPng(`tests/golden/${picture}`);
    assert.match(
      about,
      new RegExp(`^${expected.width} × ${expected.height} · quality \\d+ · [\\d,]+ bytes · [\\d.]+ bpp$`),
    );
    assert.ok(worst(await pixels(page), expected.pixels) <= 1);
    await page.click("text=Close");
  }
  assert.deepEqual(complaints.splice(0), []);
});

test("every golden file gives its codes", options, async () => {
  const page = await visit(address);
  await page.route("**/codes.js", (route) => route.fulfill({ path: CODES })); // of this origin, as the page demands
  await page.evaluate(async () => {
    const script = Object.assign(document.createElement("script"), { src: "codes.js" });
    await new Promise((resolve) => {
      script.onload = resolve;
      document.head.append(script);
    });
  });
  for (const [name, { codes }] of Object.entries(FACTS)) {
    const found = await page.evaluate(
      (data) =>
        (globalThis as unknown as { codesOf(data: Uint8Array): Promise<string> }).codesOf(Uint8Array.from(data)),
      [...read(`tests/golden/${name}`)],
    );
    assert.equal(found, codes);
  }
  assert.deepEqual(complaints.splice(0), []);
});

test("the page works from file://", options, async () => {
  const page = await visit(pathToFileURL(`${DIST}index.html`).href);
  await page.setInputFiles("#files", `${GOLDEN}v1-coffee-q95.vq`);
  assert.deepEqual((await outcome(page)).state, "complete");
  assert.deepEqual(complaints.splice(0), []);
});

test("the examples are shown, and a picture can be saved", options, async () => {
  const page = await visit(address, { width: 390, height: 844 });
  await page.locator("#gallery li").last().scrollIntoViewIfNeeded();
  await page.waitForFunction(() => document.querySelectorAll("#gallery vq-img").length === 6);
  await page.setInputFiles("#files", `${GOLDEN}v1-coffee-q95.vq`);
  await outcome(page);
  assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth));
  const [download] = await Promise.all([page.waitForEvent("download"), page.click("text=Save PNG")]);
  assert.equal(download.suggestedFilename(), "v1-coffee-q95.png");
  assert.equal(
    readFileSync(await download.path())
      .subarray(1, 4)
      .toString(),
    "PNG",
  );
  assert.deepEqual(complaints.splice(0), []);
});

test("a damaged file shows its whole levels and the damage", options, async () => {
  const page = await visit(address);
  const data = read("tests/golden/v1-coffee-q95.vq");
  const open = (name: string, bytes: Uint8Array): Promise<void> =>
    page.setInputFiles("#files", { name, mimeType: "", buffer: Buffer.from(bytes) });
  await open("cut.vq", data.subarray(0, -1));
  assert.deepEqual(await outcome(page).then(({ state }) => state), "complete");
  assert.match(
    (await page.locator(".problem").textContent()) ?? "",
    new RegExp(`truncated: the file has ${data.length - 1} bytes, its header says ${data.length}`),
  );
  await page.click("text=Close");
  await open("other.vq", new TextEncoder().encode("GIF89a"));
  assert.match((await outcome(page)).problem ?? "", /not a .vq file/);
  await page.click("text=Close");
  data[5] ^= 1;
  await open("flipped.vq", data);
  assert.match((await outcome(page)).problem ?? "", /the header or level 0 is damaged/);
});

test("<vq-img> takes its size from its attributes or the header, and tells its state", options, async () => {
  const page = await visit(address);
  await page.route("**/photo.vq", (route) => route.fulfill({ path: `${GOLDEN}v1-coffee-q95.vq` }));
  const sizes = await page.evaluate(async () => {
    const image = document.createElement("vq-img") as HTMLElement & { state: string };
    image.setAttribute("fetchpriority", "high");
    for (const [name, value] of [
      ["src", "photo.vq"],
      ["alt", "A cup"],
      ["width", "320"],
      ["height", "320"],
    ]) {
      image.setAttribute(name, value);
    }
    document.body.prepend(image);
    const before = image.getBoundingClientRect();
    await new Promise((resolve) => image.addEventListener("load", resolve));
    const after = image.getBoundingClientRect();
    image.removeAttribute("width");
    image.removeAttribute("height");
    const own = image.getBoundingClientRect();
    return [before.width, before.height, after.width, after.height, own.width, own.height, image.state];
  });
  assert.deepEqual(sizes, [320, 320, 320, 320, 160, 160, "complete"]);
  const { text, own, room } = await page.evaluate(async () => {
    const image = document.querySelector("vq-img") as HTMLElement;
    image.setAttribute("src", "missing.vq");
    await new Promise((resolve) => image.addEventListener("error", resolve));
    const own = image.getBoundingClientRect().height;
    image.setAttribute("width", "320");
    image.setAttribute("height", "320");
    image.setAttribute("src", "missing.vq");
    await new Promise((resolve) => image.addEventListener("error", resolve));
    return { text: image.shadowRoot?.querySelector("p")?.textContent, own, room: image.getBoundingClientRect().height };
  });
  assert.equal(text, "A cup: /missing.vq cannot be loaded");
  assert.ok(own > 10 && own < 100, String(own)); // a few lines of text, and no room for a picture
  assert.equal(room, 320);
  const session = await page.context().newCDPSession(page);
  const { nodes } = await session.send("Accessibility.getFullAXTree");
  assert.ok(nodes.some(({ role, name }) => role?.value === "image" && name?.value === text));
});

test("each level is shown once it is decoded", options, async () => {
  const page = await visit(address);
  await page.route("**/photo.vq", (route) => route.fulfill({ path: `${GOLDEN}v1-chelsea-q50.vq` }));
  const [shown, differences] = await page.evaluate(async () => {
    const image = document.createElement("vq-img") as HTMLElement & { canvas: HTMLCanvasElement };
    const [shown, pictures]: [number[], Uint8ClampedArray[]] = [[], []];
    image.addEventListener("preview", (event) => {
      const { width, height } = image.canvas;
      shown.push((event as CustomEvent<number>).detail);
      pictures.push(image.canvas.getContext("2d")?.getImageData(0, 0, width, height).data ?? new Uint8ClampedArray());
    });
    image.setAttribute("src", "photo.vq");
    image.setAttribute("fetchpriority", "high");
    document.body.prepend(image);
    await new Promise((resolve) => image.addEventListener("load", resolve));
    const last = pictures[pictures.length - 1];
    const squared = pictures.map((picture) => picture.reduce((sum, x, i) => sum + (x - last[i]) ** 2, 0));
    return [shown, squared];
  });
  const { levels } = parse(read("tests/golden/v1-chelsea-q50.vq"));
  const last = levels.length - 1;
  assert.deepEqual(
    shown,
    levels.map((_, i) => i + 1),
  );
  assert.ok(last > 0 && differences[last] === 0, String(differences));
  for (let i = 0; i < last; i++) assert.ok(differences[i] > differences[i + 1], String(differences));
});

/** `data`, a file without chunks, with the same opacity everywhere. */
function transparent(data: Uint8Array, opacity: number): Uint8Array {
  const { header, levels } = parse(data);
  const chunk = sealed(join(new TextEncoder().encode("Alph"), Uint8Array.of(1, opacity)));
  const start = join(data.subarray(0, header.bytes), Uint8Array.of(chunk.length));
  start[10] |= 32; // chunks follow
  return join(file(start, levels), chunk);
}

test("a transparent picture lets the page shine through", options, async () => {
  const page = await visit(address);
  const data = transparent(read("tests/golden/v1-coffee-q95.vq"), 128);
  await page.setInputFiles("#files", { name: "glass.vq", mimeType: "", buffer: Buffer.from(data) });
  assert.deepEqual((await outcome(page)).problem, null);
  const opacities = await page.evaluate(() => {
    const { canvas } = document.querySelector("#opened vq-img") as HTMLElement & { canvas: HTMLCanvasElement };
    const rgba = canvas.getContext("2d")?.getImageData(0, 0, canvas.width, canvas.height).data ?? [];
    return [...new Set(Array.from(rgba).filter((_, i) => i % 4 === 3))];
  });
  assert.deepEqual(opacities, [128]);
});

/** `data` cut, with a flipped bit, or with wrong bytes and right checksums; its size in pixels stays. */
function damaged(data: Uint8Array, pick: (below: number) => number): Uint8Array {
  const bad = data.slice();
  const kind = pick(5);
  if (kind === 0) return bad.subarray(0, pick(bad.length));
  if (kind === 1) {
    bad[pick(bad.length)] ^= 1 << pick(8);
    return bad;
  }
  const { header, levels } = parse(data);
  const start = bad.subarray(0, header.bytes);
  for (const changed of [start.subarray(9, 11), ...levels.map((level) => level.slice())]) {
    if (changed.length && pick(2)) changed[pick(changed.length)] = pick(256);
  }
  const forged = levels.map((level) => (pick(2) ? level : Uint8Array.from(level, () => pick(256))));
  return file(start, forged);
}

test("500 damaged and forged files give a picture or a message", options, async () => {
  const page = await visit(address);
  const pick = random(24);
  const good = read("tests/golden/v1-portrait-grey-q70.vq");
  const files = Array.from({ length: 500 }, () => [...damaged(good, pick)]);
  const outcomes = await page.evaluate(
    async (all) => {
      const found: [string, string | null][] = [];
      const image = document.createElement("vq-img") as HTMLElement & {
        data: Uint8Array;
        state: string;
        problem: string | null;
      };
      document.body.prepend(image);
      for (const data of all) {
        image.data = Uint8Array.from(data);
        await new Promise<void>((resolve) => {
          image.onload = image.onerror = () => resolve();
        });
        found.push([image.state, image.problem]);
      }
      return found;
    },
    [...files, [...good]],
  );
  assert.deepEqual(outcomes.pop(), ["complete", null]);
  const kinds = new Map<string, number>();
  for (const [state, problem] of outcomes) {
    const kind = problem ? state : "forged";
    kinds.set(kind, (kinds.get(kind) ?? 0) + 1);
    if (problem) assert.match(problem, /^[\x20-\x7e×^]{5,200}$/);
    assert.doesNotMatch(problem ?? "", /cannot be decoded|failed/);
  }
  for (const kind of ["complete", "error", "forged"]) assert.ok((kinds.get(kind) ?? 0) > 5, `${kind}: ${[...kinds]}`);
});
