// Tables that sort by their heads and, where a head asks for it, filter: without this script they are read as they are.
"use strict";

const rowsOf = (table) => [...table.tBodies[0].rows];
const key = (row, index) => {
  const cell = row.cells[index];
  const number = parseFloat(cell.dataset.sort);
  return Number.isNaN(number) ? cell.textContent.trim() : number;
};

// What is missing stays last in either direction; numbers come before words.
function compare(a, b, sign) {
  const missing = (value) => value === "" || value === "—";
  if (missing(a) || missing(b)) return missing(a) - missing(b);
  if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
  return sign * (typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true }));
}

function sortable(table) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, index) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    head.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      heads.forEach((other) => other.setAttribute("aria-sort", "none"));
      head.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
      const sorted = rowsOf(table).sort((a, b) => compare(key(a, index), key(b, index), sign));
      table.tBodies[0].append(...sorted);
    });
  });
}

function filterable(table) {
  const rows = rowsOf(table);
  const heads = [...table.tHead.rows[0].cells];
  const text = (row, index) => row.cells[index].textContent.trim();
  const tools = document.createElement("div");
  tools.className = "tools";
  const selects = heads.flatMap((head, index) => {
    const values = [...new Set(rows.map((row) => text(row, index)))].sort();
    if (!("filter" in head.dataset) || values.length < 2) return [];
    const select = document.createElement("select");
    const title = head.textContent.trim();
    select.setAttribute("aria-label", title);
    select.add(new Option(`any ${title}`, ""));
    values.forEach((value) => select.add(new Option(value, `=${value}`)));
    tools.append(select);
    return [{ select, index }];
  });
  if (!selects.length && rows.length < 5) return;

  const search = document.createElement("input");
  search.type = "search";
  search.placeholder = "search";
  search.setAttribute("aria-label", "search this table");
  const count = document.createElement("output");
  tools.append(search, count);
  const apply = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const content = row.textContent.toLowerCase();
      const fits = selects.every(({ select, index }) => !select.value || select.value === `=${text(row, index)}`);
      row.hidden = !fits || !words.every((word) => content.includes(word));
      shown += !row.hidden;
    }
    count.textContent = shown === rows.length ? `${rows.length} rows` : `${shown} of ${rows.length} rows`;
  };
  tools.addEventListener("input", apply);
  table.closest(".scroll").before(tools);
  apply();
}

for (const table of document.querySelectorAll("table:not([data-plain])")) {
  filterable(table); // first: it reads the heads' words
  sortable(table);
}
