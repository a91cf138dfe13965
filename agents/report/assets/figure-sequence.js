/** Symbols in a row with attention and answers, and timelines. */

const SYMBOL_CELL = 30;
const SYMBOL_HEIGHT = 28;
const ANSWER_HEIGHT = 24;

registerFigure(
  "sequence",
  (element, figure, page) => {
    const attention = page.decode(figure.attention);
    const confidence = page.decode(figure.confidence);
    const count = figure.symbols.length;
    const hasAnswers = figure.answers.length > 0;
    const isMoving = Boolean(attention || hasAnswers);
    const pitch = SYMBOL_HEIGHT + (hasAnswers ? ANSWER_HEIGHT : 0) + 10;
    const longest = Math.max(1, ...figure.symbols.map((symbol) => symbol.length));
    const cell = Math.max(SYMBOL_CELL, 14 + 8 * longest);
    let board = null;
    let perRow = 1;
    const switches = attention && makeHeadSwitches(page, attention.shape[1], () => board.repaint());
    const layout = (width) => {
      perRow = Math.max(1, Math.floor(width / cell));
      // Rows of equal length read better than a short last one.
      perRow = Math.ceil(count / Math.ceil(count / perRow));
      return Math.ceil(count / perRow);
    };
    const answersHere = () => (hasAnswers ? figure.answers[page.placeIn(figure.answers.length)] : null);
    const confidenceHere = () => (confidence ? entryOf(confidence, page.placeIn(confidence.shape[0])).data : null);
    const isRight = (answers, i) => (figure.truth.length ? answers[i] === figure.truth[i] : null);

    const paint = (context, width, _, colours) => {
      layout(width);
      const weights = attention && entryOf(attention, page.placeIn(attention.shape[0])).data;
      const shades = weights && attentionColours(weights, switches.isChosen, colours);
      const [answers, sure] = [answersHere(), confidenceHere()];
      context.textAlign = "center";
      context.textBaseline = "middle";
      figure.symbols.forEach((symbol, i) => {
        const left = (i % perRow) * cell;
        const top = Math.floor(i / perRow) * pitch;
        context.fillStyle = colours.panel;
        context.fillRect(left + 1, top, cell - 2, SYMBOL_HEIGHT);
        if (shades) {
          const [red, green, blue, alpha] = shades.subarray(4 * i, 4 * i + 4);
          context.fillStyle = `rgba(${red}, ${green}, ${blue}, ${alpha / 255})`;
          context.fillRect(left + 1, top, cell - 2, SYMBOL_HEIGHT);
        }
        context.fillStyle = colours.ink;
        context.font = canvasFont(15, 550);
        context.fillText(symbol, left + cell / 2, top + SYMBOL_HEIGHT / 2 + 1);
        if (answers) paintAnswer(context, answers[i], isRight(answers, i), sure?.[i], left, top + SYMBOL_HEIGHT, colours);
      });
    };
    const paintAnswer = (context, answer, isAnswerRight, sure, left, top, colours) => {
      const colour = isAnswerRight === null ? colours.ink : isAnswerRight ? colours.right : colours.wrong;
      context.fillStyle = colour;
      context.font = canvasFont(13, isAnswerRight === false ? 750 : 450);
      context.fillText(isAnswerRight === false ? `${answer}✗` : answer, left + cell / 2, top + 11);
      if (sure === undefined || Number.isNaN(sure)) return;
      context.globalAlpha = 0.85;
      context.fillRect(left + 3, top + ANSWER_HEIGHT - 5, (cell - 6) * sure, 2.5);
      context.globalAlpha = 1;
    };
    const describe = (x, y) => {
      const column = Math.floor(x / cell);
      const i = Math.floor(y / pitch) * perRow + column;
      if (column >= perRow || i < 0 || i >= count) return null;
      const [answers, sure] = [answersHere(), confidenceHere()];
      const parts = [`position ${i + 1}: ${figure.symbols[i]}`];
      if (answers) parts.push(`answer ${answers[i]}${sure ? ` (${formatWithin(sure[i], [0, 1])})` : ""}`);
      if (figure.truth.length) parts.push(`right is ${figure.truth[i]}`);
      return parts.join(", ");
    };
    const height = (width) => layout(width) * pitch;
    board = makeBoard(page, element, { height, describe, [isMoving ? "moving" : "still"]: paint });
    if (switches) element.append(switches.element);
    if (figure.truth.length && hasAnswers) {
      const entries = [["right", (colours) => colours.right], ["wrong ✗", (colours) => colours.wrong]];
      element.append(makeLegend(page, entries));
    }
    if (isMoving) return () => board.repaint();
  },
  {
    numPlaces: (figure) => figure.attention?.shape[0] ?? figure.answers.length,
    isWide: (figure) => figure.symbols.length > 12,
  },
);

