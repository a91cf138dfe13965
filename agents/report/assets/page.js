/** The page: title, table of contents, sections, the sample that is shown. */

/** Paragraphs, separated by an empty line in the text. */
function makeParagraphs(text) {
  const paragraphs = text.split(/\n\s*\n/).filter((paragraph) => paragraph.trim());
  return paragraphs.map((paragraph) => make("p", {}, ...proseOf(paragraph.trim())));
}

function makeHeader(report) {
  const change = () => setTheme(themeName() === "dark" ? "light" : "dark");
  const label = "Change between light and dark";
  const toggle = make("button", { type: "button", class: "theme", "aria-label": label, title: label, click: change }, "◐");
  const header = make("header", { class: "head" }, make("h1", {}, report.title), toggle);
  if (report.subtitle) header.append(make("p", { class: "subtitle" }, report.subtitle));
  if (report.notes.length) {
    const notes = report.notes.map((note) => make("li", {}, note));
    header.append(make("aside", { class: "notes", "aria-label": "What is missing" }, make("ul", {}, ...notes)));
  }
  return header;
}

/** The table of contents; the section that is read is marked. */
function makeContents(sections, elements) {
  const links = sections.map((section) => make("a", { href: `#${section.name}` }, section.title));
  const list = make("ol", {}, ...links.map((link) => make("li", {}, link)));
  const nav = make("nav", { class: "contents", "aria-label": "Contents" }, list);
  const shown = new Set();
  const observer = new IntersectionObserver(
    (entries) => {
      for (const { target, isIntersecting } of entries) {
        if (isIntersecting) shown.add(target);
        else shown.delete(target);
      }
      const current = elements.findIndex((element) => shown.has(element));
      links.forEach((link, i) => {
        if (i === current) link.setAttribute("aria-current", "true");
        else link.removeAttribute("aria-current");
      });
    },
    { rootMargin: "-15% 0px -60% 0px" },
  );
  elements.forEach((element) => observer.observe(element));
  return nav;
}

/** Where the figures of the chosen sample stand, with its name. */
class SampleStage {
  /** @param {FigureSet} figures @param {Clock} clock */
  constructor(figures, clock) {
    this.figures = figures;
    this.clock = clock;
    this.mounted = [];
    this.heading = make("p", { class: "sample-name", "aria-live": "polite" });
    this.grid = make("div", { class: "grid" });
    this.element = make("div", { class: "sample" }, this.heading, this.grid);
  }

  /** Shows a sample where it begins to be seen; the next answer at the same place as the one before. */
  show(sample, isFirst) {
    // The page keeps its height meanwhile, so that nothing jumps.
    this.grid.style.minHeight = `${this.grid.offsetHeight}px`;
    this.figures.unmount(this.mounted);
    const isPolicy = sample.steps.length > 0;
    const place = isFirst || isPolicy ? sample.first_place : this.clock.place;
    this.clock.setTime(sample.num_places, sample.steps, place);
    const verdict = sample.verdict && make("span", { class: `verdict is-${sample.verdict}` }, `${VERDICT_SIGNS[sample.verdict]}${sample.verdict}`);
    this.heading.replaceChildren(sample.name, ...(verdict ? [" ", verdict] : []));
    this.mounted = this.figures.mount(this.grid, sample.figures);
    setTimeout(() => (this.grid.style.minHeight = ""), 400);
  }
}

/** Builds the whole page. @param {object} report the document's JSON. */
function startPage(report) {
  startTheme();
  const clock = new Clock();
  const figures = new FigureSet(clock);
  const loose = report.sections.flatMap((section) => section.figures);
  const samples = report.sections.flatMap((section) => section.samples);
  const stage = new SampleStage(figures, clock);
  const chooser = samples.length ? new SampleChooser(samples, (sample, isFirst) => stage.show(sample, isFirst)) : null;

  const elements = report.sections.map((section) => {
    const heading = make("h2", {}, make("a", { href: `#${section.name}` }, section.title));
    const text = make("div", { class: "text" }, heading, ...makeParagraphs(section.text));
    const grid = make("div", { class: "grid" });
    const element = make("section", { id: section.name, "aria-label": section.title }, text, grid);
    figures.mount(grid, section.figures);
    if (section.samples.length) element.append(stage.element);
    return element;
  });
  const main = make("main", {}, ...elements);
  const body = make("div", { class: "body" }, makeHeader(report), makeContents(report.sections, elements), main);
  document.body.append(body);
  if (chooser) chooser.choose(0);
  else clock.setTime(Math.max(1, ...loose.map(lengthOrNone)), [], Infinity);
  if (clock.numPlaces > 1) document.body.append(makeControls(clock, chooser, () => figures.isMovingShown()));
  if (location.hash) document.getElementById(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView();
  document.documentElement.dataset.state = "ready";
}

/** How long a figure's time is; none where it cannot be told, as drawing it will report. */
function lengthOrNone(figure) {
  try {
    return numPlacesOf(figure);
  } catch {
    return 0;
  }
}

startPage(JSON.parse(document.getElementById("report").textContent));
