/** A maze that can be drawn, and the machine that finds a route through it. */

const MAX_APPLICATIONS = 20;
const FIRST_SEED = 5;
const APPLICATION_PAUSE = 900;
const LARGEST_MAZE = 39;
const MAZE_TRAIL = "#59636e";
const MAZE_KEYS =
  "Arrow keys move the frame in the maze; Enter draws or opens a wall, or sets start or goal, as chosen; " +
  "S and G set start and goal there.";

/** The maze, what the machine thinks of it, and what has been walked. */
class LiveMaze {
  /** @param {object} machine see machine.js. */
  constructor(machine) {
    this.machine = machine;
    this.numTicks = machine.model.num_ticks;
    this.generate(machine.model.data.size, FIRST_SEED);
  }

  /** Sizes that the machine can read: all odd ones, or the one that its position encoding is for. */
  sizes() {
    const { size } = this.machine.model.data;
    if (this.machine.model.positions) return [size];
    const larger = [-4, -2, 0, 2, 4, 6, 10, 20].map((more) => size + more);
    return larger.filter((side) => side >= 5 && side <= Math.max(size, LARGEST_MAZE));
  }

  generate(size, seed) {
    this.maze = mazeWorld.generate(size, randomOf(seed));
    this.think(true);
  }

  get start() {
    return mazeWorld.locate(this.maze, mazeWorld.START);
  }

  /** Thinks about the maze as it is: all ticks, their answers and where these lead. */
  think(isNew) {
    const { machine, maze } = this;
    if (isNew) this.trail = [];
    const began = performance.now();
    const reading = machine.read(mazeWorld.paint(maze, machine.model.data.palette), maze.size, maze.size);
    const encoded = performance.now();
    this.states = machine.think(reading).slice(1);
    this.milliseconds = { encoder: encoded - began, tick: (performance.now() - encoded) / this.numTicks };
    this.grid = [reading.height, reading.width];
    this.answers = this.states.map((state) => machine.answer(state));
    this.walks = this.answers.map((answer) => mazeWorld.follow(maze, this.start, answer.classes));
    this.route = mazeWorld.solve(maze, this.start);
    const heads = this.states[0].attention.length;
    const weights = Float32Array.from(this.states.flatMap((state) => state.attention.flatMap((head) => Array.from(head))));
    this.attention = { shape: [this.numTicks, heads, ...this.grid], data: weights };
    this.centres = attentionCentres(this.attention);
    const certainties = this.answers.map((answer) => answer.certainty);
    this.mostCertain = certainties.indexOf(Math.max(...certainties)) + 1;
  }

  /** The share of the right route's moves that each tick answers right. */
  shares() {
    const moves = this.route?.slice(0, this.machine.model.data.route_length) ?? [];
    return this.answers.map(({ classes }) => {
      const right = moves.filter((move, i) => classes[i] === move).length;
      return moves.length ? right / moves.length : NaN;
    });
  }

  /** Changes a pixel, and moves start or goal away from where they were; false: nothing is to be changed there. */
  set(place, code) {
    const { codes, size } = this.maze;
    const [row, column] = [Math.floor(place / size), place % size];
    const isBorder = row % (size - 1) === 0 || column % (size - 1) === 0;
    const isEnd = codes[place] === mazeWorld.START || codes[place] === mazeWorld.GOAL;
    if (isBorder || isEnd || codes[place] === code) return false;
    if (code === mazeWorld.START || code === mazeWorld.GOAL) codes[codes.indexOf(code)] = mazeWorld.OPEN;
    codes[place] = code;
    this.think(true);
    return true;
  }

  /** Begins again where the answer of a tick has led; false: it has not moved, or is at the goal. */
  goOn(tick) {
    const { places, isSolved } = this.walks[tick - 1];
    if (isSolved || places.length < 2) return false;
    const trail = [...this.trail, ...places];
    this.maze.codes[this.start] = mazeWorld.OPEN;
    this.maze.codes[places[places.length - 1]] = mazeWorld.START;
    this.think(true);
    this.trail = trail;
    return true;
  }

