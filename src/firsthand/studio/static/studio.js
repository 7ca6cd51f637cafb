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
function openDialog(id) {
  const dialog = document.getElementById(id);
  const address = $("input[name=address]", dialog);
  if (address) address.value = location.pathname + location.search;
  dialog.showModal();
}
function withTerm(filter, term) {
  const terms = filter.match(/(?:"[^"]*"?|[^\s"])+/g) ?? []; // whole terms: `model=a` is no part of `model=a-mini`
  const others = terms.filter((each) => each !== term && each !== `-${term}`);
  return (terms.includes(term) ? others : [...others, term]).join(" ");
}
document.addEventListener("click", (event) => {
  const opener = event.target.closest("[data-open]");
  if (opener) openDialog(opener.dataset.open);
  const facet = event.target.closest("[data-term]");
  const form = $("[data-filter]");
  if (facet && form) {
    const field = form.elements.filter;
    field.value = withTerm(field.value, facet.dataset.term);
    form.requestSubmit();
  }
});

// -- a form that is on its way is not sent again as it is: a double click on Run starts one run --
const SENT_MS = 10_000; // a request that was stopped can be made again
let sent = new WeakMap(); // form -> what was sent of it, and when
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (event.defaultPrevented || form.getAttribute("method")?.toLowerCase() !== "post") return;
  const words = JSON.stringify([...new FormData(form, event.submitter)]), last = sent.get(form);
  if (last?.words === words && event.timeStamp - last.at < SENT_MS) return event.preventDefault();
  sent.set(form, { words, at: event.timeStamp });
});
addEventListener("pageshow", () => (sent = new WeakMap())); // back on this page, it may be sent once more

// -- what is made of a filtered list has the filter of its table, which may be newer than the page --
const filterShown = () => $("[data-shown]")?.dataset.shown;
let followed = filterShown();
function follow() {
  const filter = filterShown();
  if (filter === undefined || filter === followed) return; // a table that came anew undoes no words in a form
  followed = filter;
  for (const each of $$("[data-follows]")) {
    if (each.tagName !== "A") each.value = filter;
    else {
      const address = new URL(each.href);
      filter ? address.searchParams.set("filter", filter) : address.searchParams.delete("filter");
      each.href = address;
    }
  }
}
document.addEventListener("htmx:after:swap", follow);

