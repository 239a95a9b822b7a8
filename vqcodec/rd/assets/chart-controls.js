/* ==== chart: pointer, keys and controls ==== */

function nearest(event, reach) {
  const box = $("chart").getBoundingClientRect();
  const distance = ({ px, py }) => Math.hypot(px - (event.clientX - box.left), py - (event.clientY - box.top));
  const closest = chart.view.reduce((best, one) => (!best || distance(one) < distance(best) ? one : best), null);
  return closest && distance(closest) <= reach ? closest : null;
}

function moveFocus(event, entry) {
  const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: 1, ArrowDown: -1 }[event.key];
  if (event.key === "Enter" || event.key === " ") {
    event.preventDefault();
    jump(entry);
    return;
  }
  if (event.key === "Escape") {
    release();
    return;
  }
  if (step === undefined) return;
  event.preventDefault();
  const along = chart.view.filter(({ curve }) => curve === entry.curve);
  let next = along[along.indexOf(entry) + step];
  if (event.key === "ArrowUp" || event.key === "ArrowDown") {
    const shown = [...new Set(chart.view.map(({ curve }) => curve))];
    const other = shown[(shown.indexOf(entry.curve) + step + shown.length) % shown.length];
    next = chart.view
      .filter(({ curve }) => curve === other)
      .reduce((best, one) => (Math.abs(one.px - entry.px) < Math.abs(best.px - entry.px) ? one : best));
  }
  if (!next) return;
  entry.node.setAttribute("tabindex", "-1");
  next.node.setAttribute("tabindex", "0");
  next.node.focus();
}

function startChart() {
  const redraw = (change) => (value) => {
    change(value);
    drawChart();
  };
  const controls = [
    segments(
      "metric",
      "Metric",
      metricsPresent.map(({ key, label }) => [key, label]),
      chart.metric.key,
      redraw((key) => {
        chart.metric = METRICS.find((metric) => metric.key === key);
        drawLegend();
      }),
    ),
    segments(
      "scale",
      "Rate axis",
      [
        ["linear", "linear"],
        ["log", "log"],
      ],
      "linear",
      redraw((value) => {
        chart.log = value === "log";
      }),
    ),
    segments(
      "range",
      "Range",
      [
        ["own", `where ${own.label} is`],
        ["whole", "whole"],
      ],
      "own",
      redraw((value) => {
        chart.whole = value === "whole";
      }),
    ),
  ];
  if (result.images.length > 1 && rows.length) {
    const select = html("select", {
      id: "chart-image",
      onchange: redraw(() => {
        chart.image = select.selectedIndex ? result.images[select.selectedIndex - 1].name : null;
        drawLegend();
      }),
    });
    fill(
      select,
      [["", `mean of ${result.images.length} images`], ...result.images.map(({ name }) => [name, name])],
      "",
    );
    controls.push(field("Curves of", select));
  }
  $("chart-controls").append(...controls);
  $("chart-hint").textContent =
    "Point at a curve for its figures; with the keyboard, Tab into the chart and use the arrow keys." +
    (pictures.length ? " A click, or Enter, shows that picture below." : "");
  drawLegend();

  const box = $("chart");
  let heldBefore = null; // what a touch found: its first tap only shows figures
  box.addEventListener("pointermove", (event) => {
    const entry = nearest(event, REACH.show);
    if (entry) hold(entry);
    else release();
    box.style.cursor = nearest(event, REACH.click) && canShow(entry) ? "pointer" : "";
  });
  box.addEventListener("pointerdown", (event) => {
    heldBefore = chart.held;
    const entry = nearest(event, REACH.show);
    if (entry) hold(entry);
    else release();
  });
  box.addEventListener("pointerleave", (event) => {
    if (event.pointerType === "mouse") release();
  });
  box.addEventListener("click", (event) => {
    const entry = nearest(event, REACH.click);
    if (entry && (event.pointerType !== "touch" || heldBefore === entry)) jump(entry);
  });
  let width = 0;
  new ResizeObserver(() => {
    if (box.clientWidth !== width) {
      width = box.clientWidth;
      drawChart();
    }
  }).observe(box);
  width = box.clientWidth;
  drawChart();
}

function drawLegend() {
  const group = (title, curves, more = []) =>
    html(
      "div",
      { role: "group", "aria-label": title },
      html("h3", {}, title),
      curves
        .filter(({ results }) => results[chart.metric.key])
        .map((curve) => {
          const button = html(
            "button",
            {
              type: "button",
              "aria-pressed": String(!chart.off.has(curve)),
              title: curve.description,
              onpointerenter: () => lift(curve, true),
              onpointerleave: () => lift(curve, false),
              onfocus: () => lift(curve, true),
              onblur: () => lift(curve, false),
              onclick: () => {
                if (!chart.off.delete(curve)) chart.off.add(curve);
                button.setAttribute("aria-pressed", String(!chart.off.has(curve)));
                drawChart();
                lift(curve, true);
              },
            },
            swatch(curve),
            curve.label,
          );
          return button;
        }),
      more,
    );
  const groups = [group("measured here", codecs)];
  if (published.some(({ results }) => results[chart.metric.key]) && chart.image === null) {
    const all = html(
      "button",
      {
        type: "button",
        class: "all",
        onclick: () => {
          const hide = published.some((curve) => !chart.off.has(curve));
          published.forEach((curve) => {
            if (hide) chart.off.add(curve);
            else chart.off.delete(curve);
          });
          drawLegend();
          drawChart();
          $("legend").querySelector(".all").focus();
        },
      },
      published.some((curve) => !chart.off.has(curve)) ? "hide all" : "show all",
    );
    groups.push(group("published, not measured here", published, [all]));
  }
  $("legend").replaceChildren(...groups);
}
