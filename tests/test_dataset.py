"""`Dataset`: models by id, stacks that agree with their members, and samples that depend on neither
order nor workers."""

from __future__ import annotations

import json

import fsspec
import numpy as np
import pytest
import torch
from oracles import sphere

from nstr3d import Dataset, load
from nstr3d.batch.catalogue import Catalogue
from nstr3d.batch.store import Folder, open_store
from nstr3d.fields.baselines.siren import SirenConfig
from nstr3d.fields.nstr import NstrConfig
from nstr3d.model.checkpoint import save
from nstr3d.training.fit import Fit
from nstr3d.training.presets import levels_for
from nstr3d.types import Box, Frame, Mesh

BOUNDS = Box((-1.0,) * 3, (1.0,) * 3)


def field_of(number: int):
    """A field. Numbers 0 to 3 have one architecture, with tables of different lengths; 4 and 5 have
    another."""
    generator = torch.Generator().manual_seed(number)
    if number > 3:
        return SirenConfig().build(3, 1, generator=generator)
    ball = sphere(2, 0.2 + 0.2 * number)
    return NstrConfig(levels=levels_for(8)).build(
        3, 1, near=Mesh(ball.vertices, ball.faces), generator=generator
    )


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """The store of a data set with six models and one failed shape."""
    store = Folder(tmp_path_factory.mktemp("out"))
    for number in range(7):
        status = "done" if number < 6 else "failed"
        report = {"batch": {"status": status}, "accuracy": {"chamfer": number / 100}}
        store.write(f"set/{number} ü.obj/report.json", json.dumps(report).encode())
        if status == "done":
            save(
                store.path / f"set/{number} ü.obj/model.safetensors",
                Fit(field_of(number), Frame.identity(), BOUNDS, 1.0),
            )
    with Catalogue(store) as catalogue:
        catalogue.sync()
    return store.path


def test_models_by_id_and_in_order(out):
    dataset = Dataset(out)
    assert dataset.ids == tuple(f"set/{n} ü.obj" for n in range(6))
    points = torch.rand(50, 3) * 2 - 1
    models = dict(dataset)
    assert tuple(models) == dataset.ids
    for number, fit in enumerate(models.values()):
        torch.testing.assert_close(fit.field(points), field_of(number)(points), rtol=0, atol=0)
    assert Dataset(out, "chamfer > 0.025").ids == dataset.ids[3:]
    with pytest.raises(KeyError):
        dataset["set/6 ü.obj"]
    with pytest.raises(ValueError, match="not a valid SQL condition"):
        Dataset(out, "colour = 1")


def test_a_folder_without_a_catalogue_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="make one with nstr3d batch"):
        Dataset(tmp_path)


def test_a_data_set_behind_a_url(out):
    remote, local = open_store("memory://set"), Folder(out)
    for name, _ in local.stamps():
        remote.put(out / name, name)
    dataset = Dataset("memory://set", "chamfer < 0.015")
    assert len(dataset) == 2
    expected = load(out / dataset.ids[1] / "model.safetensors").field.state_dict()
    for name, tensor in dataset[dataset.ids[1]].field.state_dict().items():
        assert torch.equal(tensor, expected[name])
    fsspec.filesystem("memory").store.clear()


def test_stacks_say_what_their_members_say(out):
    dataset = Dataset(out)
    stacks = list(dataset.stacks(3))
    assert [stack.ids for stack in stacks] == [dataset.ids[:3], dataset.ids[3:4], dataset.ids[4:]]
    shared = torch.rand(200, 3) * 2 - 1
    for stack in stacks:
        own = torch.rand(len(stack.ids), 200, 3) * 2 - 1
        for points in (shared, own):
            values = stack(points)
            assert values.shape == (len(stack.ids), 200, 1)
            for index, name in enumerate(stack.ids):
                at = points if points.ndim == 2 else points[index]
                torch.testing.assert_close(
                    values[index], dataset[name].field(at), rtol=1e-5, atol=1e-6
                )


def test_a_stack_of_nothing_is_refused(out):
    with pytest.raises(ValueError, match="no models to stack"):
        Dataset(out).stack([])
    with pytest.raises(ValueError, match="at least 1 model, not 0"):
        Dataset(out).stacks(0)


def test_stacks_can_be_trained(out):
    stack = Dataset(out).stack(["set/1 ü.obj", "set/2 ü.obj"])
    stack(torch.rand(64, 3) * 2 - 1).square().sum().backward()
    assert all(
        parameter.grad is not None and parameter.grad.abs().sum() > 0
        for parameter in stack.parameters.values()
    )


def test_different_architectures_do_not_stack(out):
    dataset = Dataset(out)
    with pytest.raises(ValueError, match="same architecture"):
        dataset.stack([dataset.ids[0], dataset.ids[5]])


def test_samples_do_not_depend_on_order_or_workers(out):
    samples = Dataset(out).samples(64, seed=3)

    def drawn(**options) -> dict[int, torch.Tensor]:
        loader = torch.utils.data.DataLoader(samples, batch_size=2, **options)
        return {
            int(index): torch.cat([points, distances[:, None]], dim=1)
            for batch in loader
            for index, points, distances in zip(batch["index"], batch["points"], batch["distances"])
        }

    plain = drawn()
    shuffled = drawn(shuffle=True, num_workers=2, generator=torch.Generator().manual_seed(1))
    assert plain.keys() == shuffled.keys() == set(range(6))
    assert all(torch.equal(plain[index], shuffled[index]) for index in plain)
    samples.set_epoch(1)
    assert not torch.equal(drawn()[0], plain[0])
    other = Dataset(out).samples(64, seed=4)
    assert not torch.equal(other[0]["points"], plain[0][:, :3])


def test_samples_lie_near_the_surface_and_hold_the_field(tmp_path):
    class Ball(torch.nn.Module):
        def forward(self, points):
            return points.norm(dim=1, keepdim=True) - 0.5

    class One:
        ids = ("ball",)

        def __getitem__(self, name):
            return Fit(Ball(), Frame.identity(), BOUNDS, 1.0)  # type: ignore[arg-type]

        samples = Dataset.samples

    item = One().samples(4000, near=0.5, band=0.02)[0]
    radius = item["points"].norm(dim=1)
    torch.testing.assert_close(item["distances"], radius - 0.5)
    np.testing.assert_allclose(float((radius[:2000] - 0.5).std()), 0.02, rtol=0.1)
    assert float((radius[2000:] - 0.5).abs().mean()) > 0.2
    with pytest.raises(ValueError, match="near in"):
        One().samples(10, near=2.0)
