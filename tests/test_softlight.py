"""Light that is interpolated between every other pixel."""

import numpy as np
import torch

from nstr3d.render.camera import Camera
from nstr3d.render.clearance import clearance
from nstr3d.render.softlight import SoftLight
from nstr3d.render.traced import RenderConfig, render
from nstr3d.sdf import Sdf
from nstr3d.types import Box

PIXEL = 0.1


def plane(at: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Points of the plane z = 0 at the pixels ``at``, their normals, and the width of a pixel."""
    points = torch.cat([at * PIXEL, torch.zeros_like(at[:, :1])], dim=1)
    normals = torch.zeros_like(points)
    normals[:, 2] = 1
    return points, normals, torch.full_like(points[:, 0], PIXEL)


def grid(height: int, width: int) -> torch.Tensor:
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([rows, columns], dim=-1).reshape(-1, 2).double()


def test_light_that_changes_evenly_is_computed_at_a_quarter_of_the_pixels() -> None:
    at, light, asked = grid(9, 11), SoftLight(9, 11, torch.device("cpu")), []

    def values(which: torch.Tensor) -> torch.Tensor:
        asked.extend(which.tolist())
        return torch.stack([0.01 * at[which, 0], 0.5 - 0.02 * at[which, 1]], dim=1)

    got = light.spread(at, *plane(at), values)
    assert torch.allclose(got, torch.stack([0.01 * at[:, 0], 0.5 - 0.02 * at[:, 1]], dim=1))
    assert len(asked) == len(set(asked)) == 5 * 6
    assert (at[asked] % 2 == 0).all()
    # Rays between the pixels need nothing more.
    between = grid(8, 10) + 0.25
    got = light.spread(between, *plane(between), lambda which: torch.full((len(which), 2), 9.0))
    assert torch.allclose(got[:, 0], 0.01 * between[:, 0])


def test_light_is_computed_where_it_changes_fast_or_the_surface_is_another() -> None:
    at = grid(8, 8)
    for spoil in ("light", "normal", "depth"):
        light = SoftLight(8, 8, torch.device("cpu"))
        points, normals, reach = plane(at)
        right = at[:, 1] >= 3.5
        if spoil == "normal":
            normals[right] = torch.tensor([1.0, 0, 0], dtype=torch.float64)
        if spoil == "depth":
            points[right, 2] = 1.0
        truth = torch.where(right, 1.0 if spoil == "light" else 0.1, 0.0)[:, None].expand(-1, 2)
        got = light.spread(at, points, normals, reach, lambda which, truth=truth: truth[which])
        assert torch.equal(got, truth.double()), spoil


def test_pixels_without_nodes_around_them_are_computed() -> None:
    light, at = SoftLight(4, 4, torch.device("cpu")), torch.tensor([[1.0, 1.0], [3.0, 2.0]])
    got = light.spread(at.double(), *plane(at.double()), lambda which: torch.ones(len(which), 2))
    assert torch.equal(got, torch.ones(2, 2, dtype=torch.float64))


def test_pictures_are_as_if_all_light_was_computed(monkeypatch) -> None:
    def distance(p: torch.Tensor) -> torch.Tensor:
        balls = [(0.0, 0.0, 0.0), (0.9, 0.7, 0.5), (-0.6, 0.9, 0.2)]
        return torch.stack([(p - p.new_tensor(b)).norm(dim=1) - 0.6 for b in balls]).amin(dim=0)

    sdf = Sdf(distance, Box((-1.2, -0.6, -0.6), (1.5, 1.5, 1.1)))
    camera = Camera.around(sdf.bounds, 20, 25, width=96, height=96)
    fast = render(sdf, camera, RenderConfig())
    monkeypatch.setattr(
        SoftLight, "spread", lambda self, at, *place: place[3](torch.arange(len(at)))
    )
    slow = render(sdf, camera, RenderConfig())
    assert np.abs(fast - slow).max() < 0.06
    assert np.abs(fast - slow).mean() < 5e-4


def test_clearance_is_the_distance_where_it_matters_and_asks_nothing_else() -> None:
    asked: list[torch.Tensor] = []

    def distance(points: torch.Tensor) -> torch.Tensor:
        asked.append(points)
        return points.norm(dim=1) - 0.5

    ball = Sdf(
        distance,
        Box((-0.6,) * 3, (0.6,) * 3),
        1.0,
        below=lambda points: (points.norm(dim=1) - 0.5) * 0.8,
    )
    generator = torch.Generator().manual_seed(0)
    points = 4 * torch.rand(500, 3, generator=generator, dtype=torch.float64) - 2
    enough = torch.rand(500, generator=generator, dtype=torch.float64)
    exact = points.norm(dim=1) - 0.5
    got = clearance(ball, points, enough)
    near = exact < enough
    assert 30 < near.sum() < 470
    assert torch.equal(got[near], exact[near])
    assert (got[~near] >= enough[~near]).all()
    assert (got <= exact + 1e-12).all()
    # Outside the bounds nothing is asked that the bounds or the lower bound tell.
    apart = (points - points.clamp(-0.6, 0.6)).norm(dim=1)
    needed = (apart < enough) & (0.8 * exact < enough)
    assert len(torch.cat(asked)) == needed.sum() < 0.3 * len(points)
