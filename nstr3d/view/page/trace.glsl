// Sphere tracing of the field: one ray a pixel. Everything is in the unit box's coordinates.
uniform vec3 eye, right, above, backward; // the camera's place and axes
uniform vec2 view, size, jitter; // tangents of the half angles of view; the picture and a shift within it, in pixels
uniform vec3 lower, upper; // the box that holds the surface
uniform float iso; // show where the distance is this
uniform vec4 plane; // dot(plane.xyz, p) > plane.w is cut away; xyz = 0 where nothing is
uniform int shading, steps;
uniform vec3 key; // towards the key light
uniform vec2 frequencies; // those that the colour map begins and ends with
uniform highp sampler3D coarse; // distances at the centres of a coarse grid's cells
uniform highp sampler2D drawn; // the picture of the first rays
uniform bool again; // leave pixels alone where that picture is smooth

out vec4 colour;

const int STUDIO = 0, NORMALS = 1;
const int CUT = 0, MARCH = 1, REFINE = 2, TAPS = 3;
const float INFINITE = 1e9, CONTRAST = 0.06;
const vec3 TETRAHEDRON[4] = vec3[](vec3(1, -1, -1), vec3(-1, -1, 1), vec3(-1, 1, -1), vec3(1, 1, 1));

// The field where it is defined; beyond the unit box, no more than the distance to anything inside.
float field(vec3 p) {
  vec3 inside = clamp(p, -1.0, 1.0);
  float value = decoded(inside), gap = dot(p - inside, p - inside);
  return gap > 0.0 ? sqrt(gap + max(value, 0.0) * max(value, 0.0)) : value;
}

float roughly(vec3 p) { return texture(coarse, (p - COARSE_LOWER) / COARSE_EXTENT).r - iso; }

// Goes on from depth t as far as the coarse grid is sure that nothing is in the way.
float skip(vec3 ray, float t, float far) {
  for (int i = 0; i < 64; i++) {
    float free = (roughly(eye + t * ray) - COARSE_ERROR) / LIPSCHITZ;
    if (free < 0.5 * COARSE_CELL || t >= far) break;
    t += free;
  }
  return t;
}

// How much of the sky a point sees: near walls, distance falls short of height.
float openness(vec3 p, vec3 normal) {
  float here = roughly(p), blocked = 0.0, total = 0.0, weight = 1.0;
  for (int tap = 1; tap <= OCCLUSION_TAPS; tap++) {
    float share = float(tap) / float(OCCLUSION_TAPS), height = OCCLUSION_REACH * share * share;
    weight *= 0.75;
    blocked += weight * clamp(1.0 - (roughly(p + height * normal) - here) / height, 0.0, 1.0);
    total += weight;
  }
  return pow(clamp(1.0 - blocked / total, 0.0, 1.0), 1.5);
}

// How much of the key light a point sees: the narrowest clearance on the way, over its travel.
float lit(vec3 p, vec3 normal) {
  float seen = 1.0, travel = 0.01 * DIAGONAL;
  if (dot(normal, key) <= 0.0) return 1.0;
  vec3 start = p + 0.004 * DIAGONAL * normal;
  float here = min(roughly(p), 0.0);
  for (int i = 0; i < SHADOW_STEPS && seen > 0.0 && travel < DIAGONAL / 2.0; i++) {
    float clear = roughly(start + travel * key) - here;
    seen = min(seen, clamp(0.5 + 0.5 * clear / (SHADOW_SOFTNESS * travel), 0.0, 1.0));
    travel += clamp(clear, 0.01 * DIAGONAL, 0.1 * DIAGONAL);
  }
  return seen * seen * (3.0 - 2.0 * seen);
}

vec3 onScreen(vec3 linear) { return pow(clamp(linear, 0.0, 1.0), vec3(1.0 / GAMMA)); }

vec3 viridis(float value) {
  int last = VIRIDIS.length() - 1;
  float at = clamp(value, 0.0, 1.0) * float(last);
  int low = min(int(at), last - 1);
  return mix(VIRIDIS[low], VIRIDIS[low + 1], at - float(low));
}

// Key, fill and rim light, sky and ground: the same light as that of nstr3d render.
vec3 studio(vec3 p, vec3 normal, vec3 ray, vec3 albedo) {
  float sky = openness(p, normal), shade = max(dot(normal, key), 0.0) * lit(p, normal);
  vec3 light = mix(GROUND, SKY, 0.5 + 0.5 * dot(normal, UP)) * sky + shade * KEY_COLOUR;
  vec3 fill = normalize(FILL.x * right + FILL.y * above + FILL.z * backward);
  light += max(0.75 * dot(normal, fill) + 0.25, 0.0) * sky * FILL_COLOUR;
  vec3 rim = normalize(RIM.x * right + RIM.y * above + RIM.z * backward);
  float grazing = clamp(1.0 + dot(normal, ray), 0.0, 1.0);
  light += 2.0 * max(dot(normal, rim), 0.0) * grazing * grazing * sky * RIM_COLOUR;
  float shine = pow(max(dot(normal, normalize(key - ray)), 0.0), 48.0) * shade;
  return onScreen(light * albedo + GLOSS * shine * KEY_COLOUR);
}

vec3 albedoAt(vec3 p) {
#ifdef FREQUENCY
  if (shading > NORMALS) {
    float share = (meanFrequency(clamp(p, -1.0, 1.0)) - frequencies.x) / (frequencies.y - frequencies.x);
    return pow(viridis(share), vec3(GAMMA));
  }
#endif
  return ALBEDO;
}

