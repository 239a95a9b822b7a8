/* ==== pictures: controls ==== */

const images = [...new Set(result.images.map(({ name }) => name))].filter((name) =>
  [...(picturesOf.get(name)?.keys() ?? [])].some((codec) => codecNamed.has(codec)),
);

/** From a point of the curves to its picture, or the nearest that there is. */
function jump({ curve, index, values }) {
  if (!canShow({ curve })) return;
  if (chart.image !== null && images.includes(chart.image)) compare.image = chart.image;
  if (!settingsAt(curve).length)
    compare.image = images.find((name) => picturesOf.get(name).has(curve.name)) ?? compare.image;
  if (!settingsAt(curve).length) return;
  const side = compare.left.codec === curve || (curve === own && compare.right.codec !== own) ? "left" : "right";
  const setting = settingsAt(curve).includes(index) ? index : nearestSetting(curve, values.bpp);
  compare[side] = { codec: curve, setting };
  compare.target = rateOf(curve, setting);
  update();
  if (compare[side].setting !== setting) {
    // there is nothing of about that rate on the other side
    compare.free = true;
    compare[side].setting = setting;
    update();
  }
  const smooth = matchMedia("(prefers-reduced-motion: no-preference)").matches;
  $("pictures").scrollIntoView({ behavior: smooth ? "smooth" : "auto" });
  $("handle").focus({ preventScroll: true });
}

function buildControls() {
  const choose = (change) => (value) => {
    change(value);
    update();
  };
  const go = (index) => {
    if (images[index] !== undefined) {
      compare.image = images[index];
      compare.centre = [0.5, 0.5];
      update();
    }
  };
  const near = (step) => () => go(images.indexOf(compare.image) + step);
  const select = html("select", { id: "image", onchange: () => go(Number(select.value)) });
  fill(
    select,
    images.map((name, i) => [i, name]),
    "0",
  );
  $("picture-controls").append(
    html(
      "div",
      { class: "picker" },
      field("Image", select),
      html("button", { type: "button", id: "previous", "aria-label": "Previous image", onclick: near(-1) }, "‹"),
      html("button", { type: "button", id: "next", "aria-label": "Next image", onclick: near(1) }, "›"),
    ),
  );
  $("strip").hidden = images.length < 2;
  $("strip").append(
    ...images.map((name, i) =>
      html(
        "button",
        { type: "button", "aria-label": name, title: name, onclick: () => go(i) },
        html("canvas", { width: 156, height: 104 }),
      ),
    ),
  );

  const codecSelect = (side) =>
    html("select", {
      id: `${side}-codec`,
      onchange: choose(() => {
        compare[side].codec = codecNamed.get($(`${side}-codec`).value);
        compare[side].setting = -1; // the nearest to the rate at hand
      }),
    });
  const settingSelect = (side) =>
    html("select", {
      id: `${side}-setting`,
      onchange: choose(() => {
        compare[side].setting = Number($(`${side}-setting`).value);
        compare.target = rateOf(compare[side].codec, compare[side].setting) ?? compare.target;
      }),
    });
  const rate = html("input", {
    type: "range",
    id: "rate",
    min: 0,
    max: 0,
    step: 1,
    "aria-label": "Rate of both sides",
    oninput: choose(() => {
      compare.target = compare.stops[Number(rate.value)];
    }),
  });
  const gain = html("select", {
    id: "gain",
    "aria-label": "Amplification of the error map",
    onchange: choose(() => {
      compare.gain = Number(gain.value);
    }),
  });
  fill(
    gain,
    GAINS.map((one) => [one, `×${one}`]),
    compare.gain,
  );
  const errors = html("input", {
    type: "checkbox",
    id: "errors",
    onchange: choose(() => {
      compare.errors = errors.checked;
    }),
  });
  const ramp = html("div", { class: "ramp" });
  ramp.style.background = `linear-gradient(to right, ${RAMP.join(", ")})`;
  $("panel").append(
    field("Left", codecSelect("left")),
    field("Right", codecSelect("right")),
    segments(
      "mode",
      "Compare at",
      [
        ["nearest", "nearest bpp"],
        ["free", "free settings"],
      ],
      "nearest",
      choose((value) => {
        compare.free = value === "free";
      }),
      { class: "field wide" },
    ),
    html(
      "div",
      { class: "wide" },
      html("div", { class: "rate-now numbers" }, html("span", {}, "Rate"), html("span", { id: "rate-now" })),
      rate,
    ),
    field("Setting on the left", settingSelect("left")),
    field("Setting on the right", settingSelect("right")),
    segments(
      "zoom",
      "Zoom",
      [
        ["fit", "fit"],
        ["1", "1×"],
        ["2", "2×"],
        ["4", "4×"],
      ],
      "fit",
      (value) => {
        compare.zoom = value;
        placePictures();
      },
      { class: "field wide" },
    ),
    html(
      "div",
      { class: "wide" },
      html("div", { class: "errors-row" }, html("label", { class: "check" }, errors, "Error map"), gain),
      html(
        "div",
        { class: "errors-key", id: "errors-key" },
        ramp,
        html("div", { class: "ends" }, html("span", {}, "0"), html("span", { id: "errors-end" })),
        html("div", { id: "errors-text" }),
      ),
    ),
  );
}

/** Small pictures, each when it comes into sight and the browser has time. */
function startThumbnails() {
  const idle = window.requestIdleCallback ?? ((work) => setTimeout(work, 50));
  const draw = async (canvas, name) => {
    const byCodec = picturesOf.get(name);
    const index = (byCodec.get("original") ?? byCodec.values().next().value).values().next().value;
    const bitmap = await decode(index).catch(() => null); // that it cannot be shown is said on the stage
    if (!bitmap) return;
    const scale = Math.max(canvas.width / bitmap.width, canvas.height / bitmap.height);
    const context = canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    const [w, h] = [bitmap.width * scale, bitmap.height * scale];
    context.drawImage(bitmap, (canvas.width - w) / 2, (canvas.height - h) / 2, w, h);
    bitmap.close();
  };
  const watcher = new IntersectionObserver(
    (entries) => {
      for (const { isIntersecting, target } of entries) {
        if (!isIntersecting) continue;
        watcher.unobserve(target);
        idle(() => draw(target, images[[...$("strip").children].indexOf(target.parentNode)]));
      }
    },
    { rootMargin: "200px" },
  );
  $("strip")
    .querySelectorAll("canvas")
    .forEach((canvas) => watcher.observe(canvas));
}

function startPictures() {
  if (!images.length) return;
  $("pictures").hidden = false;
  $("stored").textContent = stored;
  compare.image = images[0];
  buildControls();
  startStage();
  update();
  document.addEventListener("DOMContentLoaded", () => {
    paint();
    startThumbnails();
  });
}
