"""An `Nstr` field as GLSL: its tables are texels, and its waves and decoder are generated code.

The code is generated from the modules of the field, level by level, so it covers every
`NstrConfig`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from nstr3d.fields.base import Field
from nstr3d.fields.layers import Decoder
from nstr3d.fields.level import Level
from nstr3d.fields.nstr import Nstr
from nstr3d.fields.waves import ComplexWaves, PhaseWaves

WIDTH = 2048  # width of the textures that hold long lists, in texels
INTEGERS = 32767  # largest integer of a table's entries


@dataclass(frozen=True)
class FieldCode:
    """A field as GLSL code and tables.

    ``glsl`` defines ``float decoded(vec3 x)``, the field at a point of the unit box. If there are
    phase waves (``frequency``), it also defines ``float meanFrequency(vec3 x)``, and with a field
    of colours (``coloured``) ``vec3 colourOf(vec3 x)``, display RGB. ``texels (n, 4)``
    int16 hold the tables; the code contains the unit of each channel. ``bitmaps`` has a bool array
    for each sparse level that is true at stored nodes. The code looks nodes up in a list of table
    rows, which the page makes from the bitmaps, with -1 for a node that is not stored. ``stream``
    is the code of a compressed shape, which has no tables, and ``about`` what the page needs to
    decode it.
    """

    glsl: str
    texels: np.ndarray
    bitmaps: tuple[np.ndarray, ...]
    frequency: bool
    coloured: bool = False
    stream: bytes = b""
    about: dict[str, Any] | None = None


def field_code(source: Field, colours: Field | None = None) -> FieldCode:
    """The code of ``source`` and its field of ``colours``. Raises ValueError for a field that is
    not an `Nstr`, and for fields that are too large for a texture."""
    for each in (source, colours):
        if each is not None and not isinstance(each, Nstr):
            raise ValueError(
                f"The page traces NSTR and grid fields, not a {type(each).__name__}; export it as "
                "glb or onnx, or fit the field nstr."
            )
    assert isinstance(source, Nstr)
    writer = _Writer()
    parts = [_function("float decoded(vec3 x)", writer.field(source, 0))]
    if isinstance(colours, Nstr):
        parts.append(_function("vec3 colourOf(vec3 x)", writer.field(colours, len(source.spectra))))
    frequencies = [
        line
        for number, level in enumerate(source.spectra)
        if isinstance(level.config.waves, PhaseWaves)
        for line in writer.frequency(number, level)
    ]
    if frequencies:
        mean = ["float sum = 0.0, weight = 0.0;", *frequencies, "return sum / max(weight, 1e-9);"]
        parts.append(_function("float meanFrequency(vec3 x)", mean))
    texels = np.concatenate(writer.texels)
    for count in (len(texels), sum(map(len, writer.bitmaps))):
        if count > WIDTH * WIDTH:
            raise ValueError(
                f"The model is too large for a page: {count:,} texels, where a texture holds "
                f"{WIDTH * WIDTH:,}."
            )
    glsl, bitmaps = "\n\n".join(parts) + "\n", tuple(writer.bitmaps)
    return FieldCode(glsl, texels, bitmaps, bool(frequencies), colours is not None)


@dataclass
class _Writer:
    """The code lines, texels and bitmaps of the levels so far, and the place of each level."""

    lines: list[str] = field(default_factory=list)
    texels: list[np.ndarray] = field(default_factory=list)
    bitmaps: list[np.ndarray] = field(default_factory=list)
    places: dict[int, tuple[int, int | None, np.ndarray]] = field(default_factory=dict)

    def field(self, source: Nstr, first: int) -> list[str]:
        """The lines that return the values of ``source``, whose levels are numbered from
        ``first``."""
        self.lines, features = [], []
        for number, level in enumerate(source.spectra, first):
            features += self.level(number, level)
        return [*self.lines, *_decoder(source, features)]

    def level(self, number: int, level: Level) -> list[str]:
        """Adds the spectrum of a level to the code. Returns a GLSL expression for each feature."""
        self.places[number] = self._stored(level)
        scale = self.places[number][2]
        self.lines += [f"vec4 {name} = vec4(0);" for name in _names(f"s{number}_", len(scale))]
        self.lines += self._gather(
            number,
            level,
            [f"s{number}_{i} += weight * entry(at + {i});" for i in range(len(scale))],
        )
        self.lines += [f"s{number}_{i} *= {_vector(row)};" for i, row in enumerate(scale)]
        config, waves = level.config, level.config.waves
        channel = [f"s{number}_{i // 4}.{'xyzw'[i % 4]}" for i in range(config.channels)]
        features = channel[: config.plain]
        if waves is None:
            return features
        omega, phase = (
            level.omega.detach().double().cpu().numpy(),
            level.phase.detach().double().cpu().numpy(),
        )
        for k in range(waves.count):
            carrier = f"dot({_vector(omega[k])}, x) + {_number(phase[k])}"
            first = channel[config.plain + k]
            second = channel[config.plain + waves.count + k] if waves.channels_per_wave == 2 else ""
            if isinstance(waves, PhaseWaves):
                features.append(f"{first} * wave({carrier} + {_number(waves.radians)} * {second})")
            elif isinstance(waves, ComplexWaves):
                features.append(
                    f"{first} * wave({carrier}) + {second} * wave({carrier} + 1.57079633)"
                )
            else:
                features.append(f"{first} * wave({carrier})")
        return features

    def _stored(self, level: Level) -> tuple[int, int | None, np.ndarray]:
        """Stores a level's table. Returns its first texel, its place in the list of rows (None if
        every node is stored) and the units ``(texels, 4)`` of its channels."""
        table = level.table.detach().double().cpu().numpy()
        width = -(-table.shape[1] // 4) * 4
        unit = np.zeros(width)
        unit[: table.shape[1]] = np.abs(table).max(axis=0, initial=1e-30) / INTEGERS
        padded = np.pad(table, [(0, 0), (0, width - table.shape[1])]) / np.where(unit > 0, unit, 1)
        first = sum(map(len, self.texels))
        self.texels.append(np.round(padded).astype(np.int16).reshape(-1, 4))
        stored = (level.rows >= 0).cpu().numpy()
        if stored.all():
            return first, None, unit.reshape(-1, 4)
        self.bitmaps.append(stored)
        return first, sum(map(len, self.bitmaps[:-1])), unit.reshape(-1, 4)

    def _gather(
        self, number: int, level: Level, each: Sequence[str], slopes: bool = False
    ) -> list[str]:
        """A GLSL block that runs the lines ``each`` for every stored node of the cell of x. The
        variables of the lines are the node's ``weight`` and first texel ``at`` and, with
        ``slopes``, the weight's gradient ``slope``."""
        first, rows, scale = self.places[number]
        cells, taps, edge = level.config.resolution, level.config.order + 1, level.config.edge
        lookup = [] if rows is None else [f"row = rowOf({rows} + row);", "if (row < 0) continue;"]
        slope = [
            f"vec3 turn = {_number(cells / 2)} * turnOf{taps}(offset, tap);",
            "vec3 slope = turn * vec3(share.y * share.z, share.x * share.z, share.x * share.y);",
        ]
        return [
            "{",
            f"  vec3 scaled = (x + 1.0) * {_number(cells / 2)};",
            f"  vec3 cell = clamp(floor(scaled), 0.0, {_number(cells - 1)}), offset = scaled - "
            "cell;",
            f"  int low = (int(cell.x) * {edge} + int(cell.y)) * {edge} + int(cell.z);",
            f"  for (int k = 0; k < {taps**3}; k++) {{",
            f"    ivec3 tap = ivec3(k / {taps * taps}, (k / {taps}) % {taps}, k % {taps});",
            f"    int row = low + (tap.x * {edge} + tap.y) * {edge} + tap.z;",
            *(f"    {line}" for line in lookup),
            f"    vec3 share = shareOf{taps}(offset, tap);",
            "    float weight = share.x * share.y * share.z;",
            *(f"    {line}" for line in (slope if slopes else [])),
            f"    int at = {first} + row * {len(scale)};",
            *(f"    {line}" for line in each),
            "  }",
            "}",
        ]

    def frequency(self, number: int, level: Level) -> list[str]:
        """A GLSL block that adds |omega_k + grad phi_k| |A_k| of a level's waves to ``sum``, and
        |A_k| to ``weight``."""
        waves = level.config.waves
        assert isinstance(waves, PhaseWaves)
        scale = self.places[number][2]
        plain, each, after = level.config.plain, [], []
        omega = level.omega.detach().double().cpu().numpy()
        amplitudes = range(plain // 4, (plain + waves.count - 1) // 4 + 1)
        shifts = range((plain + waves.count) // 4, (plain + 2 * waves.count - 1) // 4 + 1)
        names = [f"a{i}" for i in amplitudes] + [f"{axis}{i}" for i in shifts for axis in "uvw"]
        for i in sorted({*amplitudes, *shifts}):
            each.append(f"vec4 e{i} = entry(at + {i}) * {_vector(scale[i])};")
        each += [f"a{i} += weight * e{i};" for i in amplitudes]
        each += [
            f"{name}{i} += slope.{axis} * e{i};" for i in shifts for name, axis in zip("uvw", "xyz")
        ]
        for k in range(waves.count):
            a, p = plain + k, plain + waves.count + k
            shift = ", ".join(f"{axis}{p // 4}.{'xyzw'[p % 4]}" for axis in "uvw")
            local = f"length({_vector(omega[k])} + {_number(waves.radians)} * vec3({shift}))"
            power = f"abs(a{a // 4}.{'xyzw'[a % 4]})"
            after.append(f"sum += {local} * {power}, weight += {power};")
        gather = self._gather(number, level, each, slopes=True)
        inner = [f"vec4 {', '.join(f'{name} = vec4(0)' for name in names)};", *gather, *after]
        return ["{", *(f"  {line}" for line in inner), "}"]


def _decoder(source: Nstr, features: Sequence[str]) -> list[str]:
    """The GLSL lines that return the decoder g of the features, one value or a vector of three, or
    their sum without a decoder."""
    decoder = source.decoder
    if not isinstance(decoder, Decoder):
        return [f"return {' + '.join(f'({feature})' for feature in features)};"]
    into, bias, out = (
        tensor.detach().double().cpu().numpy()
        for tensor in (decoder.hidden.weight, decoder.hidden.bias, decoder.out.weight)
    )
    fours = -(-len(features) // 4)
    padded = [*features, *["0.0"] * (4 * fours - len(features))]
    lines = [f"vec4 f{j} = vec4({', '.join(padded[4 * j : 4 * j + 4])});" for j in range(fours)]
    hidden = -(-len(bias) // 4) * 4
    into = np.pad(into, [(0, hidden - len(bias)), (0, 4 * fours - len(features))])
    bias = np.pad(bias, (0, hidden - len(bias)))
    out = np.pad(out, [(0, 0), (0, hidden - out.shape[1])])
    single, offset = source.out_dim == 1, decoder.out.bias.detach().double().cpu().numpy()
    start = f"float sum = {_number(offset[0])};" if single else f"vec3 sum = {_vector(offset)};"
    lines.append(start)
    for i in range(0, hidden, 4):
        terms = "".join(
            f" + mat4({_list(into[i : i + 4, 4 * j : 4 * j + 4].T)}) * f{j}" for j in range(fours)
        )
        softened = f"softplus({_vector(bias[i : i + 4])}{terms}, {_number(decoder.sharpness)})"
        if single:
            lines.append(f"sum += dot({_vector(out[0, i : i + 4])}, {softened});")
        else:
            lines.append(f"sum += mat4x3({_list(out[:, i : i + 4].T)}) * {softened};")
    return [*lines, "return sum;"]


def _names(prefix: str, count: int) -> list[str]:
    return [f"{prefix}{i}" for i in range(count)]


def _function(head: str, body: Sequence[str]) -> str:
    return "\n".join([f"{head} {{", *(f"  {line}" for line in body), "}"])


def _vector(values: np.ndarray | Sequence[float]) -> str:
    return f"vec{len(values)}({_list(np.asarray(values))})"


def _list(values: np.ndarray) -> str:
    return ", ".join(map(_number, np.ravel(values)))


def _number(value: float) -> str:
    """A GLSL literal with 9 digits, which single precision needs."""
    text = f"{torch.tensor(value, dtype=torch.float64).float().item():.9g}"
    return text if "." in text or "e" in text else text + ".0"
