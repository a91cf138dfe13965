/** CartPole, balanced by the policy, which can be pushed. */

const CARTPOLE_WINDOW = 200;
const CARTPOLE_PUSH = 0.4; // rad/s
const CARTPOLE_VIEW = 3.2; // from the middle of the picture to its sides
const CARTPOLE_WAIT = 1200;
const POLE_LENGTH = 1.0;

/** An episode: the world, the policy's state, and the last steps. */
class LiveCartPole {
  /** @param {object} machine see machine.js. */
  constructor(machine) {
    this.machine = machine;
    this.isSampled = false;
    this.random = randomOf(1);
    this.best = 0;
    this.reset();
  }

  reset() {
    this.world = cartPole.start(this.random);
    this.thought = this.machine.start();
    this.numSteps = 0;
    this.isOver = false;
    this.pushes = [];
    this.past = [];
    this.think();
  }

  /** What the policy makes of what it is shown now: all its ticks. */
  think() {
    const { model } = this.machine;
    const began = performance.now();
    const reading = this.machine.read(cartPole.observe(this.world, model.data.hidden));
    const start = model.is_state_carried ? this.thought : this.machine.start();
    this.thought = this.machine.think(reading, model.num_ticks, start).pop();
    this.chosen = this.machine.choose(this.thought);
    this.milliseconds = (performance.now() - began) / model.num_ticks;
    this.past.push({ ...this.chosen, activity: this.thought.postActivation, angle: this.world[2] });
    if (this.past.length > CARTPOLE_WINDOW) this.past.shift();
  }

  /** Acts, and thinks about what is seen then. */
  step() {
    if (this.isOver) return;
    const { probabilities, classes } = this.chosen;
    this.action = this.isSampled ? Number(this.random() < probabilities[1]) : classes[0];
    this.world = cartPole.step(this.world, this.action);
    this.numSteps++;
    this.best = Math.max(this.best, this.numSteps);
    this.isOver = cartPole.isOver(this.world) || this.numSteps >= this.machine.model.data.max_steps;
    this.pushes = this.pushes.filter((push) => push.until > this.numSteps);
    if (!this.isOver) this.think();
  }

  /** Pushes the pole at its tip. @param {number} direction -1: to the left, 1: to the right. */
  push(direction) {
    if (this.isOver) return;
    this.world[3] += direction * CARTPOLE_PUSH;
    this.pushes.push({ direction, until: this.numSteps + 12 });
  }

  describe() {
    const { model } = this.machine;
    const steps = `${this.numSteps} of ${model.data.max_steps} steps`;
    if (!this.isOver) return `${steps}; best ${this.best}`;
    return cartPole.isOver(this.world) ? `fallen after ${this.numSteps} steps; best ${this.best}` : `${steps}: the episode ends ✓`;
  }
}

/** Paints cart, pole and pushes. */
function paintCartPole(context, width, height, live, colours) {
  const scale = width / (2 * CARTPOLE_VIEW);
  const ground = height * 0.78;
  const [x, , angle] = live.world;
  const at = (place) => width / 2 + place * scale;
  context.fillStyle = colours.panel;
  context.fillRect(0, 0, width, height);
  context.fillStyle = colours.faint;
  context.fillRect(0, ground + 0.14 * scale, width, 2);
  for (const limit of [-cartPole.MAX_X, cartPole.MAX_X]) {
    context.fillStyle = colours.wrong;
    context.fillRect(at(limit) - 1, ground - 0.15 * scale, 2, 0.45 * scale);
  }
  context.fillStyle = colours.ink;
  context.beginPath();
  context.roundRect(at(x) - 0.34 * scale, ground - 0.14 * scale, 0.68 * scale, 0.28 * scale, 0.05 * scale);
  context.fill();
  const tip = [at(x) + POLE_LENGTH * scale * Math.sin(angle), ground - 0.14 * scale - POLE_LENGTH * scale * Math.cos(angle)];
  paintPath(context, [[at(x), ground - 0.14 * scale], tip], cartPole.isOver(live.world) ? colours.wrong : colours.accent, 0.1 * scale);
  if (live.action !== undefined && !live.isOver) {
    const way = live.action ? 1 : -1;
    paintArrow(context, at(x) + way * 0.45 * scale, ground, way * 0.35 * scale, colours.soft);
  }
  const push = live.pushes[live.pushes.length - 1];
  if (push) paintArrow(context, tip[0] - push.direction * 0.55 * scale, tip[1], push.direction * 0.45 * scale, colours.marker);
}

/** An arrow along x. */
function paintArrow(context, x, y, length, colour) {
  const head = Math.abs(length) * 0.4;
  const way = Math.sign(length);
  context.strokeStyle = colour;
  context.lineWidth = 3;
  context.beginPath();
  context.moveTo(x, y);
  context.lineTo(x + length, y);
  context.moveTo(x + length - way * head, y - head);
  context.lineTo(x + length, y);
  context.lineTo(x + length - way * head, y + head);
  context.stroke();
}

