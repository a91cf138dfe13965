/** A trained machine that runs in the page: what its tasks share. Each task has a file of its own, live-TASK.js. */

const LIVE_NEURONS = 8;
const CURVE_HEIGHT = 96;
const NEURON_HEIGHT = 30;

registerFigure(
  "machine",
  (element, figure, page) => {
    const tasks = { mazes: drawLiveMaze, parity: drawLiveParity, cartpole: drawLiveCartPole };
    const machine = createMachine(figure.model, (array) => page.decode(array).data);
    element.classList.add("live");
    // The figure has a slider and keys of its own.
    element.addEventListener("keydown", (event) => event.stopPropagation());
    tasks[figure.task](element, machine, page);
  },
  { isWide: () => true },
);

/** @param {string} text @param {() => void} press */
function makeButton(text, press, attributes = {}) {
  return make("button", { type: "button", click: press, ...attributes }, text);
}

/** A choice of a few, as buttons of which one is pressed. @param {[string, string][]} options values and their texts. */
function makeChoice(label, options, value, onChange) {
  const buttons = options.map(([option, text]) => {
    const button = makeButton(text, () => choose(option), { class: "switch", "aria-pressed": String(option === value) });
    button.dataset.value = option;
    return button;
  });
  const choose = (option) => {
    buttons.forEach((button) => button.setAttribute("aria-pressed", String(button.dataset.value === option)));
    onChange(option);
  };
  return make("div", { class: "live-choice", role: "group", "aria-label": label }, ...buttons);
}

/** A list of numbers to choose from. @param {[number|string, string][]} options */
function makeSelect(label, options, value, onChange) {
  const select = make("select", { change: () => onChange(select.value) });
  select.append(...options.map(([option, text]) => make("option", { value: option }, text)));
  select.value = String(value);
  return make("label", { class: "live-label" }, label, select);
}

/**
 * Play, one tick back and on, and a slider from the first tick to the last; a clock of its own moves them.
 *
 * @param {object} page
 * @param {number} numTicks K.
 * @param {() => void} onChange the tick is another one, or is to be shown again.
 * @returns {{element: HTMLElement, tick: () => number, go: (tick: number) => void, isPlaying: () => boolean}} `go`
 *   stops playing and shows a tick, from 1.
 */
function makeTickPlayer(page, numTicks, onChange) {
  const clock = new Clock();
  clock.setTime(numTicks, [], numTicks - 1);
  const isPlaying = () => clock.playing !== null && clock.playing !== undefined;
  const go = (tick) => {
    clock.pause();
    clock.go(tick - 1);
    refresh();
  };
  const play = makeButton("", () => clock.toggle(), { class: "play" });
  const back = makeButton("‹", () => go(clock.place), { "aria-label": "One tick back", title: "One tick back" });
  const on = makeButton("›", () => go(clock.place + 2), { "aria-label": "One tick on", title: "One tick on" });
  const slide = () => go(Number(slider.value));
  const slider = make("input", { type: "range", min: 1, max: numTicks, step: 1, "aria-label": "Tick", input: slide });
  const output = make("output", { class: "live-tick" });
  const refresh = () => {
    slider.value = clock.place + 1;
    output.textContent = clock.text();
    slider.setAttribute("aria-valuetext", clock.text());
    play.textContent = isPlaying() ? "❚❚" : "▶";
    play.setAttribute("aria-label", isPlaying() ? "Pause" : "Play");
    onChange();
  };
  clock.listeners.add(() => page.guard(refresh));
  page.onRemove(() => clock.pause());
  const element = make("div", { class: "live-player" }, play, back, slider, on, output);
  return { element, tick: () => clock.place + 1, go, isPlaying };
}

/**
 * Lines between 0 and 1 over the ticks or steps, with a cursor; a press on it goes there.
 *
 * @param {{name: string, colour: (colours: object) => string, values: () => ArrayLike<number>}[]} lines
 * @param {{length: () => number, cursor?: () => number, pick?: (index: number) => void, label: string}} options the
 *   number of places, and the place of the cursor, from 0.
 */
