/**
 * How figures get onto the page.
 *
 * A kind of figure is drawn by a function that is registered under its name:
 *
 *     registerFigure("bars", (element, figure, page) => {
 *       // Puts what it draws into `element`, once, when the reader comes near.
 *       return (place, at) => { ... };   // optional: the slider was moved, or has its first place
 *     });
 *
 * `figure` is the figure's JSON, `place` where the slider is in the time (from 0), and `at` the same in full, see
 * `At` in clock.js. An update is called at most once a frame and only while the figure is on the screen. What raises,
 * here or later in an update, is replaced by a line that says so. A figure that takes keys of its own stops their
 * propagation, or the slider moves too. All files share one function scope: names at the top of a file are seen by all.
 *
 * `page` is what a figure is given:
 *
 *     page.decode(array)        an array of the JSON as {shape, data}, see arrays.js
 *     page.colours()            the colours of the present theme, see theme.js
 *     page.onTheme(callback)    the theme has changed: draw again
 *     page.onResize(element, callback)   called in a frame of its own when the element's size has changed
 *     page.onVisible(callback)  called with true or false as the figure comes onto the screen and leaves it
 *     page.onRemove(callback)   the figure is taken off the page: stop timers, free what is held
 *     page.guard(action)        runs what may raise outside of drawing and updates, such as when an image has loaded
 *     page.at()                 where the slider is
 *     page.placeIn(count)       the slider's place in an array whose time has `count` places
 *     page.isReduced()          whether less motion is asked for: start nothing that moves by itself
 *     page.label                the text that stands for a picture: title and caption
 *
 * `makeBoard` in elements.js makes a canvas that handles size, sharpness, theme and the tip beside the pointer.
 */

const figureKinds = new Map();

/**
 * Registers what draws a kind of figure.
 *
 * @param {string} kind
 * @param {(element: HTMLElement, figure: object, page: object) => ((place: number, at: At) => void)|void} draw
 * @param {{isWide?: (figure: object) => boolean, numPlaces?: (figure: object) => number}} traits whether it takes the
 *   whole width; how long its time is, 0 where it does not move.
 */
function registerFigure(kind, draw, traits = {}) {
  figureKinds.set(kind, { draw, isWide: traits.isWide ?? (() => false), numPlaces: traits.numPlaces ?? (() => 0) });
}

/** How long a figure's time is; 0: it does not move. */
function numPlacesOf(figure) {
  return figureKinds.get(figure.kind)?.numPlaces(figure) ?? 0;
}

/** Height of a row of the grid, in CSS pixels, as in page.css: a figure takes as many as it needs. */
const GRID_ROW = 4;
const GRID_GAP = 36;

/** Lets small figures stand one under the other beside a large one. */
function packFigure(element) {
  element.style.gridRowEnd = `span ${Math.ceil((element.offsetHeight + GRID_GAP) / GRID_ROW)}`;
}

/** A figure on the page. */
class MountedFigure {
  /** @param {object} figure its JSON. @param {Clock} clock */
  constructor(figure, clock) {
    this.figure = figure;
    this.clock = clock;
    this.update = null;
    this.drawnVersion = null;
    this.isDrawn = false;
    this.isVisible = false;
    this.removals = [];
    this.visibilityListeners = [];
    this.body = make("div", { class: "figure-body" });
    let isWide = false;
    try {
      isWide = figureKinds.get(figure.kind)?.isWide(figure) ?? false;
    } catch {
      // Drawing it reports what is wrong with it.
    }
    const parts = [this.body];
    if (figure.title) parts.unshift(make("h3", {}, figure.title));
    if (figure.caption) parts.push(make("figcaption", {}, ...proseOf(figure.caption)));
    this.element = make("figure", { class: `figure kind-${figure.kind}${isWide ? " is-wide" : ""}` }, ...parts);
    this.element.dataset.kind = figure.kind;
    this.element.dataset.state = "waiting";
  }

  /** What the drawing function is given. */
  page() {
    const { figure, clock } = this;
    return {
      decode: decodeArray,
      colours: themeColours,
      label: [figure.title, figure.caption].filter(Boolean).join(". "),
      at: () => clock.at(),
      guard: (action) => this.guard(action),
      placeIn: (count) => {
        const { place, numPlaces, tick } = clock.at();
        return Math.min(count === numPlaces ? place : tick - 1, count - 1);
      },
      isReduced: isMotionReduced,
      onTheme: (callback) => {
        const guarded = () => this.guard(callback);
        theme.listeners.add(guarded);
        this.removals.push(() => theme.listeners.delete(guarded));
      },
      onResize: (element, callback) => {
        const observer = new ResizeObserver(() => requestAnimationFrame(() => this.guard(callback)));
        observer.observe(element);
        this.removals.push(() => observer.disconnect());
      },
      onVisible: (callback) => {
        this.visibilityListeners.push(callback);
        if (this.isVisible) callback(true);
      },
      onRemove: (callback) => this.removals.push(callback),
    };
  }

