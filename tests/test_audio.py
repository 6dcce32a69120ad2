"""Sounds: round trips keep shape, rate and type, and each kind of bad input gives a one-sentence
error."""

import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from programs import needs_parts

from nstr3d.io import Sound, load_sound, save_sound

STEP = {
    "PCM_U8": 1 / 128,
    "PCM_16": 1 / 32768,
    "PCM_24": 2**-23,
    "PCM_32": 1e-7,
    "FLOAT": 1e-12,
    "DOUBLE": 1e-7,
}


@needs_parts("audio")
@pytest.mark.parametrize("subtype", STEP)
@pytest.mark.parametrize(("channels", "rate"), [(1, 8000), (2, 44_100), (6, 192_000)])
def test_sounds_come_back(tmp_path: Path, subtype: str, channels: int, rate: int) -> None:
    values = np.random.default_rng(0).uniform(-0.9, 0.9, (57, channels)).astype(np.float32)
    save_sound(tmp_path / "a.wav", Sound(values, rate, subtype))
    loaded = load_sound(tmp_path / "a.wav")
    assert (loaded.rate, loaded.subtype, loaded.values.dtype) == (rate, subtype, np.float32)
    np.testing.assert_allclose(loaded.values, values, atol=STEP[subtype])
    save_sound(tmp_path / "b.wav", loaded)
    np.testing.assert_array_equal(load_sound(tmp_path / "b.wav").values, loaded.values)
    assert {path.name for path in tmp_path.iterdir()} == {"a.wav", "b.wav"}


@needs_parts("audio")
def test_what_exceeds_full_scale_is_clipped_or_kept(tmp_path: Path) -> None:
    loud = np.array([[2.0], [-3.0], [0.5]], np.float32)
    save_sound(tmp_path / "a.wav", Sound(loud, 8000, "PCM_16"))
    np.testing.assert_allclose(load_sound(tmp_path / "a.wav").values, loud.clip(-1, 1), atol=1e-4)
    save_sound(tmp_path / "b.wav", Sound(loud, 8000, "FLOAT"))
    np.testing.assert_array_equal(load_sound(tmp_path / "b.wav").values, loud)


@needs_parts("audio")
def test_compressed_sounds_become_pcm(tmp_path: Path) -> None:
    import soundfile

    soundfile.write(tmp_path / "a.flac", np.zeros((100, 2)), 22_050, subtype="PCM_24")
    soundfile.write(tmp_path / "a.ogg", np.zeros((100, 1)), 22_050, subtype="VORBIS")
    assert load_sound(tmp_path / "a.flac").subtype == "PCM_24"
    assert load_sound(tmp_path / "a.ogg").subtype == "PCM_16"


@needs_parts("audio")
@pytest.mark.parametrize("kind", ["damaged", "junk"])
def test_the_library_of_mp3_says_nothing_of_its_own(tmp_path: Path, capfd, kind: str) -> None:
    """libmpg123 writes to the standard error of the process, past Python's."""
    import soundfile

    random = np.random.default_rng(0)
    path = tmp_path / "a.mp3"
    soundfile.write(path, random.uniform(-1, 1, 40_000).astype(np.float32), 44_100, format="MP3")
    data = bytearray(path.read_bytes())
    noise = random.integers(0, 256, len(data), np.uint8).tobytes()
    start = len(data) // 3 if kind == "damaged" else 8
    data[start : 2 * start if kind == "damaged" else None] = noise[: len(data) // 3]
    path.write_bytes(data)
    with suppress(ValueError):
        load_sound(path)
    assert capfd.readouterr().err == ""


@needs_parts("audio")
@pytest.mark.parametrize("suffix", [".wav", ".aiff", ".au", ".w64", ".flac", ".mp3"])
def test_sounds_cut_short_are_refused(tmp_path: Path, suffix: str) -> None:
    import soundfile

    path = tmp_path / f"a{suffix}"
    soundfile.write(path, np.sin(np.arange(20_000) * 0.1), 8000)
    assert len(load_sound(path).values) == pytest.approx(20_000, abs=2400)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"but holds \d+; it is cut short|could not be read"):
        load_sound(path)


@needs_parts("audio")
@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFFFFF])
def test_a_wav_of_unknown_length_is_read_to_its_end(tmp_path: Path, size: int) -> None:
    """A program that writes into a pipe does not know the length when it writes the header."""
    save_sound(tmp_path / "a.wav", Sound(np.zeros((500, 1), np.float32), 8000))
    data = bytearray((tmp_path / "a.wav").read_bytes())
    place = data.index(b"data") + 4
    data[place : place + 4] = size.to_bytes(4, "little")
    (tmp_path / "b.wav").write_bytes(data)
    assert len(load_sound(tmp_path / "b.wav").values) == 500


@needs_parts("audio")
def test_bad_sounds_are_refused(tmp_path: Path) -> None:
    import soundfile

    with pytest.raises(IsADirectoryError, match="is a folder"):
        load_sound(tmp_path)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        load_sound(tmp_path / "none.wav")
    soundfile.write(tmp_path / "empty.wav", np.zeros((0, 1)), 8000)
    with pytest.raises(ValueError, match="without samples"):
        load_sound(tmp_path / "empty.wav")
    for name, data, words in (
        ("junk.wav", np.random.default_rng(0).bytes(3000), "could not be read as a sound"),
        ("nothing.wav", b"", "is empty"),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError, match=words):
            load_sound(tmp_path / name)
    soundfile.write(tmp_path / "nan.wav", np.array([0.0, 0.5, np.nan]), 8000, subtype="FLOAT")
    with pytest.raises(ValueError, match="sample 2 is not finite"):
        load_sound(tmp_path / "nan.wav")


@pytest.mark.parametrize(
    ("name", "values", "sentence"),
    [
        ("a.mp3", np.zeros((2, 1), np.float32), "end the name in .wav"),
        ("a.wav", np.zeros((0, 1), np.float32), "finite values"),
        ("a.wav", np.zeros(4, np.float32), "finite values"),
        ("a.wav", np.full((4, 1), np.inf, np.float32), "finite values"),
    ],
)
def test_bad_sounds_are_not_saved(
    tmp_path: Path, name: str, values: np.ndarray, sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        save_sound(tmp_path / name, Sound(values, 8000))
    assert list(tmp_path.iterdir()) == []


def test_without_the_library_the_extra_is_named(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "a.wav").write_bytes(b"RIFF")
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(ModuleNotFoundError, match=r"nstr3d\[audio\]"):
        load_sound(tmp_path / "a.wav")
