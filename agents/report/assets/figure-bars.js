/** Bars, upright where most labels are numbers and lying where they are words. */

const BAR_ROW = 26;

/** The bars at a place: their values and, where given, the ends of their intervals. */
function barsAt(arrays, page) {
  return arrays.map((array) => {
    if (!array) return null;
    return array.shape.length === 2 ? entryOf(array, page.placeIn(array.shape[0])).data : array.data;
  });
}

/** A whisker from one end of an interval to the other. */
function paintWhisker(context, isUpright, along, from, to, colours) {
  if (Number.isNaN(from) || Number.isNaN(to)) return;
  context.strokeStyle = colours.ink;
  context.lineWidth = 1.25;
  context.beginPath();
  const point = (value, shift) => (isUpright ? [along + shift, value] : [value, along + shift]);
  context.moveTo(...point(from, 0));
  context.lineTo(...point(to, 0));
  for (const end of [from, to]) {
    context.moveTo(...point(end, -3));
    context.lineTo(...point(end, 3));
  }
  context.stroke();
}

/** Paints upright bars with the values' axis at the left. */
function paintUprightBars(context, area, figure, at, limits, colours) {
  const { left, top, width, height } = area;
  const y = (value) => top + height * (1 - (value - limits[0]) / (limits[1] - limits[0]));
  paintValueAxis(context, area, limits, y, figure.y_label, colours);
  const [values, low, high] = at;
  const pitch = width / figure.labels.length;
  const base = y(Math.max(limits[0], Math.min(0, limits[1])));
  context.fillStyle = colours.soft;
  context.fillRect(left, base - 0.5, width, 1);
  const everyLabel = Math.ceil(labelWidth(context, figure.labels) / pitch);
  // A word among numbers, such as "never", and the bar that is right keep their labels.
  const isKept = (i) => i === figure.marked || Number.isNaN(parseFloat(figure.labels[i]));
  const isCrowded = (i) => figure.labels.some((_, j) => j !== i && isKept(j) && Math.abs(i - j) < everyLabel);
  figure.labels.forEach((label, i) => {
    const middle = left + pitch * (i + 0.5);
    const isMarked = i === figure.marked;
    if (values[i]) {
      context.fillStyle = isMarked ? colours.right : colours.series[0];
      const end = y(values[i]);
      context.fillRect(middle - pitch * 0.4, Math.min(base, end), pitch * 0.8, Math.max(Math.abs(end - base), 0.75));
    }
    if (low && high) paintWhisker(context, true, middle, y(low[i]), y(high[i]), colours);
    if (!isKept(i) && (i % everyLabel || (everyLabel > 1 && isCrowded(i)))) return;
    context.fillStyle = isMarked ? colours.ink : colours.soft;
    context.font = canvasFont(11.5, isMarked ? 650 : 400);
    context.textAlign = "center";
    context.textBaseline = "top";
    context.fillText(isMarked ? `${label} ✓` : label, middle, top + height + 6);
  });
  if (figure.x_label) paintAxisLabel(context, figure.x_label, left + width / 2, top + height + 24, colours);
}

/** The width that labels need, with room between them. */
function labelWidth(context, labels) {
  context.font = canvasFont(11.5);
  return Math.max(...labels.map((label) => context.measureText(label).width)) + 8;
}

function paintAxisLabel(context, text, x, y, colours) {
  context.font = canvasFont(12);
  context.fillStyle = colours.soft;
  context.textAlign = "center";
  context.textBaseline = "top";
  context.fillText(text, x, y);
}

/** Rules and numbers of an upright axis of values. */
function paintValueAxis(context, { left, top, width, height }, limits, y, label, colours) {
  context.font = canvasFont(11.5);
  context.textAlign = "right";
  context.textBaseline = "middle";
  const ticks = niceTicks(limits[0], limits[1], 4);
  for (const tick of ticks) {
    context.strokeStyle = colours.faint;
    context.lineWidth = 1;
    context.beginPath();
    context.moveTo(left, y(tick));
    context.lineTo(left + width, y(tick));
    context.stroke();
    context.fillStyle = colours.soft;
    context.fillText(formatTick(tick, ticks[1] - ticks[0] || 1), left - 6, y(tick));
  }
  if (!label) return;
  context.save();
  context.translate(4, top + height / 2);
  context.rotate(-Math.PI / 2);
  paintAxisLabel(context, label, 0, 0, colours);
  context.restore();
}

