"use strict";
/* Sorts, filters and searches the table of samples. Without it all rows are there and open all the same. */
(() => {
  const box = document.querySelector(".rows");
  const controls = document.querySelector(".controls");
  if (!box || !controls) return;
  const rows = [...box.querySelectorAll("details.row")];
  const heads = [...box.querySelectorAll("button[data-key]")];
  const search = controls.querySelector("input");
  const selects = [...controls.querySelectorAll("select")];
  const count = controls.querySelector("output");
  const order = new Map(rows.map((row, index) => [row, index]));
  const text = new Map();
  const textOf = (row) => {
    if (!text.has(row)) text.set(row, row.textContent.toLowerCase());
    return text.get(row);
  };
  const filter = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const fits = selects.every((select) => !select.value || row.dataset[select.name] === select.value);
      row.hidden = !(fits && words.every((word) => textOf(row).includes(word)));
      shown += !row.hidden;
    }
    count.textContent = shown + " of " + rows.length;
  };
  const sort = (head) => {
    const key = head.dataset.key;
    const next = { none: "ascending", ascending: "descending", descending: "none" }[head.getAttribute("aria-sort") || "none"];
    for (const each of heads) each.setAttribute("aria-sort", each === head ? next : "none");
    const sign = next === "descending" ? -1 : 1;
    const compare = (a, b) => {
      if (next === "none") return order.get(a) - order.get(b);
      const [x, y] = [a.dataset[key], b.dataset[key]];
      const both = head.dataset.type === "number" ? Number(x) - Number(y) : x.localeCompare(y, undefined, { numeric: true });
      return sign * both || order.get(a) - order.get(b);
    };
    box.append(...[...rows].sort(compare));
  };
  search.addEventListener("input", filter);
  for (const select of selects) select.addEventListener("change", filter);
  for (const head of heads) head.addEventListener("click", () => sort(head));
  controls.hidden = false;
  filter();
})();
