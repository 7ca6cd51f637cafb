// Curves of one or several runs: a plot for each metric, with a shared cursor; settings are kept in the address.
const place = document.getElementById("plots");
const form = document.getElementById("plot-settings");
const names = JSON.parse(place.dataset.names);
const facts = JSON.parse(place.dataset.facts);
const runs = JSON.parse(place.dataset.runs);
const COLOURS = ["#0b74c4", "#c4452d", "#118a5f", "#a05ec0", "#b07d12", "#4b7f8c", "#c2417f", "#6b7a1e", "#7a6cf0", "#8d5a3b"];
const cursor = uPlot.sync("curves");
let data = [];
let plots = [];

const query = new URLSearchParams(location.search);
for (const field of form.elements) {
  const kept = query.get(field.name);
  if (kept === null) continue;
  if (field.type === "checkbox") field.checked = kept === "1";
  else field.value = kept;
}

function settings() {
  const f = form.elements;
  return { group: f.group?.value ?? "", metric: f.metric.value, smooth: Number(f.smooth.value), logx: f.logx.checked, logy: f.logy.checked, x: f.x.value, clip: f.clip.checked };
}

function keep() {
  const next = new URLSearchParams(runs.map((run) => ["run", run]));
  for (const [name, value] of Object.entries(settings())) {
    if (value && value !== "step") next.set(name, value === true ? "1" : value);
  }
  history.replaceState(history.state, "", `?${next}`);
}

function smoothed(values, weight) {
  if (!weight) return values;
  let last = null, seen = 0; // an exponential mean whose beginning is corrected for its bias
  return values.map((value) => {
    if (value === null) return null;
    last = (last ?? 0) * weight + (1 - weight) * value;
    seen += 1;
    return last / (1 - weight ** seen);
  });
}

function series(curve, x) {
  if (x !== "time") return curve.steps;
  const start = Math.min(...data.filter((each) => each.run === curve.run).map((each) => each.at[0] ?? Infinity));
  return curve.at.map((at) => at - start);
}

function range(values) {
  const sorted = values.filter((value) => value !== null).sort((a, b) => a - b);
  if (!sorted.length) return null;
  const low = sorted[Math.floor(0.02 * (sorted.length - 1))], high = sorted[Math.ceil(0.98 * (sorted.length - 1))];
  const rest = (high - low || Math.abs(high) || 1) * 0.05;
  return [low - rest, high + rest];
}

// A group is the mean of its runs at each step, with a band from the lowest to the highest.
function addGroups(chosen, curves, tables, options, all, bands) {
  const groups = new Map();
  for (const curve of curves) {
    const word = facts[curve.run]?.[chosen.group] ?? "not set";
    if (!groups.has(word)) groups.set(word, []);
    groups.get(word).push(curve);
  }
  [...groups.keys()].sort().forEach((word, number) => {
    const found = new Map();
    for (const curve of groups.get(word)) {
      const values = smoothed(curve.means ?? curve.values, chosen.smooth);
      series(curve, chosen.x).forEach((x, index) => {
        const value = values[index];
        if (value === null || (chosen.logx && x <= 0) || (chosen.logy && value <= 0)) return;
        if (!found.has(x)) found.set(x, []);
        found.get(x).push(value);
      });
    }
    const x = [...found.keys()].sort((a, b) => a - b);
    const of = (take) => x.map((each) => take(found.get(each)));
    const mean = of((values) => values.reduce((sum, value) => sum + value, 0) / values.length);
    const colour = COLOURS[number % COLOURS.length], first = options.length;
    tables.push([x, of((values) => Math.max(...values))], [x, of((values) => Math.min(...values))], [x, mean]);
    all.push(...mean);
    options.push(
      { label: `${word} highest`, stroke: `${colour}50`, width: 1, spanGaps: true, points: { show: false } },
      { label: `${word} lowest`, stroke: `${colour}50`, width: 1, spanGaps: true, points: { show: false } },
      { label: `${chosen.group} ${word}, mean of ${groups.get(word).length}`, stroke: colour, width: 2, spanGaps: true, points: { show: x.length < 40, size: 5 } },
    );
    bands.push({ series: [first, first + 1], fill: `${colour}22` });
  });
}

