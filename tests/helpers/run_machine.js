// Runs the page's machine and physics on what a test has written: node THIS ASSETS_FOLDER, cases as JSON on stdin.
const fs = require("node:fs");
const path = require("node:path");
const vm = require("node:vm");

const VIEWS = { f16: Uint16Array, f32: Float32Array, i32: Int32Array, u8: Uint8Array };

function fromHalf(bits) {
  return Float32Array.from(bits, (value) => {
    const exponent = (value >> 10) & 31;
    const fraction = (value & 1023) / 1024;
    const size = exponent ? (1 + fraction) * 2 ** (exponent - 15) : fraction * 2 ** -14;
    return value & 0x8000 ? -size : size;
  });
}

function decode({ type, data }) {
  const bytes = Uint8Array.from(Buffer.from(data, "base64"));
  const values = new VIEWS[type](bytes.buffer);
  return type === "f16" ? fromHalf(values) : values;
}

const names = ["arrays.js", "figure-picture.js", "machine.js", "live-worlds.js", "live-mazes.js"];
const files = names.map((name) => fs.readFileSync(path.join(process.argv[2], name), "utf8"));
const source = ["function registerFigure() {}", ...files, "({ createMachine, randomOf, mazeWorld, cartPole, LiveMaze })"];
const { createMachine, randomOf, mazeWorld, cartPole, LiveMaze } = vm.runInThisContext(source.join("\n"));

const plain = (array) => Array.from(array);

const kinds = {
  // All ticks on each input: logits, certainty and attention after each, and the seconds that they took.
  answer({ model, inputs, height, width }) {
    const machine = createMachine(model, decode);
    return inputs.map((input) => {
      const began = performance.now();
      const reading = machine.read(input, height, width);
      const encoded = performance.now();
      const states = machine.think(reading).slice(1);
      const ended = performance.now();
      const answers = states.map(machine.answer);
      return {
        logits: answers.map((answer) => plain(answer.logits)),
        classes: answers.map((answer) => answer.classes),
        certainties: answers.map((answer) => answer.certainty),
        attention: states.map((state) => state.attention.map(plain)),
        pre_activations: states.map((state) => plain(state.preActivation)),
        sync: states.map((state) => plain(machine.sync(state))),
        milliseconds: { encoder: encoded - began, tick: (ended - encoded) / states.length },
      };
    });
  },
  // An episode: all ticks at each observation.
  act({ model, inputs }) {
    const machine = createMachine(model, decode);
    let state = machine.start();
    return inputs.map((observation) => {
      const start = machine.model.is_state_carried ? state : machine.start();
      state = machine.think(machine.read(observation), machine.model.num_ticks, start).pop();
      const chosen = machine.choose(state);
      return { ...chosen, logits: plain(chosen.logits), probabilities: plain(chosen.probabilities) };
    });
  },
  // Mazes whose routes are answered piece by piece: the steps of each piece, and whether the goal is reached.
  reapply({ model, mazes, size, most }) {
    const machine = createMachine(model, decode);
    return mazes.map((codes) => {
      const live = new LiveMaze(machine);
      live.maze = { codes: Uint8Array.from(codes), size };
      live.think(true);
      const steps = [];
      do steps.push(live.walks[live.mostCertain - 1].places.length - 1);
      while (steps.length < most && live.goOn(live.mostCertain));
      return { steps, isSolved: live.walks[live.mostCertain - 1].isSolved };
    });
  },
  // Generated mazes with their routes; and where given moves lead in given mazes.
  generate({ size, seeds }) {
    return seeds.map((seed) => {
      const maze = mazeWorld.generate(size, randomOf(seed));
      const start = mazeWorld.locate(maze, mazeWorld.START);
      return { codes: plain(maze.codes), moves: mazeWorld.solve(maze, start) };
    });
  },
  follow({ size, mazes, moves }) {
    return mazes.map((codes, i) => {
      const maze = { codes: Uint8Array.from(codes), size };
      const start = mazeWorld.locate(maze, mazeWorld.START);
      const { places, isSolved } = mazeWorld.follow(maze, start, moves[i]);
      return { end: places[places.length - 1], steps: places.length - 1, isSolved };
    });
  },
  paint({ size, codes, palette }) {
    return plain(mazeWorld.paint({ codes: Uint8Array.from(codes), size }, palette));
  },
  // CartPole's states after each action, what is observed of them, and whether the episode is over.
  physics({ state, actions, hidden }) {
    return actions.map((action) => {
      state = cartPole.step(state, action);
      return { state, observation: plain(cartPole.observe(state, hidden)), isOver: cartPole.isOver(state) };
    });
  },
};

const cases = JSON.parse(fs.readFileSync(0, "utf8"));
console.log(JSON.stringify(cases.map((one) => kinds[one.kind](one))));