function makeCurves(page, element, lines, options) {
  const left = 22;
  const scaleOf = (width) => (i) => left + 4 + ((width - left - 8) * i) / Math.max(1, options.length() - 1);
  const moving = (context, width, height, colours) => {
    const x = scaleOf(width);
    const y = (value) => 6 + (height - 12) * (1 - value);
    context.fillStyle = colours.panel;
    context.fillRect(left, 0, width - left, height);
    context.fillStyle = colours.soft;
    context.font = canvasFont(11);
    context.textBaseline = "middle";
    context.textAlign = "right";
    for (const value of [0, 1]) context.fillText(String(value), left - 6, y(value));
    context.fillStyle = colours.faint;
    for (const value of [0, 0.5, 1]) context.fillRect(left, y(value) - 0.5, width - left, 1);
    if (options.cursor) {
      context.fillStyle = colours.marker;
      context.fillRect(x(options.cursor()) - 1, 0, 2, height);
    }
    context.lineWidth = 2;
    context.lineJoin = "round";
    for (const line of lines) {
      context.strokeStyle = line.colour(colours);
      paintTrace(context, Array.from(line.values()), x, y);
    }
  };
  const click = (px, _) => {
    const share = (px - left - 4) / (board.canvas.clientWidth - left - 8);
    options.pick?.(Math.round(Math.min(1, Math.max(0, share)) * (options.length() - 1)));
  };
  const board = makeBoard(page, element, { height: () => CURVE_HEIGHT, moving, click, label: options.label });
  element.append(makeLegend(page, lines.map(({ name, colour }) => [name, colour])));
  return board;
}

/** The neurons that move most over some post-activations, [places][D]. */
function liveliestNeurons(activity, count) {
  const spreads = Array.from(activity[0], (_, d) => {
    const [low, high] = limitsOf(activity.map((z) => z[d]));
    return [high - low, d];
  });
  return spreads.sort((a, b) => b[0] - a[0]).slice(0, count).map(([, d]) => d);
}

/**
 * Traces of some neurons' post-activations over the ticks or steps, each on a scale of its own.
 *
 * @param {{activity: () => Float64Array[], neurons: () => number[], length: () => number, cursor?: () => number}} options
 */
function makeNeuronTraces(page, element, options) {
  const gap = 10;
  const moving = (context, width, _, colours) => {
    const activity = options.activity();
    const cell = (width - gap) / 2;
    options.neurons().forEach((neuron, i) => {
      const left = (i % 2) * (cell + gap);
      const top = Math.floor(i / 2) * (NEURON_HEIGHT + 6);
      const values = activity.map((z) => z[neuron]);
      const [low, high] = paddedLimits(limitsOf(values), 0.12);
      const x = (k) => left + 2 + ((cell - 4) * k) / Math.max(1, options.length() - 1);
      context.fillStyle = colours.panel;
      context.fillRect(left, top, cell, NEURON_HEIGHT);
      if (options.cursor) {
        context.fillStyle = colours.marker;
        context.fillRect(x(options.cursor()) - 0.5, top, 1, NEURON_HEIGHT);
      }
      context.strokeStyle = seriesColour(colours, i);
      context.lineWidth = 1.5;
      paintTrace(context, values, x, (value) => top + NEURON_HEIGHT * (1 - (value - low) / (high - low)));
    });
  };
  const height = () => (LIVE_NEURONS / 2) * (NEURON_HEIGHT + 6) - 6;
  const board = makeBoard(page, element, { height, moving, label: "Post-activations of the neurons that move most" });
  element.append(make("p", { class: "live-note" }, `The ${LIVE_NEURONS} neurons that move most, each on a scale of its own.`));
  return board;
}

/** The words for a seed that is typed: whole numbers from 0; everything else is taken as 0. */
function readSeed(input) {
  const seed = Math.floor(Number(input.value));
  return Number.isFinite(seed) && seed >= 0 ? seed : 0;
}
