/* ==== how it was measured ==== */

function checkText(name, check) {
  if (name === "coding" && check.files !== undefined) {
    return (
      `Payload beyond cross-entropy: ${signed(100 * check.total_relative_excess, 2)} % ` +
      `over ${counted(check.files, "file")}, at most ` +
      `${signed(100 * check.largest_relative_excess, 2)} % and ${number(check.largest_excess_bytes, 1)} bytes in one; ` +
      `each is to be within ${number(100 * check.limit_relative, 1)} % + ${check.limit_bytes} bytes.`
    );
  }
  if (name === "monotone") {
    const falls = (check.falls ?? []).map((fall) => [fall].flat().join(" to "));
    const exceptions = falls.length ? `, but not from ${falls.join(", ")}` : "";
    return `On the mean, more quality gives more bits and more PSNR at each step${exceptions}.`;
  }
  const figures = Object.entries(check)
    .filter(([key]) => key !== "passed")
    .map(([key, value]) => `${words(key)} ${plain(value)}`);
  return `${capital(words(name))}${figures.length ? `: ${figures.join(", ")}` : ""}.`;
}

const words = (name) => name.replaceAll("_", " ");

function plain(value) {
  if (missing(value)) return "–";
  if (Array.isArray(value)) return value.map(plain).join(", ") || "none";
  if (typeof value === "object")
    return Object.entries(value)
      .map(([key, one]) => `${words(key)} ${plain(one)}`)
      .join(", ");
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value === "number")
    return Number.isInteger(value) ? value.toLocaleString("en") : String(Number(value.toPrecision(4)));
  return String(value);
}

/** A dict as pairs of name and value; dicts in it become parts with a title. */
function pairs(content) {
  const entries = Object.entries(content),
    nested = ([, value]) => value && typeof value === "object" && !Array.isArray(value);
  const CODE = new Set(["command", "sha256", "fingerprint"]);
  const pair = ([name, value]) => [
    html("dt", {}, words(name)),
    html("dd", { class: CODE.has(name) ? "code" : null }, plain(value)),
  ];
  return html(
    "dl",
    { class: "pairs" },
    [
      ...entries.filter((entry) => !nested(entry)).map(pair),
      ...entries
        .filter(nested)
        .map(([name, value]) => [
          html("dt", { class: "part" }, words(name)),
          ...Object.entries(value).map(pair).flat(),
        ]),
    ].flat(),
  );
}

/** Settings as one dict: what never changes once, else every value. */
function together(settings) {
  return Object.fromEntries(
    Object.keys(settings[0] ?? {}).map((key) => [key, [...new Set(settings.map((one) => plain(one[key])))]]),
  );
}

function writeAbout() {
  const add = (...nodes) => $("about").append(...nodes.flat());
  const checks = Object.entries(result.checks ?? {});
  if (checks.length) {
    add(
      html("h3", {}, "Checks"),
      html(
        "ul",
        { class: "listing checks" },
        checks.map(([name, check]) =>
          html(
            "li",
            {},
            html("b", { class: check.passed ? "passed" : "failed" }, check.passed ? "passed" : "failed"),
            html("span", {}, checkText(name, check)),
          ),
        ),
      ),
    );
  }
  if (result.notes?.length)
    add(
      html("h3", {}, "Notes"),
      html(
        "ul",
        { class: "listing" },
        result.notes.map((note) => html("li", {}, note)),
      ),
    );
  if (result.skipped?.length) {
    add(
      html("h3", {}, "Left out"),
      html(
        "ul",
        { class: "listing" },
        result.skipped.map(({ name, reason }) => html("li", {}, html("code", {}, name), `: ${reason}`)),
      ),
    );
  }
  add(html("h3", {}, "Provenance"), details("Versions, machine and command", "", pairs(result.provenance ?? {})));
  if (published.length) {
    add(
      details(
        "Published curves",
        "not measured here",
        table(
          "Published curves",
          [
            { title: "curve", words: true, value: ({ label }) => label },
            { title: "description", words: true, long: true, value: ({ description }) => description ?? "" },
            { title: "file", words: true, value: ({ file }) => file ?? "" },
            { title: "points", value: ({ results }) => String(results.bpp.length) },
          ],
          published,
        ),
      ),
    );
  }
  if (result.anchors.length) {
    add(
      details(
        "Settings of the anchors",
        "",
        pairs(Object.fromEntries(result.anchors.map(({ label, settings }) => [label, together(settings)]))),
      ),
    );
  }
  add(
    details(
      "Images",
      counted(result.images.length, "file"),
      table(
        "Images",
        [
          { title: "name", words: true, value: ({ name }) => name },
          { title: "width", value: ({ width }) => String(width) },
          { title: "height", value: ({ height }) => String(height) },
          { title: "SHA-256", words: true, value: ({ sha256 }) => html("code", {}, (sha256 ?? "").slice(0, 16)) },
        ],
        result.images,
      ),
    ),
  );
}
