"""Compressed fields: they are decoded exactly and fit the requested size, and damage is
detected."""

import io
import math
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from programs import needs_parts

from nstr3d.io import load_image, load_sound
from nstr3d.jobs.signal import SignalJob, run_signal
from nstr3d.kernels.coding import decode, encode
from nstr3d.model.codec import compress, decompress, load_compressed, save_compressed

ASSETS = Path(__file__).parents[1] / "assets"


def decibels(a: np.ndarray, b: np.ndarray) -> float:
    return -10 * math.log10(np.square(a - b, dtype=np.float64).mean())


@given(
    st.tuples(
        st.integers(1, 5),
        st.integers(1, 4),
        st.integers(1, 9),
        st.integers(1, 4),
        st.integers(1, 5),
    ),
    st.sampled_from([0.0, 0.3, 3.0, 300.0, 1e8]),
    st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None)
def test_any_levels_come_back(shape: tuple, scale: float, seed: int) -> None:
    levels = np.round(np.random.default_rng(seed).laplace(size=shape) * scale).astype(np.int32)
    data = encode(levels, 100_000)
    assert data is not None
    np.testing.assert_array_equal(decode(data, shape), levels)


def test_runs_that_carry_come_back() -> None:
    for level in (1, -1, 7):
        levels = np.full((1, 1, 64, 1, 300), level, np.int32)
        data = encode(levels, 100_000)
        assert data is not None
        np.testing.assert_array_equal(decode(data, levels.shape), levels)
    assert len(encode(np.zeros((1, 8, 8, 40, 40), np.int32), 100_000) or b"") < 400


def test_the_code_is_near_the_entropy() -> None:
    density = 0.1
    levels = (np.random.default_rng(0).random((1, 8, 8, 40, 40)) < density).astype(np.int32)
    entropy = (
        -(density * math.log2(density) + (1 - density) * math.log2(1 - density)) + 2 * density * 0.5
    )
    data = encode(levels, 1 << 20)
    assert data is not None
    assert len(data) * 8 < 1.1 * (entropy + density) * levels.size


def test_a_code_beyond_the_limit_is_given_up() -> None:
    levels = np.random.default_rng(0).integers(-99, 99, (1, 4, 4, 10, 10), np.int32)
    whole = encode(levels, 1 << 20)
    assert whole is not None
    assert encode(levels, len(whole)) == whole
    assert encode(levels, len(whole) - 1) is None
    assert encode(levels, 0) is None


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 50, 1), (37, 5, 4), (200, 2), (1, 1)], ids=str)
def test_signals_of_any_shape_come_back(shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).random(shape).astype(np.float32)
    field = decompress(compress(values, 20_000))
    np.testing.assert_allclose(field.raster(), values, atol=1e-3)


def test_files_fit_and_more_bytes_are_better() -> None:
    picture = load_image(ASSETS / "texture.png")
    quality = []
    for size in (1000, 3000, 9000):
        data = compress(picture, size)
        assert 0.98 * size < len(data) <= size
        quality.append(decibels(decompress(data).raster(), picture))
    assert quality[0] + 3 < quality[1] < quality[2] - 3


def test_a_picture_is_better_than_a_jpeg_of_its_size() -> None:
    original = Image.open(ASSETS / "texture.png").convert("RGB")
    picture, file = load_image(ASSETS / "texture.png"), io.BytesIO()
    original.save(file, "JPEG", quality=80)
    jpeg = np.asarray(Image.open(file), np.float32) / 255
    ours = decompress(compress(picture, len(file.getvalue()))).raster()
    assert decibels(ours.clip(0, 1), picture) > decibels(jpeg, picture)


@needs_parts("audio")
def test_a_sound_is_kept_at_a_bit_per_sample() -> None:
    sound = load_sound(ASSETS / "chirp.wav").values
    field = decompress(compress(sound, len(sound) // 8))
    assert 10 * math.log10(np.square(sound).mean() / np.square(field.raster() - sound).mean()) > 25


def test_constants_and_impossible_sizes() -> None:
    flat = np.full((30, 40, 3), 0.7, np.float32)
    np.testing.assert_allclose(decompress(compress(flat, 200)).raster(), flat, atol=1e-6)
    with pytest.raises(ValueError, match="too few"):
        compress(np.random.default_rng(0).random((30, 40, 3)).astype(np.float32), 50)
    with pytest.raises(ValueError, match="not finite"):
        compress(flat * np.float32(np.inf), 500)


def test_damage_is_noticed(tmp_path: Path) -> None:
    data = compress(np.random.default_rng(0).random((20, 20, 1)).astype(np.float32), 500)
    save_compressed(tmp_path / "a.nstq", data)
    np.testing.assert_array_equal(
        load_compressed(tmp_path / "a.nstq").raster(), decompress(data).raster()
    )
    for bad in (data[:-1], data[:7], data[:30] + bytes([data[30] ^ 1]) + data[31:]):
        (tmp_path / "b.nstq").write_bytes(bad)
        with pytest.raises(ValueError, match=r"b.nstq is damaged"):
            load_compressed(tmp_path / "b.nstq")
    with pytest.raises(ValueError, match="not a compressed"):
        decompress(b"else" * 10)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        load_compressed(tmp_path / "none.nstq")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        load_compressed(tmp_path)


def test_a_job_keeps_to_its_bytes(tmp_path: Path) -> None:
    report = run_signal(SignalJob(ASSETS / "texture.png", tmp_path / "out", bytes=4000)).report
    assert (tmp_path / "out" / "model.nstq").stat().st_size == report["field"]["bytes"] <= 4000
    shown = np.round(load_compressed(tmp_path / "out" / "model.nstq").raster().clip(0, 1) * 255)
    np.testing.assert_allclose(load_image(tmp_path / "out" / "image.png") * 255, shown, atol=1e-3)
    with pytest.raises(ValueError, match=r"^bytes is for"):
        SignalJob(Path("a.png"), Path("out"), bytes=100, field="siren")


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (
            struct.pack("<BBB2I2Hf", 2, 3, 0, 4_000_000_000, 4_000_000_000, 8, 8, 1.0) + bytes(51),
            "holds at most",
        ),
        (struct.pack("<BBBIH", 1, 1, 1, 1000, 7) + struct.pack("<f", 1.0) + bytes(11), "even hop"),
        (struct.pack("<BBB", 200, 1, 0), "200 axes"),
        (struct.pack("<BBB", 0, 1, 0), "0 axes"),
    ],
)
def test_a_forged_header_does_not_ask_for_memory(head: bytes, words: str):
    data = b"NSTQ1" + head + bytes(20)
    with pytest.raises(ValueError, match=f"evil.nstq.*{words}"):
        decompress(data + struct.pack("<I", zlib.crc32(data)), "evil.nstq")
