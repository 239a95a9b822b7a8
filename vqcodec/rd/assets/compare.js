/* ==== pictures: what is compared ==== */

const GAINS = [4, 8, 16, 32];
// Of matplotlib's "inferno", at equal distances.
const RAMP = ["#000004", "#210c4a", "#57106e", "#8a226a", "#bc3754", "#e45a31", "#f98e09", "#f9cb35", "#fcffa4"];
const compare = {
  image: null,
  left: { codec: null, setting: 0 },
  right: { codec: null, setting: 0 },
  free: false,
  target: null,
  stops: [],
  zoom: "fit",
  centre: [0.5, 0.5],
  split: 0.5,
  errors: false,
  gain: 8,
  painted: 0,
  size: [3, 2],
  place: null,
};
const SIDES = ["left", "right"];

const picturesAt = (codec) => picturesOf.get(compare.image)?.get(codec.name) ?? new Map();
const canShow = ({ curve }) => curve.kind !== "published" && pictures.some((one) => one.codec === curve.name);

function rateOf(codec, setting) {
  if (codec === original) return null;
  return rowsOf.get(compare.image)?.get(codec.name)?.get(setting)?.bpp ?? codec.results.bpp?.[setting] ?? null;
}

/** Settings of a codec that have a picture of the chosen image, in order. */
const settingsAt = (codec) => [...picturesAt(codec).keys()].sort((a, b) => a - b);

function nearestSetting(codec, rate) {
  const away = (setting) => Math.abs(Math.log((rateOf(codec, setting) || 1e-6) / (rate || 1e-6)));
  return settingsAt(codec).reduce((best, one) => (away(one) < away(best) ? one : best));
}

/** The rates that the slider can be put to: at each, both sides have a picture near it. */
function rateStops() {
  const rates = SIDES.map((side) => compare[side].codec)
    .filter((codec) => codec !== original)
    .map((codec) =>
      settingsAt(codec)
        .map((setting) => rateOf(codec, setting))
        .filter((rate) => rate),
    );
  const all = [...new Set(rates.flat())].sort((a, b) => a - b);
  const lowest = Math.max(...rates.map((list) => Math.min(...list))) / 1.1;
  const highest = Math.min(...rates.map((list) => Math.max(...list))) * 1.1;
  const common = all.filter((rate) => rate >= lowest && rate <= highest);
  const stops = common.length ? common : all;
  // Two stops that would show the same two pictures are one.
  const shown = (rate) => SIDES.map((side) => nearestSetting(compare[side].codec, rate)).join();
  return stops.filter((rate, i) => i === 0 || shown(rate) !== shown(stops[i - 1]));
}

/** The rate of the lower half, where differences are seen, at which both sides are closest to each other in bits. */
function fairest(stops) {
  const apart = (rate) => {
    const [a, b] = SIDES.map((side) => compare[side].codec)
      .filter((codec) => codec !== original)
      .map((codec) => Math.log(rateOf(codec, nearestSetting(codec, rate))));
    return b === undefined ? 0 : Math.abs(a - b);
  };
  return stops.slice(0, Math.ceil(stops.length / 2)).reduce((best, one) => (apart(one) < apart(best) ? one : best));
}

/** Makes the choice a possible one and shows it. */
function update() {
  const available = [...codecs, original].filter((codec) => settingsAt(codec).length);
  if (!available.includes(compare.left.codec)) compare.left.codec = available[0];
  if (!available.includes(compare.right.codec)) {
    compare.right.codec =
      available.find((codec) => codec.kind === "anchor" && codec !== compare.left.codec) ?? available.at(-1);
  }
  compare.stops = rateStops();
  if (compare.stops.length) {
    compare.target ??= fairest(compare.stops);
    if (!compare.free) {
      const away = (rate) => Math.abs(Math.log(rate / compare.target));
      const stop = compare.stops.reduce((best, one) => (away(one) < away(best) ? one : best));
      for (const side of SIDES) compare[side].setting = nearestSetting(compare[side].codec, stop);
    }
  }
  for (const side of SIDES) {
    const settings = settingsAt(compare[side].codec);
    if (!settings.includes(compare[side].setting))
      compare[side].setting = nearestSetting(compare[side].codec, compare.target);
  }
  const facts = result.images.find(({ name }) => name === compare.image);
  if (facts) compare.size = [facts.width, facts.height];
  writePanel(available);
  writeCaptions();
  placePictures();
  if (document.readyState !== "loading") paint(); // the pictures come after this script
}

