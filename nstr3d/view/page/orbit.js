// The camera: it looks at a target from an azimuth about the axis that points up and an elevation, in degrees.

const radians = (degrees) => (degrees * Math.PI) / 180;
const add = (a, b, share = 1) => a.map((value, i) => value + share * b[i]);
const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];

class Orbit {
  constructor(model) {
    this.model = model;
    this.reset();
  }

  reset() {
    const { lower, upper, camera } = this.model;
    Object.assign(this, { azimuth: camera.azimuth, elevation: camera.elevation, fov: camera.fov, zoom: 1, distance: null });
    this.target = lower.map((value, i) => (value + upper[i]) / 2);
  }

  // In world units; `eye` and `target`, or any of azimuth, elevation, fov, zoom, target.
  set(given) {
    const { centre, scale } = this.model;
    const unit = (point) => point.map((value, i) => (value - centre[i]) / scale);
    for (const name of ["azimuth", "elevation", "fov", "zoom"]) if (name in given) this[name] = given[name];
    if (given.target) this.target = unit(given.target);
    this.distance = null;
    if (given.eye) {
      const there = add(unit(given.eye), this.target, -1), away = this.model.turn.map((row) => dot(row, there));
      this.distance = Math.hypot(...away);
      this.azimuth = (Math.atan2(away[0], away[2]) * 180) / Math.PI;
      this.elevation = (Math.asin(away[1] / this.distance) * 180) / Math.PI;
    }
  }

  axes() {
    const a = radians(this.azimuth), e = radians(this.elevation);
    const [x, y, z] = this.model.turn, turned = (v) => add(add(add([0, 0, 0], x, v[0]), y, v[1]), z, v[2]);
    return {
      right: turned([Math.cos(a), 0, -Math.sin(a)]),
      above: turned([-Math.sin(a) * Math.sin(e), Math.cos(e), -Math.cos(a) * Math.sin(e)]),
      backward: turned([Math.sin(a) * Math.cos(e), Math.sin(e), Math.cos(a) * Math.cos(e)]),
    };
  }

  // The distance at which all of the bounds is in view.
  fitting(aspect) {
    const { lower, upper, margin } = this.model;
    const { right, above, backward } = this.axes();
    const half = Math.tan(radians(this.fov) / 2);
    let far = 0;
    for (let k = 0; k < 8; k++) {
      const corner = lower.map((value, i) => (((k >> i) & 1 ? 1 : -1) * margin * (upper[i] - value)) / 2);
      const offset = Math.max(Math.abs(dot(corner, right)) / aspect, Math.abs(dot(corner, above)));
      far = Math.max(far, offset / half + dot(corner, backward));
    }
    return far;
  }

  // What the shader needs for a picture of this width over height.
  view(aspect) {
    const axes = this.axes(), half = Math.tan(radians(this.fov) / 2);
    const distance = this.distance ?? this.fitting(aspect) / this.zoom;
    return { ...axes, eye: add(this.target, axes.backward, distance), distance, view: [half * aspect, half] };
  }

  turn(right, up) {
    this.azimuth = (this.azimuth - right) % 360;
    this.elevation = Math.min(89.5, Math.max(-89.5, this.elevation + up));
  }

  closer(factor) {
    this.zoom = Math.min(60, Math.max(0.25, this.zoom * factor));
    if (this.distance) this.distance /= factor;
  }

  // By shares of the picture's height.
  move(right, up, aspect) {
    const { right: x, above: y, distance, view } = this.view(aspect);
    this.target = add(add(this.target, x, -right * 2 * view[1] * distance), y, -up * 2 * view[1] * distance);
    this.target = this.target.map((value) => Math.min(2, Math.max(-2, value)));
  }
}

// Mouse, touch and keys move the orbit; `changed` hears of it, `allowed` may refuse the new place.
function steer(canvas, orbit, allowed, changed) {
  const fingers = new Map();
  const attempt = (act) => {
    const before = { ...orbit };
    act();
    if (!allowed()) Object.assign(orbit, before);
    changed();
  };
  const aspect = () => canvas.clientWidth / canvas.clientHeight;
  const span = () => {
    const [a, b] = [...fingers.values()];
    return { middle: [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2], apart: Math.hypot(a[0] - b[0], a[1] - b[1]) };
  };
  canvas.addEventListener("pointerdown", (event) => {
    fingers.set(event.pointerId, [event.clientX, event.clientY]);
    canvas.setPointerCapture(event.pointerId);
    canvas.focus({ preventScroll: true });
  });
  canvas.addEventListener("pointermove", (event) => {
    const from = fingers.get(event.pointerId);
    if (!from) return;
    const before = fingers.size === 2 && span();
    fingers.set(event.pointerId, [event.clientX, event.clientY]);
    const dx = event.clientX - from[0], dy = event.clientY - from[1], height = canvas.clientHeight;
    if (before) {
      const now = span();
      attempt(() => {
        orbit.closer(now.apart / Math.max(before.apart, 1));
        orbit.move((now.middle[0] - before.middle[0]) / height, (before.middle[1] - now.middle[1]) / height, aspect());
      });
    } else if (fingers.size === 1) {
      const moves = event.shiftKey || event.buttons & 6;
      attempt(() => (moves ? orbit.move(dx / height, -dy / height, aspect()) : orbit.turn((dx * 240) / height, (dy * 240) / height)));
    }
  });
  for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, (event) => fingers.delete(event.pointerId));
  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  canvas.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      const pixels = event.deltaY * [1, 16, 400][event.deltaMode];
      attempt(() => orbit.closer(Math.exp(-0.0015 * Math.max(-400, Math.min(400, pixels)))));
    },
    { passive: false },
  );
  const keys = {
    ArrowLeft: () => orbit.turn(5, 0),
    ArrowRight: () => orbit.turn(-5, 0),
    ArrowUp: () => orbit.turn(0, 5),
    ArrowDown: () => orbit.turn(0, -5),
    "+": () => orbit.closer(1.1),
    "=": () => orbit.closer(1.1),
    "-": () => orbit.closer(1 / 1.1),
  };
  canvas.addEventListener("keydown", (event) => {
    if (!keys[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    attempt(keys[event.key]);
  });
}
