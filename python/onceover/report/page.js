"use strict";
// All of it is comfort: without script the page shows and filters everything.

// Which filter is on, for screen readers; the look follows :target.
function markFilter() {
  const wanted = location.hash || "#all";
  for (const link of document.querySelectorAll(".filters a")) {
    if (link.getAttribute("href") === wanted) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }
}
addEventListener("hashchange", markFilter);
markFilter();

// Search by name or kind of defect.
const search = document.getElementById("search");
search.parentElement.hidden = false;
search.addEventListener("input", () => {
  const wanted = search.value.trim().toLowerCase();
  for (const card of document.querySelectorAll(".card")) {
    const text = [...card.querySelectorAll(".name, .defect")].map((part) => part.textContent).join(" ");
    card.classList.toggle("absent", !text.toLowerCase().includes(wanted));
  }
});

// Tables sort by a click on a column's name; what is no number sorts last.
for (const table of document.querySelectorAll(".sortable")) {
  const body = table.tBodies[0];
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const isNumber = head.classList.contains("n");
      const upward = head.getAttribute("aria-sort") === "descending" || (!isNumber && !head.hasAttribute("aria-sort"));
      const value = (row) => row.cells[column].textContent.trim();
      const compare = (a, b) => {
        if (!isNumber) return value(a).localeCompare(value(b)) * (upward ? 1 : -1);
        const [x, y] = [Number(value(a)), Number(value(b))];
        if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);
        return (x - y) * (upward ? 1 : -1);
      };
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", upward ? "ascending" : "descending");
      body.append(...[...body.rows].sort(compare));
    });
  });
}

// A click on a large card's pictures enlarges them.
const viewer = document.getElementById("viewer");
for (const button of document.querySelectorAll("button.pictures")) {
  button.addEventListener("click", () => {
    viewer.querySelector(".pictures").replaceChildren(...[...button.children].map((image) => image.cloneNode()));
    viewer.querySelector(".name").textContent = button.parentElement.querySelector(".name").textContent;
    viewer.showModal();
  });
}
viewer.addEventListener("click", (event) => { if (event.target === viewer) viewer.close(); });