// The cut through the distance: blue inside and orange outside, a line every SPACING, a dark one on the surface.
// rgb and how much it covers; `across` is how much the distance changes over a pixel.
vec4 contours(float distance, float across, vec3 p) {
  float depth = clamp(abs(distance) / (10.0 * SPACING), 0.0, 1.0);
  bool within = distance < 0.0;
  vec3 base = within ? mix(vec3(0.80, 0.89, 0.96), vec3(0.20, 0.43, 0.70), depth) : vec3(0.85, 0.45, 0.15);
  if (within && shading > NORMALS) base = onScreen(albedoAt(p));
  float cycle = (distance + iso) / SPACING;
  float from = abs(cycle - floor(cycle + 0.5)) * SPACING / max(across, 1e-6);
  float line = 1.0 - smoothstep(0.4, 1.4, from);
  line *= 1.0 - smoothstep(0.25, 0.5, across / SPACING); // too dense to tell apart
  float edge = 1.0 - smoothstep(0.9, 1.9, abs(distance) / max(across, 1e-6));
  vec4 found = within ? vec4(mix(base, vec3(0.08, 0.20, 0.38), 0.75 * line), 1.0) : vec4(base, 0.8 * line * (1.0 - depth));
  return mix(found, vec4(0.10, 0.10, 0.12, 1.0), edge);
}

// Whether the picture of the first rays varies little around this pixel.
bool smoothly() {
  ivec2 here = ivec2(gl_FragCoord.xy), last = textureSize(drawn, 0) - 1;
  vec3 least = vec3(1), most = vec3(0);
  for (int i = 0; i < 9; i++) {
    vec3 seen = texelFetch(drawn, clamp(here + ivec2(i % 3, i / 3) - 1, ivec2(0), last), 0).rgb;
    least = min(least, seen), most = max(most, seen);
  }
  vec3 range = most - least;
  return max(range.r, max(range.g, range.b)) < CONTRAST;
}

void main() {
  if (again && smoothly()) discard;
  vec2 at = (gl_FragCoord.xy + jitter) / size * 2.0 - 1.0;
  vec3 ray = normalize(at.x * view.x * right + at.y * view.y * above - backward);
  float thin = view.y / size.y; // half a pixel at depth 1

  vec3 safe = mix(ray, vec3(1e-9), lessThan(abs(ray), vec3(1e-9)));
  vec3 a = (lower - eye) / safe, b = (upper - eye) / safe, first = min(a, b), last = max(a, b);
  float near = max(max(first.x, first.y), max(first.z, 0.0)), far = min(last.x, min(last.y, last.z));
  int stage = MARCH;
  if (plane.xyz != vec3(0)) {
    float height = dot(plane.xyz, eye) - plane.w, rate = dot(plane.xyz, ray);
    float meets = abs(rate) < 1e-9 ? INFINITE : -height / rate;
    if (height <= 0.0) far = rate > 0.0 ? min(far, meets) : far;
    else if (rate >= 0.0) near = INFINITE;
    else if (meets > near) near = meets, stage = CUT;
  }

  // The field stands in one place only: compilers copy a function to wherever it is called.
  float t = near, before = near, reach = 0.0, after = near, low = 0.0, cut = INFINITE, spread = 0.0;
  vec3 slope = vec3(0);
  int taps = 0, refined = 0;
  bool hit = false, capped = false;
  for (int i = 0; i < steps + 8 && t < far; i++) {
    if (stage == MARCH) {
      if (i >= steps) break;
      t = skip(ray, t, far);
      if (t >= far) break;
    }
    vec3 p = eye + t * ray;
    if (stage == TAPS) p += spread * TETRAHEDRON[taps];
    float d = field(p) - iso, accuracy = max(ACCURACY, 0.1 * thin * t);
    if (stage == TAPS) {
      slope += d * TETRAHEDRON[taps];
      if (++taps == 4) break;
    } else if (stage == CUT) {
      cut = d;
      stage = MARCH;
      if (d < 0.0) { hit = capped = true; break; }
    } else if (stage == MARCH && d >= accuracy) {
      before = t, reach = d;
      t += d / LIPSCHITZ + 0.25 * thin * t;
    } else if (d > -accuracy || reach == 0.0 || refined == 4) {
      hit = true;
      stage = TAPS;
      spread = max(TAP, 0.25 * thin * t);
    } else { // regula falsi between the last point outside and the first within
      if (d > 0.0) before = t, reach = d; else after = t, low = d;
      stage = REFINE, refined++;
      t = mix(before, after, reach / (reach - low));
    }
  }
  vec2 steep = vec2(dFdx(cut), dFdy(cut));

  float share = (at.x * at.x + (at.y - 0.2) * (at.y - 0.2)) / 2.44;
  vec3 p = eye + t * ray, shown = onScreen(mix(MIDDLE, CORNERS, share));
  if (hit && !capped) {
    vec3 normal = normalize(slope);
    if (shading == NORMALS) shown = 0.5 + 0.5 * normal;
    else {
      vec3 albedo = albedoAt(p);
#ifdef COLOURED
      // The colours are those of the surface, also where another level is shown.
      if (shading < NORMALS) albedo = pow(clamp(colourOf(clamp(p - iso * normal, -1.0, 1.0)), 0.0, 1.0), vec3(GAMMA));
#endif
      shown = studio(p, dot(normal, ray) > 0.0 ? reflect(normal, ray) : normal, ray, albedo);
    }
  }
  if (cut < INFINITE) {
    float across = length(steep);
    vec4 lines = contours(cut, across < 1.0 ? across : 2.0 * thin * near, p);
    shown = mix(shown, lines.rgb, lines.a);
  }
  colour = vec4(shown, 1);
  gl_FragDepth = hit ? t / (1.0 + t) : 1.0; // the ray's length, whatever it is, between 0 and 1
}
