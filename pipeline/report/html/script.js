(() => {
  "use strict";
  document.documentElement.classList.add("js");

  // A click on the head of a column sorts the table by it.
  for (const table of document.querySelectorAll("table.sort")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      const key = (row) => row.cells[column].dataset.v ?? row.cells[column].textContent;
      button.addEventListener("click", () => {
        const falls = head.getAttribute("aria-sort") !== "descending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", falls ? "descending" : "ascending");
        const rows = [...table.tBodies[0].rows].sort((a, b) => {
          const [x, y] = [key(a), key(b)];
          const order = x !== "" && y !== "" && !isNaN(x) && !isNaN(y) ? x - y : x.localeCompare(y);
          return falls ? -order : order;
        });
        table.tBodies[0].append(...rows);
      });
    });
  }

  // A text keeps the rows that hold it.
  for (const filter of document.querySelectorAll("input.filter")) {
    const rows = [...document.getElementById(filter.dataset.of).querySelectorAll("tbody tr")];
    filter.addEventListener("input", () => {
      const text = filter.value.toLowerCase();
      for (const row of rows) row.hidden = !row.textContent.toLowerCase().includes(text);
    });
  }

  // The marks of suspected label errors, as a file for `forebay prepare --fixes`.
  const save = document.getElementById("save-fixes");
  if (save) {
    const items = [...document.querySelectorAll("#fixes > li")];
    const said = document.getElementById("fixes-said");
    const quoted = (text) => (/[",\r\n]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text);
    const count = () => {
      const of = (action) => items.filter((item) => item.querySelector("select").value === action).length;
      said.textContent = `${of("relabel")} to relabel, ${of("drop")} to drop, ${of("keep")} to keep`;
    };
    items.forEach((item) => item.querySelector("select").addEventListener("change", count));
    count();
    save.addEventListener("click", () => {
      const lines = ["id,action,label,suggested,probability,margin"];
      for (const item of items) {
        const { id, label, p, margin } = item.dataset;
        const action = item.querySelector("select").value;
        lines.push([id, action, label, item.querySelector("input").value, p, margin].map(quoted).join(","));
      }
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([lines.join("\n") + "\n"], { type: "text/csv" }));
      link.download = "fixes.csv";
      link.click();
      URL.revokeObjectURL(link.href);
    });
  }
})();
