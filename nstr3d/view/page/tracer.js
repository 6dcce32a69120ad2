// WebGL: the field's tables as textures, the shader, and pictures drawn a few rows at a time.

const VERTEX = `#version 300 es
void main() { gl_Position = vec4(vec2((gl_VertexID << 1) & 2, gl_VertexID & 2) * 2.0 - 1.0, 0, 1); }`;
const SPARE = 3, DRAWN = 4, NODES = 5; // texture units: one beside those that the tracer reads, that of the picture of the first rays, and that of a compressed shape
const BUDGET = 30; // milliseconds that a piece of work should take on the graphics card
const PATIENCE = 5000; // milliseconds that the rays after the first may take
const QUICK = 500; // milliseconds that a picture may take without a coarser one before it
const COARSER = 3; // pixels of the picture to one of that coarser one, in rows and columns
const SHOWN = 400; // milliseconds at least between pictures on the screen: in software each costs as much as hundreds of rays
const FIRST = 0.7; // share of the progress that the first rays of all pixels are
const REST = 180; // milliseconds without a change after which a picture is drawn in full
// Where the rays of a smooth picture go through a pixel: the middle first, so that one ray alone is right.
const JITTERS = [[0, 0], [0.125, 0.375], [-0.375, 0.125], [0.375, -0.125], [-0.125, -0.375], [0.3, 0.3], [-0.3, 0.3], [-0.3, -0.3], [0.3, -0.3]];

