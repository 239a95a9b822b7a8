/* ==== text and elements ==== */

const $ = (id) => document.getElementById(id);
const SVG = document.querySelector("svg").namespaceURI;

function build(node, properties, children) {
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (missing(value) || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name.startsWith("--")) node.style.setProperty(name, value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => !missing(child)));
  return node;
}
const html = (tag, properties, ...children) => build(document.createElement(tag), properties, children);
const svg = (tag, properties, ...children) => build(document.createElementNS(SVG, tag), properties, children);

const missing = (value) => value === null || value === undefined;
const isZero = (value, digits) => Number(value.toFixed(digits)) === 0;
/** A number as it is printed: with a true minus sign, none before a zero. */
const number = (value, digits) =>
  missing(value) ? "–" : (value < 0 && !isZero(value, digits) ? "−" : "") + Math.abs(value).toFixed(digits);
const signed = (value, digits) => (value > 0 && !isZero(value, digits) ? "+" : "") + number(value, digits);
const percent = (share, digits = 1) => `${number(100 * share, digits)} %`;
const counted = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
const withUnit = (value, metric) =>
  number(value, metric.digits) + (metric.unit && !missing(value) ? ` ${metric.unit}` : "");
/** What a value in dB is without the logarithm, in brackets. */
const inItsOwnUnit = (values, { raw }) => (raw && !missing(values[raw]) ? ` (${number(values[raw], 4)})` : "");
const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

function field(label, control, properties) {
  return html("label", { class: "field", ...properties }, html("span", {}, label), control);
}

const figure = ([name, value]) => html("div", {}, html("dt", {}, name), html("dd", {}, value));

/** Radio buttons side by side; `options` are pairs of value and label. */
function segments(name, label, options, value, change, properties) {
  const inputs = options.map(([one, text]) =>
    html(
      "label",
      {},
      html("input", { type: "radio", name, value: one, checked: one === value, onchange: () => change(one) }),
      html("span", {}, text),
    ),
  );
  return html(
    "fieldset",
    { class: "field", ...properties },
    html("legend", {}, label),
    html("div", { class: "segments" }, inputs),
  );
}

/** Puts `options`, pairs of value and label, into a select. */
function fill(select, options, value) {
  select.replaceChildren(...options.map(([one, text]) => html("option", { value: one }, text)));
  select.value = value;
}

function swatch(curve, line = true) {
  const middle = line ? 14 : 7;
  return svg(
    "svg",
    {
      class: `swatch ${curve.kind ?? ""}`,
      viewBox: `0 0 ${2 * middle} 14`,
      "aria-hidden": "true",
      "--colour": curve.colour,
    },
    line ? svg("path", { class: "line", d: "M0 7H28", "stroke-dasharray": curve.dash }) : null,
    curve.kind === "published" ? null : svg("path", { class: "point", d: marker(curve.marker, middle, 7, 5) }),
  );
}

/** The path of a marker around a point. */
function marker(kind, x, y, r) {
  if (kind in CORNERS) {
    const corners = CORNERS[kind].map(([a, b]) => `${(x + a * r).toFixed(2)} ${(y + b * r).toFixed(2)}`);
    return `M${corners.join("L")}Z`;
  }
  const radius = kind === "dot" ? r * 0.5 : r;
  return `M${x - radius} ${y}a${radius} ${radius} 0 1 0 ${2 * radius} 0a${radius} ${radius} 0 1 0 ${-2 * radius} 0Z`;
}
