/* ==== chart: what is drawn ==== */

function drawChart() {
  const box = $("chart"),
    plane = box.querySelector("svg");
  const width = box.clientWidth,
    height = box.clientHeight;
  const left = 46,
    right = width - 12,
    top = 30,
    bottom = height - 46;
  const curves = curvesShown();
  const {
    x: [x0, x1],
    y: [y0, y1],
  } = limits(curves);
  const scale = chart.log ? Math.log : (value) => value;
  const toX = (x) => left + ((scale(x) - scale(x0)) / (scale(x1) - scale(x0))) * (right - left);
  const toY = (y) => bottom - ((y - y0) / (y1 - y0)) * (bottom - top);
  release();

  const ticksX = (chart.log ? logTicks : linearTicks)([x0, x1], Math.max(3, Math.floor((right - left) / 75)));
  const ticksY = linearTicks([y0, y1], Math.max(3, Math.floor((bottom - top) / 40)));
  const axes = svg(
    "g",
    {},
    ticksX
      .map((tick) => [
        svg("path", { class: "grid", d: `M${toX(tick).toFixed(1)} ${top}V${bottom}` }),
        svg("text", { x: toX(tick).toFixed(1), y: bottom + 18, "text-anchor": "middle" }, String(tick)),
      ])
      .flat(),
    ticksY
      .map((tick) => [
        svg("path", { class: "grid", d: `M${left} ${toY(tick).toFixed(1)}H${right}` }),
        svg(
          "text",
          { x: left - 8, y: (toY(tick) + 4).toFixed(1), "text-anchor": "end" },
          String(tick).replace("-", "−"),
        ),
      ])
      .flat(),
    svg("path", { class: "axis", fill: "none", d: `M${left} ${top}V${bottom}H${right}` }),
    svg("text", { class: "axis-title", x: 4, y: 14 }, chart.metric.axis),
    svg(
      "text",
      { class: "axis-title", x: right, y: bottom + 38, "text-anchor": "end" },
      `rate, bits per pixel${chart.log ? ", logarithmic" : ""}`,
    ),
  );

  chart.view = [];
  chart.groups = new Map();
  const drawn = curves.map(({ curve, points }) => {
    const path = points.map(({ x, y }) => `${toX(x).toFixed(1)} ${toY(y).toFixed(1)}`).join("L");
    const group = svg(
      "g",
      { class: `curve ${curve.kind}`, "data-curve": curve.name, "--colour": curve.colour },
      points.length > 1
        ? svg("path", { class: "line", d: `M${path}`, "stroke-dasharray": curve.dash, "clip-path": "url(#inside)" })
        : null,
    );
    const seen = points.filter(({ x, y }) => x >= x0 && x <= x1 && y >= y0 && y <= y1);
    for (const point of seen) {
      const px = toX(point.x),
        py = toY(point.y);
      const node = svg("path", {
        class: "point",
        d: marker(curve.marker, px, py, curve.kind === "own" ? 5.2 : 4.6),
        tabindex: "-1",
        role: canShow(point) ? "button" : "img",
        "aria-label": spoken(point),
        "data-setting": point.index,
        onfocus: () => hold(entry),
        onblur: release,
        onkeydown: (event) => moveFocus(event, entry),
      });
      const entry = { ...point, px, py, node, group };
      chart.view.push(entry);
      group.append(node);
    }
    chart.groups.set(curve, group);
    return group;
  });
  chart.view
    .filter(({ curve }) => curve.kind === "own")
    .concat(chart.view)[0]
    ?.node.setAttribute("tabindex", "0");
  plane.replaceChildren(
    svg(
      "clipPath",
      { id: "inside" },
      svg("rect", { x: left, y: top - 6, width: Math.max(right - left, 0), height: bottom - top + 6 }),
    ),
    axes,
    ...drawn,
  );
}

function spoken({ curve, values, index }) {
  const figures = METRICS.filter(({ key }) => Number.isFinite(values[key])).map(
    (metric) => `${metric.label} ${withUnit(values[metric.key], metric)}`,
  );
  return `${curve.label}, ${settingLabel(curve, index)}: ${number(values.bpp, 3)} bpp, ${figures.join(", ")}`;
}

/** Makes a curve stand out among the others, or no longer. */
function lift(curve, on) {
  $("chart").classList.toggle("held", on && chart.groups.has(curve));
  chart.groups.get(curve)?.classList.toggle("active", on);
}

/** Shows the figures of a point. */
function hold(entry) {
  if (chart.held === entry) return;
  release();
  chart.held = entry;
  const { curve, values, px, py, group } = entry,
    box = $("chart"),
    tip = box.querySelector(".tip");
  lift(curve, true);
  group.append(svg("circle", { class: "ring", cx: px, cy: py, r: 9 }));
  const figures = METRICS.filter(({ key }) => Number.isFinite(values[key]));
  tip.replaceChildren(
    html("strong", {}, swatch(curve), curve.label),
    html(
      "div",
      { class: "muted" },
      curve.kind === "published" ? "published, not measured here" : settingLabel(curve, entry.index),
    ),
    html(
      "dl",
      {},
      figure(["rate", `${number(values.bpp, 3)} bpp`]),
      figures.map((metric) => figure([metric.label, withUnit(values[metric.key], metric) + inItsOwnUnit(values, metric)])),
    ),
    ...(canShow(entry) ? [html("p", {}, "Click to see its picture")] : []),
  );
  tip.hidden = false;
  const space = 16,
    width = tip.offsetWidth,
    height = tip.offsetHeight;
  const besides = px + space + width <= box.clientWidth ? px + space : px - space - width;
  const x = Math.max(0, Math.min(besides, box.clientWidth - width));
  // On a phone the tip is nearly as wide as the chart and goes above or below the point instead.
  const covers = x < px + space && x + width > px - space;
  const y = covers
    ? py - space - height >= 0
      ? py - space - height
      : py + space
    : Math.max(0, Math.min(py - height / 2, box.clientHeight - height));
  tip.style.transform = `translate(${Math.round(x)}px, ${Math.round(y)}px)`;
}

function release() {
  if (!chart.held) return;
  lift(chart.held.curve, false);
  $("chart").querySelector(".tip").hidden = true;
  chart.held.group.querySelector(".ring").remove();
  chart.held = null;
}
