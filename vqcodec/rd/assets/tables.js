/* ==== tables ==== */

/** A table in a box that scrolls. A column has a title, the value of a row, maybe a group, and may hold words. */
function table(title, columns, list) {
  const used = columns.filter(Boolean),
    grouped = used.some(({ group }) => group);
  const first = [],
    second = [];
  used.forEach((column, i) => {
    const head = (properties) =>
      html("th", { scope: "col", class: column.words ? "words" : null, ...properties }, column.title);
    if (!column.group) {
      first.push(head({ rowspan: grouped ? 2 : null }));
      return;
    }
    if (used[i - 1]?.group !== column.group) {
      first.push(
        html(
          "th",
          { scope: "colgroup", colspan: used.filter(({ group }) => group === column.group).length },
          column.group,
        ),
      );
    }
    second.push(head());
  });
  const body = list.map((row) =>
    html(
      "tr",
      {},
      used.map((column, i) =>
        html(
          i ? "td" : "th",
          { scope: i ? null : "row", class: column.words ? `words ${column.long ? "long" : ""}` : null },
          column.value(row),
        ),
      ),
    ),
  );
  return html(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": title },
    html(
      "table",
      {},
      html("thead", {}, html("tr", {}, first), grouped ? html("tr", {}, second) : null),
      html("tbody", {}, body),
    ),
  );
}

function curveColumns(codec) {
  const { results } = codec;
  return [
    {
      title: codec === own ? "quality" : "setting",
      value: (i) => (codec === own ? String(codec.settings[i].quality) : settingLabel(codec, i)),
    },
    { title: "bpp", value: (i) => number(results.bpp[i], 3) },
    ...METRICS.filter(({ key }) => results[key]).map((metric) => ({
      title: metric.label + (metric.unit && `,\n${metric.unit}`),
      value: (i) => number(results[metric.key][i], metric.digits),
    })),
  ];
}

const timeColumns = ({ results }) =>
  [
    ["encode", results.encoding_time],
    ["decode", results.decoding_time],
  ]
    .filter(([, times]) => times)
    .map(([title, times]) => ({
      title,
      group: "median seconds",
      value: (i) => number(times[i], Math.max(...times) < 1 ? 3 : 2),
    }));

function ownTable() {
  const { bpp } = own.results,
    rates = result.rates ?? {},
    levels = rates.level_bpp ?? [];
  const framing = (i) => 1 - levels.reduce((sum, level) => sum + level[i], 0) / bpp[i];
  return table(
    `${own.label}'s curve`,
    [
      ...curveColumns(own),
      ...levels.map((level, n) => ({
        title: `level ${n}`,
        group: "share of the bytes",
        value: (i) => percent(level[i] / bpp[i]),
      })),
      levels.length && { title: "framing", group: "share of the bytes", value: (i) => percent(framing(i)) },
      rates.uniform_bpp && {
        title: "uniform\nbound",
        group: "rate of the same codes, bpp",
        value: (i) => number(rates.uniform_bpp[i], 3),
      },
      rates.static_bpp && {
        title: "static\nentropy",
        group: "rate of the same codes, bpp",
        value: (i) => number(rates.static_bpp[i], 3),
      },
      (rates.uniform_bpp || rates.static_bpp) && {
        title: "real",
        group: "rate of the same codes, bpp",
        value: (i) => number(bpp[i], 3),
      },
      ...timeColumns(own),
    ],
    bpp.map((_, i) => i),
  );
}

/** The rate of each level three ways. */
function levelTable() {
  const { uniform_level_bpp, static_level_bpp, level_bpp } = result.rates;
  const kinds = [
    ["uniform", uniform_level_bpp],
    ["static", static_level_bpp],
    ["real", level_bpp],
  ];
  return table(
    "Rate of each level",
    [
      { title: "quality", value: (i) => String(own.settings[i].quality) },
      ...level_bpp.flatMap((_, n) =>
        kinds.map(([title, rates]) => ({ title, group: `level ${n}, bpp`, value: (i) => number(rates[n][i], 4) })),
      ),
    ],
    own.settings.map((_, i) => i),
  );
}

const bdMetric = (bd) =>
  METRICS.find(({ key }) => key === bd.metric || key === `${bd.metric}-db`) ?? { label: bd.metric, unit: "", digits: 2 };

