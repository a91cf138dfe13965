/** Line charts, drawn with uPlot. */

const CHART_HEIGHT = 250;
/** Places of a time above which a chart over it takes the whole width. */
const LONG_TIME = 60;
const MAX_DRAWN_POINTS = 40;
/** Points above which lines are thin, so that what is narrow stays to be seen. */
const MANY_POINTS = 200;
/** Steps between the ticks of an axis. */
const TICK_STEPS = Array.from({ length: 28 }, (_, i) => [1, 2, 5].map((step) => Number(`${step}e${i - 14}`))).flat();
const WHOLE_STEPS = TICK_STEPS.filter(Number.isInteger);

/** Numbers as uPlot takes them: null where there is none. @param {NumberArray} array @returns {(number|null)[]} */
function withGaps(array) {
  return Array.from(array.data, (value) => (Number.isFinite(value) ? value : null));
}

/** Where a cursor stands along x, by the slider's place. @param {At} at */
function cursorValue(cursor, at) {
  if (cursor === "tick") return at.tick;
  if (cursor === "step") return at.step ?? at.place;
  return at.place;
}

/** Paints the intervals of all lines that are shown, under the lines. */
function paintIntervals(plot, lines, colours) {
  const { ctx: context, bbox, data } = plot;
  context.save();
  context.beginPath();
  context.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  context.clip();
  lines.forEach((line, index) => {
    if (!line.low || !line.high || !plot.series[index + 1].show) return;
    context.fillStyle = withAlpha(seriesColour(colours, line.colour), colours.isDark ? 0.24 : 0.16);
    const isThere = (i) => line.low[i] !== null && line.high[i] !== null;
    for (let first = 0; first < data[0].length; ) {
      let end = first;
      while (end < data[0].length && isThere(end)) end++;
      if (end - first > 0) {
        context.beginPath();
        for (let i = first; i < end; i++) {
          context.lineTo(plot.valToPos(data[0][i], "x", true), plot.valToPos(line.high[i], "y", true));
        }
        for (let i = end - 1; i >= first; i--) {
          context.lineTo(plot.valToPos(data[0][i], "x", true), plot.valToPos(line.low[i], "y", true));
        }
        context.fill();
      }
      first = end + 1;
    }
  });
  context.restore();
}

function seriesColour(colours, index) {
  return colours.series[index % colours.series.length];
}

/** A legend whose entries hide their lines, with the values at the cursor. */
function makeLineLegend(page, lines, toggle) {
  const values = lines.map(() => make("span", { class: "legend-value" }));
  const entries = lines.map((line, index) => {
    const swatch = makeSwatch(page, (colours) => seriesColour(colours, line.colour), "line");
    const press = () => {
      const isShown = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(isShown));
      toggle(index, isShown);
    };
    const title = "Show or hide";
    const button = make("button", { type: "button", "aria-pressed": "true", title, click: press }, swatch, line.name);
    return make("li", {}, button, values[index]);
  });
  return { element: make("ul", { class: "legend" }, ...entries), values };
}

/** The options of a chart in the colours of the theme. */
function chartOptions(figure, lines, limits, width, colours) {
  const axis = {
    stroke: colours.soft,
    // In whole pixels: uPlot makes them larger on sharp screens, and reads no fractions.
    font: canvasFont(12),
    labelFont: canvasFont(12),
    labelSize: 20,
    labelGap: 2,
    grid: { stroke: colours.faint, width: 1 },
    ticks: { show: false },
    gap: 6,
    values: (_plot, ticks, _axis, _space, step) => ticks.map((tick) => (tick === null ? "" : formatTick(tick, step))),
  };
  const fitted = (_, values) => (values ? 12 + 6.9 * Math.max(...values.map((value) => value.length)) : 40);
  const [left, right] = limitsOf(lines.x);
  const numPoints = lines.x.length;
  return {
    width,
    height: CHART_HEIGHT,
    padding: [10, 12, 0, 0],
    legend: { show: false },
    cursor: { y: false, drag: { x: true, y: false }, points: { size: 7 } },
    scales: {
      x: {
        time: false,
        // Some room at the ends, so that the last point is whole; none when zoomed in.
        range: (_, low, high) => (low <= left && high >= right ? paddedLimits([left, right], 0.015) : [low, high]),
      },
      y: { range: () => limits },
    },
    axes: [
      { ...axis, label: figure.x_label, size: 26, incrs: lines.x.every(Number.isInteger) ? WHOLE_STEPS : TICK_STEPS },
      { ...axis, label: figure.y_label, size: fitted, incrs: TICK_STEPS },
    ],
    series: [
      {},
      ...lines.all.map((line, index) => ({
        label: line.name,
        stroke: seriesColour(colours, line.colour),
        width: numPoints > MANY_POINTS ? 1.2 : 1.75,
        points: { show: numPoints <= MAX_DRAWN_POINTS, size: 4, fill: seriesColour(colours, line.colour) },
      })),
    ],
    hooks: { drawAxes: [(plot) => paintIntervals(plot, lines.all, colours)] },
  };
}

