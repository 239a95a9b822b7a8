/* ==== curves ==== */

const REACH = { show: 60, click: 24 }; // pixels between the pointer and a point
const chart = {
  metric: metricsPresent[0],
  log: false,
  whole: false,
  image: null,
  off: new Set(),
  view: [],
  groups: new Map(),
  held: null,
};

/** Curves of the chosen metric with their points, of the mean or of one image. */
function curvesShown() {
  const curves = chart.image === null ? [...published, ...codecs] : codecs;
  return curves
    .filter((curve) => !chart.off.has(curve))
    .map((curve) => ({ curve, points: pointsOf(curve).filter(({ x, y }) => x > 0 && Number.isFinite(y)) }))
    .filter(({ points }) => points.length)
    .reverse() // so that vqcodec's own is drawn last, over the others
    .sort((a, b) => (a.curve.kind === "published" ? 0 : 1) - (b.curve.kind === "published" ? 0 : 1));
}

function pointsOf(curve) {
  const at = (values) => ({ curve, index: values.index, x: values.bpp, y: values[chart.metric.key] ?? NaN, values });
  if (chart.image !== null) {
    const bySetting = rowsOf.get(chart.image)?.get(curve.name) ?? new Map();
    return [...bySetting].sort(([a], [b]) => a - b).map(([index, row]) => at({ ...row, index }));
  }
  return curve.results.bpp.map((_, index) => {
    const values = Object.fromEntries(
      ["bpp", ...METRICS.flatMap(({ key, raw }) => (raw ? [key, raw] : [key]))].map((key) => [key, curve.results[key]?.[index]]),
    );
    return at({ ...values, index });
  });
}

/** Limits of both axes: around vqcodec's points, or around all. */
function limits(curves) {
  const all = curves.flatMap(({ points }) => points);
  const ours = curves.find(({ curve }) => curve.kind === "own")?.points;
  const around = chart.whole || !ours ? all : ours;
  if (!around.length) return { x: [chart.log ? 0.1 : 0, 1], y: [20, 40] };
  const rates = around.map(({ x }) => x);
  const x = [chart.log ? Math.min(...rates) / 1.25 : 0, Math.max(...rates) * (chart.whole ? 1.04 : 1.15)];
  const inside = all.filter((point) => point.x >= x[0] && point.x <= x[1]).map((point) => point.y);
  for (const { points } of curves) {
    points.slice(1).forEach((to, i) => {
      const from = points[i];
      for (const edge of x) {
        if (from.x < edge && edge < to.x) inside.push(from.y + ((to.y - from.y) * (edge - from.x)) / (to.x - from.x));
      }
    });
  }
  const lowest = Math.min(...inside),
    highest = Math.max(...inside);
  const pad = Math.max((highest - lowest) * 0.05, highest === lowest ? 1 : 0);
  return { x, y: [lowest - pad, highest + pad] };
}

function linearTicks([lowest, highest], wanted) {
  const rough = (highest - lowest) / wanted,
    power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((one) => one >= 0.8 * rough);
  const ticks = [];
  for (let i = Math.ceil(lowest / step - 1e-9); i * step <= highest + 1e-9; i++)
    ticks.push(Number((i * step).toPrecision(10)));
  return ticks;
}

function logTicks([lowest, highest], wanted) {
  const ticks = (factors) => {
    const list = [];
    for (let power = Math.floor(Math.log10(lowest)); power <= Math.log10(highest); power++) {
      list.push(...factors.map((factor) => Number((factor * 10 ** power).toPrecision(3))));
    }
    return list.filter((tick) => tick >= lowest && tick <= highest);
  };
  const choices = [[1, 2, 3, 4, 5, 6, 8], [1, 1.5, 2, 3, 5, 7], [1, 2, 5], [1]].map(ticks);
  return choices.find((list) => list.length <= wanted) ?? choices.at(-1);
}
