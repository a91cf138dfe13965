/** Images with attention and routes over them; the switches of attention heads. */

const MAX_PICTURE_HEIGHT = 400;
const MAX_PICTURE_WIDTH = 520;
/** Of a small image's pixel, in CSS pixels, where nothing is drawn over it and it is not smaller than this. */
const MAX_PIXEL = 10;
const LEAST_PICTURE = 180;
const MAX_KEPT_IMAGES = 48;
const NUM_IMAGES_AHEAD = 6;
const ATTENTION_ALPHA = 0.8;
/** How many times the weight of even attention has the full colour. */
const FULL_ATTENTION = 6;

/**
 * Colours of attention: each head in its own, the stronger the larger the weight.
 *
 * The scale is the same at all times: weights that are the same everywhere are hardly seen, and one that is six times
 * as large (or half of all, where there are few cells) has the full colour.
 *
 * @param {ArrayLike<number>} weights of all heads, [heads, cells]; NaN where nothing is attended to.
 * @param {boolean[]} isChosen of each head.
 * @returns {Uint8ClampedArray} RGBA of each cell.
 */
function attentionColours(weights, isChosen, colours) {
  const numHeads = isChosen.length;
  const size = weights.length / numHeads;
  const full = Math.min(FULL_ATTENTION / size, 0.5);
  const shades = isChosen.map((_, head) => rgbOf(seriesColour(colours, head)));
  const result = new Uint8ClampedArray(4 * size);
  for (let cell = 0; cell < size; cell++) {
    let total = 0;
    let most = 0;
    const mixed = [0, 0, 0];
    for (let head = 0; head < numHeads; head++) {
      const share = isChosen[head] ? weights[head * size + cell] / full : 0;
      if (!(share > 0)) continue;
      total += share;
      most = Math.max(most, share);
      for (let channel = 0; channel < 3; channel++) mixed[channel] += share * shades[head][channel];
    }
    if (!total) continue;
    for (let channel = 0; channel < 3; channel++) result[4 * cell + channel] = mixed[channel] / total;
    result[4 * cell + 3] = 255 * ATTENTION_ALPHA * Math.min(1, most);
  }
  return result;
}

/** RGBA bytes as a canvas, a pixel for each cell. */
function canvasOf(bytes, rows, columns) {
  const canvas = make("canvas", { width: columns, height: rows });
  canvas.getContext("2d").putImageData(new ImageData(bytes, columns, rows), 0, 0);
  return canvas;
}

/**
 * Switches that choose heads; where heads attend to an image, each shows its own attention.
 *
 * @param {object} page
 * @param {number} numHeads
 * @param {() => void} onChange
 * @param {[number, number]|null} grid rows and columns of the small pictures; null: none.
 */
function makeHeadSwitches(page, numHeads, onChange, grid = null) {
  const isChosen = Array.from({ length: numHeads }, () => true);
  const shadesOf = (colours) => (grid ? IMAGE_COLOURS : colours);
  const maps = [];
  const buttons = isChosen.map((_, head) => {
    const name = `head ${head + 1}`;
    const press = () => {
      // One press on one of all shows that one alone.
      if (isChosen.every(Boolean)) isChosen.fill(false);
      isChosen[head] = !isChosen[head];
      if (!isChosen.some(Boolean)) isChosen.fill(true);
      changed();
    };
    const attributes = { type: "button", class: "switch", "aria-label": name, title: name, click: press };
    const button = make("button", attributes);
    if (grid) maps.push(button.appendChild(make("canvas", { width: grid[1], height: grid[0], "aria-hidden": "true" })));
    const swatch = makeSwatch(page, (colours) => seriesColour(shadesOf(colours), head), "dot");
    button.append(make("span", {}, swatch, String(head + 1)));
    return button;
  });
  const all = make("button", { type: "button", class: "switch", click: () => (isChosen.fill(true), changed()) }, "all");
  const changed = () => {
    buttons.forEach((button, head) => button.setAttribute("aria-pressed", String(isChosen[head])));
    all.setAttribute("aria-pressed", String(isChosen.every(Boolean)));
    onChange();
  };
  const group = { class: "heads", role: "group", "aria-label": "attention heads" };
  const element = make("div", group, make("span", { class: "heads-title" }, "heads"), ...buttons, all);
  element.hidden = numHeads < 2;
  buttons.forEach((button) => button.setAttribute("aria-pressed", "true"));
  all.setAttribute("aria-pressed", "true");
  const paintMaps = (weights) => {
    const size = weights.length / numHeads;
    maps.forEach((map, head) => {
      const bytes = attentionColours(weights, isChosen.map((_, i) => i === head), IMAGE_COLOURS);
      if (bytes.length === 4 * size) map.getContext("2d").putImageData(new ImageData(bytes, grid[1], grid[0]), 0, 0);
    });
  };
  return { element, isChosen, paintMaps };
}

