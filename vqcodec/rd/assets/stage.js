/* ==== pictures: the stage ==== */

/** Puts both canvases, the border between them and the handle where zoom, centre and split say. */
function placePictures() {
  const stage = $("stage"),
    [width, height] = compare.size;
  const across = stage.clientWidth;
  const fit = Math.min(across / width, Math.max(260, innerHeight * 0.74) / height);
  const down = Math.max(180, Math.round(height * fit));
  stage.style.height = `${down}px`;
  const scale = compare.zoom === "fit" ? fit : Number(compare.zoom);
  const [w, h] = [width * scale, height * scale];
  const start = (space, size, centre) =>
    Math.round(size <= space ? (space - size) / 2 : Math.min(0, Math.max(space - size, space / 2 - centre * size)));
  const [x, y] = [start(across, w, compare.centre[0]), start(down, h, compare.centre[1])];
  const from = Math.max(0, x),
    to = Math.min(across, x + w);
  const border = from + compare.split * (to - from);
  compare.place = { x, y, w, h, across, down, from, to };
  for (const canvas of stage.querySelectorAll("canvas")) {
    canvas.style.width = `${w}px`;
    canvas.style.height = `${h}px`;
    canvas.style.transform = `translate(${x}px, ${y}px)`;
    canvas.classList.toggle("coarse", scale >= 2);
  }
  $("left-layer").style.clipPath = `inset(0 ${(across - border).toFixed(1)}px 0 0)`;
  const handle = $("handle");
  handle.style.left = `${border.toFixed(1)}px`;
  handle.setAttribute("aria-valuenow", Math.round(100 * compare.split));
  handle.setAttribute("aria-valuetext", `${Math.round(100 * compare.split)} % ${compare.left.codec.label}`);
  const pans = w > across + 1 || h > down + 1;
  stage.classList.toggle("pans", pans);
  if (pans) stage.setAttribute("tabindex", "0");
  else stage.removeAttribute("tabindex");
}

/** Draws the chosen pictures or their error maps once all are decoded; what has been overtaken is dropped. */
async function paint() {
  const turn = ++compare.painted,
    stage = $("stage"),
    trouble = stage.querySelector(".trouble");
  const chosen = SIDES.map((side) => ({
    ...compare[side],
    index: picturesAt(compare[side].codec).get(compare[side].setting),
  }));
  const errors = $("errors").checked,
    { gain, image } = compare;
  stage.setAttribute("aria-busy", "true");
  try {
    const needed = [...chosen.map(({ index }) => index), ...(errors ? [picturesAt(original).get(0)] : [])];
    const [left, right, truth] = await Promise.all(needed.map(picture));
    if (turn !== compare.painted) return;
    [left, right].forEach((bitmap, i) => {
      const { codec, setting } = chosen[i],
        canvas = $(`${SIDES[i]}-picture`);
      const mapped = errors && codec !== original;
      canvas.width = bitmap.width;
      canvas.height = bitmap.height;
      const context = canvas.getContext("2d");
      if (mapped) context.putImageData(errorMap(bitmap, truth, gain), 0, 0);
      else context.drawImage(bitmap, 0, 0);
      canvas.setAttribute(
        "aria-label",
        `${mapped ? "Error map of " : ""}${image}, ${codec.label} ${settingLabel(codec, setting)}`,
      );
    });
    trouble.hidden = true;
  } catch (error) {
    if (turn !== compare.painted) return;
    const kinds = new Set(chosen.map(({ index }) => pictures[index].mime));
    trouble.textContent = `This browser cannot show ${[...kinds].join(" or ")}.`;
    trouble.hidden = false;
  }
  stage.setAttribute("aria-busy", "false");
}

const rampTable = (() => {
  const stops = RAMP.map((colour) => [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16)));
  return Array.from({ length: 256 }, (_, value) => {
    const at = (value / 255) * (stops.length - 1),
      low = Math.min(Math.floor(at), stops.length - 2);
    return stops[low].map((from, channel) => Math.round(from + (stops[low + 1][channel] - from) * (at - low)));
  });
})();

