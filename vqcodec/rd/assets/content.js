/* ==== content ==== */

const { result, rows, pictures, stored } = JSON.parse(document.getElementById("data").textContent);

const METRICS = [
  { key: "psnr-rgb", label: "PSNR", axis: "PSNR over RGB, dB", unit: "dB", digits: 2 },
  { key: "ms-ssim-rgb-db", label: "MS-SSIM", axis: "MS-SSIM, −10 log₁₀(1 − MS-SSIM) dB", unit: "dB", digits: 2, raw: "ms-ssim-rgb" },
  { key: "ssimulacra2", label: "SSIMULACRA2", axis: "SSIMULACRA2, points (100: no visible loss)", unit: "", digits: 1 },
  { key: "lpips-db", label: "LPIPS", axis: "LPIPS, −10 log₁₀ LPIPS dB (more is better)", unit: "dB", digits: 2, raw: "lpips" },
  { key: "dists-db", label: "DISTS", axis: "DISTS, −10 log₁₀ DISTS dB (more is better)", unit: "dB", digits: 2, raw: "dists" },
];
const MARKERS = {
  vqcodec: "circle",
  jpeg: "diamond",
  webp: "up",
  avif: "square",
  jpeg2000: "down",
  jpegxl: "cross",
  heif: "right",
};
const CORNERS = {
  diamond: [[0, -1.2], [1.2, 0], [0, 1.2], [-1.2, 0]],
  up: [[0, -1.15], [1.1, 0.85], [-1.1, 0.85]],
  down: [[0, 1.15], [1.1, -0.85], [-1.1, -0.85]],
  right: [[1.15, 0], [-0.85, 1.1], [-0.85, -1.1]],
  cross: [
    [0, -0.5], [0.6, -1.1], [1.1, -0.6], [0.5, 0], [1.1, 0.6], [0.6, 1.1],
    [0, 0.5], [-0.6, 1.1], [-1.1, 0.6], [-0.5, 0], [-1.1, -0.6], [-0.6, -1.1],
  ],
  square: [[-0.9, -0.9], [0.9, -0.9], [0.9, 0.9], [-0.9, 0.9]],
};
const DASHES = ["9 4", "2 3", "10 3 2 3", "4 6", "9 3 2 3 2 3", "1 5"];

const own = { ...result, kind: "own" };
const codecs = [own, ...result.anchors.map((anchor) => ({ ...anchor, kind: "anchor" }))];
for (const codec of codecs) {
  codec.colour = codec.name in MARKERS ? `var(--${codec.name})` : "var(--other)";
  codec.marker = MARKERS[codec.name] ?? "circle";
}
const original = {
  name: "original",
  label: "original",
  colour: "var(--original)",
  marker: "square",
  settings: [{}],
  results: {},
};
const published = result.overlays.map((overlay, i) => ({
  ...overlay,
  kind: "published",
  colour: "var(--published)",
  marker: "dot",
  dash: DASHES[i % DASHES.length],
}));
const codecNamed = new Map([original, ...codecs].map((codec) => [codec.name, codec]));

/** Image → codec → setting → the row of it. */
const rowsOf = nest(rows, (row) => row);
/** Image → codec → setting → the index of its picture. */
const picturesOf = nest(pictures, (_, index) => index);
const metricsPresent = METRICS.filter(({ key }) => codecs.some((codec) => codec.results[key]));

function nest(list, value) {
  const byImage = new Map();
  list.forEach((one, index) => {
    if (!byImage.has(one.image)) byImage.set(one.image, new Map());
    const byCodec = byImage.get(one.image);
    if (!byCodec.has(one.codec)) byCodec.set(one.codec, new Map());
    byCodec.get(one.codec).set(one.setting, value(one, index));
  });
  return byImage;
}

function settingLabel(codec, index) {
  if (codec === original) return "";
  const setting = codec.settings?.[index];
  if (setting?.quality !== undefined) return `quality ${setting.quality}`;
  const row = rows.find((one) => one.codec === codec.name && one.setting === index);
  if (row?.setting_label) return row.setting_label;
  if (setting?.quality_layers) return `ratio ${setting.quality_layers[0]}:1`;
  return `point ${index + 1}`;
}
