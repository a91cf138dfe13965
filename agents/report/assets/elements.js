/** Elements, the tip beside the pointer, and canvases that stay sharp. */

/**
 * An element with attributes and children; an attribute that is a function listens to the event of its name.
 *
 * @param {string} tag
 * @param {Record<string, any>} attributes those that are null, undefined or false are left out.
 * @param {...(Node|string)} children
 */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(name, value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

/** The parts of a text in which no line breaks within an option or before a percent sign. @param {string} text */
function proseOf(text) {
  const parts = text.replace(/(\d) %/g, "$1\u00a0%").split(/(--[a-z][\w.-]*)/);
  return parts.map((part, i) => (i % 2 ? make("span", { class: "option" }, part) : part));
}

/** A small square of a colour, for legends. @param {(colours: object) => string} choose */
function makeSwatch(page, choose, shape = "line") {
  const swatch = make("span", { class: `swatch is-${shape}`, "aria-hidden": "true" });
  const paint = () => (swatch.style.background = choose(page.colours()));
  paint();
  page.onTheme(paint);
  return swatch;
}

const tip = {
  element: null,
  show(text, x, y) {
    this.element ??= document.body.appendChild(make("div", { class: "tip", "aria-hidden": "true" }));
    this.element.textContent = text;
    this.element.hidden = false;
    const { offsetWidth: width, offsetHeight: height } = this.element;
    this.element.style.left = `${Math.max(4, Math.min(x + 12, innerWidth - width - 8))}px`;
    this.element.style.top = `${y - height - 12 < 0 ? y + 18 : y - height - 12}px`;
  },
  hide() {
    if (this.element) this.element.hidden = true;
  },
};

/** Pixels of a canvas that phones can still hold. */
const MAX_CANVAS_PIXELS = 8e6;

/** The font of labels in canvases. @param {number} size in CSS pixels. */
function canvasFont(size, weight = 400) {
  return `${weight} ${size}px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif`;
}

/** A text cut to a width, with an ellipsis. */
function fitText(context, text, width) {
  if (context.measureText(text).width <= width) return text;
  let end = text.length;
  while (end > 1 && context.measureText(`${text.slice(0, end)}…`).width > width) end--;
  return `${text.slice(0, end)}…`;
}

/**
 * A canvas as wide as its element, drawn in device pixels, again whenever its size or the theme changes.
 *
 * What moves with the slider is drawn over a kept copy of what does not.
 *
 * @callback Paint draws in CSS pixels.
 * @param {CanvasRenderingContext2D} context
 * @param {number} width
 * @param {number} height
 * @param {object} colours see `themeColours`.
 *
 * @param {object} page what the figure is given.
 * @param {HTMLElement} element where it is put.
 * @param {{height: (width: number) => number, still?: Paint, moving?: Paint, describe?: (x: number, y: number) =>
 *   string|null, click?: (x: number, y: number) => void, label?: string}} options `describe` is what the tip says
 *   about a place, in CSS pixels.
 * @returns {{canvas: HTMLCanvasElement, repaint: (isStillChanged?: boolean) => void}}
 */
function makeBoard(page, element, options) {
  const canvas = make("canvas", { role: "img", "aria-label": options.label ?? page.label });
  const context = canvas.getContext("2d");
  let kept = null;
  let width = 0;
  let height = 0;
  let ratio = 1;
  let screen = 0;

  const paintInto = (target, paint) => {
    target.setTransform(ratio, 0, 0, ratio, 0, 0);
    target.save();
    paint(target, width, height, page.colours());
    target.restore();
  };
  const repaint = (isStillChanged = false) => {
    if (!width) return;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    if (options.still) {
      if (!options.moving) {
        paintInto(context, options.still);
      } else {
        if (isStillChanged || !kept) {
          kept = make("canvas", { width: canvas.width, height: canvas.height });
          paintInto(kept.getContext("2d"), options.still);
        }
        context.drawImage(kept, 0, 0);
      }
    }
    if (options.moving) paintInto(context, options.moving);
  };
  const resize = () => {
    const available = Math.floor(element.clientWidth);
    const present = window.devicePixelRatio || 1;
    if (!available || (available === width && screen === present)) return;
    width = available;
    screen = present;
    height = Math.round(options.height(width));
    ratio = Math.min(screen, Math.sqrt(MAX_CANVAS_PIXELS / (width * height)));
    canvas.style.height = `${height}px`;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    repaint(true);
  };

  element.append(canvas);
  page.onResize(element, resize);
  page.onTheme(() => repaint(true));
  resize();
  if (options.describe) {
    const point = (event) => {
      const text = options.describe(event.offsetX, event.offsetY);
      if (text) tip.show(text, event.clientX, event.clientY);
      else tip.hide();
    };
    canvas.addEventListener("pointermove", point);
    canvas.addEventListener("pointerdown", point);
    canvas.addEventListener("pointerleave", () => tip.hide());
  }
  if (options.click) canvas.addEventListener("click", (event) => options.click(event.offsetX, event.offsetY));
  return { canvas, repaint };
}
