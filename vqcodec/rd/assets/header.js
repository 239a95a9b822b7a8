/* ==== theme and header ==== */

function startTheme() {
  const system = matchMedia("(prefers-color-scheme: dark)");
  let chosen = null;
  const dark = () => (chosen ?? (system.matches ? "dark" : "light")) === "dark";
  const show = () => {
    document.documentElement.style.colorScheme = chosen ?? "";
    $("theme").textContent = dark() ? "Light theme" : "Dark theme";
  };
  $("theme").addEventListener("click", () => {
    chosen = dark() ? "light" : "dark";
    show();
  });
  system.addEventListener("change", show);
  show();
}

function writeHeader() {
  document.title = `${result.label}: ${result.description}`;
  $("kicker").textContent = result.label;
  $("title").textContent = capital(result.description);
  const { weights, date, device } = result.provenance ?? {};
  const facts = [
    ["images", result.images.length.toLocaleString("en")],
    ["weights", weights && [weights.name, " ", html("code", {}, weights.fingerprint ?? "")]],
    ["measured", date],
    ["device", device],
  ];
  $("facts").append(
    ...facts
      .filter(([, value]) => value)
      .map(([name, value]) => html("div", {}, html("dt", {}, name), html("dd", { class: "numbers" }, [value].flat()))),
  );

  const known = result.bd.filter((bd) => bd.metric === "psnr-rgb" && typeof bd.bd_rate === "number" && !bd.published);
  if (!known.length) return;
  $("headline").hidden = false;
  $("headline")
    .querySelector("ul")
    .append(
      ...known.map((bd) =>
        html("li", {}, html("strong", {}, `${signed(bd.bd_rate, 1)} %`), html("span", {}, `bits against ${bd.label}`)),
      ),
    );
  $("headline").querySelector("p").textContent =
    "At equal PSNR, mean over the range that both curves reach (BD-rate). Fewer bits are better.";
}
