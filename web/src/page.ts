// The page: opened files with what they are, and the examples that the build put into gallery.js.

import type { VqImg } from "./vq-img.ts";

interface Example {
  name: string;
  base64: string;
}

declare const GALLERY: Example[]; // by the build

function find<T extends HTMLElement>(selector: string, type: abstract new () => T): T {
  const element = document.querySelector(selector);
  if (!(element instanceof type)) throw new Error(`the page has no ${selector}`);
  return element;
}

const drop = find("#drop", HTMLElement);
const input = find("#files", HTMLInputElement);
const status = find("#status", HTMLElement);
const opened = find("#opened", HTMLElement);
const examples = find("#gallery ul", HTMLElement);

function element<K extends keyof HTMLElementTagNameMap>(
  name: K,
  properties: Partial<HTMLElementTagNameMap[K]> = {},
  ...children: Node[]
): HTMLElementTagNameMap[K] {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function image(data: Uint8Array, alt: string): VqImg {
  const made = document.createElement("vq-img") as VqImg;
  made.setAttribute("alt", alt);
  made.data = data;
  return made;
}

/** Dimensions, quality, size and bits per pixel of a picture whose header is known. */
function facts(made: VqImg, bytes: number): string {
  if (!made.header) return `${bytes.toLocaleString("en")} bytes`;
  const { width, height, quality } = made.header;
  const bpp = ((8 * bytes) / (width * height)).toFixed(3);
  return `${width} × ${height} · quality ${quality} · ${bytes.toLocaleString("en")} bytes · ${bpp} bpp`;
}

function open(name: string, data: Uint8Array): void {
  const started = performance.now();
  const made = image(data, name);
  made.setAttribute("fetchpriority", "high"); // before the examples
  const about = element("p", { className: "facts", textContent: facts(made, data.length) });
  const problem = element("p", { className: "problem", hidden: true });
  const save = element("button", { textContent: "Save PNG", disabled: true });
  const zoom = element("select", { ariaLabel: `Zoom of ${name}` });
  for (const [value, text] of [
    ["fit", "Fit"],
    ["1", "100 %"],
    ["2", "200 %"],
    ["4", "400 %"],
  ]) {
    zoom.append(element("option", { value, textContent: text }));
  }
  const close = element("button", { textContent: "Close", ariaLabel: `Close ${name}` });
  const tools = element("div", { className: "tools" }, zoom, save, close);
  const view = element("div", { className: "view", tabIndex: 0, role: "group", ariaLabel: `Picture ${name}` }, made);
  view.dataset.zoom = "fit";
  const title = element("h2", { textContent: name });
  const article = element("article", {}, element("header", {}, title, about, tools), problem, view);
  zoom.onchange = () => {
    view.dataset.zoom = zoom.value;
    const factor = Number(zoom.value); // not a number for "fit"
    made.style.width = made.header && factor ? `${made.header.width * factor}px` : "";
  };
  save.onclick = () => savePng(made.canvas, name);
  close.onclick = () => {
    article.remove();
    input.focus();
  };
  const settle = (): void => {
    about.textContent = facts(made, data.length);
    problem.textContent = made.problem;
    problem.hidden = !made.problem;
    save.disabled = made.state !== "complete";
    const time = `${((performance.now() - started) / 1000).toFixed(2)} s`;
    status.textContent = made.problem ? `${name}: ${made.problem}` : `${name} is decoded (${time})`;
  };
  made.addEventListener("header", () => {
    about.textContent = facts(made, data.length);
    status.textContent = `Decoding ${name}…`;
  });
  made.addEventListener("load", settle);
  made.addEventListener("error", settle);
  opened.prepend(article);
  article.scrollIntoView({ block: "nearest" });
}

function savePng(canvas: HTMLCanvasElement, name: string): void {
  canvas.toBlob((blob) => {
    if (!blob) return;
    const href = URL.createObjectURL(blob);
    element("a", { href, download: `${name.replace(/\.vq$/i, "")}.png` }).click();
    setTimeout(() => URL.revokeObjectURL(href), 60_000);
  });
}

async function openAll(files: Iterable<File>): Promise<void> {
  for (const file of files) {
    try {
      open(file.name, new Uint8Array(await file.arrayBuffer()));
    } catch {
      status.textContent = `${file.name} cannot be read`;
    }
  }
}

input.onchange = () => {
  openAll([...(input.files ?? [])]);
  input.value = "";
};
document.ondragover = (event) => {
  event.preventDefault();
  drop.classList.add("over");
};
document.ondragleave = () => drop.classList.remove("over");
document.ondrop = (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  openAll([...(event.dataTransfer?.files ?? [])]);
};

for (const { name, base64 } of GALLERY) {
  const data = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  const made = image(data, name);
  const about = element("p", { textContent: name });
  made.addEventListener("header", () => {
    about.textContent = `${name} · ${facts(made, data.length)}`;
  });
  examples.append(element("li", {}, made, about));
}
