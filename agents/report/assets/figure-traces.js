/** Small multiples of lines over the time, such as the activations of neurons. */

const TRACE_WIDTH = 150;
const TRACE_HEIGHT = 62;
const TRACE_GAP = 14;

/** A column of an [N, n] array. @returns {Float64Array} */
function columnOf(array, column) {
  const [count, width] = array.shape;
  return Float64Array.from({ length: count }, (_, i) => array.data[i * width + column]);
}

/** Paints a line through values; NaN leaves a gap, and a value alone is a point. */
function paintTrace(context, values, x, y) {
  context.beginPath();
  let isDown = false;
  values.forEach((value, i) => {
    if (Number.isNaN(value)) {
      isDown = false;
      return;
    }
    if (isDown) context.lineTo(x(i), y(value));
    else context.moveTo(x(i) - (Number.isNaN(values[i + 1] ?? NaN) ? 1 : 0), y(value));
    if (!isDown && Number.isNaN(values[i + 1] ?? NaN)) context.lineTo(x(i) + 1, y(value));
    isDown = true;
  });
  context.stroke();
}

registerFigure(
  "traces",
  (element, figure, page) => {
    const values = page.decode(figure.values);
    const others = page.decode(figure.others);
    const [numPlaces, numTraces] = values.shape;
    const groups = [...new Set(figure.groups)];
    const traces = Array.from({ length: numTraces }, (_, i) => {
      const main = columnOf(values, i);
      const second = others && columnOf(others, i);
      const group = Math.max(0, groups.indexOf(figure.groups[i]));
      const limits = paddedLimits(limitsOf(main));
      return { main, second, group, limits, secondLimits: second && paddedLimits(limitsOf(second)) };
    });

    const layout = (width) => {
      const most = Math.max(1, Math.min(numTraces, Math.floor((width + TRACE_GAP) / (TRACE_WIDTH + TRACE_GAP))));
      // Rows of equal length.
      const columns = Math.ceil(numTraces / Math.ceil(numTraces / most));
      const cell = (width - TRACE_GAP * (columns - 1)) / columns;
      return { columns, cell, rows: Math.ceil(numTraces / columns) };
    };
    const boxOf = (index, width) => {
      const { columns, cell } = layout(width);
      const left = (index % columns) * (cell + TRACE_GAP);
      return { left, top: Math.floor(index / columns) * (TRACE_HEIGHT + 22) + 16, width: cell, height: TRACE_HEIGHT };
    };
    const scales = (trace, box) => {
      const scaleY = ([low, high]) => (value) => box.top + box.height * (1 - (value - low) / (high - low));
      return {
        x: (i) => box.left + 3 + ((box.width - 6) * i) / Math.max(1, numPlaces - 1),
        y: scaleY(trace.limits),
        secondY: trace.second && scaleY(trace.secondLimits),
      };
    };
    let lastWidth = 0;
    const still = (context, width, _, colours) => {
      lastWidth = width;
      traces.forEach((trace, index) => {
        const box = boxOf(index, width);
        const { x, y, secondY } = scales(trace, box);
        context.fillStyle = colours.soft;
        context.font = canvasFont(11);
        context.textBaseline = "alphabetic";
        context.fillText(fitText(context, figure.names[index] ?? "", box.width), box.left, box.top - 4);
        context.fillStyle = colours.panel;
        context.fillRect(box.left, box.top, box.width, box.height);
        context.lineJoin = "round";
        if (trace.limits[0] < 0 && trace.limits[1] > 0) {
          context.fillStyle = colours.faint;
          context.fillRect(box.left, y(0) - 0.5, box.width, 1);
        }
        if (trace.second) {
          context.strokeStyle = colours.soft;
          context.globalAlpha = 0.55;
          context.lineWidth = 1;
          paintTrace(context, trace.second, x, secondY);
          context.globalAlpha = 1;
        }
        context.strokeStyle = seriesColour(colours, trace.group);
        context.lineWidth = numPlaces > MANY_POINTS ? 1 : 1.6;
        paintTrace(context, trace.main, x, y);
      });
    };
    const moving = (context, width, _, colours) => {
      const place = page.placeIn(numPlaces);
      traces.forEach((trace, index) => {
        const box = boxOf(index, width);
        const { x, y } = scales(trace, box);
        context.fillStyle = colours.marker;
        context.fillRect(x(place) - 0.5, box.top, 1, box.height);
        if (Number.isNaN(trace.main[place])) return;
        context.fillStyle = seriesColour(colours, trace.group);
        context.strokeStyle = colours.paper;
        context.lineWidth = 1.5;
        context.beginPath();
        context.arc(x(place), y(trace.main[place]), 3.5, 0, 2 * Math.PI);
        context.fill();
        context.stroke();
      });
    };
    const describe = (px, py) => {
      for (let index = 0; index < numTraces; index++) {
        const box = boxOf(index, lastWidth);
        if (px < box.left || px > box.left + box.width || py < box.top - 16 || py > box.top + box.height) continue;
        const share = (px - box.left - 3) / (box.width - 6);
        const place = Math.min(numPlaces - 1, Math.max(0, Math.round(share * (numPlaces - 1))));
        const { main, second } = traces[index];
        const names = figure.legend.map((name, i) => name || ["value", "other"][i]);
        const text = `${figure.names[index] ?? index} at ${place + 1}: ${names[0]} ${formatNumber(main[place])}`;
        return second ? `${text}, ${names[1]} ${formatNumber(second[place])}` : text;
      }
      return null;
    };
    const height = (width) => layout(width).rows * (TRACE_HEIGHT + 22);
    const board = makeBoard(page, element, { height, still, moving, describe });

    const entries = groups.filter(Boolean).map((name, i) => [name, (colours) => seriesColour(colours, i)]);
    if (figure.legend[0] && !entries.length) entries.push([figure.legend[0], (colours) => seriesColour(colours, 0)]);
    if (figure.legend[1] && others) entries.push([`${figure.legend[1]} (pale)`, (colours) => colours.soft]);
    element.append(makeLegend(page, entries));
    return () => board.repaint();
  },
  { numPlaces: (figure) => decodeArray(figure.values).shape[0], isWide: (figure) => figure.names.length > 4 },
);

/** A legend without switches. @param {[string, (colours: object) => string][]} entries */
function makeLegend(page, entries, shape = "line") {
  const items = entries.map(([name, choose]) => make("li", {}, makeSwatch(page, choose, shape), name));
  return make("ul", { class: "legend" }, ...items);
}
