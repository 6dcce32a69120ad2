// What the generated field needs: its tables, its waves, its activation.
uniform highp isampler2D table; // the spectra's entries, four channels a texel
uniform highp isampler2D rows; // node -> row of its level's table, -1 where none is stored

vec4 entry(int i) { return vec4(texelFetch(table, ivec2(i % WIDTH, i / WIDTH), 0)); }

int rowOf(int i) { return texelFetch(rows, ivec2(i % WIDTH, i / WIDTH), 0).r; }

// Graphics hardware promises a sine of some accuracy between -pi and pi only.
float wave(float angle) { return sin(angle - 6.28318531 * floor(angle * 0.159154943 + 0.5)); }

vec4 softplus(vec4 x, float sharpness) { return max(x, 0.0) + log(1.0 + exp(-sharpness * abs(x))) / sharpness; }
