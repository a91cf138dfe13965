/** A sequence whose bits can be flipped, and the machine that answers the parity of every prefix. */

const PARITY_ROW = 14;
const PARITY_CELL = 42;

/** The sequence and what the machine thinks of it. */
class LiveParity {
  /** @param {object} machine see machine.js. */
  constructor(machine) {
    this.machine = machine;
    this.numTicks = machine.model.num_ticks;
    this.length = machine.model.data.length;
    this.draw(1);
  }

  draw(seed) {
    const random = randomOf(seed);
    this.bits = Array.from({ length: this.length }, () => (random() < 0.5 ? -1 : 1));
    this.think();
  }

  flip(place) {
    this.bits[place] = -this.bits[place];
    this.think();
  }

  think() {
    const began = performance.now();
    const reading = this.machine.read(this.bits);
    this.states = this.machine.think(reading).slice(1);
    this.milliseconds = (performance.now() - began) / this.numTicks;
    this.answers = this.states.map((state) => this.machine.answer(state));
    let isOdd = 0;
    this.truth = this.bits.map((bit) => (isOdd = bit < 0 ? 1 - isOdd : isOdd));
    this.isRight = this.answers.map(({ classes }) => classes.map((one, place) => one === this.truth[place]));
    const certainties = this.answers.map((answer) => answer.certainty);
    this.mostCertain = certainties.indexOf(Math.max(...certainties)) + 1;
  }

  /** The probability of the answer that a tick gives for a place. */
  confidence(tick, place) {
    const { classes, probabilities } = this.answers[tick - 1];
    return probabilities[2 * place + classes[place]];
  }

  /** The share of places that each tick answers right. */
  shares() {
    return this.isRight.map((places) => places.filter(Boolean).length / this.length);
  }

  describe(tick) {
    const right = this.isRight[tick - 1].filter(Boolean).length;
    const sign = right === this.length ? " ✓" : "";
    return `certainty ${this.answers[tick - 1].certainty.toFixed(2)}; ${right} of ${this.length} places right${sign}`;
  }
}

function drawLiveParity(element, machine, page) {
  const live = new LiveParity(machine);
  const status = make("p", { class: "live-status", "aria-live": "polite" });
  const row = make("div", { class: "live-bits", role: "group", "aria-label": "The sequence; a press flips a bit" });
  const player = makeTickPlayer(page, live.numTicks, () => refresh());
  const heads = makeHeadSwitches(page, live.states[0].attention.length, () => refresh());
  const seed = make("input", { type: "number", min: 0, step: 1, value: 1, change: () => renew(0) });
  const boards = [];

  const cells = live.bits.map((_, place) => {
    const button = makeButton("", () => flip(place), { class: "live-bit" });
    const bars = live.states[0].attention.map(() => make("i", {}));
    const answer = make("span", { class: "live-answer" });
    row.append(make("div", { class: "live-place" }, make("div", { class: "live-bars", "aria-hidden": "true" }, ...bars), button, answer));
    return { button, bars, answer };
  });

  // Rows of equal length read better than a short last one.
  const arrange = () => {
    const room = Math.max(1, Math.floor(row.clientWidth / PARITY_CELL));
    const columns = Math.ceil(live.length / Math.ceil(live.length / room));
    row.style.gridTemplateColumns = `repeat(${columns}, minmax(0, 3.4rem))`;
  };

  const showPlace = ({ button, bars, answer }, place, colours) => {
    const tick = player.tick();
    const isMinus = live.bits[place] < 0;
    const isRight = live.isRight[tick - 1][place];
    const odd = live.answers[tick - 1].classes[place] ? "odd" : "even";
    const confidence = live.confidence(tick, place);
    button.textContent = isMinus ? "−" : "+";
    button.setAttribute("aria-label", `place ${place + 1}: ${isMinus ? "minus" : "plus"} 1; answered ${odd}, ${isRight ? "right" : "wrong"}`);
    button.classList.toggle("is-minus", isMinus);
    answer.textContent = `${odd === "odd" ? 1 : 0}${isRight ? "✓" : "✗"}`;
    answer.title = `${odd}, with a probability of ${confidence.toFixed(2)}`;
    answer.style.color = isRight ? colours.right : colours.wrong;
    answer.style.opacity = String(0.35 + 0.65 * (2 * confidence - 1));
    bars.forEach((bar, head) => {
      const weights = live.states[tick - 1].attention[head];
      bar.style.height = `${(100 * weights[place]) / Math.max(...weights)}%`;
      bar.style.background = seriesColour(colours, head);
      bar.hidden = !heads.isChosen[head];
    });
  };
  const refresh = () => {
    status.setAttribute("aria-live", player.isPlaying() ? "off" : "polite");
    status.textContent = live.describe(player.tick());
    element.dataset.tickMilliseconds = live.milliseconds.toFixed(3);
    const colours = page.colours();
    cells.forEach((cell, place) => showPlace(cell, place, colours));
    boards.forEach((board) => board.repaint());
  };
  const showThought = () => player.go(live.mostCertain);
  const flip = (place) => {
    live.flip(place);
    showThought();
  };
  const renew = (more) => {
    seed.value = readSeed(seed) + more;
    live.draw(Number(seed.value));
    showThought();
  };
  const setAll = (bit) => {
    live.bits.fill(bit);
    live.think();
    showThought();
  };

  const left = make("div", { class: "live-main" });
  const right = make("div", { class: "live-side" });
  const controls = make(
    "div",
    { class: "live-controls" },
    makeButton("New sequence", () => renew(1)),
    make("label", { class: "live-label" }, "seed", seed),
    makeButton("all +", () => setAll(1)),
    makeButton("all −", () => setAll(-1)),
  );
  element.append(controls, row, make("div", { class: "live-columns" }, left, right));
  left.append(status, player.element, heads.element);
  const pick = (index) => player.go(index + 1);
  boards.push(makeAnswerBoard(page, left, live, player, pick));
  const cursor = () => player.tick() - 1;
  const lines = [
    { name: "certainty", colour: (colours) => seriesColour(colours, 0), values: () => live.answers.map((answer) => answer.certainty) },
    { name: "places right", colour: (colours) => colours.right, values: () => live.shares() },
  ];
  boards.push(makeCurves(page, right, lines, { length: () => live.numTicks, cursor, pick, label: "Certainty and right places by tick" }));
  const activity = () => live.states.map((state) => state.postActivation);
  const neurons = () => liveliestNeurons(activity(), LIVE_NEURONS);
  boards.push(makeNeuronTraces(page, right, { activity, neurons, length: () => live.numTicks, cursor }));
  page.onTheme(refresh);
  page.onResize(row, arrange);
  arrange();
  showThought();
}

