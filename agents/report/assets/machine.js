/**
 * The Continuous Thought Machine in plain JavaScript, written from the equations (arXiv:2505.05522): what
 * agents/report/browser_model.py has exported, one row at a time, in typed arrays.
 *
 *   const machine = createMachine(model, decode);
 *   const reading = machine.read(image, height, width);   // or machine.read(sequence), machine.read(observation)
 *   let state = machine.start();
 *   state = machine.tick(state, reading);                  // a new state; state.attention [heads][places]
 *   const { probabilities, classes, certainty } = machine.answer(state);   // of a policy: machine.choose(state)
 *
 * Letters as in the paper and in ctm_rl: D neurons, M ticks of history, P terms of a synchronisation, F features,
 * C channels, S places, G groups of an answer. Matrices are stored row by row: [outputs, inputs].
 */
const createMachine = (() => {
  "use strict";

  /** A whole model with its arrays decoded. */
  function decodeAll(part, decode) {
    if (part === null || typeof part !== "object" || ArrayBuffer.isView(part)) return part;
    if (typeof part.type === "string" && "data" in part) return decode(part);
    if (Array.isArray(part)) return part.map((item) => decodeAll(item, decode));
    return Object.fromEntries(Object.entries(part).map(([name, item]) => [name, decodeAll(item, decode)]));
  }

  const sigmoid = (x) => 1 / (1 + Math.exp(-x));

  /** The sum of a[i + ...] * b[j + ...] over n numbers. */
  function dot(a, i, b, j, n) {
    let one = 0;
    let two = 0;
    let k = 0;
    for (; k + 1 < n; k += 2) {
      one += a[i + k] * b[j + k];
      two += a[i + k + 1] * b[j + k + 1];
    }
    return k < n ? one + two + a[i + k] * b[j + k] : one + two;
  }

  /** y = W x + b. */
  function linear(layer, x) {
    const y = new Float64Array(layer.bias.length);
    for (let o = 0; o < y.length; o++) y[o] = layer.bias[o] + dot(layer.weight, o * x.length, x, 0, x.length);
    return y;
  }

  /** Gated linear unit: the first half times the sigmoid of the second. */
  function glu(x) {
    const n = x.length / 2;
    const y = new Float64Array(n);
    for (let i = 0; i < n; i++) y[i] = x[i] * sigmoid(x[n + i]);
    return y;
  }

  /** Shifts and scales n numbers from place i to mean 0 and variance 1; in place. */
  function normalise(x, i, n, eps) {
    let mean = 0;
    for (let k = 0; k < n; k++) mean += x[i + k];
    mean /= n;
    let variance = 0;
    for (let k = 0; k < n; k++) variance += (x[i + k] - mean) ** 2;
    const scale = 1 / Math.sqrt(variance / n + eps);
    for (let k = 0; k < n; k++) x[i + k] = (x[i + k] - mean) * scale;
  }

  /** LayerNorm; in place. */
  function layerNorm(norm, x) {
    normalise(x, 0, x.length, norm.eps);
    for (let i = 0; i < x.length; i++) x[i] = x[i] * norm.weight[i] + norm.bias[i];
    return x;
  }

  /** Blocks of Linear, GLU, LayerNorm in a row. */
  const throughBlocks = (blocks, x) => blocks.reduce((y, block) => layerNorm(block.norm, glu(linear(block, y))), x);

  /** Linear, LayerNorm, SiLU. */
  const step = (layer, x) => layerNorm(layer.norm, linear(layer, x)).map((value) => value * sigmoid(value));

  /** Layers with ReLU between them. */
  function mlp(layers, x) {
    return layers.reduce((y, layer, i) => linear(layer, i ? y.map((value) => Math.max(value, 0)) : y), x);
  }

  /** Two arrays, one after the other. */
  function concat(one, two) {
    const both = new Float64Array(one.length + two.length);
    both.set(one);
    both.set(two, one.length);
    return both;
  }

  /** Softmax of n numbers from place i; in place. */
  function softmax(x, i = 0, n = x.length) {
    let largest = -Infinity;
    for (let k = 0; k < n; k++) largest = Math.max(largest, x[i + k]);
    let sum = 0;
    for (let k = 0; k < n; k++) sum += x[i + k] = Math.exp(x[i + k] - largest);
    for (let k = 0; k < n; k++) x[i + k] /= sum;
    return x;
  }

  /** A feature map { values: [C, height, width], height, width } through a convolution, whose BatchNorm is folded in. */
  function convolve(layer, map) {
    const { kernel, stride, padding } = layer;
    const { values, height, width } = map;
    const outputs = layer.bias.length;
    const inputs = values.length / (height * width);
    const outHeight = Math.floor((height + 2 * padding - kernel) / stride) + 1;
    const outWidth = Math.floor((width + 2 * padding - kernel) / stride) + 1;
    const places = outHeight * outWidth;
    const result = new Float64Array(outputs * places);
    const size = inputs * kernel * kernel;
    const patch = new Float64Array(size); // what the convolution reads for one place: [inputs, kernel, kernel]
    for (let place = 0; place < places; place++) {
      const top = Math.floor(place / outWidth) * stride - padding;
      const left = (place % outWidth) * stride - padding;
      let at = 0;
      for (let channel = 0; channel < inputs; channel++) {
        for (let y = top; y < top + kernel; y++) {
          for (let x = left; x < left + kernel; x++) {
            const isInside = y >= 0 && y < height && x >= 0 && x < width;
            patch[at++] = isInside ? values[(channel * height + y) * width + x] : 0;
          }
        }
      }
      for (let o = 0; o < outputs; o++) {
        result[o * places + place] = layer.bias[o] + dot(layer.weight, o * size, patch, 0, size);
      }
    }
    return { values: result, height: outHeight, width: outWidth };
  }

  /** ReLU of a feature map, of the sum of two where there is another; in place. */
  function relu(map, other) {
    const { values } = map;
    for (let i = 0; i < values.length; i++) values[i] = Math.max(other ? values[i] + other.values[i] : values[i], 0);
    return map;
  }

  /** The largest of 3 x 3 values, every second row and column, with a padding of 1. */
  function maxPool(map) {
    const { values, height, width } = map;
    const channels = values.length / (height * width);
    const outHeight = Math.floor((height - 1) / 2) + 1;
    const outWidth = Math.floor((width - 1) / 2) + 1;
    const result = new Float64Array(channels * outHeight * outWidth);
    let at = 0;
    for (let channel = 0; channel < channels; channel++) {
      for (let row = 0; row < outHeight; row++) {
        for (let column = 0; column < outWidth; column++) {
          let largest = -Infinity;
          for (let y = Math.max(2 * row - 1, 0); y < Math.min(2 * row + 2, height); y++) {
            for (let x = Math.max(2 * column - 1, 0); x < Math.min(2 * column + 2, width); x++) {
              largest = Math.max(largest, values[(channel * height + y) * width + x]);
            }
          }
          result[at++] = largest;
        }
      }
    }
    return { values: result, height: outHeight, width: outWidth };
  }

  /** A residual block: convolutions with ReLU between them, plus the shortcut. */
  function residual(block, map) {
    const last = block.layers.length - 1;
    const through = block.layers.reduce((inner, layer, i) => {
      const convolved = convolve(layer, inner);
      return i < last ? relu(convolved) : convolved;
    }, map);
    return relu(through, block.shortcut ? convolve(block.shortcut, map) : map);
  }

  /** The feature map of an image [3, height, width]. */
  function encodeImage(encoder, values, height, width) {
    const rgb = convolve(encoder.to_rgb, { values: Float64Array.from(values), height, width });
    const stem = maxPool(relu(convolve(encoder.stem, rgb)));
    return encoder.blocks.reduce((map, block) => residual(block, map), stem);
  }

  /** The feature map [C, 1, S] of a sequence of -1 and 1. */
  function encodeSymbols(encoder, sequence) {
    const channels = encoder.embedding.length / 2;
    const values = new Float64Array(channels * sequence.length);
    for (let place = 0; place < sequence.length; place++) {
      const row = sequence[place] === 1 ? channels : 0;
      for (let c = 0; c < channels; c++) values[c * sequence.length + place] = encoder.embedding[row + c];
    }
    return { values, height: 1, width: sequence.length };
  }

  /** The features of a vector of numbers. */
  function encodeVector(encoder, observation) {
    const numbers = Float64Array.from(observation);
    if (encoder.normal) {
      const { mean, std, limit } = encoder.normal;
      for (let i = 0; i < numbers.length; i++) {
        numbers[i] = Math.min(Math.max((numbers[i] - mean[i]) / std[i], -limit), limit);
      }
    }
    return throughBlocks(encoder.blocks, numbers);
  }

  /** Keys and values [S, F] of a feature map: kv = LayerNorm(Linear(token)) of each place. */
  function memorise(model, map) {
    const places = map.height * map.width;
    const channels = map.values.length / places;
    const { values, height, width } = map;
    if (model.positions && model.positions.length !== values.length) {
      throw new Error("the model's position encoding is for inputs of the trained size alone.");
    }
    const size = model.reader.out.bias.length;
    const memory = { keys: new Float64Array(places * size), values: new Float64Array(places * size), height, width };
    const token = new Float64Array(channels);
    for (let place = 0; place < places; place++) {
      for (let c = 0; c < channels; c++) {
        const at = c * places + place;
        token[c] = values[at] + (model.positions ? model.positions[at] : 0);
      }
      const kv = layerNorm(model.reader.kv.norm, linear(model.reader.kv, token));
      memory.keys.set(linear(model.reader.key, kv), place * size);
      memory.values.set(linear(model.reader.value, kv), place * size);
    }
    return memory;
  }

  /** One read with a query: the features [F], and each head's attention weights, [heads][S]. */
  function attend(reader, memory, query) {
    const projected = linear(reader.query, query);
    const size = projected.length;
    const width = size / reader.num_heads;
    const places = memory.keys.length / size;
    const mixed = new Float64Array(size);
    const attention = [];
    for (let head = 0; head < reader.num_heads; head++) {
      const first = head * width;
      const weights = new Float64Array(places);
      for (let place = 0; place < places; place++) {
        weights[place] = dot(projected, first, memory.keys, place * size + first, width) / Math.sqrt(width);
      }
      softmax(weights);
      for (let place = 0; place < places; place++) {
        for (let k = first; k < first + width; k++) mixed[k] += weights[place] * memory.values[place * size + k];
      }
      attention.push(weights);
    }
    return { features: linear(reader.out, mixed), attention };
  }

  /** From features and post-activations to pre-activations. */
  function synapse(part, inputs) {
    if (part.blocks) return throughBlocks(part.blocks, inputs);
    const { first, down, up, skip_norms: norms } = part.unet;
    const levels = [step(first, inputs)];
    for (const layer of down) levels.push(step(layer, levels[levels.length - 1]));
    let outputs = levels.pop();
    for (let i = up.length - 1; i >= 0; i--) {
      const skipped = levels.pop();
      outputs = layerNorm(norms[i], step(up[i], outputs).map((value, k) => value + skipped[k]));
    }
    return outputs;
  }

  /** Each neuron's own model: its history, a row of [D, M], to its post-activation. */
  function neuronModels(layers, numNeurons, history) {
    let inputs = history;
    for (const layer of layers) {
      const outputs = layer.bias.length / numNeurons;
      const width = inputs.length / numNeurons;
      if (layer.norm_eps !== null) {
        inputs = Float64Array.from(inputs);
        for (let d = 0; d < numNeurons; d++) normalise(inputs, d * width, width, layer.norm_eps);
      }
      const half = outputs / 2;
      const next = new Float64Array(numNeurons * half);
      const sums = new Float64Array(outputs);
      for (let d = 0; d < numNeurons; d++) {
        for (let o = 0; o < outputs; o++) sums[o] = layer.bias[d * outputs + o];
        for (let i = 0; i < width; i++) {
          const value = inputs[d * width + i];
          const row = (d * width + i) * outputs;
          for (let o = 0; o < outputs; o++) sums[o] += value * layer.weight[row + o];
        }
        for (let o = 0; o < half; o++) next[d * half + o] = sums[o] * sigmoid(sums[half + o]);
      }
      inputs = next;
    }
    return inputs;
  }

  /** A history [D, M] without its oldest column and with a newest one. */
  function pushed(history, column) {
    const length = history.length / column.length;
    const result = new Float64Array(history.length);
    for (let d = 0; d < column.length; d++) {
      result.set(history.subarray(d * length + 1, (d + 1) * length), d * length);
      result[(d + 1) * length - 1] = column[d];
    }
    return result;
  }

  /** z_left z_right of each pair, and the z of the neurons after them, which have no partner: [P]. */
  function products(sync, z) {
    const result = new Float64Array(sync.left.length);
    for (let p = 0; p < result.length; p++) {
      result[p] = z[sync.left[p]] * (p < sync.right.length ? z[sync.right[p]] : 1);
    }
    return result;
  }

  /** alpha and beta of a window, from the post-activation history [D, M]. */
  function overWindow(sync, history, length) {
    const alpha = new Float64Array(sync.left.length);
    const beta = new Float64Array(alpha.length);
    for (let p = 0; p < alpha.length; p++) {
      const hasPartner = p < sync.right.length;
      let sum = 0;
      let count = 0;
      for (let m = 0; m < length; m++) {
        const weight = sync.window[p * length + m];
        const partner = hasPartner ? history[sync.right[p] * length + m] : 1;
        sum += weight * history[sync.left[p] * length + m] * partner;
        count += weight;
      }
      alpha[p] = sum;
      beta[p] = count;
    }
    return { alpha, beta };
  }

  /** alpha' = decay alpha + z_left z_right, beta' = decay beta + 1. */
  function accumulate(sync, previous, z) {
    const alpha = products(sync, z);
    const beta = new Float64Array(alpha.length);
    for (let p = 0; p < alpha.length; p++) {
      alpha[p] += sync.decay[p] * previous.alpha[p];
      beta[p] = sync.decay[p] * previous.beta[p] + 1;
    }
    return { alpha, beta };
  }

  /** Synchronisation: alpha / sqrt(beta). */
  const syncOf = ({ alpha, beta }) => alpha.map((value, p) => value / Math.sqrt(beta[p]));

  /** Probabilities of G groups of classes, flat; the likeliest class of each; and the certainty of all. */
  function readLogits(logits, groups) {
    const classes = logits.length / groups;
    const probabilities = Float64Array.from(logits);
    const likeliest = [];
    let certainty = 0;
    for (let g = 0; g < groups; g++) {
      softmax(probabilities, g * classes, classes);
      let entropy = 0;
      let best = 0;
      for (let c = 0; c < classes; c++) {
        const p = probabilities[g * classes + c];
        if (p > 0) entropy -= p * Math.log(p);
        if (logits[g * classes + c] > logits[g * classes + best]) best = c;
      }
      certainty += (1 - entropy / Math.log(classes)) / groups;
      likeliest.push(best);
    }
    return { logits, probabilities, classes: likeliest, certainty };
  }

  /** The machine of a figure, see the top of this file; `decode` makes typed arrays of the model's encoded ones. */
  return function createMachine(encoded, decode) {
    const model = decodeAll(encoded, decode);
    const { core, reader } = model;
    const encoders = {
      resnet: (values, height, width) => encodeImage(model.encoder, values, height, width),
      symbols: (sequence) => encodeSymbols(model.encoder, sequence),
      vector: (observation) => encodeVector(model.encoder, observation),
    };

    /** The synchronisation of one set of pairs at the start of an episode, or one tick after `previous`. */
    function synchronise(sync, previous, z, postHistory) {
      if (sync === null) return null;
      if (sync.window) return overWindow(sync, postHistory, core.history_length);
      if (previous) return accumulate(sync, previous, z);
      const alpha = products(sync, z);
      return { alpha, beta: alpha.map(() => 1) };
    }

    return {
      model,

      /** What the ticks read of an input; computed once. */
      read(input, height, width) {
        const encoded = encoders[model.encoder.kind](input, height, width);
        return reader ? memorise(model, encoded) : { features: encoded };
      },

      /** The learned state before the first tick. */
      start() {
        const length = core.history_length;
        const postHistory = core.start_post_history;
        const postActivation = postHistory
          ? Float64Array.from({ length: core.num_neurons }, (_, d) => postHistory[(d + 1) * length - 1])
          : core.start_post_activation;
        return {
          preHistory: core.start_pre_history,
          postHistory,
          postActivation,
          output: synchronise(core.output_sync, null, postActivation, postHistory),
          action: synchronise(core.action_sync, null, postActivation, postHistory),
          attention: null,
        };
      },

      /** The state after one more tick; the given one is left as it was. */
      tick(state, reading) {
        const glimpse = reader ? attend(reader, reading, syncOf(state.action)) : reading;
        const preActivation = synapse(core.synapse, concat(glimpse.features, state.postActivation));
        const preHistory = pushed(state.preHistory, preActivation);
        const postActivation = neuronModels(core.nlm, core.num_neurons, preHistory);
        const postHistory = state.postHistory && pushed(state.postHistory, postActivation);
        return {
          preHistory,
          postHistory,
          preActivation,
          postActivation,
          output: synchronise(core.output_sync, state.output, postActivation, postHistory),
          action: synchronise(core.action_sync, state.action, postActivation, postHistory),
          attention: reader ? glimpse.attention : null,
        };
      },

      /** What the heads read: the output synchronisation. */
      sync: (state) => syncOf(state.output),

      /** The answer after a tick: logits and probabilities [G, C], flat; classes [G]; certainty from 0 to 1. */
      answer: (state) => readLogits(linear(model.head, syncOf(state.output)), model.num_groups),

      /** A policy's answer, and the value of what it has seen. */
      choose(state) {
        const sync = syncOf(state.output);
        return { ...readLogits(mlp(model.policy, sync), 1), value: model.value ? mlp(model.value, sync)[0] : NaN };
      },

      /** All states of K ticks on one input, the start state first. */
      think(reading, numTicks = model.num_ticks, start = this.start()) {
        const states = [start];
        for (let k = 0; k < numTicks; k++) states.push(this.tick(states[k], reading));
        return states;
      },
    };
  };
})();
