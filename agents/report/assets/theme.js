/** Light and dark, the colours of both, and the palettes of heat maps. */

const COLOUR_NAMES = ["paper", "panel", "ink", "soft", "faint", "accent", "right", "wrong", "marker"];
const NUM_SERIES_COLOURS = 8;
const PALETTE_SIZE = 256;
/** How many values are sorted to find what is common among them. */
const MAX_SORTED = 20000;

/** What is drawn over images, which are as bright in the dark theme as in the light one. */
const IMAGE_COLOURS = {
  series: ["#0079bd", "#e06500", "#00a076", "#c2508f", "#d19300", "#3fa0e0", "#7a66c8", "#7a8691"],
  right: "#00a076",
  wrong: "#c2410c",
};

const theme = {
  listeners: new Set(),
  /** @type {Record<string, any>|null} */
  colours: null,
  /** Palettes of the present theme, by name. */
  palettes: new Map(),
};

/** Whether less motion is asked for. */
function isMotionReduced() {
  return matchMedia("(prefers-reduced-motion: reduce)").matches;
}

/** "light" or "dark". */
function themeName() {
  return document.documentElement.dataset.theme;
}

/**
 * The colours of the present theme, as CSS writes them.
 *
 * @returns {{paper: string, panel: string, ink: string, soft: string, faint: string, accent: string, right: string,
 *   wrong: string, marker: string, series: string[], isDark: boolean}} `series` can be told apart by colour-blind
 *   readers; `marker` is the cursor at the slider's place.
 */
function themeColours() {
  if (!theme.colours) {
    const style = getComputedStyle(document.documentElement);
    const read = (name) => style.getPropertyValue(`--${name}`).trim();
    theme.colours = Object.fromEntries(COLOUR_NAMES.map((name) => [name, read(name)]));
    theme.colours.series = Array.from({ length: NUM_SERIES_COLOURS }, (_, i) => read(`series-${i}`));
    theme.colours.isDark = themeName() === "dark";
  }
  return theme.colours;
}

/** Changes to a theme; everything that is drawn is drawn again. @param {"light"|"dark"} name */
function setTheme(name) {
  if (themeName() === name) return;
  document.documentElement.dataset.theme = name;
  theme.colours = null;
  theme.palettes.clear();
  for (const listener of theme.listeners) listener();
}

/** Follows the system until somebody chooses, and turns light for printing. */
function startTheme() {
  const isDark = matchMedia("(prefers-color-scheme: dark)");
  const follow = () => setTheme(isDark.matches ? "dark" : "light");
  document.documentElement.dataset.theme = isDark.matches ? "dark" : "light";
  isDark.addEventListener("change", follow);
  let beforePrint = themeName();
  addEventListener("beforeprint", () => {
    beforePrint = themeName();
    setTheme("light");
  });
  addEventListener("afterprint", () => setTheme(beforePrint));
}

/**
 * A colour of OKLCH, in which equal steps look equal, in sRGB; with less chroma where a screen cannot show it.
 *
 * Source: Björn Ottosson's definition of OKLab (2020).
 *
 * @param {number} lightness in [0, 1]. @param {number} chroma from 0. @param {number} hue in degrees.
 * @returns {[number, number, number]} in [0, 255].
 */
function oklchToRgb(lightness, chroma, hue) {
  const angle = (hue * Math.PI) / 180;
  for (let kept = chroma; ; kept -= 0.004) {
    const a = Math.max(kept, 0) * Math.cos(angle);
    const b = Math.max(kept, 0) * Math.sin(angle);
    const long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3;
    const medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3;
    const short = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3;
    const linear = [
      4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
      -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
      -0.0041960863 * long - 0.7034186147 * medium + 1.707614701 * short,
    ];
    if (kept <= 0 || linear.every((value) => value >= -0.001 && value <= 1.001)) {
      return linear.map((value) => {
        const light = Math.min(1, Math.max(0, value));
        return Math.round(255 * (light <= 0.0031308 ? 12.92 * light : 1.055 * light ** (1 / 2.4) - 0.055));
      });
    }
  }
}

/** Dark violet over green to light yellow, of evenly growing lightness. @param {number} t in [0, 1]. */
function sequentialColour(t) {
  return oklchToRgb(0.26 + 0.68 * t, 0.12 + 0.05 * Math.sin(Math.PI * t), 305 - 200 * t);
}

/** Blue below zero, orange above it, and nearly the paper's colour at it. @param {number} t in [0, 1]. */
function divergingColour(t, isDark) {
  const size = Math.abs(2 * t - 1);
  const hue = t < 0.5 ? 250 : 52;
  return isDark ? oklchToRgb(0.27 + 0.5 * size, 0.16 * size, hue) : oklchToRgb(0.965 - 0.42 * size, 0.17 * size, hue);
}

/**
 * A palette as RGB bytes, 256 colours from its low to its high end.
 *
 * @param {"sequential"|"diverging"} name
 * @returns {Uint8Array}
 */
function paletteOf(name) {
  if (!theme.palettes.has(name)) {
    const { isDark } = themeColours();
    const colours = new Uint8Array(3 * PALETTE_SIZE);
    for (let i = 0; i < PALETTE_SIZE; i++) {
      const t = i / (PALETTE_SIZE - 1);
      colours.set(name === "diverging" ? divergingColour(t, isDark) : sequentialColour(t), 3 * i);
    }
    theme.palettes.set(name, colours);
  }
  return theme.palettes.get(name);
}

/** Where in a palette a value is, 0 to 255. */
function paletteIndex(value, low, high) {
  const share = high > low ? (value - low) / (high - low) : 0.5;
  return Math.round(Math.min(1, Math.max(0, share)) * (PALETTE_SIZE - 1));
}

/** A value's colour as CSS writes it; none for NaN. */
function paletteColour(name, value, low, high) {
  if (Number.isNaN(value)) return "transparent";
  const palette = paletteOf(name);
  const at = 3 * paletteIndex(value, low, high);
  return `rgb(${palette[at]}, ${palette[at + 1]}, ${palette[at + 2]})`;
}

/**
 * The ends of a palette: those given, or what the values need; around zero if it diverges.
 *
 * A few values far out would leave all others without colour: then the ends are where 99 in 100 values are.
 *
 * @returns {[number, number] & {isClipped?: boolean}} `isClipped`: there are values beyond the ends.
 */
function paletteLimits(name, limits, data) {
  if (limits) return limits;
  const [low, high] = limitsOf(data);
  if (name !== "diverging") return [low, high];
  const size = Math.max(Math.abs(low), Math.abs(high)) || 1;
  const sizes = [];
  const every = Math.ceil(data.length / MAX_SORTED);
  for (let i = 0; i < data.length; i += every) if (Number.isFinite(data[i])) sizes.push(Math.abs(data[i]));
  sizes.sort((a, b) => a - b);
  const common = sizes[Math.floor(sizes.length * 0.99)] ?? 0;
  if (common === 0 || 2 * common > size) return [-size, size];
  return Object.assign([-common, common], { isClipped: true });
}

/** The bytes of a CSS colour written as #rrggbb. @returns {[number, number, number]} */
function rgbOf(colour) {
  return [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
}

/** A CSS colour written as #rrggbb, let through. @param {number} alpha in [0, 1]. */
function withAlpha(colour, alpha) {
  return `rgba(${rgbOf(colour).join(", ")}, ${alpha})`;
}