registerFigure(
  "lines",
  (element, figure, page) => {
    const all = figure.lines.map((line, index) => ({
      name: line.name,
      colour: line.colour ?? index,
      y: withGaps(page.decode(line.y)),
      low: line.low && withGaps(page.decode(line.low)),
      high: line.high && withGaps(page.decode(line.high)),
    }));
    const x = withGaps(page.decode(figure.x));
    const data = [x, ...all.map((line) => line.y)];
    // With some room, so that a line at the edge has its whole width.
    const limits = figure.y_range
      ? paddedLimits(figure.y_range, 0.015)
      : paddedLimits(limitsOf(...all.flatMap((line) => [line.y, line.low, line.high])));
    const holder = make("div", { class: "chart", role: "img", "aria-label": page.label });
    const marker = make("div", { class: "chart-marker" });
    const legend = makeLineLegend(page, all, (index, show) => plot.setSeries(index + 1, { show }));
    const place = make("span", { class: "legend-place" });
    legend.element.append(make("li", {}, place));
    element.append(holder, legend.element);
    let plot = null;
    let isPointed = false;

    const showValues = (index) => {
      const isThere = index !== null && index !== undefined && index >= 0;
      place.textContent = isThere && x[index] !== undefined ? `${figure.x_label}: ${formatNumber(x[index])}` : "";
      legend.values.forEach((value, line) => (value.textContent = isThere ? formatNumber(all[line].y[index]) : ""));
    };
    const atSlider = () => (figure.cursor ? x.indexOf(cursorValue(figure.cursor, page.at())) : null);
    const moveMarker = () => {
      if (!figure.cursor) return;
      const value = cursorValue(figure.cursor, page.at());
      const left = plot.valToPos(value, "x");
      marker.hidden = !(left >= -0.5 && left <= plot.over.clientWidth + 0.5);
      marker.style.transform = `translateX(${left}px)`;
      if (!isPointed) showValues(atSlider());
    };
    const build = () => {
      const width = Math.floor(holder.clientWidth);
      if (!width) return;
      const shown = plot?.series.map((series) => series.show);
      plot?.destroy();
      const options = chartOptions(figure, { x, all }, limits, width, page.colours());
      options.hooks.setCursor = [
        ({ cursor }) => {
          isPointed = cursor.left >= 0 && cursor.idx !== null;
          showValues(isPointed ? cursor.idx : atSlider());
        },
      ];
      options.hooks.setScale = [() => plot && moveMarker()];
      plot = new uPlot(options, data, holder);
      shown?.forEach((show, i) => i > 0 && !show && plot.setSeries(i, { show }));
      if (figure.cursor) plot.over.append(marker);
      // uPlot draws after this turn; only then it knows where things are.
      queueMicrotask(moveMarker);
    };
    build();
    page.onTheme(build);
    page.onResize(holder, () => {
      if (!plot) build();
      else if (Math.floor(holder.clientWidth) !== plot.width) {
        plot.setSize({ width: Math.floor(holder.clientWidth), height: CHART_HEIGHT });
        queueMicrotask(moveMarker);
      }
    });
    page.onRemove(() => plot?.destroy());
    if (figure.cursor) return () => plot && moveMarker();
  },
  {
    numPlaces: (figure) => (figure.cursor ? decodeArray(figure.x).data.length : 0),
    isWide: (figure) => ["step", "time"].includes(figure.cursor) && decodeArray(figure.x).data.length > LONG_TIME,
  },
);