class Tracer {
  constructor(canvas, model, data, fragment) {
    const gl = canvas.getContext("webgl2", {
      alpha: false, antialias: false, depth: false, stencil: false, preserveDrawingBuffer: true, powerPreference: "high-performance",
    });
    if (!gl) throw new Error("This page needs WebGL 2, which this browser does not offer or has switched off.");
    Object.assign(this, { gl, model });
    this.program = gl.createProgram();
    this.shaders = [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, fragment]].map(([kind, source]) => {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(this.program, shader);
      return shader;
    });
    gl.linkProgram(this.program);
    this.upload(data);
  }

  // Waits for the driver without blocking the page; throws what the driver says of a shader that it cannot take.
  async linked() {
    const { gl, program } = this;
    const parallel = gl.getExtension("KHR_parallel_shader_compile");
    while (parallel && !gl.isContextLost() && !gl.getProgramParameter(program, parallel.COMPLETION_STATUS_KHR)) await pause(10);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS)) {
      const log = this.shaders.map((shader) => gl.getShaderInfoLog(shader)).join(" ") + gl.getProgramInfoLog(program);
      throw new Error(`The graphics driver cannot compile this page's shader: ${log}`);
    }
    gl.useProgram(program);
    this.at = locations(gl, program);
    for (const [unit, name] of ["table", "rows", "coarse"].entries()) gl.uniform1i(this.at[name], unit);
    gl.uniform1i(this.at.drawn, DRAWN);
    if (this.model.pyramid) gl.uniform1i(this.at.nodes, NODES);
    this.vertices = gl.createVertexArray();
  }

  upload({ table, rows, coarse, nodes, lines }) {
    const { gl } = this, { width, grid } = this.model;
    const texture = (unit, target, filter) => {
      gl.activeTexture(gl.TEXTURE0 + unit);
      gl.bindTexture(target, gl.createTexture());
      for (const name of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(target, name, filter);
      for (const name of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T, gl.TEXTURE_WRAP_R]) gl.texParameteri(target, name, gl.CLAMP_TO_EDGE);
    };
    const list = (unit, Type, given, channels, ...kind) => {
      const height = Math.max(1, Math.ceil(given.length / channels / width));
      const padded = new Type(width * height * channels);
      padded.set(given);
      texture(unit, gl.TEXTURE_2D, gl.NEAREST);
      gl.texImage2D(gl.TEXTURE_2D, 0, kind[0], width, height, 0, kind[1], kind[2], padded);
    };
    list(0, Int16Array, table, 4, gl.RGBA16I, gl.RGBA_INTEGER, gl.SHORT);
    list(1, Int32Array, rows, 1, gl.R32I, gl.RED_INTEGER, gl.INT);
    texture(2, gl.TEXTURE_3D, gl.LINEAR);
    gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
    gl.texImage3D(gl.TEXTURE_3D, 0, gl.R16F, ...grid.shape, 0, gl.RED, gl.HALF_FLOAT, coarse);
    if (nodes) {
      const edge = this.model.pyramid.nodes, most = gl.getParameter(gl.MAX_3D_TEXTURE_SIZE);
      if (edge > most) throw new Error(`This shape has ${edge} nodes a side, and the graphics card holds ${most}.`);
      texture(NODES, gl.TEXTURE_3D, gl.NEAREST);
      gl.texImage3D(gl.TEXTURE_3D, 0, gl.R16F, edge, edge, edge, 0, gl.RED, gl.HALF_FLOAT, nodes);
    }
    texture(DRAWN, gl.TEXTURE_2D, gl.NEAREST);
    gl.texStorage2D(gl.TEXTURE_2D, 1, gl.RGBA8, 1, 1); // until there is a picture
    gl.activeTexture(gl.TEXTURE0 + SPARE);
    if (lines) this.lines = new Lines(gl, lines, this.model.lines.slack);
  }

  // A picture to draw into, colours and depth, in place of `old`.
  picture(width, height, old) {
    const { gl } = this, buffer = gl.createFramebuffer();
    if (old) this.drop(old);
    gl.bindFramebuffer(gl.FRAMEBUFFER, buffer);
    const [colour, depth] = [[gl.RGBA8, gl.COLOR_ATTACHMENT0], [gl.DEPTH_COMPONENT24, gl.DEPTH_ATTACHMENT]].map(([kind, place]) => {
      const texture = gl.createTexture();
      gl.bindTexture(gl.TEXTURE_2D, texture);
      gl.texStorage2D(gl.TEXTURE_2D, 1, kind, width, height);
      for (const name of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(gl.TEXTURE_2D, name, gl.NEAREST);
      gl.framebufferTexture2D(gl.FRAMEBUFFER, place, gl.TEXTURE_2D, texture, 0);
      return texture;
    });
    return { colour, depth, buffer, width, height };
  }

  drop({ colour, depth, buffer }) {
    for (const texture of [colour, depth]) this.gl.deleteTexture(texture);
    this.gl.deleteFramebuffer(buffer);
  }

  // Traces `count` rows of the picture from `row` on, counted from below; `share` is how much they weigh against what is there.
  // With `drawn`, a copy of the picture, pixels stay where that is smooth; contour lines need their neighbours, so a slice is traced whole.
  trace(picture, scene, row, count, steps, jitter = [0, 0], share = 1, drawn = null) {
    const { gl, at } = this;
    gl.useProgram(this.program);
    if (drawn) {
      gl.activeTexture(gl.TEXTURE0 + DRAWN);
      gl.bindTexture(gl.TEXTURE_2D, drawn.colour);
      gl.activeTexture(gl.TEXTURE0 + SPARE);
    }
    gl.uniform1i(at.again, drawn && !scene.plane.slice(0, 3).some(Boolean) ? 1 : 0);
    gl.bindVertexArray(this.vertices);
    gl.bindFramebuffer(gl.FRAMEBUFFER, picture.buffer);
    gl.viewport(0, 0, picture.width, picture.height);
    gl.enable(gl.SCISSOR_TEST);
    gl.scissor(0, row, picture.width, count);
    // The same for the first rays as for others: software compiles the shader anew where this differs.
    gl.enable(gl.BLEND);
    gl.enable(gl.DEPTH_TEST);
    gl.depthFunc(gl.ALWAYS);
    gl.blendColor(0, 0, 0, share);
    gl.blendFunc(gl.CONSTANT_ALPHA, gl.ONE_MINUS_CONSTANT_ALPHA);
    for (const name of ["eye", "right", "above", "backward", "lower", "upper", "key"]) gl.uniform3fv(at[name], scene[name]);
    for (const name of ["view", "frequencies"]) gl.uniform2fv(at[name], scene[name]);
    gl.uniform4fv(at.plane, scene.plane);
    gl.uniform1f(at.iso, scene.iso);
    gl.uniform1i(at.shading, scene.shading);
    gl.uniform1i(at.steps, steps);
    gl.uniform2f(at.size, picture.width, picture.height);
    gl.uniform2fv(at.jitter, jitter);
    gl.drawArrays(gl.TRIANGLES, 0, 3);
    for (const what of [gl.BLEND, gl.DEPTH_TEST, gl.SCISSOR_TEST]) gl.disable(what);
  }

  // Stretches one picture over another; over the canvas where there is no other.
  copy(from, onto) {
    const { gl } = this, { width, height } = onto ?? gl.canvas;
    // Both first: Chromium 156 may show the canvas and leave it bound for reading where we had bound `from`, and skip binding that anew.
    gl.bindFramebuffer(gl.FRAMEBUFFER, onto ? onto.buffer : null);
    gl.bindFramebuffer(gl.READ_FRAMEBUFFER, from.buffer);
    for (const [what, filter] of [[gl.COLOR_BUFFER_BIT, gl.LINEAR], ...(onto ? [[gl.DEPTH_BUFFER_BIT, gl.NEAREST]] : [])]) {
      gl.blitFramebuffer(0, 0, from.width, from.height, 0, 0, width, height, what, filter);
    }
  }

  // A picture of the scene onto the canvas, and what lies over it.
  show(picture, scene) {
    this.copy(picture);
    if (this.lines && scene.lines) this.lines.draw(picture, scene);
  }
}

