/** Figures of text: table, code, readout. */

const NUMERIC_CELL = /^([\s−+\-–±.,\d%()[\]eE/×x~<>≤≥∞…kM]|to)*$/;
/** Characters in a row above which a table takes the whole width. */
const NARROW_ROW = 56;

/** Whether a column's cells are numbers, which stand to the right. */
function isNumericColumn(rows, column) {
  const cells = rows.map((row) => row[column] ?? "").filter((cell) => cell !== "");
  return cells.length > 0 && cells.every((cell) => NUMERIC_CELL.test(cell) && /\d|–/.test(cell));
}

registerFigure(
  "table",
  (element, figure, page) => {
    const side = figure.columns.map((_, i) => (i > 0 && isNumericColumn(figure.rows, i) ? "is-number" : null));
    const head = make("tr", {}, ...figure.columns.map((name, i) => make("th", { scope: "col", class: side[i] }, name)));
    const rows = figure.rows.map((row) => {
      const cells = row.map((cell, i) =>
        i === 0 ? make("th", { scope: "row" }, cell) : make("td", { class: side[i] }, cell),
      );
      return make("tr", {}, ...cells);
    });
    const table = make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows));
    const scroller = make("div", { class: "scroller", role: "region", "aria-label": figure.title || "table" }, table);
    element.append(scroller);
    // Only what can be scrolled shows that, and is reached by the tabulator.
    page.onResize(scroller, () => {
      const isCut = scroller.scrollWidth > scroller.clientWidth;
      scroller.classList.toggle("is-cut", isCut);
      if (isCut) scroller.tabIndex = 0;
      else scroller.removeAttribute("tabindex");
    });
  },
  {
    isWide: (figure) => {
      const longest = figure.columns.map((name, i) => Math.max(name.length, ...figure.rows.map((row) => row[i]?.length ?? 0)));
      return longest.reduce((sum, length) => sum + length + 2, 0) > NARROW_ROW;
    },
  },
);

/** Copies a text; where the browser does not allow that, selects it. */
async function copyText(source, button) {
  try {
    await navigator.clipboard.writeText(source.textContent);
    button.textContent = "copied";
  } catch {
    getSelection().selectAllChildren(source);
    button.textContent = "selected";
  }
  setTimeout(() => (button.textContent = "copy"), 1500);
}

registerFigure(
  "code",
  (element, figure) => {
    const code = make("code", {}, figure.text);
    const button = make("button", { type: "button", class: "copy", click: () => copyText(code, button) }, "copy");
    const label = figure.title || "text";
    const block = make("div", { class: "code" }, make("pre", { tabindex: "0", "aria-label": label }, code), button);
    if (!figure.is_folded) return void element.append(block);
    const numLines = figure.text.trimEnd().split("\n").length;
    const summary = make("summary", {}, `Show ${numLines} ${numLines === 1 ? "line" : "lines"}`);
    element.append(make("details", {}, summary, block));
  },
  { isWide: () => true },
);

registerFigure(
  "readout",
  (element, figure, page) => {
    const values = figure.names.map(() => make("dd", {}));
    const pairs = figure.names.map((name, i) => make("div", {}, make("dt", {}, name), values[i]));
    element.append(make("dl", { class: "readout" }, ...pairs));
    return () => {
      values.forEach((value, i) => {
        const texts = figure.values[i];
        value.textContent = texts.length ? texts[page.placeIn(texts.length)] : "–";
      });
    };
  },
  { numPlaces: (figure) => figure.values[0]?.length ?? 0 },
);