/** What is answered for each place, in columns, after each tick, in rows: right or wrong, the surer the stronger. */
function makeAnswerBoard(page, element, live, player, pick) {
  const left = 28;
  const moving = (context, width, _, colours) => {
    const cell = (width - left) / live.length;
    context.font = canvasFont(11);
    context.textAlign = "right";
    context.textBaseline = "middle";
    const step = Math.ceil(live.numTicks / 12);
    for (let tick = 1; tick <= live.numTicks; tick++) {
      const top = (tick - 1) * PARITY_ROW;
      context.fillStyle = colours.soft;
      if ((tick - 1) % step === 0) context.fillText(String(tick), left - 8, top + PARITY_ROW / 2);
      for (let place = 0; place < live.length; place++) {
        const shade = live.isRight[tick - 1][place] ? colours.right : colours.wrong;
        context.fillStyle = withAlpha(shade, 0.12 + 0.88 * (2 * live.confidence(tick, place) - 1));
        context.fillRect(left + place * cell + 0.5, top + 0.5, cell - 1, PARITY_ROW - 1);
      }
    }
    context.strokeStyle = colours.marker;
    context.lineWidth = 2;
    context.strokeRect(left, (player.tick() - 1) * PARITY_ROW, width - left - 1, PARITY_ROW);
  };
  const tickAt = (y) => Math.min(live.numTicks - 1, Math.max(0, Math.floor(y / PARITY_ROW)));
  const describe = (x, y) => {
    const place = Math.floor(((x - left) * live.length) / (board.canvas.clientWidth - left));
    if (place < 0 || place >= live.length) return null;
    const tick = tickAt(y) + 1;
    const odd = live.answers[tick - 1].classes[place] ? "odd" : "even";
    const verdict = live.isRight[tick - 1][place] ? "right" : "wrong";
    return `tick ${tick}, place ${place + 1}: ${odd} (${verdict}), probability ${live.confidence(tick, place).toFixed(2)}`;
  };
  const label = "Answers by tick, in rows, and place, in columns: right or wrong, the surer the stronger";
  const click = (_, y) => pick(tickAt(y));
  const board = makeBoard(page, element, { height: () => live.numTicks * PARITY_ROW + 1, moving, describe, click, label });
  const entries = [["right", (colours) => colours.right], ["wrong", (colours) => colours.wrong]];
  element.append(makeLegend(page, entries, "dot"));
  element.append(make("p", { class: "live-note" }, "Answers after each tick, in rows, for each place: the surer the stronger."));
  return board;
}