function draw() {
  const chosen = settings();
  let matches;
  try {
    matches = new RegExp(chosen.metric || ".", "i");
  } catch {
    matches = { test: (name) => name.includes(chosen.metric) };
  }
  for (const plot of plots) plot.destroy();
  plots = [];
  place.replaceChildren();
  const style = getComputedStyle(document.documentElement);
  const soft = style.getPropertyValue("--soft"), line = style.getPropertyValue("--line");
  for (const name of names.filter((each) => matches.test(each)).slice(0, 60)) {
    const curves = data.filter((curve) => curve.name === name);
    if (!curves.length) continue;
    const tables = [], options = [{ label: chosen.x === "time" ? "seconds" : "step" }], all = [], bands = [];
    if (chosen.group) addGroups(chosen, curves, tables, options, all, bands);
    for (const curve of chosen.group ? [] : curves) {
      const logged = (chosen.smooth && curve.means) || curve.values; // the extremes of a column would smooth to their middle
      const values = chosen.logy ? logged.map((value) => (value > 0 ? value : null)) : logged;
      const xs = series(curve, chosen.x);
      const colour = COLOURS[runs.indexOf(curve.run) % COLOURS.length];
      const [x, y] = chosen.logx ? [xs.filter((each) => each > 0), values.filter((_, index) => xs[index] > 0)] : [xs, values];
      if (chosen.clip) all.push(...y);
      if (chosen.smooth) {
        tables.push([x, y]);
        options.push({ label: `${curve.run} as logged`, stroke: `${colour}40`, width: 1, spanGaps: true, points: { show: false } });
      }
      tables.push([x, smoothed(y, chosen.smooth)]);
      options.push({ label: curve.run, stroke: colour, width: 2, spanGaps: true, points: { show: x.length < 40, size: 5 } });
    }
    const card = document.createElement("section");
    card.className = "plot";
    const title = document.createElement("h2");
    title.textContent = name;
    card.append(title);
    place.append(card);
    const axis = { stroke: soft, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1 } };
    const bounds = chosen.clip ? range(all) : null;
    const plot = new uPlot(
      {
        width: card.clientWidth - 20, height: 240, cursor: { sync: { key: cursor.key }, drag: { x: true, y: false } },
        scales: { x: { time: false, distr: chosen.logx ? 3 : 1 }, y: { distr: chosen.logy ? 3 : 1, ...(bounds ? { range: bounds } : {}) } },
        axes: [axis, { ...axis, size: 60, values: (_, splits) => splits.map(exact) }], series: options, bands,
      },
      tables.length === 1 ? [tables[0][0], tables[0][1]] : uPlot.join(tables), card,
    );
    plots.push(plot);
  }
}

// uPlot's own labels end after three decimals, so that those of 0.0291 and 0.0293 are the same.
function exact(value) {
  return value === null ? "" : Number(value.toPrecision(8)).toLocaleString(undefined, { maximumFractionDigits: 12 });
}

// Means and times are asked for when they are drawn; the page's head asks for what its address says, in the same words.
function parts() {
  const chosen = settings();
  return [...(chosen.smooth || chosen.group ? ["means"] : []), ...(chosen.x === "time" ? ["at"] : [])];
}

let loaded = null; // the parts of the numbers that are here, null while none are or others are on their way
let question = 0;

async function load() {
  const asked = parts(), mine = ++question;
  loaded = null;
  const answer = await fetch(place.dataset.source + asked.map((each) => `&with=${each}`).join(""));
  const text = await answer.text();
  if (mine !== question) return; // another was asked since
  if (!answer.ok) {
    place.textContent = text;
    return;
  }
  data = JSON.parse(text).curves;
  loaded = asked;
  update();
}

function update() {
  if (loaded && parts().every((each) => loaded.includes(each))) draw();
  else if (loaded || !question) load();
}

form.addEventListener("submit", (event) => event.preventDefault());
for (const kind of ["input", "change"]) {
  form.addEventListener(kind, (event) => {
    if ((event.target.tagName === "SELECT") === (kind === "change")) { keep(); update(); } // a choice is one change
  });
}
addEventListener("resize", () => plots.forEach((plot) => plot.setSize({ width: plot.root.parentElement.clientWidth - 20, height: 240 })));
let soon = null;
addEventListener("firsthand:changed", () => { soon ??= setTimeout(() => { soon = null; load(); }, 1000); });
update();
