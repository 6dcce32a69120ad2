"""Sound files through libsndfile (the extra ``audio``). WAV, FLAC, OGG, MP3 and AIFF are read; WAV
is written."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nstr3d.io.atomic import atomic_path, check_readable

WAV_TYPES = {"PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"}


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
    is not a sound, has no samples, or has samples that are not finite.
    """
    path = Path(path)
    check_readable(path)
    library = _library()
    try:
        with library.SoundFile(path) as file:
            values, rate, subtype = (
                file.read(dtype="float32", always_2d=True),
                file.samplerate,
                file.subtype,
            )
    except library.LibsndfileError as error:
        raise ValueError(
            f"{path} could not be read as a sound; convert it to WAV or FLAC"
        ) from error
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


def _library() -> Any:
    try:
        import soundfile
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "Sounds are read through soundfile: pip install nstr3d[audio]"
        ) from error
    return soundfile
