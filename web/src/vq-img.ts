// <vq-img src="photo.vq" alt="…">: an image in the .vq format.
//
// It loads when it comes near the viewport, takes its size from the header, shows a preview of level 0 first, and fires
// `load` or `error`. Attributes: `src`, `alt`, `width` and `height` as an <img> has them, `levels` for a preview of the
// first levels, `fetchpriority="high"` to be decoded before others. `state` is "idle", "loading", "complete" or "error",
// and so is the CSS state, as in :state(error).

import { Client } from "./client.ts";
import { type Header, parse } from "./container.ts";
import { FormatError } from "./errors.ts";
import type { Outcome } from "./messages.ts";
import type { Part } from "./painting.ts";

const STYLE = `
:host { display: inline-block; position: relative; max-width: 100%; vertical-align: middle; }
canvas { display: block; width: 100%; height: auto; }
canvas:not([hidden]) + p { position: absolute; inset: 0; overflow: auto; }
:host([hidden]), [hidden] { display: none; }
p { margin: 0; padding: 1em; font: 0.875rem/1.4 system-ui, sans-serif; overflow-wrap: anywhere; }
`;
const MARGIN = "200px"; // how near the viewport an image loads

const script = document.currentScript instanceof HTMLScriptElement ? document.currentScript.src : document.baseURI;
const client = new Client(new URL("weights/", script));
const sheet = new CSSStyleSheet();
sheet.replaceSync(STYLE);

export type State = "idle" | "loading" | "complete" | "error";

export class VqImg extends HTMLElement {
  static readonly observedAttributes = ["src", "alt", "width", "height", "levels"];

  /** One for all elements, so that they load in the order in which they came. */
  static readonly #near = new IntersectionObserver(
    (entries) => {
      for (const { isIntersecting, target } of entries) if (isIntersecting) (target as VqImg).#load();
    },
    { rootMargin: MARGIN },
  );

  /** The header of the file, once it is known. */
  header: Header | null = null;
  /** What is wrong with the file: the error, or the damage beside which some levels are whole. */
  problem: string | null = null;
  /** Milliseconds that the prior and the network computed, once the picture is complete. */
  times: Pick<Outcome, "prior" | "network"> | null = null;
  readonly #internals = this.attachInternals();
  readonly #canvas = document.createElement("canvas");
  readonly #size = new CSSStyleSheet();
  readonly #message = document.createElement("p");
  #state: State = "idle";
  #abort = new AbortController();
  #data: Uint8Array | null = null;

  constructor() {
    super();
    const root = this.attachShadow({ mode: "open" });
    root.adoptedStyleSheets = [sheet, this.#size];
    root.append(this.#canvas, this.#message);
    this.#message.hidden = true;
    this.#internals.role = "img";
  }

  get state(): State {
    return this.#state;
  }

  get canvas(): HTMLCanvasElement {
    return this.#canvas;
  }

  /** Shows the bytes of a file. */
  set data(data: Uint8Array) {
    this.#data = data;
    this.#restart();
  }

  connectedCallback(): void {
    this.#restart();
  }

  disconnectedCallback(): void {
    this.#abort.abort();
    VqImg.#near.unobserve(this);
  }

  attributeChangedCallback(name: string): void {
    if (name === "alt") this.#internals.ariaLabel = this.getAttribute("alt");
    else if (name === "width" || name === "height") this.#reserve();
    else this.#restart();
  }

  /** Makes room for the picture: by the attributes, as an <img> does, and by the header once it is known. */
  #reserve(): void {
    const [wide, high] = ["width", "height"].map((name) => Math.max(0, Number(this.getAttribute(name)) || 0));
    const width = this.header?.width ?? wide;
    const height = this.header?.height ?? high;
    const shown = wide || (high && height ? (high * width) / height : width);
    const ratio = wide && high ? `${wide} / ${high}` : `${width} / ${height}`;
    this.#size.replaceSync(shown && height ? `:host { width: ${shown}px } canvas { aspect-ratio: ${ratio} }` : "");
  }

  #restart(): void {
    this.#abort.abort();
    this.#abort = new AbortController();
    VqImg.#near.unobserve(this);
    [this.header, this.problem, this.times] = [null, null, null];
    this.#reserve();
    this.#message.hidden = true;
    this.#canvas.hidden = false;
    this.#internals.ariaLabel = this.getAttribute("alt");
    this.#change("idle");
    if (this.isConnected && (this.#data || this.hasAttribute("src"))) VqImg.#near.observe(this);
  }

  #change(state: State): void {
    try {
      this.#internals.states.delete(this.#state);
      this.#internals.states.add(state);
    } catch {
      // A browser before CSS states: `state` and the events remain.
    }
    this.#state = state;
  }

  async #load(): Promise<void> {
    const { signal } = this.#abort;
    VqImg.#near.unobserve(this);
    this.#change("loading");
    try {
      const data = this.#data ?? (await fetchFile(this.getAttribute("src") ?? "", signal));
      signal.throwIfAborted();
      this.header = parse(data).header;
      this.#reserve();
      this.dispatchEvent(new Event("header"));
      const levels = Number(this.getAttribute("levels")) || 15;
      const urgent = this.getAttribute("fetchpriority") === "high";
      const onPart = (part: Part, count: number): void => this.#paint(part, count);
      const job = { levels, urgent, signal, onPart };
      const { damage, prior, network } = await client.decode(data, this.header.fingerprint, job);
      [this.problem, this.times] = [damage, { prior, network }];
      this.#change("complete");
      this.dispatchEvent(new Event("load"));
    } catch (error) {
      if (signal.aborted) return;
      this.#fail(error instanceof Error ? error.message : String(error));
    }
  }

  #paint(part: Part, levels: number): void {
    const { width, height } = this.header ?? part;
    if (this.#canvas.width !== width || this.#canvas.height !== height) {
      [this.#canvas.width, this.#canvas.height] = [width, height];
    }
    const image = new ImageData(part.rgba, part.width, part.height);
    this.#canvas.getContext("2d")?.putImageData(image, part.x, part.y);
    this.dispatchEvent(new CustomEvent("preview", { detail: levels }));
  }

  #fail(message: string): void {
    this.problem = message;
    const line = [this.getAttribute("alt"), message].filter(Boolean).join(": ");
    this.#internals.ariaLabel = this.#message.textContent = line; // what is within an image is not read aloud
    this.#message.hidden = false;
    this.#canvas.width = 1; // clears it: a preview would lie below the message
    this.#canvas.hidden = !["width", "height"].every((name) => this.hasAttribute(name)); // else its room stays
    if (this.#canvas.hidden) this.#size.replaceSync("");
    this.#change("error");
    this.dispatchEvent(new ErrorEvent("error", { message }));
  }
}

async function fetchFile(src: string, signal: AbortSignal): Promise<Uint8Array> {
  const url = new URL(src, document.baseURI);
  const response = await fetch(url, { signal }).catch(() => undefined);
  signal.throwIfAborted();
  if (!response?.ok) throw new FormatError(`${url.pathname} cannot be loaded`);
  return new Uint8Array(await response.arrayBuffer());
}

if (!customElements.get("vq-img")) customElements.define("vq-img", VqImg);