/** The centre of mass of each head at each time, in cells of the grid: [N][heads] of [row, column] or null. */
function attentionCentres(attention) {
  const [numPlaces, numHeads, rows, columns] = attention.shape;
  return Array.from({ length: numPlaces }, (_, place) =>
    Array.from({ length: numHeads }, (_, head) => {
      const from = (place * numHeads + head) * rows * columns;
      let total = 0;
      let row = 0;
      let column = 0;
      for (let i = 0; i < rows * columns; i++) {
        const weight = attention.data[from + i];
        total += weight;
        row += weight * Math.floor(i / columns);
        column += weight * (i % columns);
      }
      return total > 0 ? [row / total, column / total] : null;
    }),
  );
}

/** Images given as numbers: ready at once. */
class PlainImages {
  /** @param {NumberArray} array [n, H, W] or [n, H, W, 3] of bytes. */
  constructor(array) {
    this.array = array;
    this.kept = new Map();
    [, this.height, this.width] = array.shape;
  }

  whenReady(callback) {
    callback();
  }

  /** @returns {CanvasImageSource} */
  get(index) {
    if (!this.kept.has(index)) {
      if (this.kept.size >= MAX_KEPT_IMAGES) this.kept.clear();
      const { data } = entryOf(this.array, index);
      const isGrey = this.array.shape.length === 3;
      const bytes = new Uint8ClampedArray(4 * this.height * this.width);
      for (let i = 0; i < this.height * this.width; i++) {
        for (let channel = 0; channel < 3; channel++) bytes[4 * i + channel] = data[isGrey ? i : 3 * i + channel];
        bytes[4 * i + 3] = 255;
      }
      this.kept.set(index, canvasOf(bytes, this.height, this.width));
    }
    return this.kept.get(index);
  }
}

/** Compressed images: decoded a few ahead; the last one stays until the next is there. */
class CompressedImages {
  /** @param {{mime: string, files: string[]}} images @param {(action: () => void) => void} guard */
  constructor(images, guard) {
    this.images = images;
    this.guard = guard;
    this.kept = new Map();
    this.last = null;
    this.onLoad = () => {};
  }

  whenReady(callback) {
    const first = this.load(0);
    first.decode().then(
      () => {
        [this.height, this.width] = [first.naturalHeight, first.naturalWidth];
        this.last = first;
        this.guard(callback);
      },
      () => this.guard(() => { throw new Error(`an image of type ${this.images.mime} cannot be read`); }),
    );
  }

  load(index) {
    if (!this.kept.has(index)) {
      if (this.kept.size >= MAX_KEPT_IMAGES) this.kept.delete(this.kept.keys().next().value);
      const image = new Image();
      image.addEventListener("load", () => this.guard(() => this.onLoad(index)));
      image.src = `data:${this.images.mime};base64,${this.images.files[index]}`;
      this.kept.set(index, image);
    }
    return this.kept.get(index);
  }

  get(index) {
    for (let next = index + 1; next <= Math.min(index + NUM_IMAGES_AHEAD, this.images.files.length - 1); next++) {
      this.load(next);
    }
    const image = this.load(index);
    if (image.complete && image.naturalWidth) this.last = image;
    return this.last;
  }
}

/** Paints a line through points with a rim, so that it is seen on any image. */
function paintPath(context, points, colour, width, rim) {
  if (!points.length) return;
  const trace = () => {
    context.beginPath();
    points.forEach(([x, y], i) => (i ? context.lineTo(x, y) : context.moveTo(x, y)));
    context.stroke();
  };
  context.lineJoin = "round";
  context.lineCap = "round";
  if (rim) {
    context.strokeStyle = rim;
    context.lineWidth = width + 2;
    trace();
  }
  context.strokeStyle = colour;
  context.lineWidth = width;
  trace();
}

function paintDot(context, [x, y], colour, radius) {
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  context.fillStyle = colour;
  context.strokeStyle = "#ffffff";
  context.lineWidth = 1.5;
  context.fill();
  context.stroke();
}

/** The points of a route until its first NaN, [row, column] each. @param {NumberArray} route [L + 1, 2] */
function routePoints(route) {
  const points = [];
  for (let i = 0; i < route.shape[0] && !Number.isNaN(route.data[2 * i]); i++) {
    points.push([route.data[2 * i], route.data[2 * i + 1]]);
  }
  return points;
}

