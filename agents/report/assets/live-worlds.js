/** The worlds of the live figures, without anything drawn: mazes, CartPole's physics, and chance that can be repeated. */

/** Random numbers in [0, 1) from a seed (mulberry32). @param {number} seed @returns {() => number} */
function randomOf(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/**
 * Mazes as in ctm_rl.envs.tasks: squares of pixels, each a code; cells at odd rows and columns, passages or walls
 * between them. A place is row * size + column. Moves are 0 up, 1 down, 2 left, 3 right, 4 wait.
 *
 * @typedef {{codes: Uint8Array, size: number}} Maze
 */
const mazeWorld = (() => {
  const WALL = 0;
  const OPEN = 1;
  const START = 2;
  const GOAL = 3;
  const WAIT = 4;

  /** What each move adds to a place. */
  const deltasOf = (size) => [-size, size, -1, 1, 0];

  /** The place one move away; -1: outside of the image. */
  function neighbour(size, place, move) {
    const column = place % size;
    if ((move === 2 && column === 0) || (move === 3 && column === size - 1)) return -1;
    const next = place + deltasOf(size)[move];
    return next >= 0 && next < size * size ? next : -1;
  }

  /** The only place with a code. @param {Maze} maze */
  const locate = (maze, code) => maze.codes.indexOf(code);

  /**
   * A perfect maze by randomised depth-first search, with start and goal on two different cells.
   *
   * @param {number} size odd, at least 5. @param {() => number} random @returns {Maze}
   */
  function generate(size, random) {
    const codes = new Uint8Array(size * size);
    const cells = (size - 1) / 2;
    const drawCell = (count) => Math.floor(random() * count);
    const placeOf = (cell) => (2 * Math.floor(cell / cells) + 1) * size + 2 * (cell % cells) + 1;
    const path = [placeOf(drawCell(cells * cells))];
    codes[path[0]] = OPEN;
    while (path.length) {
      const place = path[path.length - 1];
      const choices = [0, 1, 2, 3].filter((move) => {
        const wall = neighbour(size, place, move);
        const cell = wall < 0 ? -1 : neighbour(size, wall, move);
        return cell >= 0 && codes[cell] === WALL;
      });
      if (!choices.length) {
        path.pop();
        continue;
      }
      const delta = deltasOf(size)[choices[Math.floor(random() * choices.length)]];
      codes[place + delta] = OPEN;
      codes[place + 2 * delta] = OPEN;
      path.push(place + 2 * delta);
    }
    const start = drawCell(cells * cells);
    const goal = (start + 1 + drawCell(cells * cells - 1)) % (cells * cells);
    codes[placeOf(start)] = START;
    codes[placeOf(goal)] = GOAL;
    return { codes, size };
  }

  /** The moves of a shortest route, up before down before left before right; null: the goal cannot be reached. */
  function solve({ codes, size }, start) {
    const distance = new Int32Array(codes.length).fill(-1);
    const goal = codes.indexOf(GOAL);
    const queue = [goal];
    distance[goal] = 0;
    for (const place of queue) {
      for (let move = 0; move < WAIT; move++) {
        const next = neighbour(size, place, move);
        if (next < 0 || codes[next] === WALL || distance[next] >= 0) continue;
        distance[next] = distance[place] + 1;
        queue.push(next);
      }
    }
    if (distance[start] < 0) return null;
    const moves = [];
    for (let place = start; place !== goal; ) {
      const isNearer = (move) => {
        const next = neighbour(size, place, move);
        return next >= 0 && distance[next] >= 0 && distance[next] < distance[place];
      };
      const move = [0, 1, 2, 3].find(isNearer);
      moves.push(move);
      place = neighbour(size, place, move);
    }
    return moves;
  }

  /**
   * Where moves lead: until the goal, a wall, or the last move.
   *
   * @returns {{places: number[], isSolved: boolean, isBlocked: boolean}} the places from the start on, one more for
   *   each step, and why the walk ended.
   */
  function follow({ codes, size }, start, moves) {
    const places = [start];
    for (const move of moves) {
      const place = places[places.length - 1];
      if (codes[place] === GOAL) break;
      if (move === WAIT) continue;
      const next = neighbour(size, place, move);
      if (next < 0 || codes[next] === WALL) return { places, isSolved: false, isBlocked: true };
      places.push(next);
    }
    return { places, isSolved: codes[places[places.length - 1]] === GOAL, isBlocked: false };
  }

  /** The image that a model reads: the palette's numbers for each pixel, [3, size, size]. */
  function paint({ codes }, palette) {
    const values = new Float32Array(3 * codes.length);
    for (let channel = 0; channel < 3; channel++) {
      for (let i = 0; i < codes.length; i++) values[channel * codes.length + i] = palette[3 * codes[i] + channel];
    }
    return values;
  }

  return { WALL, OPEN, START, GOAL, WAIT, neighbour, locate, generate, solve, follow, paint };
})();

/** CartPole-v1: Gymnasium's equations and constants, Euler's method. A state is [x, x', angle, angle']. */
const cartPole = (() => {
  const GRAVITY = 9.8;
  const POLE_MASS = 0.1;
  const TOTAL_MASS = 1.0 + POLE_MASS;
  const HALF_LENGTH = 0.5;
  const POLE_MOMENT = POLE_MASS * HALF_LENGTH;
  const FORCE = 10.0;
  const SECONDS = 0.02;
  const MAX_ANGLE = (12 * 2 * Math.PI) / 360;
  const MAX_X = 2.4;

  return {
    MAX_X,
    MAX_ANGLE,
    SECONDS,

    /** A state from which an episode begins. @param {() => number} random */
    start: (random) => [0, 1, 2, 3].map(() => -0.05 + 0.1 * random()),

    /** The state after one step. @param {number[]} state @param {number} action 0: to the left, 1: to the right. */
    step([x, xSpeed, angle, angleSpeed], action) {
      const force = action === 1 ? FORCE : -FORCE;
      const cosine = Math.cos(angle);
      const sine = Math.sin(angle);
      const pull = (force + POLE_MOMENT * angleSpeed * angleSpeed * sine) / TOTAL_MASS;
      const angleAcceleration =
        (GRAVITY * sine - cosine * pull) / (HALF_LENGTH * (4 / 3 - (POLE_MASS * cosine * cosine) / TOTAL_MASS));
      const xAcceleration = pull - (POLE_MOMENT * angleAcceleration * cosine) / TOTAL_MASS;
      return [
        x + SECONDS * xSpeed,
        xSpeed + SECONDS * xAcceleration,
        angle + SECONDS * angleSpeed,
        angleSpeed + SECONDS * angleAcceleration,
      ];
    },

    /** Whether the episode has ended: the pole has fallen, or the cart has left. */
    isOver: ([x, , angle]) => Math.abs(x) > MAX_X || Math.abs(angle) > MAX_ANGLE,

    /** What a policy is shown: the state in single precision, some numbers hidden. @param {number[]} hidden */
    observe: (state, hidden) => Float32Array.from(state, (value, i) => (hidden.includes(i) ? 0 : value)),
  };
})();