function writePanel(available) {
  const index = images.indexOf(compare.image);
  $("image").value = String(index);
  $("previous").disabled = index === 0;
  $("next").disabled = index === images.length - 1;
  [...$("strip").children].forEach((button, i) => button.setAttribute("aria-current", String(i === index)));
  const strip = $("strip"),
    thumbnail = strip.children[index];
  const inside = thumbnail.offsetLeft - strip.offsetLeft;
  if (inside < strip.scrollLeft || inside + thumbnail.offsetWidth > strip.scrollLeft + strip.clientWidth) {
    strip.scrollLeft = inside - strip.clientWidth / 2;
  }
  for (const side of SIDES) {
    const { codec, setting } = compare[side];
    fill(
      $(`${side}-codec`),
      available.map(({ name, label }) => [name, label]),
      codec.name,
    );
    const settings = settingsAt(codec);
    fill(
      $(`${side}-setting`),
      settings.map((one) => [one, codec === original ? "–" : settingLabel(codec, one)]),
      setting,
    );
    $(`${side}-setting`).disabled = codec === original;
    $(`${side}-setting`).closest("label").hidden = !compare.free;
  }
  document.querySelector(`input[name="mode"][value="${compare.free ? "free" : "nearest"}"]`).checked = true;
  const away = (rate) => Math.abs(Math.log(rate / compare.target));
  const stop = compare.stops.reduce((best, one, i) => (away(one) < away(compare.stops[best]) ? i : best), 0);
  const rate = $("rate"),
    shown = ratesShown();
  rate.closest("div").hidden = compare.free;
  rate.max = Math.max(compare.stops.length - 1, 0);
  rate.value = stop;
  rate.disabled = compare.stops.length < 2;
  rate.setAttribute("aria-valuetext", shown);
  $("rate-now").textContent = shown;
  const hasOriginal = picturesAt(original).size > 0;
  $("errors").disabled = !hasOriginal;
  $("errors").checked = compare.errors && hasOriginal;
  $("errors-key").hidden = $("gain").hidden = !$("errors").checked;
  $("errors-text").textContent =
    `|difference| to the original as stored here, mean of R, G and B, amplified ×${compare.gain}`;
  $("errors-end").textContent = `≥ ${number(255 / compare.gain, 0)} of 255`;
}

/** The rates of both sides in words, such as "0.542 and 0.653 bpp". */
function ratesShown() {
  const rates = SIDES.map((side) => rateOf(compare[side].codec, compare[side].setting)).filter((rate) => rate);
  return rates.length ? `${rates.map((rate) => number(rate, 3)).join(" and ")} bpp` : "no rate";
}

function writeCaptions() {
  const [width, height] = compare.size;
  const both = SIDES.map((side) => {
    const { codec, setting } = compare[side];
    const row = rowsOf.get(compare.image)?.get(codec.name)?.get(setting) ?? {};
    const label = settingLabel(codec, setting);
    const figures =
      codec === original
        ? [
            ["width", `${width} px`],
            ["height", `${height} px`],
          ]
        : [
            ["bytes", row.bytes === undefined ? "–" : row.bytes.toLocaleString("en")],
            ["rate", `${number(rateOf(codec, setting), 3)} bpp`],
            ...metricsPresent.map((metric) => [metric.label, withUnit(row[metric.key], metric)]),
          ];
    $(`${side}-caption`).replaceChildren(
      html("h3", {}, swatch(codec, false), html("span", {}, codec.label)),
      html("div", { class: "muted" }, label || "as it was given"),
      html("dl", {}, figures.map(figure)),
    );
    $("stage").querySelector(`.chip.${side}`).textContent = [codec.label, label].filter(Boolean).join(", ");
    return { codec, row, rate: rateOf(codec, setting) };
  });
  $("verdict").textContent = [verdict(...both), unequal(...both)].filter(Boolean).join(" ");
}

/** A caution if the nearest rates are more than a tenth apart. */
function unequal(left, right) {
  if (compare.free || left.codec === original || right.codec === original || !left.rate || !right.rate) return "";
  const apart = Math.max(left.rate, right.rate) / Math.min(left.rate, right.rate) - 1;
  if (apart <= 0.1) return "";
  const larger = left.rate > right.rate ? "left" : "right";
  return `These are the nearest rates there are, but the ${larger} one is ${percent(apart, 0)} larger.`;
}

/** One sentence: how the left side differs from the right one. */
function verdict(left, right) {
  if (left.codec === original || right.codec === original || !left.rate || !right.rate) return "";
  const names = left.codec === right.codec ? ["The left", "the right"] : [left.codec.label, right.codec.label];
  const bits = left.rate / right.rate - 1;
  const rate =
    Math.abs(bits) < 0.0005 ? "as many bits" : `${percent(Math.abs(bits))} ${bits < 0 ? "fewer" : "more"} bits`;
  const quality = metricsPresent
    .filter(({ key }) => Number.isFinite(left.row[key]) && Number.isFinite(right.row[key]))
    .map(({ key, label, unit, digits }) => `${label} ${signed(left.row[key] - right.row[key], digits)} ${unit}`.trim());
  return `${names[0]} against ${names[1]}: ${[rate, ...quality].join(", ")}.`;
}