// The places of a program's uniforms by their names.
const locations = (gl, program) => new Proxy({}, { get: (known, name) => (known[name] ??= gl.getUniformLocation(program, name)) });

// What to draw next: a small picture while things move, all rows once they rest, then more rays a pixel where that is quick.
class Painter {
  constructor(tracer, canvas, scene, smooth, told) {
    Object.assign(this, { tracer, canvas, scene, smooth, told, speed: 20, movedAt: -Infinity, waiting: [], frames: 0 });
    this.tick = this.tick.bind(this);
    this.changed(false);
  }

  // What lies over the picture is another now.
  show() {
    this.tracer.show(this.full, this.scene());
  }

  // The scene is another now; `moving` says that it will go on changing.
  changed(moving = true) {
    Object.assign(this, { row: 0, sample: 0, previewed: false, between: 0, secondTime: 0, shownAt: performance.now() });
    if (moving) this.movedAt = performance.now();
    this.wake();
  }

  wake() {
    if (!this.asked && !this.stopped) this.asked = requestAnimationFrame(this.tick);
  }

  // Resolves when there is nothing left to draw.
  settled() {
    return new Promise((resolve) => {
      this.waiting.push(resolve);
      this.wake();
    });
  }

  resize() {
    const ratio = Math.min(window.devicePixelRatio || 1, 2);
    const width = Math.max(1, Math.round(this.canvas.clientWidth * ratio)), height = Math.max(1, Math.round(this.canvas.clientHeight * ratio));
    if (this.full?.width === width && this.full.height === height) return;
    const old = this.full;
    this.full = this.tracer.picture(width, height);
    if (old) this.tracer.copy(old, this.full);
    this.canvas.width = width, this.canvas.height = height;
    if (old) this.tracer.copy(this.full), this.tracer.drop(old);
    this.changed(Boolean(old));
  }

  tick(now) {
    this.asked = 0;
    const { gl } = this.tracer;
    if (gl.isContextLost()) return;
    if (this.job && gl.clientWaitSync(this.job.sync, gl.SYNC_FLUSH_COMMANDS_BIT, 0) === gl.TIMEOUT_EXPIRED) return this.wake();
    if (this.job) this.finish(now);
    const rest = this.movedAt + REST - now;
    if (!this.next(rest <= 0)) {
      if (this.unseen) this.reveal(this.scene());
      this.told(1);
      if (rest > 0) setTimeout(() => this.wake(), rest);
      else for (const resolve of this.waiting.splice(0)) resolve();
      return;
    }
    this.wake();
  }

  // The picture so far onto the canvas, and how much of the work it is.
  reveal(scene) {
    this.tracer.show(this.full, scene);
    this.unseen = false;
    this.shownAt = performance.now();
    const done = this.row / this.full.height, more = this.samples() - 1;
    this.told(more ? (this.sample ? FIRST + ((1 - FIRST) * (this.sample - 1 + done)) / more : FIRST * done) : done, this.sample > 0);
  }

