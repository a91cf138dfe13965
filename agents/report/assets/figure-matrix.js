/** Heat maps and points in a plane, which share the palettes and their bar. */

const COLOUR_BAR_WIDTH = 12;
const COLOUR_BAR_GAP = 10;
/** Between the bar and its values. */
const COLOUR_BAR_INDENT = 6;

/** The values beside a palette's bar: of its upper end, its middle and its lower end. @returns {string[]} */
function colourBarTexts(limits) {
  const [high, middle, low] = [limits[1], (limits[0] + limits[1]) / 2, limits[0]].map((value) => formatNumber(Number(value.toPrecision(3))));
  return limits.isClipped ? [`≥ ${high}`, middle, `≤ ${low}`] : [high, middle, low];
}

/** How wide a palette's bar is with its values, and what is left free before and after it. */
function colourBarRoom(limits) {
  const longest = Math.max(...colourBarTexts(limits).map((text) => text.length));
  return COLOUR_BAR_GAP + COLOUR_BAR_WIDTH + COLOUR_BAR_INDENT + Math.max(34, 7.4 * longest);
}

/** Paints a palette's bar with the values of its ends and, if it diverges, of its middle. */
function paintColourBar(context, name, limits, { left, top, height }, colours) {
  for (let i = 0; i < height; i++) {
    context.fillStyle = paletteColour(name, 1 - i / (height - 1), 0, 1);
    context.fillRect(left, top + i, COLOUR_BAR_WIDTH, 1.5);
  }
  context.strokeStyle = colours.faint;
  context.lineWidth = 1;
  context.strokeRect(left - 0.5, top - 0.5, COLOUR_BAR_WIDTH + 1, height + 1);
  context.fillStyle = colours.soft;
  context.font = canvasFont(11.5);
  context.textAlign = "left";
  context.textBaseline = "middle";
  const [high, middle, low] = colourBarTexts(limits);
  const marks = [[high, 5], [low, height - 5]];
  if (height > 60) marks.push([middle, height / 2]);
  for (const [text, at] of marks) context.fillText(text, left + COLOUR_BAR_WIDTH + COLOUR_BAR_INDENT, top + at);
}

