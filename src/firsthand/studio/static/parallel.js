// Parallel coordinates of runs: an axis for each setting and result, brushes on axes, the chosen runs listed below.
const place = document.getElementById("parallel");
const { axes, runs } = JSON.parse(place.dataset.axes);
const NS = "http://www.w3.org/2000/svg";
const HEIGHT = 300, TOP = 34, BOTTOM = 24;
const brushes = new Map(); // axis -> [low, high] as shares of its height, from the bottom
const target = place.dataset.target;

for (const [name, value] of new URLSearchParams(location.search)) {
  if (!name.startsWith("brush.")) continue;
  const [low, high] = value.split("-").map(Number);
  if (low >= 0 && high <= 1 && low < high) brushes.set(name.slice(6), [low, high]);
}

function shares(axis) {
  if (axis.kind === "word") {
    const words = [...new Set(axis.values.filter((value) => value !== null))].sort();
    return { at: axis.values.map((value) => (value === null ? null : words.length > 1 ? words.indexOf(value) / (words.length - 1) : 0.5)), ticks: words.map((word, n) => [words.length > 1 ? n / (words.length - 1) : 0.5, word]) };
  }
  const scale = axis.log ? Math.log10 : (value) => value;
  const known = axis.values.filter((value) => value !== null).map(scale);
  const low = Math.min(...known), high = Math.max(...known);
  const at = axis.values.map((value) => (value === null ? null : high > low ? (scale(value) - low) / (high - low) : 0.5));
  const back = (share) => { const value = low + share * (high - low); return Number((axis.log ? 10 ** value : value).toPrecision(3)).toString(); };
  return { at, ticks: !known.length ? [] : high > low ? [[0, back(0)], [0.5, back(0.5)], [1, back(1)]] : [[0.5, back(0.5)]] };
}
const laid = axes.map(shares);

function make(name, attributes, text) {
  const made = document.createElementNS(NS, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}
const y = (share) => TOP + (1 - share) * (HEIGHT - TOP - BOTTOM);
function passes(run) {
  return [...brushes].every(([name, [low, high]]) => {
    const index = axes.findIndex((axis) => axis.name === name);
    const at = index < 0 ? null : laid[index].at[run];
    return index < 0 || (at !== null && at >= low - 1e-9 && at <= high + 1e-9);
  });
}

function draw() {
  const width = Math.max(place.clientWidth, axes.length * 90);
  const step = axes.length > 1 ? (width - 140) / (axes.length - 1) : 0;
  const x = (index) => 70 + index * step;
  const svg = make("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, width, height: HEIGHT, role: "group", "aria-label": `Settings and results of ${runs.length} runs; the table below has the numbers` });
  const goal = laid[axes.findIndex((axis) => axis.name === target)];
  runs.forEach((run, number) => {
    let path = "", pen = "M";
    laid.forEach((axis, index) => {
      if (axis.at[number] === null) return void (pen = "M");
      path += `${pen}${x(index)},${y(axis.at[number])}`;
      pen = "L";
    });
    const shade = goal?.at[number] ?? null;
    const line = make("path", { d: path, class: `line c${shade === null ? "x" : Math.round(shade * 4)}${passes(number) ? "" : " out"}` });
    line.append(make("title", {}, run));
    svg.append(line);
  });
  axes.forEach((axis, index) => {
    const group = make("g", {});
    group.append(make("line", { x1: x(index), x2: x(index), y1: y(0), y2: y(1), class: "axis" }));
    group.append(make("text", { x: x(index), y: 14, "text-anchor": "middle", class: axis.is_setting ? "label" : "label result" }, axis.name.length > 16 ? `…${axis.name.slice(-15)}` : axis.name));
    for (const [share, text] of laid[index].ticks) group.append(make("text", { x: x(index) + 6, y: y(share) + 4 }, text.length > 12 ? `${text.slice(0, 11)}…` : text));
    const brush = brushes.get(axis.name);
    if (brush) group.append(make("rect", { x: x(index) - 8, width: 16, y: y(brush[1]), height: y(brush[0]) - y(brush[1]), class: "brush" }));
    const grip = make("rect", { x: x(index) - 14, width: 28, y: TOP - 6, height: HEIGHT - TOP - BOTTOM + 12, class: "grip", tabindex: 0, role: "slider", "aria-label": `${axis.name}: drag to choose a range, up and down move it, Delete removes it`, "aria-valuenow": brush ? Math.round(brush[0] * 100) : 0, "data-axis": axis.name });
    group.append(grip);
    svg.append(group);
  });
  place.replaceChildren(svg);
  const chosen = runs.filter((_, number) => passes(number));
  document.getElementById("chosen").textContent = brushes.size ? `${chosen.length} of ${runs.length} runs: ${chosen.slice(0, 20).join(", ")}` : `${runs.length} runs; drag along an axis to choose some`;
}
function keep() {
  const address = new URL(location.href);
  for (const name of [...address.searchParams.keys()]) if (name.startsWith("brush.")) address.searchParams.delete(name);
  for (const [name, [low, high]] of brushes) address.searchParams.set(`brush.${name}`, `${low.toFixed(3)}-${high.toFixed(3)}`);
  history.replaceState(history.state, "", address);
  draw();
}
const share = (event) => {
  const box = place.querySelector("svg").getBoundingClientRect();
  const at = ((event.clientY - box.top) / box.height) * HEIGHT;
  return Math.min(1, Math.max(0, 1 - (at - TOP) / (HEIGHT - TOP - BOTTOM)));
};
let from = null, axis = null;
place.addEventListener("pointerdown", (event) => {
  axis = event.target.dataset?.axis ?? null;
  if (axis === null) return;
  event.preventDefault();
  from = share(event);
});
addEventListener("pointerup", (event) => {
  if (axis === null) return;
  const to = share(event), low = Math.min(from, to), high = Math.max(from, to);
  high - low < 0.02 ? brushes.delete(axis) : brushes.set(axis, [low, high]);
  axis = null;
  keep();
});
place.addEventListener("keydown", (event) => {
  const name = event.target.dataset?.axis;
  if (!name) return;
  const [low, high] = brushes.get(name) ?? [0, 1];
  const size = high - low;
  if (event.key === "Delete" || event.key === "Backspace") brushes.delete(name);
  else if (event.key === "ArrowUp") size > 0.5 ? brushes.set(name, [0.5, 1]) : brushes.set(name, [Math.min(1 - size, low + 0.1), Math.min(1, high + 0.1)]);
  else if (event.key === "ArrowDown") size > 0.5 ? brushes.set(name, [0, 0.5]) : brushes.set(name, [Math.max(0, low - 0.1), Math.max(size, high - 0.1)]);
  else return;
  event.preventDefault();
  keep();
  place.querySelector(`[data-axis="${CSS.escape(name)}"]`)?.focus();
});
addEventListener("resize", draw);
draw();