// -- marks for a comparison, kept for this tab: those of runs, and of each run those of its attempts --
const ofRun = location.pathname.match(/^\/runs\/([^/]+)/)?.[1];
const marksKey = ofRun ? `marks of ${ofRun}` : "marks of runs";
const marks = new Set(JSON.parse(sessionStorage.getItem(marksKey) ?? "[]"));
function tellMarks(text) {
  const say = $(".live");
  if (say) say.textContent = text;
}
function keepMarks() {
  sessionStorage.setItem(marksKey, JSON.stringify([...marks]));
  tellMarks(marks.size ? `${marks.size} marked` : "");
  $("[data-compare]").hidden = !marks.size;
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
keepMarks();
$("[data-compare]").addEventListener("click", () => compare());

// -- columns: what is hidden is in the address, and is remembered for pages that do not say it --
function hiddenColumns(table) {
  const said = new URLSearchParams(location.search).get("hide");
  return new Set((said ?? localStorage.getItem(`hide-${table.dataset.columns}`) ?? "").split(",").filter(Boolean));
}
function showColumns() {
  for (const table of $$("table[data-columns]")) {
    const hidden = hiddenColumns(table), heads = $$("thead th", table);
    heads.forEach((head, place) => table.classList.toggle(`hide-${place + 1}`, hidden.has(head.dataset.column)));
    const list = $(`[data-chooser="${table.dataset.columns}"]`);
    if (list && !list.childElementCount) {
      for (const head of heads.filter((each) => each.dataset.column && each.tagName === "TH").slice(1)) {
        const label = document.createElement("label"), box = document.createElement("input");
        box.type = "checkbox";
        box.name = head.dataset.column;
        label.append(box, ` ${head.dataset.column}`);
        list.append(label);
      }
    }
    for (const box of $$("input", list ?? document.createElement("i"))) box.checked = !hidden.has(box.name);
  }
}
document.addEventListener("change", (event) => {
  const list = event.target.closest("[data-chooser]");
  if (!list) return;
  const hidden = $$("input", list).filter((box) => !box.checked).map((box) => box.name).join(",");
  localStorage.setItem(`hide-${list.dataset.chooser}`, hidden);
  const address = new URL(location.href);
  hidden ? address.searchParams.set("hide", hidden) : address.searchParams.delete("hide");
  history.replaceState(history.state, "", address);
  showColumns();
});
document.addEventListener("htmx:after:swap", showColumns);
showColumns();

// -- what is larger than its place is scrolled by key too --
function reachable() {
  for (const each of $$(".scroll, pre")) {
    const isLarger = each.scrollWidth > each.clientWidth || each.scrollHeight > each.clientHeight;
    isLarger ? (each.tabIndex = 0) : each.removeAttribute("tabindex");
  }
}
document.addEventListener("htmx:after:swap", reachable);
addEventListener("resize", reachable);
reachable();

// -- long tables: rows in groups of a hundred, and those far from view are out of the page until they are near it --
const GROUP = 100, NEAR = "1500px 0px";
const away = new WeakMap(); // a group -> its rows
const near = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) isIntersecting ? bringBack(target) : takeAway(target);
}, { rootMargin: NEAR });
function takeAway(group) {
  if (away.has(group) || !group.isConnected || group.contains(document.activeElement)) return;
  const height = group.getBoundingClientRect().height;
  if (!height) return;
  const spacer = document.createElement("tr"), cell = document.createElement("td");
  cell.colSpan = group.rows[0].cells.length;
  cell.style.cssText = `height:${height}px;padding:0`;
  spacer.append(cell);
  spacer.setAttribute("aria-hidden", "true");
  away.set(group, [...group.children]);
  group.replaceChildren(spacer);
}
function bringBack(group) {
  if (!away.has(group)) return;
  group.replaceChildren(...away.get(group));
  away.delete(group);
  showMarks();
}
function fixWidths(table) {
  const widths = [...table.tHead?.rows[0]?.cells ?? []].map((head) => head.getBoundingClientRect().width);
  table.style.width = `${table.getBoundingClientRect().width}px`;
  widths.forEach((width, place) => (table.tHead.rows[0].cells[place].style.width = `${width}px`));
  table.style.tableLayout = "fixed"; // widths of rows that are away count too
}
function groupRows() {
  for (const table of $$("table.list")) {
    for (const body of [...table.tBodies]) {
      while (body.rows.length > 2 * GROUP) {
        if (table.style.tableLayout !== "fixed") fixWidths(table);
        const group = document.createElement("tbody");
        group.append(...[...body.rows].slice(0, GROUP));
        body.before(group);
        near.observe(group);
      }
    }
  }
}
document.addEventListener("htmx:after:swap", groupRows);
addEventListener("resize", () => {
  for (const table of $$("table.list")) {
    if (table.style.tableLayout !== "fixed") continue;
    for (const each of [table, ...table.tHead?.rows[0]?.cells ?? []]) each.style.width = "";
    table.style.tableLayout = "";
  }
});
groupRows();