/** A matrix in the colours of a palette, a pixel for each value; NaN is transparent. @returns {HTMLCanvasElement} */
function heatImage(values, rows, columns, name, limits) {
  const palette = paletteOf(name);
  const image = new ImageData(columns, rows);
  for (let i = 0; i < rows * columns; i++) {
    if (Number.isNaN(values[i])) continue;
    const at = 3 * paletteIndex(values[i], limits[0], limits[1]);
    image.data[4 * i] = palette[at];
    image.data[4 * i + 1] = palette[at + 1];
    image.data[4 * i + 2] = palette[at + 2];
    image.data[4 * i + 3] = 255;
  }
  const canvas = make("canvas", { width: columns, height: rows });
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

/** Numbers or names along an axis of cells: [position in cells, text]. @param {number} first number of the first cell. */
function cellLabels(names, count, room, first = 0) {
  if (names.length) {
    const every = Math.max(1, Math.ceil(count / Math.max(1, room)));
    return names.map((name, i) => [i + 0.5, name]).filter((_, i) => i % every === 0);
  }
  const ticks = niceTicks(first, first + count - 1, Math.max(1, Math.min(room, 6)));
  return ticks.filter(Number.isInteger).map((tick) => [tick - first + 0.5, String(tick)]);
}

/** Paints the names, numbers and labels around a heat map. */
function paintMatrixAxes(context, box, rows, columns, figure, colours) {
  context.font = canvasFont(11.5);
  context.fillStyle = colours.soft;
  context.textAlign = "center";
  context.textBaseline = "top";
  const widest = figure.x_names.length ? labelWidth(context, figure.x_names) : 34;
  for (const [at, text] of cellLabels(figure.x_names, columns, Math.floor(box.width / widest), firstColumn(figure))) {
    context.fillText(text, box.left + (box.width * at) / columns, box.top + box.height + 6);
  }
  context.textAlign = "right";
  context.textBaseline = "middle";
  for (const [at, text] of cellLabels(figure.y_names, rows, Math.floor(box.height / 15))) {
    context.fillText(fitText(context, text, box.left - 26), box.left - 6, box.top + (box.height * at) / rows);
  }
  if (figure.x_label) {
    paintAxisLabel(context, figure.x_label, box.left + box.width / 2, box.top + box.height + 23, colours);
  }
  if (figure.y_label) {
    context.save();
    context.translate(2, box.top + box.height / 2);
    context.rotate(-Math.PI / 2);
    paintAxisLabel(context, figure.y_label, 0, 0, colours);
    context.restore();
  }
}

registerFigure(
  "matrix",
  (element, figure, page) => {
    const values = page.decode(figure.values);
    const isMoving = values.shape.length === 3;
    const [rows, columns] = values.shape.slice(-2);
    const limits = paletteLimits(figure.palette, figure.limits, values.data);
    const here = () => (isMoving ? entryOf(values, page.placeIn(values.shape[0])).data : values.data);
    const longest = Math.max(0, ...figure.y_names.map((name) => name.length));

    const boxOf = (width) => {
      const left = 24 + Math.min(width * 0.3, longest ? 8 + 6.4 * longest : 26);
      const room = width - left - colourBarRoom(limits);
      const isSquare = rows <= columns * 1.6 && columns <= rows * 1.6;
      const wide = isSquare ? Math.min(room, (380 * columns) / rows) : room;
      const least = figure.y_names.length ? 15 * Math.min(rows, 40) : 110;
      const high = (wide * rows) / columns;
      return { left, top: 6, width: wide, height: Math.round(Math.min(420, Math.max(least, high))) };
    };
    let box = null;
    const still = (context, width, _, colours) => {
      box = boxOf(width);
      paintMatrixAxes(context, box, rows, columns, figure, colours);
      const bar = { left: box.left + box.width + COLOUR_BAR_GAP, top: box.top, height: box.height };
      paintColourBar(context, figure.palette, limits, bar, colours);
      if (!isMoving) cells(context);
    };
    const cells = (context) => {
      const image = heatImage(here(), rows, columns, figure.palette, limits);
      context.imageSmoothingEnabled = box.width < columns || box.height < rows;
      context.drawImage(image, box.left, box.top, box.width, box.height);
    };
    const moving = (context, _width, _height, colours) => {
      if (isMoving) cells(context);
      if (figure.cursor) paintColumnCursor(context, box, columns, cursorColumn(figure.cursor, page.at()), colours);
    };
    const describe = (x, y) => {
      const row = Math.floor(((y - box.top) / box.height) * rows);
      const column = Math.floor(((x - box.left) / box.width) * columns);
      if (row < 0 || row >= rows || column < 0 || column >= columns) return null;
      const [rowName, columnName] = [figure.y_names[row] ?? row, figure.x_names[column] ?? column + firstColumn(figure)];
      const names = `${figure.y_label || "row"} ${rowName}, ${figure.x_label || "column"} ${columnName}`;
      return `${names}: ${formatNumber(here()[row * columns + column])}`;
    };
    const isAnimated = isMoving || Boolean(figure.cursor);
    const height = (width) => boxOf(width).height + 28 + (figure.x_label ? 18 : 0);
    const board = makeBoard(page, element, { height, still, describe, moving: isAnimated ? moving : undefined });
    if (isAnimated) return () => board.repaint();
  },
  {
    numPlaces: (figure) => {
      const { shape } = decodeArray(figure.values);
      if (shape.length === 3) return shape[0];
      return figure.cursor ? shape[1] : 0;
    },
    isWide: (figure) => {
      const [rows, columns] = decodeArray(figure.values).shape.slice(-2);
      return columns > 100 || columns > 4 * rows;
    },
  },
);

/** The number of the first column: ticks count from 1, all else from 0. */
function firstColumn(figure) {
  return figure.cursor === "tick" ? 1 : 0;
}

/** The column that a cursor stands on, from 0. @param {At} at */
function cursorColumn(cursor, at) {
  return cursor === "tick" ? at.tick - 1 : cursorValue(cursor, at);
}

/** Frames a column of cells. */
function paintColumnCursor(context, box, columns, column, colours) {
  if (column < 0 || column >= columns) return;
  const pitch = box.width / columns;
  const width = Math.max(pitch, 2);
  const left = box.left + (column + 0.5) * pitch - width / 2;
  context.lineWidth = 3;
  context.strokeStyle = colours.paper;
  context.strokeRect(left, box.top, width, box.height);
  context.lineWidth = 1.5;
  context.strokeStyle = colours.marker;
  context.strokeRect(left, box.top, width, box.height);
}

registerFigure(
  "points",
  (element, figure, page) => {
    const points = page.decode(figure.points);
    const values = page.decode(figure.values);
    const isMoving = values.shape.length === 2;
    const count = points.shape[0];
    const limits = paletteLimits("diverging", null, values.data);
    const xs = columnOf(points, 0);
    const ys = columnOf(points, 1);
    const [left, right] = paddedLimits(limitsOf(xs), 0.04);
    const [bottom, top] = paddedLimits(limitsOf(ys), 0.04);
    const here = () => (isMoving ? entryOf(values, page.placeIn(values.shape[0])).data : values.data);
    const radius = count > 400 ? 3.2 : count > 100 ? 4.2 : 5.5;

    let box = null;
    const x = (value) => box.left + (box.width * (value - left)) / (right - left);
    const y = (value) => box.top + box.height * (1 - (value - bottom) / (top - bottom));
    const boxOf = (width) => {
      const room = width - colourBarRoom(limits) - 46;
      return { left: 46, top: 6, width: room, height: Math.round(Math.min(380, room * 0.85)) };
    };
    const still = (context, width, _, colours) => {
      box = boxOf(width);
      paintValueAxis(context, box, [bottom, top], y, figure.y_label, colours);
      context.textAlign = "center";
      context.textBaseline = "top";
      const ticks = niceTicks(left, right, 5);
      for (const tick of ticks) {
        context.fillStyle = colours.faint;
        context.fillRect(x(tick) - 0.5, box.top, 1, box.height);
        context.fillStyle = colours.soft;
        context.font = canvasFont(11.5);
        context.fillText(formatTick(tick, ticks[1] - ticks[0] || 1), x(tick), box.top + box.height + 6);
      }
      if (figure.x_label) paintAxisLabel(context, figure.x_label, box.left + box.width / 2, box.top + box.height + 23, colours);
      paintColourBar(context, "diverging", limits, { ...box, left: box.left + box.width + COLOUR_BAR_GAP }, colours);
      if (!isMoving) dots(context, width, _, colours);
    };
    const dots = (context, _width, _height, colours) => {
      const now = here();
      context.strokeStyle = withAlpha(colours.ink, 0.45);
      context.lineWidth = 0.75;
      for (let i = 0; i < count; i++) {
        context.fillStyle = paletteColour("diverging", now[i], limits[0], limits[1]);
        context.beginPath();
        context.arc(x(xs[i]), y(ys[i]), radius, 0, 2 * Math.PI);
        context.fill();
        context.stroke();
      }
    };
    const describe = (px, py) => {
      let nearest = -1;
      let least = (radius + 4) ** 2;
      for (let i = 0; i < count; i++) {
        const distance = (x(xs[i]) - px) ** 2 + (y(ys[i]) - py) ** 2;
        if (distance < least) [nearest, least] = [i, distance];
      }
      return nearest < 0 ? null : `${figure.names[nearest] ?? `point ${nearest}`}: ${formatNumber(here()[nearest])}`;
    };
    const height = (width) => boxOf(width).height + 28 + (figure.x_label ? 18 : 0);
    const board = makeBoard(page, element, { height, still, describe, moving: isMoving ? dots : undefined });
    if (isMoving) return () => board.repaint();
  },
  {
    numPlaces: (figure) => {
      const { shape } = decodeArray(figure.values);
      return shape.length === 2 ? shape[0] : 0;
    },
  },
);
