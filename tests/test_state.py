"""The library does not change the state of the process, and fits in several threads are
independent."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from nstr3d.autodiff import jacobian
from nstr3d.fields.baselines.siren import SirenConfig
from nstr3d.fields.level import LevelConfig
from nstr3d.fields.nstr import NstrConfig, TransportConfig
from nstr3d.fields.waves import PhaseWaves
from nstr3d.kernels.field.interpolate import kernels_found, plain_torch
from nstr3d.training.fit import FitConfig, fit
from nstr3d.training.losses import Objective, SdfObjective, TransportPenalty
from nstr3d.types import Samples

# torch's forward mode calls a function that torch itself has deprecated.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.torch.jit.script. is deprecated:DeprecationWarning"
)
LEVELS = (LevelConfig(4, plain=3, sparse=False), LevelConfig(8, plain=2, waves=PhaseWaves(3)))
NSTR = NstrConfig(LEVELS, hidden=8, start=None, placement=None)
MOVING = replace(NSTR, transport=TransportConfig())
SIREN = SirenConfig(width=16, depth=2)
CONFIG = FitConfig(steps=150, batch=1024, pool=8192)
FITS: dict[str, tuple[NstrConfig | SirenConfig, Objective]] = {
    "compiled steps": (NSTR, SdfObjective()),
    "a transport penalty": (MOVING, SdfObjective(transport=TransportPenalty(points=256))),
    "a baseline": (SIREN, SdfObjective()),
}
STATE = """
import json, os, pkgutil, signal, threading
from importlib import import_module

import torch


def state():
    handlers = {str(number): str(signal.getsignal(number)) for number in signal.valid_signals()}
    affinity = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return {
        "environment": dict(os.environ),
        "handlers": handlers,
        "affinity": affinity,
        "threads": torch.get_num_threads(),
        "running": [thread.name for thread in threading.enumerate()],
        "dtype": str(torch.get_default_dtype()),
        "random": torch.get_rng_state().tolist(),
    }


before = state()
import nstr3d

for module in pkgutil.walk_packages(nstr3d.__path__, "nstr3d."):
    if not module.name.endswith("__main__"):
        import_module(module.name)
print(json.dumps([before, state()]))
"""


@pytest.fixture(autouse=True)
def two() -> Iterator[None]:
    """Sets two threads for the test."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def fitted(config: NstrConfig | SirenConfig, objective: Objective, seed: int) -> list[Tensor]:
    """The weights of a field fitted to a sphere, and its Lipschitz bound."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(CONFIG.pool, 3, generator=generator) * 2 - 1
    pool = Samples(points, points.norm(dim=1, keepdim=True) - 0.5)
    results = fit(config.build(3, 1, generator=generator), pool, objective, CONFIG)
    weights = [parameter.detach() for parameter in results.field.parameters()]
    return [*weights, torch.tensor(results.lipschitz)]


@pytest.mark.parametrize("kind", FITS)
def test_fits_in_two_threads_give_the_bits_that_they_give_alone(kind: str) -> None:
    alone = [fitted(*FITS[kind], seed) for seed in (0, 1)]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(lambda seed: fitted(*FITS[kind], seed), (0, 1)))
    for one, other in zip(alone, together):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert not torch.equal(alone[0][0], alone[1][0])


def test_jacobians_in_two_threads_do_not_meet() -> None:
    points = torch.rand(20, 3, generator=torch.Generator().manual_seed(0))

    def slow(at: Tensor) -> Tensor:
        time.sleep(0.02)
        return at * at

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda turn: jacobian(slow, points), range(2)))
    for each in results:
        torch.testing.assert_close(each, torch.diag_embed(2 * points))


def test_plain_torch_in_one_thread_leaves_the_kernels_to_others() -> None:
    with plain_torch(), ThreadPoolExecutor(1) as pool:
        assert not kernels_found()
        assert pool.submit(kernels_found).result()
    assert kernels_found()


def test_importing_every_module_leaves_the_process_as_it_was() -> None:
    command = [sys.executable, "-c", STATE]
    clean = {name: value for name, value in os.environ.items() if name in ("PATH", "PYTHONPATH")}
    printed = subprocess.run(command, capture_output=True, text=True, check=True, env=clean).stdout
    before, after = json.loads(printed.splitlines()[-1])
    assert before["environment"]
    assert before["handlers"]
    assert after == before