const TIMELINE_ROW = 30;
const TIMELINE_AXIS = 40;

/** Paints the spans of a row; a label that does not fit into its span runs on until the next one. */
function paintSpans(context, spans, x, top, colour, colours) {
  spans.forEach((span, i) => {
    const left = x(span.start);
    const width = Math.max(x(span.end) - left - 1, 2.5);
    const shade = span.verdict ? colours[span.verdict] : colour;
    context.fillStyle = withAlpha(shade, colours.isDark ? 0.42 : 0.26);
    context.fillRect(left, top + 4, width, TIMELINE_ROW - 8);
    context.fillStyle = shade;
    context.fillRect(left, top + 4, 2, TIMELINE_ROW - 8);
    const room = (i + 1 < spans.length ? x(spans[i + 1].start) : x.end) - left - 8;
    const sign = { right: " ✓", wrong: " ✗" }[span.verdict] ?? "";
    context.fillStyle = colours.ink;
    context.font = canvasFont(12);
    for (const text of [span.label + sign, span.label]) {
      if (context.measureText(text).width > room) continue;
      context.fillText(text, left + 6, top + TIMELINE_ROW / 2 + 1);
      break;
    }
  });
}

registerFigure(
  "timeline",
  (element, figure, page) => {
    const numPlaces = figure.num_places;
    const names = [...new Set(figure.spans.map((span) => span.row))];
    const rows = names.map((name) => {
      const spans = figure.spans.filter((span) => span.row === name);
      return spans.sort((a, b) => a.start - b.start);
    });
    const left = Math.min(120, 16 + 7 * Math.max(0, ...names.map((name) => name.length)));
    let scale = 1;
    const scaleOf = (width) => {
      scale = (width - left - 4) / numPlaces;
      const x = (place) => left + place * scale;
      x.end = width;
      return x;
    };
    const still = (context, width, height, colours) => {
      const x = scaleOf(width);
      context.textBaseline = "middle";
      rows.forEach((spans, row) => {
        const top = row * TIMELINE_ROW;
        context.fillStyle = colours.panel;
        context.fillRect(left, top + 2, width - left, TIMELINE_ROW - 4);
        context.fillStyle = colours.soft;
        context.font = canvasFont(12);
        context.textAlign = "right";
        context.fillText(fitText(context, names[row], left - 10), left - 8, top + TIMELINE_ROW / 2);
        context.textAlign = "left";
        paintSpans(context, spans, x, top, seriesColour(colours, row), colours);
      });
      context.fillStyle = colours.soft;
      context.font = canvasFont(11.5);
      context.textAlign = "center";
      for (const tick of niceTicks(1, numPlaces, 8)) {
        if (tick >= 1 && Number.isInteger(tick)) context.fillText(String(tick), x(tick - 0.5), height - 30);
      }
      paintAxisLabel(context, "tick", (left + width) / 2, height - 16, colours);
    };
    const moving = (context, width, height, colours) => {
      const x = scaleOf(width);
      const place = page.placeIn(numPlaces);
      context.strokeStyle = colours.marker;
      context.lineWidth = 1.5;
      const wide = Math.max(scale, 2);
      context.strokeRect(x(place + 0.5) - wide / 2, 1, wide, height - TIMELINE_AXIS + 2);
    };
    const describe = (px, py) => {
      const spans = rows[Math.floor(py / TIMELINE_ROW)];
      const place = Math.floor((px - left) / scale);
      const slack = Math.max(0, 3 / scale);
      const found = spans?.find((span) => place >= span.start - slack && place < span.end + slack);
      if (!found) return null;
      const when = found.end - found.start > 1 ? `ticks ${found.start + 1} to ${found.end}` : `tick ${found.start + 1}`;
      return `${found.row}, ${when}: ${found.label}${found.verdict ? ` (${found.verdict})` : ""}`;
    };
    const height = () => rows.length * TIMELINE_ROW + TIMELINE_AXIS;
    const board = makeBoard(page, element, { height, still, moving, describe });
    return () => board.repaint();
  },
  { numPlaces: (figure) => figure.num_places, isWide: () => true },
);