// -- rows --
let here = null;
const rows = () => $$("tr[data-row]");
function go(step) {
  const all = rows();
  if (!all.length) return;
  const isThere = here?.isConnected;
  const at = isThere ? all.indexOf(here) + step : scrollY < 200 ? 0 : all.findIndex((row) => row.getBoundingClientRect().top >= 0);
  here?.classList.remove("here");
  here = all[Math.min(Math.max(at, 0), all.length - 1)];
  here.classList.add("here");
  here.scrollIntoView({ block: "nearest" });
}
function stayHere() {
  if (!here || here.isConnected) return; // the table came anew: the same row is found by its link
  const link = $("a", here)?.getAttribute("href");
  here = rows().find((row) => link && $("a", row)?.getAttribute("href") === link) ?? null;
  here?.classList.add("here");
}
document.addEventListener("htmx:after:swap", stayHere);
function compare() {
  const chosen = [...marks];
  if (!chosen.length) return;
  if (ofRun && chosen.length !== 2) return tellMarks(`${chosen.length} marked: two attempts are compared`);
  const run = ofRun && decodeURIComponent(ofRun);
  location.href = ofRun
    ? `/compare/attempts?${new URLSearchParams({ run_a: run, a: chosen[0], run_b: run, b: chosen[1] })}`
    : `/compare?${new URLSearchParams(chosen.map((each) => ["run", each]))}`;
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
  if (event.repeat && !"jknp".includes(event.key)) return; // one press acts once, such as rates one attempt
  const chord = before + event.key;
  before = event.key === "g" ? "g" : "";
  const acts = {
    "?": () => openDialog("keys"),
    v: () => openDialog("save-view"),
    "/": () => $("[data-filter] input[type=search], #tree-search")?.focus(),
    j: () => go(1),
    k: () => go(-1),
    Enter: () => here?.isConnected && !event.target.closest("a,button") && $("a", here)?.click(),
    x: () => here?.isConnected && $("input[type=checkbox]", here)?.click(),
    c: compare,
    n: () => $("[data-key=n]")?.click(),
    p: () => $("[data-key=p]")?.click(),
  };
  if (chord === "gr") return void (location.href = "/");
  const pressed = $(`[data-press="${CSS.escape(event.key)}"]`);
  if (pressed) return void (event.preventDefault(), pressed.click());
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
const waiting = new Set(), late = new Set(); // late: topics whose change waits for a reader to be done
const isRead = (shown) => $("[data-mark] input:checked, details[open]:is(.under-way, .columns) :focus", shown) || (!shown.dataset.livePath && scrollY >= 600);
function refresh(topic) {
  dispatchEvent(new CustomEvent("firsthand:changed", { detail: topic }));
  for (const shown of $$(`[data-live="${CSS.escape(topic)}"]`)) {
    const path = shown.dataset.livePath ?? location.pathname + location.search;
    if (waiting.has(path)) continue; // several changes in a moment are one request
    waiting.add(path);
    setTimeout(() => {
      waiting.delete(path);
      if ("liveReload" in shown.dataset) location.reload();
      else if (isRead(shown)) late.add(topic);
      else htmx.ajax("GET", path, { source: shown, target: shown, swap: "innerHTML" }); // of one source all but two at once are dropped
    }, 300);
  }
}
function catchUp() {
  const all = [...late];
  late.clear();
  all.forEach(refresh);
}
for (const name of ["change", "focusout", "scrollend"]) document.addEventListener(name, () => late.size && catchUp());
function listen() {
  if (stream || !topics.length) return;
  stream = new EventSource(`/events?${new URLSearchParams([...topics.map((topic) => ["topic", topic]), ["seen", document.body.dataset.seen ?? ""]])}`);
  document.body.dataset.seen = ""; // later streams begin after what this one has told
  let wasLost = false;
  stream.onerror = () => (wasLost = true);
  stream.onopen = () => {
    if (wasLost) topics.forEach(refresh); // nobody told what changed in between
    wasLost = false;
  };
  stream.addEventListener("changed", (event) => refresh(JSON.parse(event.data).topic));
}
function leave() {
  stream?.close();
  stream = null;
}
function comeBack() {
  listen();
  topics.forEach(refresh);
}
document.addEventListener("visibilitychange", () => (document.hidden ? leave() : comeBack()));
addEventListener("pagehide", leave);
addEventListener("pageshow", (event) => event.persisted && comeBack());
if (!document.hidden) listen();