  // Starts a piece of work; false where there is none.
  next(resting) {
    const { tracer, full } = this, pixels = full.width * full.height, affordable = this.speed * BUDGET;
    if (this.sample === 0 && this.row === 0 && affordable < pixels && !this.previewed) {
      const scale = Math.max(Math.sqrt(affordable / pixels), 1 / 12);
      const width = Math.max(1, Math.round(full.width * scale)), height = Math.max(1, Math.round(full.height * scale));
      if (this.small?.width !== width || this.small.height !== height) this.small = tracer.picture(width, height, this.small);
      this.previewed = true;
      return this.start(width * height, () => {
        const scene = this.scene();
        tracer.trace(this.small, scene, 0, height, this.tracer.model.steps / 2);
        tracer.copy(this.small, full);
        this.reveal(scene);
      });
    }
    if (!resting && (affordable < pixels || this.sample > 0)) return false;
    if (this.sample >= this.samples()) return false;
    if (this.sample === 0 && this.row === 0 && this.between >= 0 && this.coarser(affordable)) return true;
    const count = Math.min(full.height - this.row, Math.max(4, Math.round((2 * affordable) / full.width)));
    const { row, sample } = this;
    this.row += count;
    return this.start(count * full.width, () => {
      const scene = this.scene();
      tracer.trace(full, scene, row, count, this.tracer.model.steps, JITTERS[sample], 1 / (sample + 1), sample ? this.first : null);
      this.unseen = true;
      if (performance.now() - this.shownAt > SHOWN || (sample === 0 && this.row === full.height)) this.reveal(scene);
    });
  }

  // Starts some rows of a coarser picture, which is shown once it is complete; false where the full one is quick enough.
  coarser(affordable) {
    const { tracer, full } = this;
    if (this.between === 0 && (full.width * full.height) / this.speed < QUICK) this.between = -1;
    if (this.between < 0) return false;
    const width = Math.ceil(full.width / COARSER), height = Math.ceil(full.height / COARSER), row = this.between;
    if (this.medium?.width !== width || this.medium.height !== height) this.medium = tracer.picture(width, height, this.medium);
    const count = Math.min(height - row, Math.max(4, Math.round((2 * affordable) / width)));
    this.between = row + count < height ? row + count : -1;
    return this.start(count * width, () => {
      const scene = this.scene();
      tracer.trace(this.medium, scene, row, count, tracer.model.steps);
      if (this.between >= 0) return;
      tracer.copy(this.medium, full);
      this.reveal(scene);
    });
  }

  // Rays a pixel where the picture is not smooth: as many as a few seconds allow.
  samples() {
    if (!this.smooth()) return 1;
    return this.sample < 2 ? JITTERS.length : Math.min(JITTERS.length, Math.max(2, 1 + Math.floor(PATIENCE / this.secondTime)));
  }

  // Keeps a copy of the picture of the first rays.
  keep() {
    const { tracer, full } = this, { width, height } = full;
    if (this.first?.width !== width || this.first.height !== height) this.first = tracer.picture(width, height, this.first);
    tracer.copy(full, this.first);
  }

  start(pixels, draw) {
    const { gl } = this.tracer;
    draw();
    this.job = { sync: gl.fenceSync(gl.SYNC_GPU_COMMANDS_COMPLETE, 0), pixels, begun: performance.now() };
    gl.flush();
    return true;
  }

  finish(now) {
    const { gl } = this.tracer, { sync, pixels, begun } = this.job;
    const took = performance.now() - begun;
    gl.deleteSync(sync);
    this.job = null;
    // Within a frame of the screen there is no telling how much faster it was.
    const rate = pixels / (took < 20 ? took / 3 : took);
    // Empty rows say little of those that follow, and the first piece waits for the shader to be compiled.
    const faster = this.timed ? Math.min(rate, 2 * this.speed) : Math.max(rate, this.speed);
    this.speed = faster > this.speed || !this.timed ? faster : 0.5 * this.speed + 0.5 * rate;
    this.timed = true;
    if (this.sample === 1) this.secondTime += took;
    if (this.row >= this.full.height) {
      this.row = 0;
      if (++this.sample === 1) {
        this.frames++;
        if (this.smooth()) this.keep();
      }
    }
  }
}

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
