// The tree of an attempt with its waterfall: all rows are known, those in view are drawn.
const ROW = 24;
const tree = document.getElementById("tree");
const detail = document.getElementById("span");
const search = document.getElementById("tree-search");
const kind = document.getElementById("tree-kind");
const count = document.getElementById("tree-count");
const room = document.createElement("div");
room.className = "room";
tree.append(room);

let columns = null;
let duration = 1;
let shown = []; // indices of the rows that are unfolded and fulfil the search, in order
let folded = new Set();
let hasChildren = [];
let holding = new Set(); // refs of the spans whose contents hold the words that are searched for

// -- the state of the view is in the address --
const MOST_FOLDED = 300;
const said = new URLSearchParams(location.search);
let chosen = Number(said.get("span") ?? -1);
search.value = said.get("find") ?? "";
kind.value = said.get("kind") ?? "";
if (kind.selectedIndex < 0) kind.value = "";

function keep() {
  const query = new URLSearchParams(location.search);
  const isAll = folded.size && folded.size === foldable().length;
  const folds = isAll ? "all" : folded.size <= MOST_FOLDED ? [...folded].join("-") : "";
  for (const [name, value] of [["span", chosen < 0 ? "" : chosen], ["find", search.value.trim()], ["kind", kind.value], ["fold", folds]]) {
    value === "" ? query.delete(name) : query.set(name, value);
  }
  const text = query.toString();
  history.replaceState(history.state, "", text ? `?${text}` : location.pathname);
}

function foldable() {
  return hasChildren.flatMap((has, row) => (has && row ? [row] : []));
}

function number(value) {
  return value >= 1e6 ? `${(value / 1e6).toFixed(1)}M` : value >= 1e3 ? `${(value / 1e3).toFixed(1)}k` : String(value);
}

function time(milliseconds) {
  return milliseconds < 1000 ? `${milliseconds.toFixed(0)} ms` : `${(milliseconds / 1000).toFixed(1)} s`;
}

function choose() {
  const { parent, label, ref, kind: kinds } = columns;
  const words = search.value.trim().toLowerCase(), wanted = kind.value;
  const size = parent.length;
  if (words || wanted) {
    const keep = new Uint8Array(size);
    let found = 0;
    for (let row = 0; row < size; row++) {
      if ((!wanted || kinds[row] === wanted) && (!words || label[row].toLowerCase().includes(words) || holding.has(ref[row]))) {
        found++;
        for (let up = row; up >= 0 && !keep[up]; up = parent[up]) keep[up] = 1;
      }
    }
    shown = [];
    for (let row = 0; row < size; row++) if (keep[row]) shown.push(row);
    count.textContent = `${found.toLocaleString("en")} of ${size.toLocaleString("en")} spans`;
  } else {
    const hidden = new Uint8Array(size);
    shown = [];
    for (let row = 0; row < size; row++) {
      const up = parent[row];
      hidden[row] = up >= 0 && (hidden[up] || folded.has(up)) ? 1 : 0;
      if (!hidden[row]) shown.push(row);
    }
    count.textContent = `${size.toLocaleString("en")} spans`;
  }
  room.style.height = `${shown.length * ROW}px`;
  draw();
}

function draw() {
  const first = Math.max(0, Math.floor(tree.scrollTop / ROW) - 10);
  const last = Math.min(shown.length, first + Math.ceil(tree.clientHeight / ROW) + 20);
  room.replaceChildren(...shown.slice(first, last).map((row, place) => drawn(row, first + place)));
}

function drawn(row, place) {
  const c = columns, element = document.createElement("div");
  element.className = `span ${c.kind[row]}${c.trouble[row] ? " trouble" : ""}`;
  element.style.top = `${place * ROW}px`;
  element.dataset.row = row;
  element.setAttribute("role", "treeitem");
  element.setAttribute("aria-level", c.depth[row] + 1);
  element.setAttribute("aria-setsize", shown.length);
  element.setAttribute("aria-posinset", place + 1);
  element.setAttribute("aria-selected", row === chosen);
  if (hasChildren[row]) element.setAttribute("aria-expanded", !folded.has(row));
  const what = document.createElement("span");
  what.className = "what";
  what.title = c.label[row]; // a long one is cut where it is drawn
  what.style.paddingLeft = `${c.depth[row] * 16}px`;
  const fold = document.createElement("span");
  fold.className = "fold";
  fold.textContent = hasChildren[row] ? (folded.has(row) ? "▸" : "▾") : "";
  what.append(fold, c.kind[row] === c.label[row] ? c.kind[row] : `${c.kind[row]} ${c.label[row]}`);
  const nums = document.createElement("span");
  nums.className = "nums";
  const tokens = c.prompt[row] + c.answer[row];
  nums.textContent = `${tokens ? `${number(tokens)} tok ` : ""}${c.duration[row] ? time(c.duration[row]) : ""}`;
  const bar = document.createElement("span");
  bar.className = "time";
  const part = document.createElement("i");
  part.style.left = `${Math.min(99.5, (100 * c.start[row]) / duration)}%`;
  part.style.width = `${Math.min(100, (100 * c.duration[row]) / duration)}%`;
  bar.append(part);
  element.append(what, nums, bar);
  return element;
}

