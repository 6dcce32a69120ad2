"""Sound files through libsndfile (the extra ``audio``). WAV, FLAC, OGG, MP3 and AIFF are read; WAV
is written."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nstr3d.io.atomic import atomic_path, check_readable
from nstr3d.io.room import check_room
from nstr3d.types import expect

WAV_TYPES = {"PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"}

# Lines of libsndfile's log about the chunk with the samples in WAV, AIFF, AU and W64.
SIZES = re.compile(r"^ *(?:data|SSND|Data Size|riff) +: (\d+) \(should be (\d+)\)", re.MULTILINE)
UNKNOWN_SIZE = 0x7FFF0000  # programs that write into a pipe put this length or more
_NOTES = threading.Lock()  # the standard error is one for all threads
FRAME = 2304  # samples; two frames of MP3, which encoders add or leave out


@dataclass(frozen=True)
class Sound:
    """A sound: ``values (n, channels)`` float32 with full scale [-1, 1] and ``rate`` in samples per
    second. ``subtype`` is libsndfile's name of the sample format in the file, such as PCM_16."""

    values: np.ndarray
    rate: int
    subtype: str = "PCM_16"


def load_sound(path: str | os.PathLike[str]) -> Sound:
    """The whole sound with all channels.

    A subtype that WAV cannot hold becomes PCM_16. Raises ``FileNotFoundError``,
    ``IsADirectoryError``, ``ModuleNotFoundError`` without soundfile, and ``ValueError`` if the file
    is not a sound, is cut short, has no samples, or has samples that are not finite.
    """
    path = Path(path)
    check_readable(path)
    library = _library()
    try:
        with _without_notes(), library.SoundFile(path) as file:
            promised = file.frames
            size = 6 * promised * file.channels  # float32, and what is computed from them
            check_room(path, f"{promised:,} x {file.channels} samples", size)
            values = file.read(dtype="float32", always_2d=True)
            rate, subtype, log = file.samplerate, file.subtype, file.extra_info
    except library.LibsndfileError as error:
        raise ValueError(
            f"{path} could not be read as a sound; convert it to WAV or FLAC"
        ) from error
    _check_length(path, log, promised, len(values))
    if len(values) == 0:
        raise ValueError(f"{path} is a sound without samples; record or export it again")
    finite = np.isfinite(values).all(axis=1)
    if not finite.all():
        raise ValueError(f"{path}: sample {int(np.argmin(finite))} is not finite; export it again")
    return Sound(values, rate, subtype if subtype in WAV_TYPES else "PCM_16")


def save_sound(path: str | os.PathLike[str], sound: Sound) -> None:
    """Writes ``sound`` as WAV of its subtype, atomically. Integer subtypes clip at full scale.

    Raises ``ValueError`` for an extension other than .wav, an empty sound, or values that are not
    finite, and ``ModuleNotFoundError`` without soundfile.
    """
    expect(sound, Sound, "sound")
    path = Path(path)
    if path.suffix.lower() != ".wav":
        raise ValueError(f"{path}: sounds are written as WAV; end the name in .wav")
    if sound.values.ndim != 2 or sound.values.size == 0 or not np.isfinite(sound.values).all():
        raise ValueError(
            f"{path}: a sound needs shape (samples, channels) and finite values; this one has "
            f"shape {sound.values.shape}"
        )
    values = sound.values if sound.subtype in ("FLOAT", "DOUBLE") else sound.values.clip(-1, 1)
    with atomic_path(path) as temporary:
        _library().write(temporary, values, sound.rate, subtype=sound.subtype, format="WAV")


@contextmanager
def _without_notes() -> Iterator[None]:
    """libmpg123 writes notes about damaged files to the standard error of the process."""
    with _NOTES:
        try:
            stderr = os.dup(2)
        except OSError:  # it is closed
            yield
            return
        try:
            with open(os.devnull, "wb") as null:
                os.dup2(null.fileno(), 2)
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def _check_length(path: Path, log: str, promised: int, held: int) -> None:
    """Raises ValueError for a file that is cut short.

    ``log`` is libsndfile's text about the file, which has the length of the samples in bytes, as
    promised and as held. ``promised`` and ``held`` count samples; compressed formats round them to
    frames.
    """
    for line in SIZES.finditer(log):
        size, rest = int(line[1]), int(line[2])
        if rest < size < UNKNOWN_SIZE:
            raise ValueError(
                f"{path} promises {size} bytes of samples but holds {rest}; it is cut short"
            )
    if held < promised - FRAME:
        raise ValueError(f"{path} promises {promised} samples but holds {held}; it is cut short")


def _library() -> Any:
    try:
        import soundfile
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "Sounds are read through soundfile: pip install nstr3d[audio]"
        ) from error
    return soundfile