  /** A pixel in words. */
  describePlace(place) {
    const { codes, size } = this.maze;
    const names = ["wall", "open", "start", "goal"];
    return `row ${Math.floor(place / size) + 1}, column ${(place % size) + 1}: ${names[codes[place]]}`;
  }

  /** The answer of a tick in words. */
  describe(tick) {
    const { certainty } = this.answers[tick - 1];
    const { places, isSolved, isBlocked } = this.walks[tick - 1];
    const steps = `${places.length - 1} ${places.length === 2 ? "step" : "steps"}`;
    const end = isSolved ? "to the goal ✓" : isBlocked ? "into a wall" : "and stays there";
    const right = this.shares()[tick - 1];
    const share = Number.isNaN(right) ? "the goal cannot be reached" : `${Math.round(100 * right)} % of the moves right`;
    return `certainty ${certainty.toFixed(2)}; walks ${steps} ${end}; ${share}`;
  }
}

/** Paints the pixels of a maze. */
function paintMaze(context, { codes, size }, scale, colours) {
  const wall = colours.isDark ? "#0c0e11" : "#2d333b";
  const floor = colours.isDark ? "#d8dde3" : "#ffffff";
  const paints = { [mazeWorld.WALL]: wall, [mazeWorld.OPEN]: floor, [mazeWorld.START]: "#e5484d", [mazeWorld.GOAL]: "#30a46c" };
  for (let place = 0; place < codes.length; place++) {
    context.fillStyle = paints[codes[place]];
    // whole pixels, so that there are no seams
    const edge = (cell) => Math.round(cell * scale * devicePixelRatio) / devicePixelRatio;
    const [row, column] = [Math.floor(place / size), place % size];
    context.fillRect(edge(column), edge(row), edge(column + 1) - edge(column), edge(row + 1) - edge(row));
  }
  context.strokeStyle = colours.faint;
  context.strokeRect(0.5, 0.5, size * scale - 1, size * scale - 1);
}

/** Paints attention with its paths, the right route, what was walked before, and the answer's route. */
function paintMazeThought(context, live, tick, isChosen, showsRight, scale) {
  const colours = IMAGE_COLOURS;
  const { maze, attention, centres, grid } = live;
  const side = maze.size * scale;
  const pointOf = (place) => [((place % maze.size) + 0.5) * scale, (Math.floor(place / maze.size) + 0.5) * scale];
  const weights = entryOf(attention, tick - 1).data;
  context.imageSmoothingEnabled = true;
  context.imageSmoothingQuality = "high";
  context.drawImage(canvasOf(attentionColours(weights, isChosen, colours), ...grid), 0, 0, side, side);
  if (showsRight && live.route) {
    const { places } = mazeWorld.follow(maze, live.start, live.route);
    paintPath(context, places.map(pointOf), withAlpha(colours.right, 0.5), Math.max(5, scale * 0.6));
  }
  paintPath(context, live.trail.map(pointOf), MAZE_TRAIL, Math.max(2, scale * 0.14), "rgba(255, 255, 255, 0.8)");
  isChosen.forEach((isShown, head) => {
    if (!isShown) return;
    const path = centres.slice(0, tick).map((heads) => heads[head]).filter(Boolean);
    const points = path.map(([row, column]) => [((column + 0.5) * side) / grid[1], ((row + 0.5) * side) / grid[0]]);
    paintPath(context, points, seriesColour(colours, head), 1.75, "rgba(255, 255, 255, 0.75)");
    paintDot(context, points[points.length - 1], seriesColour(colours, head), 5);
  });
  const walked = live.walks[tick - 1].places.map(pointOf);
  paintPath(context, walked, colours.wrong, Math.max(2.5, scale * 0.2), "rgba(255, 255, 255, 0.9)");
  paintDot(context, walked[walked.length - 1], colours.wrong, Math.max(4.5, scale * 0.26));
}

