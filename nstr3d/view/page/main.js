// Reads the model out of the page, shows it, and lets controls and scripts (window.nstr3d) change what is shown.

const $ = (id) => document.getElementById(id);
const SHADINGS = ["studio", "normals", "frequency"];
const model = JSON.parse($("model").textContent);
const canvas = $("view");
const DEFAULTS = { shading: "studio", light: 0, level: model.level, axis: "", at: 0.5, flip: false, smooth: true, lines: true };
const state = { ...DEFAULTS };
const orbit = new Orbit(model);
let painter, coarse;

function say(text, failed = false) {
  $("note").textContent = text;
  $("note").classList.toggle("failed", failed);
  document.body.classList.toggle("failed", failed);
}

// The model's numbers, which are deflated and in base64: see html.py, which wrote them.
async function unpack() {
  if (!window.DecompressionStream) throw new Error("This page needs a browser of 2023 or later.");
  const packed = Uint8Array.from(atob($("data").textContent), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  let place = 0;
  const take = (count) => bytes.subarray(place, (place += count));
  const high = take(model.entries), low = take(model.entries);
  const table = new Int16Array(model.entries);
  for (let i = 0; i < table.length; i++) table[i] = (high[i] << 8) | low[i];
  const rows = new Int32Array(model.bitmaps.reduce((sum, count) => sum + count, 0));
  let node = 0;
  for (const count of model.bitmaps) {
    const bits = take(Math.ceil(count / 8));
    for (let i = 0, row = 0; i < count; i++) rows[node++] = (bits[i >> 3] >> (7 - (i & 7))) & 1 ? row++ : -1;
  }
  const { shape, reach } = model.grid;
  const codes = take(shape[0] * shape[1] * shape[2]);
  const levels = Float32Array.from({ length: 256 }, (_, code) => Math.sign(code - 128) * ((code - 128) / 127) ** 2 * reach);
  coarse = (p) => {
    const cell = p.map((value, i) => Math.floor((value - model.grid.origin[i]) / model.grid.cell));
    if (cell.some((value, i) => value < 0 || value >= shape[i])) return Infinity;
    return levels[codes[(cell[2] * shape[1] + cell[1]) * shape[0] + cell[0]]];
  };
  const halves = Uint16Array.from(levels, half);
  const nodes = model.pyramid && (await decoded(take(model.pyramid.bytes)));
  return { table, rows, nodes, coarse: Uint16Array.from(codes, (code) => halves[code]), lines: model.lines && strokes(take, model.lines) };
}

// The nodes of a compressed shape in half precision.
async function decoded(bytes) {
  const said = (share) => say(`Decoding the shape ... ${Math.round(100 * share)}%`);
  const values = await decodePyramid(model.pyramid, bytes, said), bits = new Uint32Array(values.buffer);
  const nodes = new Uint16Array(values.length);
  for (let i = 0; i < nodes.length; i++) {
    values[i] *= model.pyramid.scale;
    nodes[i] = halved(bits[i]);
  }
  return nodes;
}

// The points and colours of lines; every number but a list's first is what it is more than the one before it.
function strokes(take, { count, lower, extent }) {
  const points = new Float32Array(4 * count), colours = new Uint8Array(4 * count);
  for (let axis = 0; axis < 3; axis++) {
    const high = take(count), low = take(count);
    for (let i = 0, code = 0; i < count; i++) {
      code = (code + (high[i] << 8) + low[i]) & 65535;
      points[4 * i + axis] = lower[axis] + (code / 65535) * extent[axis];
    }
  }
  for (let channel = 0; channel < 3; channel++) {
    const more = take(count);
    for (let i = 0, code = 0; i < count; i++) colours[4 * i + channel] = code = (code + more[i]) & 255;
  }
  const joined = take(Math.ceil(count / 8));
  for (let i = 0; i < count; i++) points[4 * i + 3] = (joined[i >> 3] >> (7 - (i & 7))) & 1;
  return { points, colours };
}

// A number's half-precision bits; small ones become zero.
function half(value) {
  return halved(new Uint32Array(new Float32Array([value]).buffer)[0]);
}

function halved(bits) {
  const exponent = ((bits >> 23) & 255) - 112;
  if (exponent <= 0) return 0;
  return ((bits >> 16) & 0x8000) | ((exponent << 10) + (((bits & 0x7fffff) + 0x1000) >> 13));
}

function bounds() {
  const grow = Math.max(state.level / model.scale, 0) + model.slack;
  return { lower: model.lower.map((value) => value - grow), upper: model.upper.map((value) => value + grow) };
}

function plane() {
  const i = "xyz".indexOf(state.axis || "?");
  if (i < 0) return [0, 0, 0, 0];
  const { lower, upper } = bounds(), sign = state.flip ? -1 : 1;
  const normal = [0, 0, 0];
  normal[i] = sign;
  return [...normal, sign * (lower[i] + state.at * (upper[i] - lower[i]))];
}

// Everything that a picture depends on, as the shader takes it.
function scene() {
  const camera = orbit.view(canvas.width / canvas.height);
  const [x, y, z] = model.key, turn = radians(state.light);
  const light = [Math.cos(turn) * x + Math.sin(turn) * z, y, Math.cos(turn) * z - Math.sin(turn) * x];
  const key = add(add(add([0, 0, 0], camera.right, light[0]), camera.above, light[1]), camera.backward, light[2]);
  const shading = SHADINGS.indexOf(state.shading);
  return { ...camera, ...bounds(), key, shading, iso: state.level / model.scale, plane: plane(), frequencies: model.frequencies ?? [0, 1], lines: state.lines };
}

// An eye within the solid would see nothing.
function allowed() {
  const { eye } = orbit.view(canvas.clientWidth / canvas.clientHeight), cut = plane();
  return coarse(eye) - state.level / model.scale > 2 * model.slack || dot(cut, eye) - cut[3] > model.slack;
}

function show() {
  const press = (button, on) => button.setAttribute("aria-pressed", String(on));
  for (const button of $("shading").children) press(button, button.value === state.shading);
  for (const button of $("axis").children) if (button.id !== "flip") press(button, button.value === state.axis);
  press($("flip"), state.flip);
  $("flip").disabled = $("at").disabled = !state.axis;
  $("legend").hidden = state.shading !== "frequency";
  for (const name of ["light", "level", "at"]) $(name).value = state[name];
  $("lines").checked = state.lines;
  $("light-value").textContent = `${Math.round(state.light)}°`;
  $("level-value").textContent = Number(state.level.toPrecision(3));
  const i = "xyz".indexOf(state.axis || "?"), { lower, upper } = bounds();
  const at = i < 0 ? "" : (lower[i] + state.at * (upper[i] - lower[i])) * model.scale + model.centre[i];
  $("at-value").textContent = i < 0 ? "" : Number(at.toPrecision(3));
}

// Takes any part of the state; refuses what it does not know.
function set(given, moving = false) {
  const next = { ...state, ...given };
  const known = SHADINGS.includes(next.shading) && ["", "x", "y", "z"].includes(next.axis);
  const numbers = [next.light, next.level, next.at].every(Number.isFinite);
  if (!known || !numbers || Object.keys(next).length !== Object.keys(DEFAULTS).length) {
    throw new RangeError(`nstr3d.set takes ${Object.keys(DEFAULTS).join(", ")}, not ${JSON.stringify(given)}`);
  }
  if (next.shading === "frequency" && !model.frequencies) throw new RangeError("This field has no phase waves.");
  next.level = Math.min(model.levels[1], Math.max(model.levels[0], next.level));
  const same = Object.keys(DEFAULTS).every((name) => name === "lines" || next[name] === state[name]);
  const toggled = next.lines !== state.lines;
  Object.assign(state, next);
  show();
  if (same && toggled) painter?.show();
  else painter?.changed(moving);
}

function controls() {
  const level = $("level");
  Object.assign(level, { min: model.levels[0], max: model.levels[1], step: (model.levels[1] - model.levels[0]) / 400 });
  for (const name of ["light", "level", "at"]) {
    $(name).addEventListener("input", () => set({ [name]: Number($(name).value) }, true));
    $(name).addEventListener("dblclick", () => set({ [name]: DEFAULTS[name] }));
  }
  for (const name of ["shading", "axis"]) {
    $(name).addEventListener("click", ({ target }) => {
      if (target.tagName === "BUTTON" && target.id !== "flip") set({ [name]: target.value });
    });
  }
  if (model.frequencies) {
    $("colours").style.background = `linear-gradient(90deg, ${model.colours.join(", ")})`;
    [$("lowest").textContent, $("highest").textContent] = model.frequencies.map((value) => value.toFixed(1));
  } else $("shading").querySelector("[value=frequency]").remove();
  $("streamlines").hidden = !model.lines;
  if (model.lines?.values) {
    $("line-colours").style.background = `linear-gradient(90deg, ${model.colours.join(", ")})`;
    [$("line-lowest").textContent, $("line-highest").textContent] = model.lines.values.map((value) => value.toPrecision(3));
  } else $("line-legend").remove();
  $("lines").addEventListener("change", () => set({ lines: $("lines").checked }));
  $("flip").addEventListener("click", () => set({ flip: !state.flip }));
  const reset = () => {
    orbit.reset();
    set(DEFAULTS);
  };
  const fold = () => {
    const hidden = ($("controls").hidden = !$("controls").hidden);
    $("fold").setAttribute("aria-expanded", String(!hidden));
    $("fold").textContent = hidden ? "+" : "−";
  };
  const save = async () => {
    await painter.settled();
    canvas.toBlob((blob) => {
      const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: `${document.title}.png` });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    });
  };
  $("reset").addEventListener("click", reset);
  $("fold").addEventListener("click", fold);
  $("save").addEventListener("click", save);
  if (innerWidth < 640) fold(); // where the panel would hide a third of the shape
  const keys = { r: reset, h: fold, s: save, l: () => model.lines && set({ lines: !state.lines }) };
  SHADINGS.forEach((name, i) => (keys[i + 1] = () => (name !== "frequency" || model.frequencies) && set({ shading: name })));
  addEventListener("keydown", (event) => {
    if (!event.ctrlKey && !event.metaKey && !event.altKey && event.target.tagName !== "INPUT") keys[event.key.toLowerCase()]?.();
  });
}

