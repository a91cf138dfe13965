/** The time of the sample that is shown: where the slider is, and what moves it. */

/** Seconds in which a whole time is played, if that is neither too fast nor too slow to see. */
const PLAY_SECONDS = 12;
const SLOWEST_PER_SECOND = 4;
const FASTEST_PER_SECOND = 30;

/**
 * Where the slider is.
 *
 * @typedef {object} At
 * @property {number} place in the time, from 0.
 * @property {number} numPlaces N, the length of the time.
 * @property {number} tick in its step, from 1.
 * @property {number} numTicks of this step.
 * @property {number|null} step the environment step, from 0; null where an input is answered.
 * @property {number} start the first place of this step.
 */
class Clock {
  constructor() {
    this.listeners = new Set();
    this.playing = null;
    /** Counts the changes of place and time. */
    this.version = 0;
    this.setTime(1, []);
  }

  /**
   * Takes over a sample's time.
   *
   * @param {number} numPlaces N.
   * @param {number[]} steps of a policy, the environment step of each place, [N]; otherwise empty.
   */
  setTime(numPlaces, steps, place = 0) {
    this.pause();
    this.numPlaces = Math.max(1, numPlaces);
    this.steps = steps.length === numPlaces ? steps : [];
    this.starts = [];
    this.ends = [];
    for (let first = 0; first < this.steps.length; ) {
      let end = first;
      while (end < this.steps.length && this.steps[end] === this.steps[first]) end++;
      for (let i = first; i < end; i++) {
        this.starts.push(first);
        this.ends.push(end);
      }
      first = end;
    }
    this.place = -1;
    this.go(place);
  }

  /** @returns {At} */
  at() {
    const { place, numPlaces } = this;
    const isPolicy = this.steps.length > 0;
    const start = isPolicy ? this.starts[place] : 0;
    const end = isPolicy ? this.ends[place] : numPlaces;
    const step = isPolicy ? this.steps[place] : null;
    return { place, numPlaces, tick: place - start + 1, numTicks: end - start, step, start };
  }

  /** The place in words. */
  text() {
    const { tick, numTicks, step } = this.at();
    if (step === null) return `tick ${tick} of ${numTicks}`;
    return numTicks === 1 ? `step ${step}` : `step ${step}, tick ${tick} of ${numTicks}`;
  }

  /** Moves the slider; out of the time, to its end. @param {number} place */
  go(place) {
    const next = Math.min(this.numPlaces - 1, Math.max(0, Math.round(place)));
    if (next === this.place) return;
    this.place = next;
    this.version++;
    this.notify();
  }

  notify() {
    for (const listener of this.listeners) listener();
  }

  /** Plays from here, or again from the start when at the end. */
  play() {
    if (this.playing !== null || this.numPlaces < 2) return;
    if (this.place === this.numPlaces - 1) this.go(0);
    const perSecond = Math.min(FASTEST_PER_SECOND, Math.max(SLOWEST_PER_SECOND, this.numPlaces / PLAY_SECONDS));
    let due = performance.now() + 1000 / perSecond;
    const advance = (now) => {
      if (now >= due) {
        due = Math.max(due + 1000 / perSecond, now);
        this.go(this.place + 1);
      }
      if (this.place === this.numPlaces - 1) this.pause();
      else this.playing = requestAnimationFrame(advance);
    };
    this.playing = requestAnimationFrame(advance);
    this.notify();
  }

  pause() {
    if (this.playing === null || this.playing === undefined) return;
    cancelAnimationFrame(this.playing);
    this.playing = null;
    this.notify();
  }

  toggle() {
    if (this.playing === null) this.play();
    else this.pause();
  }
}