/** What is drawn over an image, at the slider's place. */
function paintPictureOverlay(context, parts, page, box) {
  const colours = IMAGE_COLOURS;
  const { attention, centres, switches, route, routes } = parts;
  const point = ([row, column]) => [box.left + (column + 0.5) * box.scale, box.top + (row + 0.5) * box.scale];
  if (attention) {
    const place = page.placeIn(attention.shape[0]);
    const [, numHeads, rows, columns] = attention.shape;
    const weights = entryOf(attention, place).data;
    const image = canvasOf(attentionColours(weights, switches.isChosen, colours), rows, columns);
    context.imageSmoothingEnabled = true;
    context.imageSmoothingQuality = "high";
    context.drawImage(image, box.left, box.top, box.width, box.height);
    switches.paintMaps(weights);
    const onImage = ([row, column]) => point([((row + 0.5) * box.rows) / rows - 0.5, ((column + 0.5) * box.columns) / columns - 0.5]);
    const start = Math.min(page.at().start, place);
    for (let head = 0; head < numHeads; head++) {
      if (!switches.isChosen[head] || !centres[place][head]) continue;
      const path = centres.slice(start, place + 1).map((heads) => heads[head]).filter(Boolean).map(onImage);
      const colour = seriesColour(colours, head);
      context.globalAlpha = 0.9;
      paintPath(context, path, colour, 1.75, "rgba(255, 255, 255, 0.75)");
      context.globalAlpha = 1;
      paintDot(context, path.at(-1), colour, 5);
    }
  }
  if (route) paintPath(context, routePoints(route).map(point), withAlpha(colours.right, 0.5), Math.min(14, Math.max(5, box.scale * 0.6)));
  if (routes) {
    const predicted = routePoints(entryOf(routes, page.placeIn(routes.shape[0]))).map(point);
    paintPath(context, predicted, colours.wrong, Math.min(4, Math.max(2, box.scale * 0.2)), "rgba(255, 255, 255, 0.9)");
    if (predicted.length) paintDot(context, predicted.at(-1), colours.wrong, Math.min(8, Math.max(4, box.scale * 0.3)));
  }
}

registerFigure(
  "picture",
  (element, figure, page) => {
    const isCompressed = figure.images.type === "images";
    const images = isCompressed
      ? new CompressedImages(figure.images, page.guard)
      : new PlainImages(page.decode(figure.images));
    const shown = page.decode(figure.shown);
    const attention = page.decode(figure.attention);
    const isMoving = Boolean(shown || attention || figure.routes);
    let board = null;
    const parts = {
      attention,
      centres: attention && attentionCentres(attention),
      route: page.decode(figure.route),
      routes: page.decode(figure.routes),
      switches: attention && makeHeadSwitches(page, attention.shape[1], () => board.repaint(), attention.shape.slice(2)),
    };
    const imageIndex = () => (shown ? shown.data[page.placeIn(shown.shape[0])] : 0);

    images.whenReady(() => {
      const { height: rows, width: columns } = images;
      const boxOf = (width) => {
        const fitted = Math.min(Math.min(width, MAX_PICTURE_WIDTH) / columns, MAX_PICTURE_HEIGHT / rows);
        const isPlain = !parts.attention && !parts.route && !parts.routes;
        const plain = Math.min(fitted, Math.max(MAX_PIXEL, LEAST_PICTURE / Math.max(rows, columns)));
        const scale = isPlain ? plain : fitted;
        return { left: 0, top: 0, width: scale * columns, height: scale * rows, scale, rows, columns };
      };
      const paint = (context, width, _, { faint }) => {
        const box = boxOf(width);
        context.imageSmoothingEnabled = !figure.is_pixelated;
        context.imageSmoothingQuality = "high";
        context.drawImage(images.get(imageIndex()), box.left, box.top, box.width, box.height);
        context.beginPath();
        context.rect(box.left, box.top, box.width, box.height);
        context.clip();
        paintPictureOverlay(context, parts, page, box);
        // A frame, for images as light as the page.
        context.strokeStyle = faint;
        context.lineWidth = 1;
        context.strokeRect(0.5, 0.5, box.width - 1, box.height - 1);
      };
      board = makeBoard(page, element, { height: (width) => boxOf(width).height, moving: paint });
      images.onLoad = (index) => index === imageIndex() && board.repaint();
      if (parts.switches) element.append(parts.switches.element);
      const entries = [];
      if (parts.route) entries.push(["right", () => IMAGE_COLOURS.right]);
      if (parts.routes) entries.push(["predicted", () => IMAGE_COLOURS.wrong]);
      if (entries.length) element.append(makeLegend(page, entries));
    });
    if (isMoving) return () => board?.repaint();
  },
  {
    numPlaces: (figure) => {
      const moving = [figure.shown, figure.attention, figure.routes].find(Boolean);
      return moving ? decodeArray(moving).shape[0] : 0;
    },
  },
);
