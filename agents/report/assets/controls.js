/** The bar at the bottom: which sample, and where in its time. */

const LARGE_STEP = 10;
const VERDICT_SIGNS = { right: "✓ ", wrong: "✗ ", "": "" };

/** Keys, and what each does; those marked act only while the bar has the focus, as the page needs them elsewhere. */
const KEY_LIST = [
  [["←", "→"], "one tick back or on"],
  [["Shift ←", "Shift →"], `${LARGE_STEP} ticks back or on`],
  [["P", "N"], "previous or next sample"],
  [["Space"], "play or pause"],
  [["Home", "End"], "first or last tick (in the bar)"],
  [["↑", "↓"], "previous or next sample (in the bar)"],
  [["?"], "this list"],
];

/** Makes the list of keys, closed at first. */
function makeKeyHelp() {
  const rows = KEY_LIST.map(([keys, meaning]) =>
    make("div", {}, make("dt", {}, ...keys.map((key) => make("kbd", {}, key))), make("dd", {}, meaning)),
  );
  const close = make("button", { type: "button", click: () => dialog.close() }, "Close");
  const dialog = make("dialog", { class: "keys", "aria-label": "Keys" }, make("h2", {}, "Keys"), make("dl", {}, ...rows), close);
  return dialog;
}

/** Chooses among samples, of all or of one verdict, and shows the chosen one. */
class SampleChooser {
  /** @param {object[]} samples @param {(sample: object, isFirst: boolean) => void} show */
  constructor(samples, show) {
    this.samples = samples;
    this.show = show;
    this.verdict = "all";
    this.current = -1;
    this.listeners = new Set();
  }

  /** Indices of the samples that the filter lets through. */
  listed() {
    const indices = this.samples.map((_, i) => i);
    return this.verdict === "all" ? indices : indices.filter((i) => this.samples[i].verdict === this.verdict);
  }

  choose(index) {
    if (index === this.current || index < 0) return;
    const isFirst = this.current < 0;
    this.current = index;
    this.show(this.samples[index], isFirst);
    this.listeners.forEach((listener) => listener());
  }

  /** Goes on by some samples, round at the ends. */
  turn(by) {
    const listed = this.listed();
    if (!listed.length) return;
    const at = Math.max(0, listed.indexOf(this.current));
    this.choose(listed[(at + by + listed.length) % listed.length]);
  }

  filter(verdict) {
    this.verdict = verdict;
    const listed = this.listed();
    if (!listed.includes(this.current)) this.choose(listed[0] ?? -1);
    this.listeners.forEach((listener) => listener());
  }
}

/** The part of the bar that chooses a sample. @param {SampleChooser} chooser */
function makeSampleControls(chooser) {
  const count = (verdict) => chooser.samples.filter((sample) => sample.verdict === verdict).length;
  const select = make("select", { "aria-label": "Sample", change: () => chooser.choose(Number(select.value)) });
  const verdicts = [["all", chooser.samples.length], ["right", count("right")], ["wrong", count("wrong")]];
  const options = verdicts
    .filter(([, number]) => number > 0)
    .map(([verdict, number]) => make("option", { value: verdict }, `${VERDICT_SIGNS[verdict] ?? ""}${verdict} (${number})`));
  const filter = make("select", { "aria-label": "Show samples", change: () => chooser.filter(filter.value) }, ...options);
  filter.hidden = options.length < 3;
  const turn = (by, sign, label) => make("button", { type: "button", "aria-label": label, title: label, click: () => chooser.turn(by) }, sign);
  const refresh = () => {
    const entries = chooser.listed().map((i) => {
      const { name, verdict } = chooser.samples[i];
      return make("option", { value: i }, `${VERDICT_SIGNS[verdict] ?? ""}${name}`);
    });
    select.replaceChildren(...entries);
    select.value = String(chooser.current);
  };
  chooser.listeners.add(refresh);
  refresh();
  const parts = [turn(-1, "‹", "Previous sample"), select, turn(1, "›", "Next sample"), filter];
  return make("div", { class: "bar-samples" }, ...parts);
}

/** Whether an element uses the keys itself that move the slider. @param {EventTarget} target */
function takesKeys(target) {
  if (!(target instanceof HTMLElement)) return false;
  if (target.isContentEditable || target.closest("textarea, select, dialog, [role=application]")) return true;
  return target.matches("input:not([type=range])");
}

/**
 * The bar: sample, play, slider, place in words, help.
 *
 * @param {Clock} clock
 * @param {SampleChooser|null} chooser
 * @param {() => boolean} isMovingShown whether anything that moves is on the screen.
 */
function makeControls(clock, chooser, isMovingShown) {
  const help = makeKeyHelp();
  const play = make("button", { type: "button", class: "play", click: () => clock.toggle() });
  const slider = make("input", { type: "range", min: 0, step: 1, "aria-label": "Time" });
  const place = make("output", { class: "bar-place" });
  const question = { type: "button", "aria-label": "Keys", title: "Keys", click: () => help.showModal() };
  const time = make("div", { class: "bar-time" }, play, slider, place, make("button", question, "?"));
  const bar = make("div", { class: "bar", role: "region", "aria-label": "Sample and time" });
  if (chooser) bar.append(makeSampleControls(chooser));
  bar.append(time, help);

  slider.addEventListener("input", () => {
    clock.pause();
    clock.go(Number(slider.value));
  });
  const refresh = () => {
    slider.max = clock.numPlaces - 1;
    slider.value = clock.place;
    slider.setAttribute("aria-valuetext", clock.text());
    place.textContent = clock.text();
    const isPlaying = clock.playing !== null && clock.playing !== undefined;
    play.textContent = isPlaying ? "❚❚" : "▶";
    play.setAttribute("aria-label", isPlaying ? "Pause" : "Play");
    play.title = isPlaying ? "Pause" : "Play";
  };
  clock.listeners.add(refresh);
  refresh();

  const move = (by) => () => {
    clock.pause();
    clock.go(clock.place + by);
  };
  const anywhere = {
    ArrowLeft: move(-1),
    ArrowRight: move(1),
    "Shift+ArrowLeft": move(-LARGE_STEP),
    "Shift+ArrowRight": move(LARGE_STEP),
    p: () => chooser?.turn(-1),
    n: () => chooser?.turn(1),
    " ": () => clock.toggle(),
    "?": () => help.showModal(),
  };
  const inBar = {
    Home: move(-Infinity),
    End: move(Infinity),
    ArrowUp: () => chooser?.turn(-1),
    ArrowDown: () => chooser?.turn(1),
  };
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.altKey || event.metaKey || takesKeys(event.target)) return;
    const isInBar = bar.contains(event.target);
    const isArrow = event.key.startsWith("Arrow");
    const name = event.shiftKey && isArrow ? `Shift+${event.key}` : event.key.length === 1 ? event.key.toLowerCase() : event.key;
    // Space presses a button that has the focus; arrows scroll what can be scrolled.
    if (name === " " && event.target.closest("button, a, summary")) return;
    if (isArrow && !isInBar && event.target.closest(".scroller, pre")) return;
    // Space scrolls as ever where there is nothing to be seen moving.
    if (name === " " && !isInBar && !isMovingShown()) return;
    const action = (isInBar ? inBar[name] : undefined) ?? anywhere[name];
    if (!action) return;
    event.preventDefault();
    action();
  });
  return bar;
}
