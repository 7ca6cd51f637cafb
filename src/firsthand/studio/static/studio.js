// Keys, live changes, marks of rows and the theme; what a page shows comes from the server.
const $ = (what, within = document) => within.querySelector(what);
const $$ = (what, within = document) => [...within.querySelectorAll(what)];

// -- theme --
const theme = localStorage.getItem("theme");
if (theme === "dark" || theme === "light") document.documentElement.dataset.theme = theme;
$("[data-theme]:not(html)")?.addEventListener("click", () => {
  const dark = document.documentElement.dataset.theme
    ? document.documentElement.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = dark ? "light" : "dark";
  localStorage.setItem("theme", document.documentElement.dataset.theme);
});

// -- dialogs, facets --
document.addEventListener("click", (event) => {
  const opener = event.target.closest("[data-open]");
  if (opener) document.getElementById(opener.dataset.open)?.showModal();
  const facet = event.target.closest("[data-term]");
  const form = $("[data-filter]");
  if (facet && form) {
    const field = form.elements.filter, term = facet.dataset.term;
    const terms = field.value.trim();
    field.value = terms.includes(term) ? terms.replace(term, "").replace(/\s+/g, " ").trim() : `${terms} ${term}`.trim();
    form.requestSubmit();
  }
});

// -- marks for a comparison, kept for this tab --
const marks = new Set(JSON.parse(sessionStorage.getItem("marks") ?? "[]"));
function keepMarks() {
  sessionStorage.setItem("marks", JSON.stringify([...marks]));
  const say = $(".live");
  if (say) say.textContent = marks.size ? `${marks.size} marked: c compares` : "";
}
function showMarks() {
  for (const row of $$("[data-mark]")) {
    const box = $("input[type=checkbox]", row);
    if (box) box.checked = marks.has(row.dataset.mark);
  }
}
document.addEventListener("change", (event) => {
  const row = event.target.closest("[data-mark]");
  if (!row || event.target.type !== "checkbox") return;
  event.target.checked ? marks.add(row.dataset.mark) : marks.delete(row.dataset.mark);
  keepMarks();
});
document.addEventListener("htmx:after:swap", showMarks);
showMarks();

// -- rows --
let here = -1;
const rows = () => $$("tr[data-row]");
function go(step) {
  const all = rows();
  if (!all.length) return;
  all[here]?.classList.remove("here");
  here = Math.min(Math.max(here + step, 0), all.length - 1);
  all[here].classList.add("here");
  all[here].scrollIntoView({ block: "nearest" });
}
function compare() {
  const run = location.pathname.match(/^\/runs\/([^/]+)$/)?.[1];
  const chosen = [...marks];
  if (run && chosen.length === 2) {
    const query = new URLSearchParams({ run_a: decodeURIComponent(run), a: chosen[0], run_b: decodeURIComponent(run), b: chosen[1] });
    location.href = `/compare/attempts?${query}`;
  } else if (!run && chosen.length) {
    location.href = `/compare?${new URLSearchParams(chosen.map((each) => ["run", each]))}`;
  }
  marks.clear();
  keepMarks();
}

// -- keys --
let before = "";
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.closest("input:not([type=checkbox]):not([type=range]), textarea, select");
  if (event.key === "Escape" && typing) return typing.blur();
  if (typing || $("dialog[open]")) return;
  const chord = before + event.key;
  before = event.key === "g" ? "g" : "";
  const acts = {
    "?": () => $("#keys").showModal(),
    "/": () => $("[data-filter] input[type=search], #tree-search")?.focus(),
    j: () => go(1),
    k: () => go(-1),
    Enter: () => here >= 0 && !event.target.closest("a,button") && $("a", rows()[here])?.click(),
    x: () => here >= 0 && $("input[type=checkbox]", rows()[here])?.click(),
    c: compare,
    n: () => $("[data-key=n]")?.click(),
    p: () => $("[data-key=p]")?.click(),
  };
  if (chord === "gr") return void (location.href = "/");
  if (document.getElementById("tree") && "jk".includes(event.key)) return;
  const act = acts[event.key];
  if (act) {
    event.preventDefault();
    act();
  }
});

// -- live: one stream for the tab, closed while it is hidden --
const topics = (document.body.dataset.topics ?? "").trim().split(/\s+/).filter(Boolean);
let stream = null;
const waiting = new Set();
function refresh(topic) {
  dispatchEvent(new CustomEvent("firsthand:changed", { detail: topic }));
  for (const shown of $$(`[data-live="${CSS.escape(topic)}"]`)) {
    const path = shown.dataset.livePath ?? location.pathname + location.search;
    if (waiting.has(path) || $$("input:checked, details.under-way[open] :focus", shown).length) continue;
    waiting.add(path); // several changes in a moment are one request
    setTimeout(() => {
      waiting.delete(path);
      if (shown.dataset.livePath || scrollY < 600) htmx.ajax("GET", path, { target: shown, swap: "innerHTML" });
    }, 300);
  }
}
function listen() {
  if (stream || !topics.length) return;
  stream = new EventSource(`/events?${new URLSearchParams(topics.map((topic) => ["topic", topic]))}`);
  stream.addEventListener("changed", (event) => refresh(JSON.parse(event.data).topic));
}
document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    stream?.close();
    stream = null;
  } else {
    listen();
    topics.forEach(refresh);
  }
});
addEventListener("pagehide", () => stream?.close());
if (!document.hidden) listen();