  /** Runs what may raise; then a line says so in the figure's place, and the page goes on. */
  guard(action) {
    if (this.isRemoved) return;
    try {
      action();
    } catch (error) {
      console.error(`figure "${this.figure.title}" (${this.figure.kind}):`, error);
      this.remove();
      this.element.dataset.state = "failed";
      const reason = error instanceof Error ? error.message : String(error);
      this.body.replaceChildren(make("p", { class: "failure" }, `This figure could not be drawn: ${reason}.`));
    }
  }

  draw() {
    if (this.isDrawn) return;
    this.isDrawn = true;
    this.guard(() => {
      const kind = figureKinds.get(this.figure.kind);
      if (!kind) throw new Error(`nothing here draws figures of kind "${this.figure.kind}"`);
      this.update = kind.draw(this.body, this.figure, this.page()) ?? null;
      this.element.dataset.state = "drawn";
      this.element.dataset.moves = this.update ? "yes" : "no";
    });
    this.move();
  }

  /** Brings a drawn figure to the slider's place. */
  move() {
    if (!this.update || this.drawnVersion === this.clock.version) return;
    this.drawnVersion = this.clock.version;
    this.guard(() => this.update(this.clock.place, this.clock.at()));
  }

  setVisible(isVisible) {
    this.isVisible = isVisible;
    if (isVisible) {
      this.draw();
      this.move();
    }
    for (const listener of this.visibilityListeners) this.guard(() => listener(isVisible));
  }

  remove() {
    for (const removal of this.removals) removal();
    this.removals = [];
    this.visibilityListeners = [];
    this.update = null;
    this.isRemoved = true;
  }
}

/** All figures of the page: draws those near the screen at once and the others in idle time, moves those on it. */
class FigureSet {
  /** @param {Clock} clock */
  constructor(clock) {
    this.clock = clock;
    this.mounted = new Map();
    this.packer = new ResizeObserver((entries) => entries.forEach(({ target }) => packFigure(target)));
    this.isMovePending = false;
    this.isDrawPending = false;
    this.observer = new IntersectionObserver(
      (entries) => entries.forEach((entry) => this.mounted.get(entry.target)?.setVisible(entry.isIntersecting)),
      { rootMargin: "200px 0px" },
    );
    clock.listeners.add(() => this.moveSoon());
    addEventListener("beforeprint", () => this.drawAll());
  }

  /** Puts figures into an element. @param {HTMLElement} element @param {object[]} figures @returns {MountedFigure[]} */
  mount(element, figures) {
    const added = figures.map((figure) => new MountedFigure(figure, this.clock));
    element.append(...added.map((one) => one.element));
    for (const one of added) {
      this.mounted.set(one.element, one);
      this.observer.observe(one.element);
      this.packer.observe(one.element);
    }
    this.drawSoon();
    return added;
  }

  /** Takes figures off the page. @param {MountedFigure[]} figures */
  unmount(figures) {
    for (const one of figures) {
      this.observer.unobserve(one.element);
      this.packer.unobserve(one.element);
      this.mounted.delete(one.element);
      one.remove();
      one.element.remove();
    }
  }

  moveSoon() {
    if (this.isMovePending) return;
    this.isMovePending = true;
    requestAnimationFrame(() => {
      this.isMovePending = false;
      for (const one of this.mounted.values()) if (one.isVisible && one.isDrawn) one.move();
    });
  }

  /** Draws what is not near the screen, one figure at a time, so that the page can be searched, printed and jumped in. */
  drawSoon() {
    if (this.isDrawPending) return;
    this.isDrawPending = true;
    const whenIdle = window.requestIdleCallback ?? ((callback) => setTimeout(callback, 50));
    whenIdle(() => {
      this.isDrawPending = false;
      const next = [...this.mounted.values()].find((one) => !one.isDrawn);
      if (!next) return;
      next.draw();
      this.drawSoon();
    });
  }

  drawAll() {
    for (const one of this.mounted.values()) {
      one.draw();
      one.move();
    }
  }

  /** Whether the slider moves anything that is on the screen. */
  isMovingShown() {
    return [...this.mounted.values()].some((one) => one.isVisible && one.update);
  }
}
