// The page's side of the worker: it fetches weights by their fingerprint, and hands files over.

import source from "../build/worker.txt";
import { check } from "./errors.ts";
import type { Answer, Outcome, Request } from "./messages.ts";
import type { Part } from "./painting.ts";

/** A file that is being decoded. */
export interface Job {
  /** Called with each part of the picture of the first `levels` levels. */
  onPart(part: Part, levels: number): void;
  signal?: AbortSignal;
  /** Only so many levels, coarsest first. */
  levels?: number;
  /** Before all files that are not. */
  urgent?: boolean;
}

interface Waiting extends Job {
  resolve(outcome: Outcome): void;
  reject(error: Error): void;
}

declare global {
  /** Weights in base64 by fingerprint, from scripts: a page on file:// cannot fetch. */
  var vqcodecWeights: Record<string, string> | undefined;
}

/** Decodes files in a worker with the weights in the folder `weights`, a URL. */
export class Client {
  readonly #waiting = new Map<number, Waiting>();
  readonly #sent = new Map<string, Promise<void>>();
  #worker: Worker | undefined;
  #count = 0;

  constructor(readonly weights: URL) {}

  /** Resolves when the picture is complete; rejects if it cannot be decoded. `fingerprint` is that of the file. */
  async decode(data: Uint8Array, fingerprint: string, job: Job): Promise<Outcome> {
    await this.#need(fingerprint);
    job.signal?.throwIfAborted();
    return new Promise((resolve, reject) => {
      const id = this.#count++;
      this.#waiting.set(id, { ...job, resolve, reject });
      job.signal?.addEventListener("abort", () => {
        if (this.#waiting.delete(id)) this.#post({ type: "cancel", id });
        reject(job.signal?.reason);
      });
      this.#post({ type: "decode", id, data, levels: job.levels ?? 15, urgent: job.urgent ?? false });
    });
  }

  /** Sends the weights with this fingerprint to the worker, once. */
  #need(fingerprint: string): Promise<void> {
    const sent = this.#sent.get(fingerprint) ?? this.#send(fingerprint);
    this.#sent.set(fingerprint, sent);
    sent.catch(() => this.#sent.delete(fingerprint)); // so that the next file tries again
    return sent;
  }

  async #send(fingerprint: string): Promise<void> {
    const data = await (this.weights.protocol === "file:" ? this.#read(fingerprint) : this.#fetch(fingerprint));
    this.#post({ type: "weights", fingerprint, data }, [data.buffer]);
  }

  async #fetch(fingerprint: string): Promise<Uint8Array<ArrayBuffer>> {
    const url = new URL(`${fingerprint}.safetensors`, this.weights);
    const response = await fetch(url, { cache: "force-cache" }).catch(() => undefined);
    check(response, `${url} cannot be reached`);
    check(response.status !== 404, `made with the weights ${fingerprint}, which are not installed here`);
    check(response.ok, `${url} gives the status ${response.status}`);
    return new Uint8Array(await response.arrayBuffer());
  }

  async #read(fingerprint: string): Promise<Uint8Array<ArrayBuffer>> {
    const script = document.createElement("script");
    script.src = new URL(`${fingerprint}.js`, this.weights).href;
    await new Promise((resolve) => {
      script.onload = script.onerror = resolve;
      document.head.append(script);
    });
    const text = globalThis.vqcodecWeights?.[fingerprint];
    check(text, `made with the weights ${fingerprint}, which are not installed here`);
    return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  }

  #post(request: Request, transfer: Transferable[] = []): void {
    this.#worker ??= this.#start();
    this.#worker.postMessage(request, transfer);
  }

  #start(): Worker {
    const worker = new Worker(URL.createObjectURL(new Blob([source], { type: "text/javascript" })));
    worker.onmessage = ({ data }: MessageEvent<Answer>) => {
      const waiting = this.#waiting.get(data.id);
      if (!waiting) return; // it was cancelled
      if (data.type === "part") {
        waiting.onPart(data.part, data.levels);
        return;
      }
      this.#waiting.delete(data.id);
      if (data.type === "done") waiting.resolve(data);
      else waiting.reject(new Error(data.message));
    };
    worker.onerror = (event) => {
      for (const waiting of this.#waiting.values()) waiting.reject(new Error(`the decoder failed: ${event.message}`));
      this.#waiting.clear();
      this.#sent.clear();
      this.#worker?.terminate();
      this.#worker = undefined;
    };
    return worker;
  }
}
