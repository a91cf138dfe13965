/**
 * Arrays as the report writes them: base64 of little-endian numbers, with their type and shape.
 *
 * @typedef {{shape: number[], data: ArrayLike<number>}} NumberArray NaN where there is no value.
 */

const decodedArrays = new WeakMap();
// Making a format takes far longer than using it.
const fixedFormats = Array.from({ length: 9 }, (_, digits) =>
  new Intl.NumberFormat("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits }),
);
const wholeFormat = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
const shortFormat = new Intl.NumberFormat("en-US", { maximumSignificantDigits: 4 });
let halfPrecisionValues = null;

/** The value of each of the 65,536 numbers in half precision, by its bits. */
function halfPrecisionTable() {
  const values = new Float32Array(65536);
  for (let bits = 0; bits < 65536; bits++) {
    const sign = bits & 0x8000 ? -1 : 1;
    const exponent = (bits >> 10) & 0x1f;
    const fraction = (bits & 0x3ff) / 1024;
    if (exponent === 31) values[bits] = fraction ? NaN : sign * Infinity;
    else if (exponent === 0) values[bits] = sign * fraction * 2 ** -14;
    else values[bits] = sign * (1 + fraction) * 2 ** (exponent - 15);
  }
  return values;
}

/** @param {string} base64 @returns {Uint8Array} */
function bytesOf(base64) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

/** Half precision to single precision. @param {Uint16Array} bits @returns {Float32Array} */
function fromHalfPrecision(bits) {
  halfPrecisionValues ??= halfPrecisionTable();
  const values = new Float32Array(bits.length);
  for (let i = 0; i < bits.length; i++) values[i] = halfPrecisionValues[bits[i]];
  return values;
}

/** Nested lists of numbers, in which null is NaN. */
function fromLists(lists) {
  const shape = [];
  for (let level = lists; Array.isArray(level); level = level[0]) shape.push(level.length);
  const flat = lists.flat(Infinity);
  return { shape, data: Float64Array.from(flat, (value) => (value === null ? NaN : Number(value))) };
}

function decodePart(part) {
  if (Array.isArray(part)) return fromLists(part);
  const { buffer } = bytesOf(part.data);
  switch (part.type) {
    case "f16":
      return { shape: part.shape, data: fromHalfPrecision(new Uint16Array(buffer)) };
    case "f32":
      return { shape: part.shape, data: new Float32Array(buffer) };
    case "i32":
      return { shape: part.shape, data: new Int32Array(buffer) };
    case "u8":
      return { shape: part.shape, data: new Uint8Array(buffer) };
    default:
      throw new Error(`arrays of type ${part.type} are unknown`);
  }
}

/**
 * An array of the report; each is decoded once.
 *
 * @param {object|number[]|null} part as `to_plain` writes it: an array, or a list of numbers.
 * @returns {NumberArray|null}
 */
function decodeArray(part) {
  if (part === null || part === undefined) return null;
  if (!decodedArrays.has(part)) decodedArrays.set(part, decodePart(part));
  return decodedArrays.get(part);
}

/** One entry along the first axis, sharing the numbers. @param {NumberArray} array @returns {NumberArray} */
function entryOf(array, index) {
  const size = array.data.length / array.shape[0];
  return { shape: array.shape.slice(1), data: array.data.subarray(index * size, (index + 1) * size) };
}

/** The least and the greatest finite number of some arrays; [0, 1] without any. @returns {[number, number]} */
function limitsOf(...arrays) {
  let low = Infinity;
  let high = -Infinity;
  for (const data of arrays) {
    if (!data) continue;
    for (let i = 0; i < data.length; i++) {
      const value = data[i];
      if (value === null || !Number.isFinite(value)) continue;
      if (value < low) low = value;
      if (value > high) high = value;
    }
  }
  return low <= high ? [low, high] : [0, 1];
}

/** Limits with some room around the values; never of no extent. @returns {[number, number]} */
function paddedLimits([low, high], share = 0.06) {
  const extent = high - low || Math.abs(high) * 0.2 || 1;
  return [low - extent * share, high + extent * share];
}

/** Round numbers that divide a range into about `count` parts. @returns {number[]} */
function niceTicks(low, high, count) {
  const raw = (high - low) / Math.max(1, count);
  if (!(raw > 0)) return [low];
  const magnitude = 10 ** Math.floor(Math.log10(raw));
  const share = raw / magnitude;
  const step = magnitude * (share < 1.5 ? 1 : share < 3.5 ? 2 : share < 7.5 ? 5 : 10);
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) ticks.push(i * step + 0);
  return ticks;
}

/** A number as people read it: four digits that matter, thousands apart. @param {number} value */
function formatNumber(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  const size = Math.abs(value);
  if (size !== 0 && (size >= 1e9 || size < 1e-4)) return value.toExponential(2).replace("-", "−");
  return (size >= 1000 ? wholeFormat : shortFormat).format(value + 0).replace("-", "−");
}

/** A number beside others of a range, with three digits of that. @param {[number, number]} limits */
function formatWithin(value, [low, high]) {
  if (value === null || value === undefined || !Number.isFinite(value)) return formatNumber(value);
  const digits = Math.min(8, Math.max(0, 2 - Math.floor(Math.log10(high - low || 1))));
  return fixedFormats[digits].format(Number(value.toFixed(digits)) + 0).replace("-", "−");
}

/**
 * A number on an axis, short: 1.5M.
 *
 * @param {number} value
 * @param {number} step between the numbers of the axis; they have the digits that tell them apart.
 */
function formatTick(value, step) {
  const size = Math.abs(value);
  const units = [[1e9, "G"], [1e6, "M"], [1e4, "k"]];
  const [least, sign] = units.find(([unit]) => size >= unit) ?? [1, ""];
  const unit = sign === "k" ? 1e3 : least;
  const digits = Math.ceil(-Math.log10(step / unit) - 1e-9);
  if (digits > 6) return value.toExponential(1).replace("-", "−");
  return fixedFormats[Math.max(0, digits)].format(value / unit + 0).replace("-", "−") + sign;
}
