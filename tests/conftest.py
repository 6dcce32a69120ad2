"""Fixtures that tests share and must not change: models fitted once a session, and a browser."""

from __future__ import annotations

import gc
import importlib.util
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from oracles import torus
from programs import chromium, left_out_parts
from quick import WORDS

from nstr3d.cli import command as cli
from nstr3d.fields.level import LevelConfig
from nstr3d.fields.nstr import NstrConfig
from nstr3d.geometry.mesh.distance import MeshDistance
from nstr3d.geometry.mesh.surface import normalise
from nstr3d.training.fit import Fit, FitConfig, fit
from nstr3d.training.losses import SdfObjective
from nstr3d.training.sampling import SurfaceBand

ROOT = Path(__file__).resolve().parents[1]

# The files that take longest come first: a process that is free takes the next file, and all end
# at about the same time.
LONG = ("jobs", "cloud", "descent", "batch_faults", "hostile", "without_numba", "readme", "apps")
LONG += ("cloudjobs", "flowjobs", "streams", "browser", "trust_batch", "compare", "page")
LONG += ("platforms", "signaljobs", "baselines", "cli", "cli_export", "cli_render", "warm")

# For xdist's processes and those that tests start: threads that wait take no core from other tests,
# and OpenBLAS starts none for a dot product, which would take a hundred times as long.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

if "PYTEST_XDIST_WORKER" in os.environ:
    # xdist runs one process a core: more threads would only wait for each other.
    torch.set_num_threads(1)


def pytest_collection_finish() -> None:
    """What imports and the collection made stays: the garbage collector need not look at it."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def pytest_sessionfinish() -> None:
    """nanobind reports what is not collected at exit."""
    gc.unfreeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Moves the files named in `LONG` to the front."""
    places = {f"test_{name}.py": place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))


@pytest.fixture(scope="session")
def app() -> Callable[[str], ModuleType]:
    """A function that loads the module ``apps/NAME.py`` anew. The name ``bench.NAME`` stands for
    ``apps/bench/NAME.py``."""

    def load(name: str) -> ModuleType:
        path = (ROOT / "apps").joinpath(*name.split(".")).with_suffix(".py")
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # dataclasses look here for the names in their annotations
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope="session")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A function that fits an asset by the command line, once for each choice of options, and
    returns the model's path."""
    models: dict[tuple[str, ...], Path] = {}

    def fit_asset(name: str, *options: str) -> Path:
        words = (str(ROOT / "assets" / name), *WORDS, *options)
        if words not in models:
            out = tmp_path_factory.mktemp("fitted") / "fit"
            assert cli.main(["fit", *words, "--out", str(out)]) == 0
            models[words] = out / "model.safetensors"
        return models[words]

    return fit_asset


@pytest.fixture(scope="session")
def torus_fit() -> Fit:
    """A small field fitted to a torus of radii 1 and 0.4."""
    unit, frame = normalise(torus(48, 24))
    levels = (LevelConfig(8, plain=6, sparse=False), LevelConfig(16, plain=4))
    field = NstrConfig(levels=levels, hidden=16).build(3, 1, near=unit)
    sampler = SurfaceBand(unit, MeshDistance(unit))
    return fit(
        field, sampler, SdfObjective(), FitConfig(steps=200, pool=40_000, batch=4096), frame=frame
    )


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A headless Chromium; tests open tabs and close them."""
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="session")
def object_store() -> Iterator[str]:
    """The URL of a bucket of an S3 server on this machine. Its address and keys are in the
    environment, also for processes that tests start."""
    import fsspec
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it writes a line for each request
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "any")
        fsspec.filesystem("s3").mkdir("bucket")
        yield "s3://bucket"
    server.stop()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Prints the optional parts whose tests were left out, and the reasons."""
    for part, reason in left_out_parts().items():
        terminalreporter.write_line(f"left out: tests of [{part}]: {reason}")