function drawLiveMaze(element, machine, page) {
  const live = new LiveMaze(machine);
  let tool = "wall";
  let cursor = null;
  let showsRight = false;
  let application = null; // the timer of going on until the goal
  let curves = null;
  let neurons = null;

  const status = make("p", { class: "live-status", "aria-live": "polite" });
  const left = make("div", { class: "live-main" });
  const right = make("div", { class: "live-side" });
  const player = makeTickPlayer(page, live.numTicks, () => refresh());
  const makeHeads = () => makeHeadSwitches(page, live.attention.shape[1], () => refresh(), live.grid);
  let heads = makeHeads();
  const seed = make("input", { type: "number", min: 0, step: 1, value: FIRST_SEED, change: () => renew(0) });

  const moving = (context, width, _, colours) => {
    const scale = width / live.maze.size;
    paintMaze(context, live.maze, scale, colours);
    paintMazeThought(context, live, player.tick(), heads.isChosen, showsRight, scale);
    if (cursor === null || document.activeElement !== board.canvas) return;
    context.strokeStyle = colours.marker;
    context.lineWidth = 3;
    const [x, y] = [(cursor % live.maze.size) * scale, Math.floor(cursor / live.maze.size) * scale];
    context.strokeRect(x + 1.5, y + 1.5, scale - 3, scale - 3);
  };
  const board = makeBoard(page, left, { height: (width) => width, moving, label: `The maze. ${MAZE_KEYS}` });

  const refresh = (text = live.describe(player.tick())) => {
    status.setAttribute("aria-live", player.isPlaying() ? "off" : "polite");
    status.textContent = text;
    element.dataset.tickMilliseconds = live.milliseconds.tick.toFixed(3);
    element.dataset.encoderMilliseconds = live.milliseconds.encoder.toFixed(3);
    board.repaint();
    heads.paintMaps(entryOf(live.attention, player.tick() - 1).data);
    curves?.repaint();
    neurons?.repaint();
  };
  /** The maze has changed: its most certain answer is shown. */
  const showThought = () => player.go(live.mostCertain);
  const stop = () => {
    clearTimeout(application);
    application = null;
    untilGoal.textContent = "Until the goal";
  };
  const renew = (more) => {
    stop();
    seed.value = readSeed(seed) + more;
    live.generate(live.maze.size, Number(seed.value));
    showThought();
  };
  const resize = (size) => {
    stop();
    live.generate(Number(size), readSeed(seed));
    cursor = null;
    // the small pictures of attention have as many places as the map
    const before = heads.element;
    heads = makeHeads();
    before.replaceWith(heads.element);
    showThought();
  };
  const edit = (place, code) => {
    stop();
    if (live.set(place, code)) showThought();
  };

  /** Uses the most certain answer, walks there, and begins again, until the goal. */
  const goOnUntilGoal = (count) => {
    player.go(live.mostCertain);
    const isSolved = live.walks[live.mostCertain - 1].isSolved;
    const times = `${count} ${count === 1 ? "answer" : "answers"}`;
    if (isSolved || count >= MAX_APPLICATIONS) {
      stop();
      return refresh(isSolved ? `the goal, with ${times} ✓` : `given up after ${times}`);
    }
    refresh(`answer ${count}: ${live.describe(player.tick())}`);
    const next = () => {
      if (live.goOn(live.mostCertain)) return goOnUntilGoal(count + 1);
      stop();
      return refresh(`given up after ${times}: the last one does not move, and the same image gets the same answer`);
    };
    application = setTimeout(() => page.guard(next), APPLICATION_PAUSE);
  };
  const goOn = makeButton("Go on from where it got to", () => {
    stop();
    const end = live.walks[player.tick() - 1];
    if (live.goOn(player.tick())) showThought();
    else refresh(end.isSolved ? "it is at the goal already" : "this answer does not move: there is nowhere to go on from");
  });
  const untilGoal = makeButton("Until the goal", () => {
    if (application !== null) return stop();
    untilGoal.textContent = "Stop";
    return goOnUntilGoal(1);
  });

  addMazeEditing(board.canvas, live, {
    codeAt: (place) => {
      if (tool !== "wall") return tool === "start" ? mazeWorld.START : mazeWorld.GOAL;
      return live.maze.codes[place] === mazeWorld.WALL ? mazeWorld.OPEN : mazeWorld.WALL;
    },
    edit,
    cursor: () => (cursor ??= live.start),
    moveCursor: (place) => {
      cursor = place;
      status.textContent = live.describePlace(place);
      board.repaint();
    },
    leave: () => refresh(),
  });

  const tools = [["wall", "walls"], ["start", "start"], ["goal", "goal"]];
  const sizes = live.sizes().map((size) => [size, `${size} × ${size}`]);
  const showRight = make("input", { type: "checkbox", change: () => ((showsRight = showRight.checked), refresh()) });
  const controls = make(
    "div",
    { class: "live-controls" },
    makeButton("New maze", () => renew(1)),
    make("label", { class: "live-label" }, "seed", seed),
    makeSelect("size", sizes, live.maze.size, resize),
    make("span", { class: "live-label" }, "press to set", makeChoice("What a press in the maze sets", tools, tool, (value) => (tool = value))),
  );
  element.append(controls, make("div", { class: "live-columns" }, left, right));
  left.append(player.element, heads.element);
  right.append(status, make("div", { class: "live-controls" }, goOn, untilGoal));
  right.append(make("label", { class: "live-label" }, showRight, "show the right route"));
  const shares = [
    { name: "certainty", colour: (colours) => seriesColour(colours, 0), values: () => live.answers.map((answer) => answer.certainty) },
    { name: "moves right", colour: (colours) => colours.right, values: () => live.shares() },
  ];
  const cursorAt = () => player.tick() - 1;
  const pick = (index) => player.go(index + 1);
  curves = makeCurves(page, right, shares, { length: () => live.numTicks, cursor: cursorAt, pick, label: "Certainty and right moves by tick" });
  neurons = makeNeuronTraces(page, right, {
    activity: () => live.states.map((state) => state.postActivation),
    neurons: () => liveliestNeurons(live.states.map((state) => state.postActivation), LIVE_NEURONS),
    length: () => live.numTicks,
    cursor: cursorAt,
  });
  right.append(make("p", { class: "live-note" }, MAZE_KEYS, " Start and goal can be dragged."));
  page.onRemove(stop);
  showThought();
}

