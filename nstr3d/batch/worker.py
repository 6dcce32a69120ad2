"""The worker process, which fits one shape after another.

`nstr3d.batch.slot` starts it. The worker reads one request per line, as JSON, from its standard
input and answers each with one line of JSON. It writes only into the scratch folder that the
request names, so the data set stays valid if the worker dies. Its parent may kill it at any moment.
It exits when its input ends.
"""

from __future__ import annotations

import faulthandler
import hashlib
import json
import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from nstr3d.batch.beside import is_below, name_of, stamps
from nstr3d.batch.options import LOG, ShapeOptions, key_of
from nstr3d.batch.shapes import CLOUDS
from nstr3d.batch.store import filesystem, is_local
from nstr3d.io import NoFacesError, load_mesh
from nstr3d.io.atomic import check_readable, json_text
from nstr3d.io.companions import companions
from nstr3d.jobs.cloud import PointsJob, run_points
from nstr3d.jobs.colouroptions import MeshColours
from nstr3d.jobs.mesh import MeshJob, run
from nstr3d.jobs.messages import memory_errors, sentence
from nstr3d.jobs.stages import Listener, Outcome
from nstr3d.system import forget_peak_memory, limit_memory, peak_memory, stop_signals

EXPECTED = (ValueError, OSError, FloatingPointError, ModuleNotFoundError)
CHUNK = 1 << 22  # bytes hashed at a time
OUT_OF_MEMORY = "out of memory; use a smaller mesh, resolution or params, or allow more memory"


def fit_shape(request: dict[str, Any]) -> dict[str, Any]:
    """Fits one shape into the folder ``request["scratch"]``.

    ``request`` holds ``place``, ``scratch``, ``known_key``, ``options`` (a dict, see
    `ShapeOptions.from_dict`) and ``memory`` (bytes, or None for no limit). The answer holds
    ``status``, ``error``, ``key``, the lines of the stamp for files ``beside`` the shape's, and the
    job's ``report``. The status is "done", "failed", or
    "same" if the shape's key equals ``known_key``; nothing is fitted then. Errors are returned as
    status "failed", not raised.
    """
    options, scratch = ShapeOptions.from_dict(request["options"]), Path(request["scratch"])
    answer = _failure()
    path = Path(request["place"])
    try:
        limit_memory(request["memory"])
        colours = options.colours.colour != "off"
        path = _fetch(request["place"], scratch, colours)
        beside = companions(path, colours)
        answer["beside"] = stamps(request["place"], [name_of(each, path) for each in beside])
        digest = _digest((path, *beside))
        answer["key"] = key_of(digest, path.suffix, options)
        if request["known_key"] == answer["key"]:
            return answer | {"status": "same"}
        with memory_errors():
            outcome = _fit(path, scratch / "out", options, None if beside else digest)
        return answer | {"status": "done", "report": outcome.report}
    except EXPECTED as error:
        answer["error"] = sentence(error)
    except MemoryError:
        traceback.print_exc()
        answer["error"] = OUT_OF_MEMORY
    except Exception as error:  # a defect of nstr3d fails this shape only, not the run
        traceback.print_exc()
        answer["error"] = _describe(error)
    return answer | {"error": answer["error"].replace(str(path), request["place"])}


def _fit(path: Path, out: Path, options: ShapeOptions, sha256: str | None) -> Outcome:
    listener = Listener(
        stage=lambda name: print(name, flush=True),
        warn=lambda message: print("warning:", message, flush=True),
    )
    if path.suffix.lower() in CLOUDS or (path.suffix.lower() == ".ply" and _has_no_faces(path)):
        points = replace(options.job(PointsJob, path, out), colours=options.colours)
        return run_points(points, listener, sha256=sha256)
    colours = MeshColours(**asdict(options.colours))
    job = replace(options.job(MeshJob, path, out), parts=options.parts, colours=colours)
    return run(job, listener, sha256=sha256)


def _has_no_faces(path: Path) -> bool:
    try:
        load_mesh(path)
    except NoFacesError:
        return True
    except ValueError:
        return False  # the job will report what is wrong with the file
    return False


def _fetch(place: str, scratch: Path, colours: bool) -> Path:
    """The local path of a shape's file.

    A file behind a URL is downloaded into ``scratch``, with the files that it names and that lie in
    its folder or below.
    """
    if is_local(place):
        path = Path(place)
        check_readable(path)
        return path
    fs, remote = filesystem(place)
    folder = scratch / "input"
    folder.mkdir(exist_ok=True)
    path = folder / remote.rpartition("/")[2]
    fs.get_file(remote, str(path))
    tried: set[str] = set()
    while new := {name_of(each, path) for each in companions(path, colours)} - tried:
        for name in filter(is_below, new):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            with suppress(OSError):  # the reader says what it lacks
                fs.get_file(f"{remote.rpartition('/')[0]}/{name}", str(folder / name))
        tried |= new
    return path


def _digest(parts: Iterable[Path]) -> str:
    """The SHA-256 of files, one after the other; those that are not there count as empty."""
    digest = hashlib.sha256()
    for part in parts:
        if part.is_file():
            with open(part, "rb") as file:
                while block := file.read(CHUNK):
                    digest.update(block)
    return digest.hexdigest()


def _work(requests: queue.SimpleQueue, replies: Any, fraction: float) -> None:
    """Answers requests until the process exits; ``fraction`` limits the GPU memory used.

    It must not run on the main thread, where jobs would install signal handlers: a scheduler sends
    signals to all processes, but only the parent may end the worker. If it cannot answer, it ends
    the process, because the parent would wait for the answer until its timeout.
    """
    try:
        if torch.cuda.is_available() and fraction < 1:
            torch.cuda.set_per_process_memory_fraction(fraction)
        while True:
            replies.write(_answer(requests.get()) + "\n")
            replies.flush()
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def _answer(request: dict[str, Any]) -> str:
    """The answer to a request as one line of JSON.

    Its status is "failed" if the log cannot be opened, the request makes no sense, or the report
    holds what JSON cannot hold.
    """
    try:
        with open(Path(request["scratch"]) / LOG, "ab") as log:
            for stream in (1, 2):
                os.dup2(log.fileno(), stream)
        forget_peak_memory()
        return json_text(fit_shape(request) | {"peak_memory": peak_memory()})
    except Exception as error:  # must fail this shape only, not the run
        traceback.print_exc()
        reason = sentence(error) if isinstance(error, EXPECTED) else _describe(error)
        return json_text(_failure(reason) | {"peak_memory": peak_memory()})


def _failure(reason: str | None = None) -> dict[str, Any]:
    return {"status": "failed", "error": reason, "key": "", "beside": "", "report": {}}


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {sentence(error)}"


def main() -> None:
    """Runs the worker until its standard input ends.

    The command line argument is the fraction of a GPU's memory that the worker may use.
    """
    for number in stop_signals():
        signal.signal(number, signal.SIG_IGN)
    with suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="utf-8") as file:
        file.write("500")  # when memory runs out, the system should kill a worker, not the run
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    faulthandler.enable()
    requests: queue.SimpleQueue = queue.SimpleQueue()
    threading.Thread(
        target=_work, args=(requests, replies, float(sys.argv[1])), daemon=True
    ).start()
    replies.write("ready\n")
    replies.flush()
    for line in sys.stdin:
        requests.put(json.loads(line))
    os._exit(0)  # the parent has died or is done; do not wait for a fit in progress