function drawLiveCartPole(element, machine, page) {
  const live = new LiveCartPole(machine);
  let speed = 1;
  let frame = null;
  let lastTime = 0;
  let owed = 0; // steps, not yet taken
  let endedAt = null;
  let neurons = null; // chosen once an episode has lasted a while

  const left = make("div", { class: "live-main" });
  const right = make("div", { class: "live-side" });
  const status = make("p", { class: "live-status" });
  const readout = make("dl", { class: "readout" });
  const boards = [];
  const label = "Cart and pole. Arrow keys left and right push the pole; a press beside it pushes it away.";
  const moving = (context, width, height, colours) => paintCartPole(context, width, height, live, colours);
  const click = (x) => push(x < poleX() ? 1 : -1);
  const board = makeBoard(page, left, { height: (width) => Math.min(width * 0.5, 340), moving, click, label });
  boards.push(board);
  const poleX = () => {
    const { clientWidth } = board.canvas;
    return clientWidth / 2 + ((live.world[0] + (POLE_LENGTH / 2) * Math.sin(live.world[2])) * clientWidth) / (2 * CARTPOLE_VIEW);
  };

  const refresh = () => {
    const { probabilities, value, certainty } = live.chosen;
    status.textContent = live.describe();
    element.dataset.tickMilliseconds = live.milliseconds.toFixed(3);
    const numbers = [
      ["probability of left, right", `${probabilities[0].toFixed(2)}, ${probabilities[1].toFixed(2)}`],
      ["certainty", certainty.toFixed(2)],
      ...(Number.isNaN(value) ? [] : [["value", formatNumber(value)]]),
      ["angle of the pole, degrees", formatNumber((live.world[2] * 180) / Math.PI)],
    ];
    readout.replaceChildren(...numbers.map(([name, text]) => make("div", {}, make("dt", {}, name), make("dd", {}, text))));
    for (const one of boards) one.repaint();
  };
  const showPlaying = () => {
    play.textContent = frame === null ? "▶" : "❚❚";
    play.setAttribute("aria-label", frame === null ? "Play" : "Pause");
  };
  const pause = () => {
    if (frame !== null) cancelAnimationFrame(frame);
    frame = null;
    showPlaying();
  };
  const begin = () => {
    live.reset();
    endedAt = null;
    refresh();
  };
  /** Takes the steps that are due, in the world's own time; after an episode's end, begins another. */
  const advance = (now) => {
    frame = requestAnimationFrame((time) => page.guard(() => advance(time)));
    owed += (Math.min(now - lastTime, 100) / 1000 / cartPole.SECONDS) * speed;
    lastTime = now;
    if (live.isOver) {
      endedAt ??= now;
      owed = 0;
      if (now - endedAt > CARTPOLE_WAIT) begin();
      return;
    }
    const count = Math.floor(owed);
    owed -= count;
    for (let i = 0; i < count; i++) live.step();
    if (count) refresh();
  };
  const start = () => {
    if (frame !== null) return;
    lastTime = performance.now();
    owed = 0;
    frame = requestAnimationFrame((time) => page.guard(() => advance(time)));
    showPlaying();
  };
  const push = (direction) => {
    live.push(direction);
    refresh();
  };
  const takeStep = () => {
    pause();
    if (live.isOver) begin();
    else live.step();
    refresh();
  };

  const play = makeButton("▶", () => (frame === null ? start() : pause()), { class: "play" });
  const sampled = make("input", { type: "checkbox", change: () => (live.isSampled = sampled.checked) });
  const speeds = [[1, "real time"], [0.25, "a quarter"], [0.1, "a tenth"]];
  const controls = make(
    "div",
    { class: "live-controls" },
    play,
    makeButton("One step", takeStep),
    makeButton("New episode", begin),
    makeButton("Push ←", () => push(-1)),
    makeButton("Push →", () => push(1)),
    makeSelect("speed", speeds, 1, (value) => (speed = Number(value))),
    make("label", { class: "live-label" }, sampled, "sample actions"),
  );
  left.append(controls, status, make("p", { class: "live-note" }, describeHidden(machine), " ", label));
  board.canvas.tabIndex = 0;
  board.canvas.setAttribute("role", "application");
  board.canvas.addEventListener("keydown", (event) => {
    const keys = { ArrowLeft: () => push(-1), ArrowRight: () => push(1), " ": () => play.click(), Enter: takeStep };
    if (!(event.key in keys)) return;
    event.preventDefault();
    keys[event.key]();
  });

  right.append(readout);
  const lines = [
    { name: "probability of right", colour: (colours) => seriesColour(colours, 0), values: () => live.past.map((step) => step.probabilities[1]) },
    { name: "certainty", colour: (colours) => seriesColour(colours, 1), values: () => live.past.map((step) => step.certainty) },
  ];
  const length = () => CARTPOLE_WINDOW;
  boards.push(makeCurves(page, right, lines, { length, label: "The last steps: probability of right, and certainty" }));
  const activity = () => live.past.map((step) => step.activity);
  const chosenNeurons = () => {
    if (neurons === null || live.past.length === 50) neurons = liveliestNeurons(activity(), LIVE_NEURONS);
    return neurons;
  };
  boards.push(makeNeuronTraces(page, right, { activity, neurons: chosenNeurons, length }));
  element.append(make("div", { class: "live-columns" }, left, right));

  let isFirst = true;
  page.onVisible((isVisible) => {
    if (!isVisible) pause();
    else if (isFirst && !page.isReduced()) start();
    isFirst = false;
  });
  page.onRemove(pause);
  showPlaying();
  refresh();
}

/** What the policy is not shown, in words. */
function describeHidden(machine) {
  const names = ["the cart's place", "the cart's speed", "the pole's angle", "the pole's speed"];
  const hidden = machine.model.data.hidden.map((index) => names[index]);
  return hidden.length ? `The policy is not shown ${hidden.join(" and ")}: it has to remember.` : "The policy is shown everything.";
}