async function start() {
  const data = await unpack();
  const begin = async () => {
    say("Preparing the shader ...");
    const tracer = new Tracer(canvas, model, data, $("shader").textContent);
    await tracer.linked();
    if (painter) painter.stopped = true;
    painter = new Painter(tracer, canvas, scene, () => state.smooth, (share, smoothing) => {
      $("progress").style.setProperty("--done", `${100 * share}%`);
      $("progress-text").textContent = `${smoothing ? "Smoothing edges" : "Tracing"} ... ${Math.round(100 * share)}%`;
      $("progress").hidden = share >= 1;
    });
    painter.resize();
    say("");
  };
  controls();
  show();
  await begin();
  steer(canvas, orbit, allowed, () => painter.changed());
  new ResizeObserver(() => painter.resize()).observe(canvas);
  canvas.addEventListener("webglcontextlost", (event) => {
    event.preventDefault();
    say("The graphics driver was reset; waiting for it ...");
  });
  canvas.addEventListener("webglcontextrestored", () => begin().catch((error) => say(error.message, true)));
  while (!painter.frames) await pause(5);
  window.nstr3d.firstFrame = performance.now();
}

// For scripts. `smooth: false` in the state leaves it at one ray through the middle of each pixel. `ready` resolves at the first full picture, `settled()` once nothing is left to draw.
window.nstr3d = {
  ready: start().catch((error) => {
    say(error.message, true);
    throw error;
  }),
  set,
  settled: () => painter.settled(),
  setCamera(given) {
    orbit.set(given);
    painter.changed(false);
  },
  get state() {
    return { ...state, azimuth: orbit.azimuth, elevation: orbit.elevation, zoom: orbit.zoom, speed: painter?.speed };
  },
  get size() {
    return [canvas.width, canvas.height];
  },
};
window.nstr3d.ready.catch(() => {}); // it was said on the page
