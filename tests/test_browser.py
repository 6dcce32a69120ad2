"""The page in a real browser: its controls work, and its pictures equal the sphere tracer's."""

import socket
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from io import BytesIO
from typing import Any

import numpy as np
import pytest
import torch
from oracles import sphere
from PIL import Image
from programs import needs, needs_parts
from quick import WORDS

from nstr3d.cli import command as cli
from nstr3d.cli import progress
from nstr3d.io import save_mesh
from nstr3d.render.traced import measure
from nstr3d.surface.extract import extract_mesh
from nstr3d.training.fit import Fit, Progress
from nstr3d.types import Polylines
from nstr3d.view.browser import Page
from nstr3d.view.live import LivePage
from nstr3d.view.scene import (
    Curves,
    Muted,
    Shape,
    error_colours,
    levels_of,
    lifted,
    literal,
    muted,
    surface,
)

SIZE = {"width": 800, "height": 400}
PATIENCE = 60.0  # seconds: the longest wait for a browser without a GPU


@pytest.fixture(scope="module")
def model(torus_fit: Fit) -> Fit:
    return torus_fit


@pytest.fixture
def tab(browser: Any) -> Iterator[Any]:
    tab = browser.new_page(viewport=SIZE)
    yield tab
    tab.close()


def served_until(tab: Any, page: Page, done: Callable[[], bool]) -> None:
    """Serves the page and lets the browser work until ``done()`` is true."""
    end = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < end, page.controls.status.content
        tab.wait_for_timeout(100)
        page.refresh()


def seen(tab: Any) -> np.ndarray:
    """The page's canvas without the controls, ``(h, w, 3)`` RGB in [0, 1]."""
    tab.add_style_tag(content=".mantine-Notification-root { display: none !important; }")
    canvas = tab.locator("canvas").first
    return np.asarray(Image.open(BytesIO(canvas.screenshot())).convert("RGB")) / 255


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    return (a & b).sum() / (a | b).sum()


@needs_parts("viewer")
@needs("chromium")
def test_the_page_shows_what_the_tracer_sees_and_its_controls_work(model: Fit, tab: Any) -> None:
    requests: list[str] = []
    tab.on("request", lambda request: requests.append(request.url))
    with Page([Shape("torus", extract_mesh(model.sdf(), 64), model)], port=0) as page:
        tab.goto(page.url)
        clients = page.server.get_clients
        served_until(
            tab,
            page,
            lambda: bool(clients()) and next(iter(clients().values())).camera.update_timestamp > 0,
        )

        # a function, because the page's layout and width change after its first message
        def camera() -> Any:
            return page.camera(next(iter(clients().values())))

        def matches(threshold: float) -> bool:
            picture, expected = seen(tab), measure(model.sdf(), camera()).mask
            if picture.shape[:2] != expected.shape:
                return False
            drawn = (picture < 0.985).any(axis=2)
            # the panel casts a shadow on the right edge
            return overlap(drawn[:, :-16], expected[:, :-16]) > threshold

        # on a white background, the mesh has the traced silhouette
        page.server.scene.set_background_image(np.full((4, 4, 3), 255, np.uint8))
        served_until(tab, page, lambda: matches(0.99))

        triangles = len(page.meshes[0].faces)
        thumb = tab.locator("[role=slider]").first  # the first slider is the resolution
        thumb.focus()
        thumb.press("ArrowLeft")
        thumb.press("ArrowLeft")
        served_until(tab, page, lambda: page.shown.resolution == 112)
        assert len(page.meshes[0].faces) != triangles
        tab.wait_for_timeout(500)
        assert f"{len(page.meshes[0].faces):,} triangles" in tab.content()
        tab.get_by_label("Cut", exact=True).check()
        served_until(tab, page, lambda: page.shown.plane is not None)
        tab.get_by_label("Cut", exact=True).uncheck()
        # a change that came before must not leave the coarse picture
        tab.get_by_label("Sphere traced", exact=True).check()
        served_until(tab, page, lambda: any(view for view, _ in page.views.values()))
        served_until(tab, page, lambda: traced(seen(tab), camera(), model))
    assert {url.split("/")[2] for url in requests if url.startswith(("http", "ws"))} == {
        page.url.split("/")[2]
    }


def traced(picture: np.ndarray, camera: Any, model: Fit) -> bool:
    """Whether a picture equals the sphere tracer's with the same camera, except near edges."""
    from nstr3d.render.traced import RenderConfig, render

    expected = render(model.sdf(), camera, RenderConfig(samples_per_axis=2))
    return (
        picture.shape == expected.shape
        and float(np.quantile(np.abs(picture - expected), 0.97)) < 0.03
    )