function errorMap(bitmap, truth, gain) {
  const [data, goal] = [bitmap, truth].map((one) => {
    const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d", { willReadFrequently: true });
    context.drawImage(one, 0, 0);
    return context.getImageData(0, 0, bitmap.width, bitmap.height);
  });
  const a = data.data,
    b = goal.data;
  for (let i = 0; i < a.length; i += 4) {
    const error = (Math.abs(a[i] - b[i]) + Math.abs(a[i + 1] - b[i + 1]) + Math.abs(a[i + 2] - b[i + 2])) / 3;
    const colour = rampTable[Math.min(255, Math.round(gain * error))];
    a[i] = colour[0];
    a[i + 1] = colour[1];
    a[i + 2] = colour[2];
  }
  return data;
}

function startStage() {
  const stage = $("stage"),
    handle = $("handle");
  const setSplit = (split) => {
    compare.split = Math.min(1, Math.max(0, split));
    placePictures();
  };
  const splitAt = (event) =>
    setSplit(
      (event.clientX - stage.getBoundingClientRect().left - compare.place.from) /
        (compare.place.to - compare.place.from),
    );
  /** Moves the part shown; says whether there was anywhere to go. */
  const pan = (dx, dy) => {
    const { x, y, w, h, across, down } = compare.place;
    compare.centre = [(across / 2 - x - dx) / w, (down / 2 - y - dy) / h];
    placePictures();
    compare.centre = [
      w > across ? (across / 2 - compare.place.x) / w : 0.5,
      h > down ? (down / 2 - compare.place.y) / h : 0.5,
    ];
    return compare.place.x !== x || compare.place.y !== y;
  };

  let drag = null;
  stage.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    const pans = stage.classList.contains("pans") && event.target !== handle;
    drag = { pans, x: event.clientX, y: event.clientY };
    stage.setPointerCapture(event.pointerId);
    stage.classList.toggle("panning", pans);
    if (!pans) {
      splitAt(event);
      handle.focus({ preventScroll: true, focusVisible: false });
    }
    event.preventDefault();
  });
  stage.addEventListener("pointermove", (event) => {
    if (!drag) return;
    if (drag.pans) pan(event.clientX - drag.x, event.clientY - drag.y);
    else splitAt(event);
    drag = { ...drag, x: event.clientX, y: event.clientY };
  });
  const stop = () => {
    drag = null;
    stage.classList.remove("panning");
  };
  stage.addEventListener("pointerup", stop);
  stage.addEventListener("pointercancel", stop);
  stage.addEventListener(
    "wheel",
    (event) => {
      if (event.ctrlKey || !stage.classList.contains("pans")) return;
      const [dx, dy] = event.shiftKey && !event.deltaX ? [event.deltaY, 0] : [event.deltaX, event.deltaY];
      if (pan(-dx, -dy)) event.preventDefault(); // at the edge the page scrolls on
    },
    { passive: false },
  );

  handle.addEventListener("keydown", (event) => {
    const step = event.shiftKey ? 0.1 : 0.02;
    const to = {
      ArrowLeft: compare.split - step,
      ArrowDown: compare.split - step,
      ArrowRight: compare.split + step,
      ArrowUp: compare.split + step,
      PageDown: compare.split - 0.1,
      PageUp: compare.split + 0.1,
      Home: 0,
      End: 1,
    }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    setSplit(to);
  });
  stage.addEventListener("keydown", (event) => {
    const [dx, dy] =
      { ArrowLeft: [40, 0], ArrowRight: [-40, 0], ArrowUp: [0, 40], ArrowDown: [0, -40] }[event.key] ?? [];
    if (event.target !== stage || dx === undefined) return;
    event.preventDefault();
    pan(dx, dy);
  });
  let width = stage.clientWidth;
  new ResizeObserver(() => {
    if (stage.clientWidth !== width) {
      width = stage.clientWidth;
      placePictures();
    }
  }).observe(stage);
}