/** Paints lying bars with their labels at the left and their values at the right. */
function paintLyingBars(context, area, figure, at, limits, colours) {
  const { left, width } = area;
  const [values, low, high] = at;
  const x = (value) => left + (width * (value - limits[0])) / (limits[1] - limits[0]);
  const base = x(Math.max(limits[0], Math.min(0, limits[1])));
  figure.labels.forEach((label, i) => {
    const middle = area.top + BAR_ROW * (i + 0.5);
    const isMarked = i === figure.marked;
    context.font = canvasFont(12.5, isMarked ? 650 : 400);
    context.fillStyle = colours.ink;
    context.textAlign = "right";
    context.textBaseline = "middle";
    context.fillText(fitText(context, isMarked ? `✓ ${label}` : label, left - 14), left - 8, middle);
    context.fillStyle = colours.faint;
    context.fillRect(left, middle - 1, width, 2);
    if (values[i]) {
      context.fillStyle = isMarked ? colours.right : colours.series[0];
      const end = x(values[i]);
      context.fillRect(Math.min(base, end), middle - 7, Math.max(Math.abs(end - base), 1), 14);
    }
    if (low && high) paintWhisker(context, false, middle, x(low[i]), x(high[i]), colours);
    context.font = canvasFont(11.5);
    context.fillStyle = colours.soft;
    context.textAlign = "left";
    context.fillText(formatWithin(values[i], limits), left + width + 8, middle);
  });
  const label = [figure.x_label, figure.y_label].filter(Boolean).at(-1);
  const below = area.top + BAR_ROW * figure.labels.length + 4;
  if (label) paintAxisLabel(context, label, left + width / 2, below, colours);
}

registerFigure(
  "bars",
  (element, figure, page) => {
    const arrays = [figure.values, figure.low, figure.high].map((array) => page.decode(array));
    const isMoving = arrays[0].shape.length === 2;
    const numNumbers = figure.labels.filter((label) => !Number.isNaN(parseFloat(label))).length;
    const isUpright = numNumbers > 0.6 * figure.labels.length || figure.labels.length > 30;
    const [least, greatest] = limitsOf(...arrays.map((array) => array?.data));
    const limits = figure.y_range ?? [Math.min(0, least), Math.max(0, greatest) * 1.04 || 1];
    const count = figure.labels.length;
    const areaOf = (context, width, height) => {
      if (isUpright) {
        const left = figure.y_label ? 62 : 44;
        return { left, top: 10, width: width - left - 8, height: height - 34 - (figure.x_label ? 20 : 0) };
      }
      const left = Math.min(width * 0.38, labelWidth(context, figure.labels) + 24);
      return { left, top: 4, width: width - left - 56, height: BAR_ROW * count };
    };
    let area = null;
    const paint = (context, width, height, colours) => {
      area = areaOf(context, width, height);
      const paintBars = isUpright ? paintUprightBars : paintLyingBars;
      paintBars(context, area, figure, barsAt(arrays, page), limits, colours);
    };
    const describe = (x, y) => {
      const share = isUpright ? (x - area.left) / area.width : (y - area.top) / area.height;
      const index = Math.floor(share * count);
      if (index < 0 || index >= count) return null;
      const [values, low, high] = barsAt(arrays, page).map((array) => array?.[index]);
      const format = (value) => formatWithin(value, limits);
      const interval = low === undefined || high === undefined ? "" : ` [${format(low)}, ${format(high)}]`;
      return `${figure.labels[index]}: ${format(values)}${interval}${index === figure.marked ? " (right)" : ""}`;
    };
    const height = () => (isUpright ? CHART_HEIGHT : BAR_ROW * count + 8 + (figure.x_label || figure.y_label ? 20 : 0));
    const board = makeBoard(page, element, { height, describe, [isMoving ? "moving" : "still"]: paint });
    if (isMoving) return () => board.repaint();
  },
  {
    numPlaces: (figure) => {
      const { shape } = decodeArray(figure.values);
      return shape.length === 2 ? shape[0] : 0;
    },
    isWide: (figure) => figure.labels.length > 40,
  },
);