/** Pointer and keys on the canvas of a maze; start and goal are dragged. */
function addMazeEditing(canvas, live, { codeAt, edit, cursor, moveCursor, leave }) {
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "application");
  let dragged = null; // the code that is drawn while the pointer is down
  const placeOf = (event) => {
    const { size } = live.maze;
    const cell = (offset) => Math.floor((offset * size) / canvas.clientWidth);
    const [row, column] = [cell(event.offsetY), cell(event.offsetX)];
    return row >= 0 && row < size && column >= 0 && column < size ? row * size + column : -1;
  };
  canvas.addEventListener("pointerdown", (event) => {
    const place = placeOf(event);
    if (place < 0 || event.button !== 0) return;
    const code = live.maze.codes[place];
    const isEnd = code === mazeWorld.START || code === mazeWorld.GOAL;
    dragged = isEnd ? code : codeAt(place);
    moveCursor(place);
    if (!isEnd) edit(place, dragged);
  });
  canvas.addEventListener("pointermove", (event) => {
    const place = placeOf(event);
    if (dragged === null || place < 0) return;
    // Walls are not drawn over start and goal; these are not moved into walls by dragging.
    const isEnd = dragged === mazeWorld.START || dragged === mazeWorld.GOAL;
    if (!isEnd || live.maze.codes[place] === mazeWorld.OPEN) edit(place, dragged);
  });
  for (const name of ["pointerup", "pointercancel", "pointerleave"]) {
    canvas.addEventListener(name, () => (dragged = null));
  }
  canvas.addEventListener("focus", () => moveCursor(cursor()));
  canvas.addEventListener("blur", leave);
  const moves = { ArrowUp: 0, ArrowDown: 1, ArrowLeft: 2, ArrowRight: 3 };
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const place = cursor();
    const codes = { Enter: () => codeAt(place), " ": () => codeAt(place), s: () => mazeWorld.START, g: () => mazeWorld.GOAL };
    if (event.key in moves) {
      const next = mazeWorld.neighbour(live.maze.size, place, moves[event.key]);
      if (next >= 0) moveCursor(next);
    } else if (event.key in codes) {
      edit(place, codes[event.key]());
    } else {
      return;
    }
    event.preventDefault();
  });
}
