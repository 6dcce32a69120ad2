// Streamlines: each straight piece of a line is a quad some pixels wide, drawn over a traced picture where that is not before it.

const STROKE = `#version 300 es
precision highp float;
uniform vec3 eye, right, above, backward;
uniform vec2 view, size;
uniform float width; // of a line, in pixels
in vec4 a, b; // both ends of the piece; a.w is 0 where it is none: the last point of a line
in vec4 aColour, bColour;
out vec3 place, shade;
flat out vec2 first, last; // the ends, in pixels

vec3 seen(vec3 p) { return vec3(dot(p - eye, right) / view.x, dot(p - eye, above) / view.y, -dot(p - eye, backward)); }

void main() {
  vec3 from = seen(a.xyz), to = seen(b.xyz);
  bool end = (gl_VertexID & 2) != 0;
  vec3 here = end ? to : from;
  place = end ? b.xyz : a.xyz;
  shade = end ? bColour.rgb : aColour.rgb;
  first = (from.xy / from.z * 0.5 + 0.5) * size, last = (to.xy / to.z * 0.5 + 0.5) * size;
  vec2 along = last - first, unit = dot(along, along) > 0.0 ? normalize(along) : vec2(1, 0);
  vec2 corner = (end ? last + width * unit : first - width * unit) + ((gl_VertexID & 1) != 0 ? width : -width) * vec2(-unit.y, unit.x);
  bool cut = a.w == 0.0 || min(from.z, to.z) < 1e-3; // what is beside or behind the eye is left out whole
  gl_Position = cut ? vec4(2, 2, 2, 1) : vec4((corner / size * 2.0 - 1.0) * here.z, 0, here.z);
}`;
const INK = `#version 300 es
precision highp float;
uniform highp sampler2D depth; // of the traced picture, as trace.glsl writes it
uniform vec3 eye;
uniform vec2 size;
uniform vec4 plane;
uniform float width, slack; // how far behind the surface a line on it may lie
in vec3 place, shade;
flat in vec2 first, last;
out vec4 colour;

void main() {
  float share = texture(depth, gl_FragCoord.xy / size).r;
  if (distance(place, eye) - slack > share / max(1.0 - share, 1e-7)) discard;
  if (plane.xyz != vec3(0) && dot(plane.xyz, place) > plane.w + slack) discard;
  vec2 way = last - first, from = gl_FragCoord.xy - first;
  float apart = length(from - clamp(dot(from, way) / max(dot(way, way), 1e-12), 0.0, 1.0) * way);
  colour = vec4(shade, clamp(0.5 * width + 0.5 - apart, 0.0, 1.0));
}`;

class Lines {
  // `points`: x, y, z and whether a piece begins there; `colours`: red, green, blue and nothing.
  constructor(gl, { points, colours }, slack) {
    Object.assign(this, { gl, slack, count: points.length / 4 - 1, program: gl.createProgram(), vertices: gl.createVertexArray() });
    const { program } = this, attributes = ["a", "b", "aColour", "bColour"];
    for (const [kind, source] of [[gl.VERTEX_SHADER, STROKE], [gl.FRAGMENT_SHADER, INK]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    attributes.forEach((name, index) => gl.bindAttribLocation(program, index, name));
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw new Error(`The lines' shader fails: ${gl.getProgramInfoLog(program)}`);
    this.at = locations(gl, program);
    gl.bindVertexArray(this.vertices);
    // A piece's second end is the next point of the same list.
    for (const [index, data, kind, bytes] of [[0, points, gl.FLOAT, 16], [2, colours, gl.UNSIGNED_BYTE, 4]]) {
      gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
      gl.bufferData(gl.ARRAY_BUFFER, data, gl.STATIC_DRAW);
      for (const next of [0, 1]) {
        gl.enableVertexAttribArray(index + next);
        gl.vertexAttribPointer(index + next, 4, kind, kind === gl.UNSIGNED_BYTE, bytes, next * bytes);
        gl.vertexAttribDivisor(index + next, 1);
      }
    }
    gl.bindVertexArray(null);
  }

  // Onto the canvas, which shows `picture`.
  draw(picture, scene) {
    const { gl, at } = this, { width, height } = gl.canvas;
    gl.useProgram(this.program);
    gl.bindVertexArray(this.vertices);
    gl.bindFramebuffer(gl.FRAMEBUFFER, null);
    gl.viewport(0, 0, width, height);
    gl.bindTexture(gl.TEXTURE_2D, picture.depth);
    gl.uniform1i(at.depth, SPARE);
    for (const name of ["eye", "right", "above", "backward"]) gl.uniform3fv(at[name], scene[name]);
    gl.uniform2fv(at.view, scene.view);
    gl.uniform2f(at.size, width, height);
    gl.uniform4fv(at.plane, scene.plane);
    gl.uniform1f(at.slack, this.slack);
    gl.uniform1f(at.width, Math.max(1.5, Math.min(width, height) / 320));
    gl.enable(gl.BLEND);
    gl.blendFuncSeparate(gl.SRC_ALPHA, gl.ONE_MINUS_SRC_ALPHA, gl.ONE, gl.ONE);
    gl.drawArraysInstanced(gl.TRIANGLE_STRIP, 0, 4, this.count);
    gl.disable(gl.BLEND);
  }
}
