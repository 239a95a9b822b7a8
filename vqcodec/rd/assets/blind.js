const $ = (id) => document.getElementById(id);
const { study, trials, key, pictures } = JSON.parse($("data").textContent);
const [original, left, right] = document.querySelectorAll(".pictures img");
const buttons = [...document.querySelectorAll("[data-choice]")];

/** The trials in random order, each with its two pictures in random order. */
const order = trials.map((_, trial) => ({ trial, swapped: Math.random() < 0.5, at: Math.random() }));
order.sort((a, b) => a.at - b.at);
const choices = [];
let shown = 0; // when the pictures of the question at hand appeared; 0 until they have

function show(image, number) {
  URL.revokeObjectURL(image.src);
  const data = Uint8Array.from(atob(pictures[number]), (one) => one.charCodeAt(0));
  image.src = URL.createObjectURL(new Blob([data], { type: "image/webp" }));
  return image.decode();
}

async function ask() {
  shown = 0;
  $("question").setAttribute("aria-busy", "true");
  $("count").textContent = `${Math.min(choices.length + 1, order.length)} of ${order.length}`;
  document.querySelector("progress").max = order.length;
  document.querySelector("progress").value = choices.length;
  if (choices.length === order.length) return finish();
  const { trial, swapped } = order[choices.length];
  const [truth, a, b] = trials[trial];
  await Promise.all([show(original, truth), show(left, swapped ? b : a), show(right, swapped ? a : b)]);
  shown = performance.now();
  $("question").setAttribute("aria-busy", "false");
}

function answer(choice) {
  if (!shown) return;
  choices.push({ choice, seconds: Number(((performance.now() - shown) / 1000).toFixed(2)) });
  ask();
}

/** The answers with what the pictures were: `winner` is the codec that was called nearer, or null for no difference. */
function revealed() {
  const known = JSON.parse(new TextDecoder().decode(Uint8Array.from(atob(key), (one) => one.charCodeAt(0))));
  return choices.map(({ choice, seconds }, i) => {
    const { trial, swapped } = order[i];
    const sides = swapped ? [...known[trial].codecs].reverse() : known[trial].codecs;
    const winner = { left: sides[0], right: sides[1] }[choice] ?? null;
    return { ...known[trial], left: sides[0], right: sides[1], winner, seconds };
  });
}

/** Wilson's interval, 95 %, of `wins` among `n`. */
function wilson(wins, n) {
  const z = 1.96,
    middle = (wins + (z * z) / 2) / (n + z * z);
  const half = (z / (n + z * z)) * Math.sqrt((wins * (n - wins)) / n + (z * z) / 4);
  return [Math.max(0, middle - half), Math.min(1, middle + half)];
}

function summarise(answers) {
  const groups = new Map();
  for (const { codecs, bpp, winner } of answers) {
    const pair = [...codecs].sort();
    const name = JSON.stringify([pair.join(" – "), bpp]);
    if (!groups.has(name)) groups.set(name, { wins: [0, 0], ties: 0 });
    if (winner === null) groups.get(name).ties += 1;
    else groups.get(name).wins[pair.indexOf(winner)] += 1;
  }
  const percent = (share) => `${(100 * share).toFixed(0)} %`;
  const rows = [...groups].sort().map(([name, { wins, ties }]) => {
    const n = wins[0] + wins[1];
    const interval = n ? wilson(wins[0], n).map(percent).join(" to ") : "–";
    const row = document.createElement("tr");
    const [pair, bpp] = JSON.parse(name);
    [pair, bpp, n ? percent(wins[0] / n) : "–", interval, n + ties, ties].forEach((text, i) => {
      const cell = row.appendChild(document.createElement(i ? "td" : "th"));
      cell.textContent = text;
      if (!i) cell.scope = "row";
    });
    return row;
  });
  document.querySelector("tbody").replaceChildren(...rows);
  $("said").textContent = `${answers.length} ${answers.length === 1 ? "answer" : "answers"}.`;
}

function finish() {
  const mine = revealed();
  const all = new Map([["", mine]]); // by the text of the file, so that none counts twice
  $("question").hidden = true;
  $("results").hidden = false;
  $("done").focus();
  summarise(mine);
  $("save").addEventListener("click", () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([JSON.stringify({ study, answers: mine }, null, 1)], { type: "application/json" }));
    link.download = `answers-${study}-${Date.now()}.json`;
    link.click();
  });
  $("add").addEventListener("change", async () => {
    const troubles = [];
    for (const file of $("add").files) {
      const text = await file.text();
      try {
        const { study: theirs, answers } = JSON.parse(text);
        if (theirs !== study) throw new Error();
        all.set(text, answers);
        summarise([...all.values()].flat());
      } catch {
        troubles.push(`${file.name}: no answers to these questions`);
      }
    }
    document.querySelector(".trouble-said").textContent = troubles.join("; ");
  });
}

for (const button of buttons) {
  button.addEventListener("click", (event) => {
    if (event.detail) button.blur(); // a click by pointer: the keys are for the next question again
    answer(button.dataset.choice);
  });
}
$("stop").addEventListener("click", finish);
document.addEventListener("keydown", (event) => {
  const choice = { ArrowLeft: "left", ArrowRight: "right", " ": "tie" }[event.key];
  if (!choice || event.repeat || $("question").hidden || (event.key === " " && event.target.closest("button"))) return;
  event.preventDefault();
  answer(choice);
});
ask();
