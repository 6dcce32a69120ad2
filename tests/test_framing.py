"""The view that shows the most, contact sheets, and labels."""

import numpy as np
import pytest
from oracles import cube

from nstr3d.geometry.shapes.primitives import box, sphere
from nstr3d.render.camera import Camera
from nstr3d.render.framing import CUSTOM, SIDES, best_view, contact_sheet, view_of
from nstr3d.render.labels import scale_bar, titled, write
from nstr3d.render.traced import RenderConfig
from nstr3d.types import Mesh

# A flat relief: a thin plate across z with a block on the side of +z.
PLATE = Mesh(cube().vertices * (1.0, 1.0, 0.05), cube().faces)
BLOCK = Mesh(cube().vertices * 0.3 + (0.2, 0.2, 0.3), cube().faces)
RELIEF = Mesh(
    np.concatenate([PLATE.vertices, BLOCK.vertices]),
    np.concatenate([PLATE.faces, BLOCK.faces + len(PLATE.vertices)]),
)


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
def test_the_view_turns_with_a_shape_whose_one_side_has_the_detail(turn: int) -> None:
    c, s = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    about_y = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    azimuth, elevation = best_view(Mesh(RELIEF.vertices @ about_y.T, RELIEF.faces))
    assert np.cos(np.radians(azimuth - turn)) > 0.4
    assert 0 < elevation < 45


def test_the_view_is_the_same_whichever_axis_is_up() -> None:
    upright = Mesh(RELIEF.vertices @ [[1, 0, 0], [0, 0, 1], [0, -1, 0]], RELIEF.faces)
    assert best_view(upright, "z") == best_view(RELIEF, "y")


def test_a_ball_is_seen_from_the_customary_azimuth() -> None:
    assert view_of(sphere())[0] == CUSTOM


def test_a_sheet_has_six_views_at_one_scale() -> None:
    slab = box((1.0, 0.5, 0.25))
    sheet = contact_sheet(slab, RenderConfig(samples_per_axis=1), (40, 40))
    assert list(SIDES) == ["front", "right", "above", "back", "left", "below"]
    assert sheet.shape == (2 * (40 + 21) + 8, 3 * 40 + 16, 3)
    wide, narrow = sheet[21:61, :40], sheet[21:61, 48:88]  # from the front and from the right

    def across(view: np.ndarray) -> int:
        middle = view[20].mean(axis=1)
        return int((middle < middle[0] - 0.05).sum())

    assert across(wide) == pytest.approx(4 * across(narrow), abs=4)
    with pytest.raises(ValueError, match="background"):
        contact_sheet(slab, RenderConfig(backdrop=None), (8, 8))


def test_labels_are_ink_on_paper_and_leave_the_picture() -> None:
    picture = np.full((40, 200, 3), 0.5, np.float32)
    labelled = titled(picture, "title", "note")
    np.testing.assert_array_equal(labelled[-40:], picture)
    assert labelled[:-40, :100].min() < 0.4
    assert labelled[:-40, 100:].min() < 0.4
    np.testing.assert_array_equal(titled(picture, "")[:-40], 1.0)
    write(picture, (0, 0), "")
    np.testing.assert_array_equal(picture, 0.5)


def test_a_scale_too_small_for_its_ticks_is_empty() -> None:
    assert scale_bar(16, [(0.0, "0"), (1.0, "1")], "dB").min() == 1


def test_a_scale_has_its_ends_and_ticks() -> None:
    bar = scale_bar(200, [(0.0, "0"), (1.0, "1")], "dB", [(0.0, 0.0, 0.0), (1.0, 0.0, 0.0)])
    column = bar[:, 12]
    red = (column[:, 0] - column[:, 1] > 0.02) & (column[:, 1] < 0.01)
    rows = np.flatnonzero(red)
    assert column[rows[0], 0] > 0.97
    assert column[rows[-1], 0] < 0.06
    assert (np.diff(column[rows, 0]) <= 0).all()


def test_rays_of_some_pixels_are_those_of_all() -> None:
    import torch

    camera = Camera.around(sphere().bounds, width=7, height=5)
    which = torch.tensor([0, 6, 7, 34, 3])
    some, whole = camera.rays(which=which), camera.rays()
    torch.testing.assert_close(some.directions, whole.directions[which], rtol=0, atol=0)
    torch.testing.assert_close(some.origins, whole.origins[which], rtol=0, atol=0)
