// A canvas to draw a digit on, answered by the run's own network. Its weights are in the page.
"use strict";

// The layers that MNIST's lesson has. Each takes { shape: [height, width, channels], values } or, behind
// flatten, { shape: [count], values }, and returns the same.

const LAYERS = {
  rescaling(layer, { shape, values }) {
    return { shape, values: values.map((value) => value * layer.scale + layer.offset) };
  },

  convolution(layer, { shape: [height, width, channels], values }) {
    const [rows, columns, , filters] = layer.shape;
    const size = [height - rows + 1, width - columns + 1, filters];
    const result = new Float32Array(size[0] * size[1] * filters);
    for (let y = 0; y < size[0]; y++) {
      for (let x = 0; x < size[1]; x++) {
        const sums = result.subarray((y * size[1] + x) * filters, (y * size[1] + x + 1) * filters);
        sums.set(layer.bias);
        for (let row = 0; row < rows; row++) {
          for (let column = 0; column < columns; column++) {
            for (let channel = 0; channel < channels; channel++) {
              const value = values[((y + row) * width + x + column) * channels + channel];
              if (value === 0) continue;
              const first = ((row * columns + column) * channels + channel) * filters;
              for (let i = 0; i < filters; i++) sums[i] += value * layer.weights[first + i];
            }
          }
        }
      }
    }
    return { shape: size, values: activate(layer, result) };
  },

  pooling(layer, { shape: [height, width, channels], values }) {
    const size = [Math.floor(height / 2), Math.floor(width / 2), channels];
    const result = new Float32Array(size[0] * size[1] * channels).fill(-Infinity);
    for (let y = 0; y < 2 * size[0]; y++) {
      for (let x = 0; x < 2 * size[1]; x++) {
        for (let channel = 0; channel < channels; channel++) {
          const place = ((y >> 1) * size[1] + (x >> 1)) * channels + channel;
          const value = values[(y * width + x) * channels + channel];
          if (value > result[place]) result[place] = value;
        }
      }
    }
    return { shape: size, values: result };
  },

  flatten(layer, { values }) {
    return { shape: [values.length], values };
  },

  dense(layer, { values }) {
    const units = layer.bias.length;
    const sums = Float32Array.from(layer.bias);
    values.forEach((value, input) => {
      for (let i = 0; value !== 0 && i < units; i++) sums[i] += value * layer.weights[input * units + i];
    });
    return { shape: [units], values: activate(layer, sums) };
  },

  softmax(layer, { shape, values }) {
    const exponentials = values.map((value) => Math.exp(value - Math.max(...values)));
    const sum = exponentials.reduce((total, value) => total + value, 0);
    return { shape, values: exponentials.map((value) => value / sum) };
  },
};

function activate(layer, values) {
  return layer.relu ? values.map((value) => Math.max(value, 0)) : values;
}

/** Numbers of 16 bits, in base64, to a Float32Array. */
function decode(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  return Float32Array.from(new Uint16Array(bytes.buffer), (half) => {
    const exponent = (half >> 10) & 31;
    const size = exponent ? (1024 + (half & 1023)) * 2 ** (exponent - 25) : (half & 1023) * 2 ** -24;
    return half & 0x8000 ? -size : size;
  });
}

/** The probabilities that the network gives an image: 28x28 numbers from 0 to 255. */
function predict(network, image) {
  let output = { shape: network.shape, values: Float32Array.from(image) };
  for (const layer of network.layers) output = LAYERS[layer.kind](layer, output);
  return output.values;
}

/**
 * A drawing as MNIST's images were made: scaled into a box of 20x20, its center of mass in the center.
 * Returns 28x28 numbers from 0 to 255; null where nothing is drawn.
 */
function prepare(canvas) {
  const { width, height } = canvas;
  const pixels = canvas.getContext("2d").getImageData(0, 0, width, height).data;
  let [left, top, right, bottom] = [width, height, -1, -1];
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (pixels[4 * (y * width + x) + 3] < 128) continue;
      [left, top] = [Math.min(left, x), Math.min(top, y)];
      [right, bottom] = [Math.max(right, x), Math.max(bottom, y)];
    }
  }
  if (right < 0) return null;
  const [w, h] = [right - left + 1, bottom - top + 1];
  const scale = 20 / Math.max(w, h);
  const ink = shrink(canvas, left, top, w, h, (28 - w * scale) / 2, (28 - h * scale) / 2, scale);
  let [mass, massX, massY] = [0, 0, 0];
  ink.forEach((value, i) => {
    mass += value;
    massX += value * (i % 28);
    massY += value * Math.floor(i / 28);
  });
  const moveX = Math.round(13.5 - massX / mass), moveY = Math.round(13.5 - massY / mass);
  return Float32Array.from(ink, (_, i) => {
    const x = (i % 28) - moveX, y = Math.floor(i / 28) - moveY;
    return x < 0 || y < 0 || x > 27 || y > 27 ? 0 : ink[28 * y + x];
  });
}

/** A part of the canvas, drawn at (x, y) of a small one: how much ink each of its pixels has, 0 to 255. */
function shrink(canvas, left, top, w, h, x, y, scale) {
  const small = document.createElement("canvas");
  small.width = small.height = 28;
  const context = small.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(canvas, left, top, w, h, x, y, w * scale, h * scale);
  return context.getImageData(0, 0, 28, 28).data.filter((_, i) => i % 4 === 3);
}

/** Lets a person draw on the canvas; `answer` is called as the drawing changes. */
function drawOn(canvas, answer) {
  const context = canvas.getContext("2d");
  Object.assign(context, { lineWidth: canvas.width / 12, lineCap: "round", lineJoin: "round" });
  let last = null;
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return [
      ((event.clientX - box.left) / box.width) * canvas.width,
      ((event.clientY - box.top) / box.height) * canvas.height,
    ];
  };
  canvas.addEventListener("pointerdown", (event) => {
    if (!event.isPrimary) return; // a second finger
    last = place(event);
    line(last, last);
    event.preventDefault();
  });
  addEventListener("pointermove", (event) => {
    if (!last || !event.isPrimary) return;
    const next = place(event);
    line(last, next);
    last = next;
  });
  for (const end of ["pointerup", "pointercancel"]) addEventListener(end, () => (last = null));

  function line(from, to) {
    context.beginPath();
    context.moveTo(...from);
    context.lineTo(...to);
    context.stroke();
    answer();
  }
}

const network = JSON.parse(document.getElementById("network").textContent);
for (const layer of network.layers) {
  for (const key of ["weights", "bias"]) if (layer[key]) layer[key] = decode(layer[key]);
}
const canvas = document.getElementById("canvas");
const bars = [...document.querySelectorAll("#bars meter")];

function percent(share) {
  if (share > 0.995) return ">99%";
  return share < 0.005 ? "<1%" : `${Math.round(100 * share)}%`;
}

function answer() {
  const image = prepare(canvas);
  const probabilities = image ? predict(network, image) : bars.map(() => 0);
  const best = Math.max(...probabilities);
  bars.forEach((bar, i) => {
    bar.value = probabilities[i];
    bar.nextElementSibling.textContent = image ? percent(probabilities[i]) : "";
    bar.parentElement.classList.toggle("best", image !== null && probabilities[i] === best);
  });
}

drawOn(canvas, answer);
document.getElementById("clear").addEventListener("click", () => {
  canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
  answer();
});
