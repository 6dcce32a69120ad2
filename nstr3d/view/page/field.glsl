// What the generated field needs: its tables, its waves, its activation.
uniform highp isampler2D table; // the spectra's entries, four channels a texel
uniform highp isampler2D rows; // node -> row of its level's table, -1 where none is stored

ivec2 placeOf(int i) { return ivec2(i & (WIDTH - 1), i >> BITS); } // software divides slowly

vec4 entry(int i) { return vec4(texelFetch(table, placeOf(i), 0)); }

int rowOf(int i) { return texelFetch(rows, placeOf(i), 0).r; }

// Graphics hardware promises a sine of some accuracy between -pi and pi only.
float wave(float angle) { return sin(angle - 6.28318531 * floor(angle * 0.159154943 + 0.5)); }

// Weights of a cell's nodes along the axes, and their derivatives in the offset: of two nodes
// (multilinear levels) or of three (quadratic B-splines).
vec3 shareOf2(vec3 u, ivec3 tap) { return mix(1.0 - u, u, vec3(tap)); }
vec3 turnOf2(vec3 u, ivec3 tap) { return 2.0 * vec3(tap) - 1.0; }
vec3 ofThree(vec3 first, vec3 second, vec3 third, ivec3 tap) {
  return mix(mix(first, second, vec3(min(tap, 1))), third, vec3(max(tap - 1, 0)));
}
vec3 shareOf3(vec3 u, ivec3 tap) { return ofThree(0.5 * (1.0 - u) * (1.0 - u), 0.5 + u * (1.0 - u), 0.5 * u * u, tap); }
vec3 turnOf3(vec3 u, ivec3 tap) { return ofThree(u - 1.0, 1.0 - 2.0 * u, u, tap); }
vec4 softplus(vec4 x, float sharpness) { return max(x, 0.0) + log(1.0 + exp(-sharpness * abs(x))) / sharpness; }