function bdTable() {
  return table(
    "Bjøntegaard deltas",
    [
      {
        title: "against",
        words: true,
        value: (bd) => [bd.label, bd.published ? html("span", { class: "muted" }, " (published)") : null],
      },
      { title: "metric", words: true, value: (bd) => bdMetric(bd).label },
      { title: "BD-rate", value: (bd) => (typeof bd.bd_rate === "number" ? `${signed(bd.bd_rate, 1)} %` : "–") },
      {
        title: "BD-metric",
        value: (bd) =>
          typeof bd.bd_metric === "number"
            ? signed(bd.bd_metric, 2) + (bdMetric(bd).unit && ` ${bdMetric(bd).unit}`)
            : "–",
      },
      {
        title: "over",
        value: (bd) =>
          bd.common
            ? `${number(bd.common[0], 1)} to ${number(bd.common[1], 1)}${bdMetric(bd).unit && ` ${bdMetric(bd).unit}`}`
            : "–",
      },
    ],
    result.bd,
  );
}

/** Why some of the table's rows have no BD-rate: each reason once, with the rows that it is for. */
function bdNotes() {
  const rowsOf = new Map();
  for (const bd of result.bd.filter(({ note }) => note)) {
    rowsOf.set(bd.note, [...(rowsOf.get(bd.note) ?? []), `${bd.label} in ${bdMetric(bd).label}`]);
  }
  const notes = [...rowsOf].map(([note, list]) => html("li", {}, `${list.join(", ")}: ${note}.`));
  return notes.length ? [html("p", { class: "hint" }, "Without a BD-rate:"), html("ul", { class: "listing notes" }, notes)] : [];
}

function usageTables() {
  const mean = (list) => list.reduce((sum, one) => sum + one, 0) / list.length;
  const spread = (list) => `${number(mean(list), 1)} (${number(Math.min(...list), 1)}–${number(Math.max(...list), 1)})`;
  const columns = (level) => [
    { title: "stride", value: (row) => String(level(row).stride) },
    { title: "codebooks", value: (row) => `${level(row).groups} × ${level(row).codebook_size}` },
    { title: "codewords\nin use", value: (row) => percent(mean(level(row).share)) },
    { title: "perplexity,\nmean (range)", value: (row) => spread(level(row).perplexity) },
  ];
  const parts = [
    table(
      "Use of the codebooks",
      [{ title: "level", value: (i) => String(i) }, ...columns((i) => result.usage[i])],
      result.usage.map((_, i) => i),
    ),
  ];
  if (result.usage_by_quality?.length) {
    const list = result.usage_by_quality.flatMap(({ quality, levels }) =>
      levels.map((level, i) => ({ quality, i, level })),
    );
    parts.push(
      details(
        "At each quality",
        "",
        table(
          "Use of the codebooks at each quality",
          [
            { title: "quality", value: ({ quality }) => String(quality) },
            { title: "level", value: ({ i }) => String(i) },
            ...columns(({ level }) => level),
          ],
          list,
        ),
      ),
    );
  }
  return parts;
}

const details = (title, aside, ...content) =>
  html(
    "details",
    {},
    html("summary", {}, title, aside ? html("span", { class: "muted" }, ` ${aside}`) : null),
    content,
  );

function writeTables() {
  const add = (...nodes) => $("tables").append(...nodes.flat());
  add(html("h3", {}, own.label), ownTable());
  if (result.rates?.uniform_bpp || result.rates?.static_bpp) {
    add(
      html(
        "p",
        { class: "hint" },
        "Uniform bound: log₂ of the codebook's size for each code. Static entropy: the entropy of how often each " +
          "codeword occurs, without a prior. Real: bytes of whole files.",
      ),
    );
  }
  if (result.rates?.uniform_level_bpp?.length) add(details("Rate of each level, three ways", "", levelTable()));
  if (result.bd.length) {
    add(
      html("h3", {}, `${own.label} against other curves`),
      bdTable(),
      bdNotes(),
      html(
        "p",
        { class: "hint" },
        `BD-rate: mean difference of bits at equal quality, negative where ${own.label} needs fewer. BD-metric: mean ` +
          `difference of quality at equal bits, positive where ${own.label} is better.`,
      ),
    );
  }
  if (result.anchors.length) {
    add(html("h3", {}, "Curves of the anchors"));
    for (const anchor of codecs.slice(1)) {
      add(
        details(
          anchor.label,
          counted(anchor.results.bpp.length, "setting"),
          anchor.description ? html("p", { class: "hint" }, anchor.description) : null,
          table(
            `${anchor.label}'s curve`,
            [...curveColumns(anchor), ...timeColumns(anchor)],
            anchor.results.bpp.map((_, i) => i),
          ),
        ),
      );
    }
  }
  if (result.usage?.length) add(html("h3", {}, "Use of the codebooks"), usageTables());
}