// Names are searched here, and contents by the server, which holds them.
let waiting = null;
function find() {
  clearTimeout(waiting);
  const words = search.value.trim();
  holding = new Set();
  choose();
  if (words) waiting = setTimeout(async () => {
    const answer = await fetch(`${tree.dataset.found}?${new URLSearchParams({ words })}`);
    if (!answer.ok || search.value.trim() !== words) return;
    holding = new Set(await answer.json());
    choose();
  }, 200);
}

async function open(row, isNew = true) {
  chosen = row;
  draw();
  const ref = columns.ref[row];
  if (isNew) keep();
  if (!ref) {
    detail.textContent = "";
    return;
  }
  const answer = await fetch(`${tree.dataset.span}?${new URLSearchParams({ ref })}`);
  const text = await answer.text();
  if (chosen === row) detail.innerHTML = text; // escaped by the server, and the page's policy runs no script in it
}

function move(step) {
  const place = shown.indexOf(chosen);
  const next = Math.min(Math.max(place + step, 0), shown.length - 1);
  const top = next * ROW;
  if (top < tree.scrollTop) tree.scrollTop = top;
  if (top + ROW > tree.scrollTop + tree.clientHeight) tree.scrollTop = top + ROW - tree.clientHeight;
  open(shown[next]);
}

function fold(row, folds) {
  if (!hasChildren[row]) return;
  folds ? folded.add(row) : folded.delete(row);
  choose();
  keep();
}

tree.addEventListener("scroll", () => requestAnimationFrame(draw), { passive: true });
addEventListener("resize", draw);
search.addEventListener("input", () => { if (columns) find(); keep(); });
kind.addEventListener("change", () => { if (columns) choose(); keep(); });
tree.addEventListener("click", (event) => {
  const element = event.target.closest(".span");
  if (!element) return;
  const row = Number(element.dataset.row);
  event.target.closest(".fold") && hasChildren[row] ? fold(row, !folded.has(row)) : open(row);
});
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea") || !columns) return;
  const acts = {
    j: () => move(1), ArrowDown: () => move(1), k: () => move(-1), ArrowUp: () => move(-1),
    ArrowLeft: () => fold(chosen, true), ArrowRight: () => fold(chosen, false),
    "[": () => { folded = new Set(foldable()); choose(); keep(); },
    "]": () => { folded = new Set(); choose(); keep(); },
  };
  if (acts[event.key]) {
    event.preventDefault();
    acts[event.key]();
  }
});

function take(body) {
  columns = body.columns;
  duration = Math.max(body.duration, columns.start.reduce((most, start, row) => Math.max(most, start + columns.duration[row]), 1));
  hasChildren = new Array(columns.parent.length).fill(false);
  for (const up of columns.parent) if (up >= 0) hasChildren[up] = true;
  const folds = new URLSearchParams(location.search).get("fold");
  folded = new Set(folds === "all" ? foldable() : (folds ?? "").split("-").filter(Boolean).map(Number).filter((row) => hasChildren[row]));
  choose();
}

// The first rows come with the page, and are drawn while the others are on their way.
const first = tree.dataset.first ? JSON.parse(tree.dataset.first) : null;
if (first) {
  take(first);
  if (first.total > first.columns.parent.length) {
    room.style.height = `${first.total * ROW}px`;
    count.textContent = `${first.total.toLocaleString("en")} spans`;
  }
}
if (!first || first.total > first.columns.parent.length) {
  const answer = await fetch(tree.dataset.spans);
  if (answer.ok) take(await answer.json());
  else detail.textContent = await answer.text();
}
if (columns && search.value) find();
if (columns && chosen >= 0 && chosen < columns.parent.length) open(chosen, false);