def test_levels_can_be_silenced(model: Fit) -> None:
    assert levels_of(model) == ["8³: 6 plain", "16³: 4 plain"]
    points = torch.rand(500, 3) * 2 - 1
    heard = Muted(model.field, ())  # type: ignore[arg-type]
    torch.testing.assert_close(heard(points), model.field(points))
    silent = muted(model, {1})
    assert float((silent(points) - model.sdf()(points)).detach().abs().max()) > 1e-3
    assert muted(model, ()).distance(points).equal(model.sdf()(points))
    nothing = muted(model, {0, 1})(points.double())
    inside = (points.abs() <= 1).all(dim=1)
    assert float(nothing[inside].detach().std()) < 1e-4 * (float(nothing.detach().abs().max()) + 1)


def test_errors_are_the_distances_as_colours() -> None:
    from nstr3d.geometry.shapes.primitives import sphere as ball

    colours, limit = error_colours(sphere(3, radius=1.1), ball())
    assert limit == pytest.approx(0.1)
    np.testing.assert_allclose(colours, np.tile(colours[0], (len(colours), 1)), atol=1e-6)
    assert (
        error_colours(sphere(3), ball(), limit=1.0)[0][0, 2]
        > error_colours(sphere(3), ball(), limit=1.0)[0][0, 0]
    )


def test_lines_are_raised_off_their_surface_and_others_stay() -> None:
    from nstr3d.geometry.shapes.primitives import sphere as ball

    points = np.array([[1.0, 0, 0], [0, 1.0, 0], [0, 3.0, 0]])
    raised = lifted(
        Curves("a", Polylines(points, np.array([0, 3])), np.zeros((3, 3))), ball()
    ).lines.points
    np.testing.assert_allclose(
        np.linalg.norm(raised, axis=1), [1 + 0.002 * 12**0.5] * 2 + [3], rtol=1e-6
    )


@needs_parts("viewer")
def test_no_surface_is_said_and_not_raised(model: Fit) -> None:
    assert surface(model.sdf(), 32, level=-5.0) is None
    evil = "<img src=x>![](/etc/passwd){1}"
    with Page([Shape(evil, extract_mesh(model.sdf(), 32), model)], port=0) as page:
        page.controls.iso.value = page.controls.iso.min
        page.controls.resolution.value = 32
        page.controls.cutting.value = True
        page.controls.offset.value = 0.0
        page.refresh()
        assert "all of it is cut away" in page.controls.status.content
        assert page.controls.status.content.startswith(f"**{literal(evil)}**")
        page.controls.levels[0].value = page.controls.levels[1].value = False
        page.refresh()
        assert "no closed surface" in page.controls.status.content


def test_a_name_of_a_file_is_no_markdown() -> None:
    assert literal("a b.ply") == "a b\\.ply"
    assert literal("<b>![](x)\n{1}`") == "\\<b\\>\\!\\[\\]\\(x\\) \\{1\\}\\`"


@needs_parts("viewer")
def test_a_taken_port_and_one_that_is_none_are_refused() -> None:
    shapes = [Shape("ball", sphere(2))]
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        for make in (lambda: Page(shapes, port=port), lambda: LivePage(port=port)):
            with pytest.raises(
                OSError, match=rf"Port {port} of 127\.0\.0\.1 is taken; pass another port"
            ) as refused:
                make()
            assert "pass another --port" in refused.value.args[0].with_flags
    with pytest.raises(ValueError, match=r"^port is 0 to 65535"):
        Page(shapes, port=70000)


def test_without_viser_one_sentence_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "viser", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'nstr3d\[viewer\]'"):
        Page([Shape("ball", sphere(2))], port=0)


@needs_parts("viewer")
def test_a_fit_is_watched_and_served_when_done(
    tmp_path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    looks, served = [], []
    training = Page.training
    monkeypatch.setattr(progress, "LivePage", partial(LivePage, seconds=0.0, resolution=16))
    monkeypatch.setattr(
        Page,
        "training",
        lambda page, *args: (training(page, *args), looks.append(page.controls.status.content)),
    )
    monkeypatch.setattr(
        progress,
        "serve",
        lambda page: served.append(
            (page.url, page.controls.status.content, len(page.meshes[0].faces))
        ),
    )
    save_mesh(tmp_path / "ball.ply", sphere(3))
    options = [
        *WORDS,
        "--steps",
        "40",
        "--params",
        "6000",
        "--resolution",
        "24",
        "--view",
        "--port",
        "0",
    ]
    assert (
        cli.main(["fit", str(tmp_path / "ball.ply"), "--out", str(tmp_path / "out"), *options]) == 0
    )
    assert len(looks) == 40
    assert looks[-1].startswith("Fitting: step 40, loss ")
    ((url, said, faces),) = served
    assert f"look at {url}" in capsys.readouterr().out
    assert "triangles" in said
    assert faces > 500


@needs_parts("viewer")
def test_a_page_that_never_began_cannot_finish(model: Fit) -> None:
    with pytest.raises(ValueError, match="never started"):
        LivePage(port=0).finished(model)
    live = LivePage(port=0)
    live.step(Progress(1, 0.1, 0.1, 0.1))  # there is no surface to show yet
    live.close()
