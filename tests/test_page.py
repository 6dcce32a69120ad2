"""The exported page in a real browser: its pictures agree with the torch tracer's from the same
camera."""

import io
import re
from collections.abc import Iterator
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import binary_dilation

from nstr3d.fields.baselines.siren import SirenConfig
from nstr3d.fields.level import LevelConfig
from nstr3d.fields.nstr import Nstr, NstrConfig
from nstr3d.fields.waves import AmplitudeWaves, ComplexWaves, PhaseWaves
from nstr3d.geometry.shapes.primitives import smooth_union, sphere, torus
from nstr3d.kernels.pyramidwalk import Plan
from nstr3d.model.pyramidsearch import Maker, Target, compress_shape
from nstr3d.render.camera import Camera
from nstr3d.render.colours import colour_map
from nstr3d.render.drawing import draw_lines
from nstr3d.render.frequency import frequency_colours
from nstr3d.render.shading import Studio
from nstr3d.render.traced import RenderConfig, measure, render
from nstr3d.surface.extract import extract_mesh
from nstr3d.training.fit import Fit, FitConfig, fit
from nstr3d.training.losses import SdfObjective
from nstr3d.training.presets import sized_colours
from nstr3d.types import Box, Frame, Mesh, Polylines, Samples
from nstr3d.view.page.grid import grid_code
from nstr3d.view.page.html import page_html
from nstr3d.view.page.shader import field_code
from nstr3d.view.scene import Curves

SIDE, ONE_RAY = 200, "nstr3d.set({smooth: false})"
EVERY_KIND = NstrConfig(
    levels=(
        LevelConfig(4, plain=3, sparse=False),
        LevelConfig(8, plain=1, waves=AmplitudeWaves(2, learned=True), order=2),
        LevelConfig(8, waves=ComplexWaves(3)),
        LevelConfig(16, plain=2, waves=PhaseWaves(5), order=2),
    ),
    hidden=18,
)
SUM = NstrConfig(
    levels=(
        LevelConfig(3, plain=1, sparse=False),
        LevelConfig(12, plain=1, waves=AmplitudeWaves(1)),
    ),
    hidden=0,
)


def fitted(config: NstrConfig) -> Fit:
    """A short fit of a ball blended with a torus, in a frame away from the origin."""
    shape = smooth_union(torus(0.55, 0.18), sphere(0.32, (0.3, 0.25, 0.1)), k=0.1)
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(60_000, 3, generator=generator) * 2 - 1
    near = points[: 1 << 14] * torch.tensor([0.75, 0.6, 0.75])
    points = torch.cat([points, near])
    samples = Samples(points, shape(points)[:, None])
    surface = points[samples.values[:, 0].abs() < 0.05].numpy()
    field = config.build(3, 1, surface, generator)
    frame = Frame((3.0, -2.0, 1.0), 2.5)
    bounds = Box(
        *(
            tuple((np.array(corner) * 2.5 + frame.centre).tolist())
            for corner in (shape.bounds.lower, shape.bounds.upper)
        )
    )
    return fit(
        field,
        samples,
        SdfObjective(),
        FitConfig(steps=150, batch=4096),
        frame=frame,
        bounds=bounds,
    )


@pytest.fixture(scope="module")
def model() -> Fit:
    return fitted(EVERY_KIND)


class Shown:
    """A page open in the browser. Its panel is hidden in pictures."""

    def __init__(self, browser, path: Path, script: str = ""):
        self.tab = browser.new_page(viewport={"width": SIDE, "height": SIDE})
        self.requests, self.errors = [], []
        self.tab.on("request", lambda request: self.requests.append(request.url))
        self.tab.on("pageerror", lambda error: self.errors.append(str(error)))
        self.tab.on("console", lambda message: self.errors.append(message.text))
        if script:
            self.tab.add_init_script(script)
        self.tab.goto(path.as_uri())

    def until(self, condition: str) -> None:
        """Waits up to 20 seconds until the JavaScript ``condition`` holds. Playwright's own wait
        needs eval, which the page forbids."""
        loop = f"while (!({condition})) await new Promise((resolve) => setTimeout(resolve, 20));"
        assert self.tab.evaluate(
            f"Promise.race([(async () => {{ {loop} return true; }})(), new Promise((resolve) => "
            "setTimeout(resolve, 20000))])"
        ), condition

    def picture(self, script: str = "") -> np.ndarray:
        """RGB ``(h, w, 3)`` in [0, 1] after ``script``, once drawing has finished."""
        self.tab.evaluate(
            f"async () => {{ await nstr3d.ready; {script}; "
            "nstr3d.set({smooth: false}); await nstr3d.settled(); }"
        )
        self.tab.evaluate("document.body.classList.add('bare')")
        shot = self.tab.screenshot()
        self.tab.evaluate("document.body.classList.remove('bare')")
        return np.asarray(Image.open(io.BytesIO(shot)).convert("RGB")) / 255.0


@pytest.fixture(scope="module")
def shown(browser, model: Fit, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_text(page_html(model, "A ring & a <ball>"), encoding="utf-8")
    shown = Shown(browser, path)
    yield shown
    assert shown.errors == []
    assert shown.requests == [path.as_uri()]


@pytest.fixture
def fresh(shown: Shown) -> Shown:
    shown.tab.evaluate(
        "async () => { await nstr3d.ready; document.getElementById('reset').click(); }"
    )
    return shown


@pytest.fixture
def unfolded(fresh: Shown) -> Iterator[Shown]:
    """The page with its controls unfolded; a window this small folds them away."""
    fresh.tab.locator("#fold").click()
    yield fresh
    fresh.tab.locator("#fold").click()


def camera(fit: Fit, azimuth: float = 30.0, elevation: float = 15.0) -> Camera:
    return Camera.around(fit.bounds, azimuth, elevation, width=SIDE, height=SIDE)


def normals_in(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The pixels of a picture of normals that show a surface ``(h, w)``, and the unit normals
    ``(h, w, 3)``. Pixels are surface if they decode to unit length and are not background grey."""
    vectors = 2 * picture - 1
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    grey = np.ptp(picture, axis=-1) < 3 / 255
    return (np.abs(length[..., 0] - 1) < 0.1) & ~(
        grey & (picture[..., 0] < 0.95) & (picture[..., 0] > 0.79)
    ), vectors / length


def agrees(picture: np.ndarray, fit: Fit, at: Camera, level: float = 0.0) -> None:
    mask, normals = normals_in(picture)
    reference = measure(fit.sdf().offset(level), at)
    both = mask & reference.mask
    assert both.sum() / (mask | reference.mask).sum() >= 0.99
    cosine = (normals * reference.normals).sum(axis=-1)[both].clip(-1, 1)
    assert np.degrees(np.arccos(cosine)).mean() <= 1.5


def test_silhouette_and_normals_are_those_of_the_torch_tracer(fresh: Shown, model: Fit) -> None:
    agrees(fresh.picture("nstr3d.set({shading: 'normals'})"), model, camera(model))
    turned = fresh.picture("nstr3d.setCamera({azimuth: 200, elevation: -35})")
    agrees(turned, model, camera(model, 200, -35))
    placed = replace(camera(model), eye=(6.0, -0.5, 8.0), target=(3.2, -2.1, 1.1))
    agrees(
        fresh.picture("nstr3d.setCamera({eye: [6, -0.5, 8], target: [3.2, -2.1, 1.1]})"),
        model,
        placed,
    )


def test_a_field_without_a_decoder_is_traced_too(browser, tmp_path: Path) -> None:
    linear = fitted(SUM)
    (tmp_path / "page.html").write_text(page_html(linear, "sum"), encoding="utf-8")
    shown = Shown(browser, tmp_path / "page.html")
    agrees(shown.picture("nstr3d.set({shading: 'normals'})"), linear, camera(linear))
    assert shown.errors == []
    assert shown.tab.locator("#shading button").all_inner_texts() == ["Studio", "Normals"]
    shown.tab.close()


def test_studio_light_and_frequency_colours_are_those_of_render(fresh: Shown, model: Fit) -> None:
    for name, shading in (
        ("studio", Studio()),
        ("frequency", Studio(albedo=frequency_colours(model))),
    ):
        expected = render(model.sdf(), camera(model), RenderConfig(shading, samples_per_axis=1))
        difference = np.abs(fresh.picture(f"nstr3d.set({{shading: '{name}'}})") - expected)
        assert difference.mean() < 0.01, name
        reference = measure(model.sdf(), camera(model)).mask
        assert difference[reference].mean() < 0.03, name
    light = fresh.picture("nstr3d.set({light: 120})")
    assert np.abs(light - expected)[reference].mean() > 0.04


def test_a_click_changes_the_shading_and_a_slider_the_level(unfolded: Shown, model: Fit) -> None:
    unfolded.tab.get_by_role("button", name="Normals").click()
    unfolded.tab.locator("#level").scroll_into_view_if_needed()
    box = unfolded.tab.locator("#level").bounding_box()
    unfolded.tab.mouse.click(box["x"] + 0.8 * box["width"], box["y"] + box["height"] / 2)
    state = unfolded.tab.evaluate("nstr3d.state")
    assert state["shading"] == "normals"
    assert state["level"] > 0.05
    unfolded.tab.locator("#level").press("ArrowLeft")
    assert 0 < unfolded.tab.evaluate("nstr3d.state.level") < state["level"]
    agrees(unfolded.picture(), model, camera(model), unfolded.tab.evaluate("nstr3d.state.level"))


def test_the_page_says_what_it_does_and_how_far_it_is(fresh: Shown) -> None:
    fresh.tab.evaluate("async () => { await nstr3d.settled(); }")
    said, hidden = fresh.tab.evaluate(
        """async () => {
          const text = document.getElementById("progress-text"), said = [];
          const watcher = new MutationObserver(() => said.push(text.textContent));
          watcher.observe(text, { childList: true });
          nstr3d.setCamera({ azimuth: 77 });
          await nstr3d.settled();
          await new Promise((resolve) => setTimeout(resolve));
          watcher.disconnect();
          return [said, document.getElementById("progress").hidden];
        }"""
    )
    parts = [re.fullmatch(r"(Tracing|Smoothing edges) \.\.\. (\d+)%", each) for each in said]
    assert all(parts), said
    works, shares = zip(*((part[1], int(part[2])) for part in parts))  # type: ignore[index]
    assert works[0] == "Tracing"
    assert "Smoothing edges" in works
    assert list(shares) == sorted(shares)
    assert shares[-1] == 100
    assert hidden


def test_dragging_turns_the_wheel_zooms_and_keys_do_both(fresh: Shown, model: Fit) -> None:
    tab, before = fresh.tab, fresh.tab.evaluate("nstr3d.state")
    tab.mouse.move(20, 150)
    tab.mouse.down()
    tab.mouse.move(40, 140, steps=3)
    tab.mouse.up()
    turned = tab.evaluate("nstr3d.state")
    assert turned["azimuth"] < before["azimuth"]  # the shape follows the mouse to the right
    assert turned["elevation"] < before["elevation"]
    tab.mouse.wheel(0, -200)
    fresh.until(f"nstr3d.state.zoom > {before['zoom']}")
    tab.keyboard.press("ArrowUp")
    assert tab.evaluate("nstr3d.state.elevation") == pytest.approx(turned["elevation"] + 5)
    tab.keyboard.press("2")
    place = tab.evaluate("nstr3d.state")
    at = camera(model, place["azimuth"], place["elevation"])
    eye = np.array(at.target) + (np.array(at.eye) - at.target) / place["zoom"]
    agrees(fresh.picture(), model, replace(at, eye=tuple(eye.tolist())))


def test_the_slice_shows_where_the_inside_is(unfolded: Shown, model: Fit) -> None:
    side = camera(model, 0, 0)
    unfolded.picture("nstr3d.setCamera({azimuth: 0, elevation: 0})")
    unfolded.tab.locator("#axis").get_by_role("button", name="Z", exact=True).click()
    picture = unfolded.picture()
    blue = picture[..., 2] - picture[..., 0] > 0.08
    # The plane z = centre lies in front of the eye.
    depth = np.array(side.eye)[2] - model.bounds.centre[2]
    rays = side.rays()
    points = rays.origins + rays.directions * (depth / -rays.directions[:, 2:])
    inside = (model.sdf()(points) < 0).reshape(SIDE, SIDE).numpy()
    # The dark outline of the surface is not blue.
    assert (blue & inside).sum() / (blue | inside).sum() > 0.85
    assert (blue & ~inside).sum() < 0.02 * inside.sum()
    flipped = unfolded.picture("document.getElementById('flip').click()")
    assert np.abs(flipped - picture).mean() > 0.01


def test_a_window_of_another_shape_is_filled(fresh: Shown, model: Fit) -> None:
    fresh.tab.set_viewport_size({"width": SIDE, "height": SIDE // 2})
    try:
        fresh.until(f"nstr3d.size[1] === {SIDE // 2}")
        wide = Camera.around(model.bounds, width=SIDE, height=SIDE // 2)
        agrees(fresh.picture("nstr3d.set({shading: 'normals'})"), model, wide)
    finally:
        fresh.tab.set_viewport_size({"width": SIDE, "height": SIDE})


def test_what_the_page_cannot_do_it_says(browser, fresh: Shown) -> None:
    path = Path(fresh.requests[0].removeprefix("file://"))
    for script, words in (
        ("HTMLCanvasElement.prototype.getContext = () => null", "needs WebGL 2"),
        ("delete window.DecompressionStream", "browser of 2023"),
    ):
        bare = Shown(browser, path, script)
        bare.until("document.querySelector('#note.failed')")
        assert words in bare.tab.inner_text("#note")
        assert bare.errors == []
        bare.tab.close()
    with pytest.raises(Exception, match="set takes"):
        fresh.tab.evaluate("nstr3d.set({shading: 'plaid'})")


def test_a_page_is_one_file_that_names_no_other(model: Fit) -> None:
    page = page_html(model, "A ring & a <ball>")
    assert not re.search(
        r"https?:|//[a-z]+\.|@import|src=|<link (?!rel=\"icon\" href=\"data:,\")|\{\{", page
    )
    assert "<title>A ring &amp; a &lt;ball&gt;</title>" in page
    assert len(page.encode()) < 300_000


def circles(fit: Fit, *radii: float, values: bool = True) -> Curves:
    """Wavy horizontal circles of ``radii`` (unit box) about the centre of the fit's frame, in world
    units. With ``values``, the values of each circle rise from 0 to 2 pi along it."""
    around = np.linspace(0, 2 * np.pi, 181)
    ring = np.stack([np.sin(around), 0.1 * np.cos(5 * around), np.cos(around)], axis=1)
    points = fit.frame.to_world(np.concatenate([radius * ring for radius in radii]))
    rising = np.tile(around, len(radii)) if values else None
    lines = Polylines(points, np.arange(0, len(points) + 1, len(ring)), rising)
    return Curves("circles", lines, np.tile([[0.9, 0.1, 0.8]], (len(points), 1)))


@pytest.mark.parametrize("valued", [True, False])
def test_streamlines_are_drawn_where_the_surface_does_not_hide_them(
    browser, model: Fit, tmp_path: Path, valued: bool
) -> None:
    """The lines cover the same pixels in the same colours as those of ``draw_lines``. A check box
    hides them and a slice cuts them."""
    # One circle around the ring, one through its hole and the ball.
    curves = circles(model, 0.95, 0.3, values=valued)
    (tmp_path / "page.html").write_text(page_html(model, "lines", curves=curves), encoding="utf-8")
    shown = Shown(browser, tmp_path / "page.html")
    bare = shown.picture("nstr3d.set({lines: false})")
    shown.tab.locator("#fold").click()
    shown.tab.locator("#lines").check()
    assert shown.tab.locator("#line-legend").count() == int(valued)
    captured = shown.picture()
    fraction = np.tile(np.linspace(0, 1, 181), 2)
    colours = (
        colour_map(torch.from_numpy((fraction - 0.02) / 0.96)).numpy() if valued else curves.colours
    )
    expected = draw_lines(bare, camera(model), model.sdf(), curves.lines, colours, 1.5)
    drawn, true = (np.abs(picture - bare).max(axis=-1) > 0.2 for picture in (captured, expected))
    whole = draw_lines(bare, camera(model), model.sdf().offset(-9.0), curves.lines, colours, 1.5)
    # The surface hides many pixels of the lines.
    assert 200 < true.sum() < 0.8 * (np.abs(whole - bare).max(axis=-1) > 0.2).sum()
    assert (drawn & binary_dilation(true)).sum() >= 0.97 * drawn.sum()
    assert (true & binary_dilation(drawn)).sum() >= 0.97 * true.sum()
    assert np.abs(captured - expected)[drawn & true].mean() < 0.1
    shown.tab.locator("#lines").uncheck()
    np.testing.assert_array_equal(shown.picture(), bare)
    half = shown.picture("nstr3d.set({lines: false, axis: 'x', at: 0.5})")
    cut = np.abs(shown.picture("nstr3d.set({lines: true})") - half).max(axis=-1) > 0.2
    assert 0.2 * drawn.sum() < cut.sum() < 0.8 * drawn.sum()
    assert shown.errors == []
    assert len(shown.requests) == 1
    shown.tab.close()


def test_lines_of_another_shape_are_refused(model: Fit) -> None:
    curves = circles(model, 0.9)
    far = replace(curves, lines=replace(curves.lines, points=curves.lines.points + 100))
    flat = replace(curves, lines=replace(curves.lines, points=curves.lines.points[:, :2]))
    for wrong, words in ((far, "nowhere near the shape"), (flat, "have 2 dimensions")):
        with pytest.raises(ValueError, match=words):
            page_html(model, "ring", curves=wrong)


def test_tables_are_rounded_finely(model: Fit) -> None:
    """The texels times the units in the generated code reproduce the tables to within rounding."""
    assert isinstance(model.field, Nstr)
    code = field_code(model.field)
    place = 0
    for number, level in enumerate(model.field.spectra):
        table = level.table.detach().numpy()
        width = -(-table.shape[1] // 4)
        units = [re.search(rf"s{number}_{i} \*= vec4\((.*)\);", code.glsl) for i in range(width)]
        scale = np.concatenate([np.array(unit[1].split(", "), float) for unit in units if unit])
        entries = code.texels[place : place + len(table) * width].reshape(len(table), -1) * scale
        place += len(table) * width
        assert (
            np.abs(entries[:, : table.shape[1]] - table).max()
            <= 1.001 * np.abs(table).max() / 65534
        )
    assert place == len(code.texels)
    sparse = [level.rows.numpy() >= 0 for level in model.field.spectra if (level.rows < 0).any()]
    assert [stored.tolist() for stored in code.bitmaps] == [stored.tolist() for stored in sparse]


def test_what_has_no_page_is_refused(model: Fit) -> None:
    siren = SirenConfig(8, 1).build(3, 1)
    with pytest.raises(ValueError, match="not a Siren; export it as glb or onnx"):
        page_html(replace(model, field=siren), "siren")
    with pytest.raises(ValueError, match="shows levels between"):
        page_html(model, "far", level=100.0)


@pytest.fixture(scope="module")
def ring() -> Fit:
    """A compressed ball blended with a torus, in a frame away from the origin."""
    shape = smooth_union(torus(0.55, 0.18), sphere(0.32, (0.3, 0.25, 0.1)), k=0.1)
    frame = Frame((3.0, -2.0, 1.0), 2.5)
    surface = extract_mesh(shape, 64).vertices

    def distance(points: np.ndarray) -> np.ndarray:
        return shape(torch.from_numpy(points)).numpy()

    return compress_shape(Target(distance, surface, shape.bounds, frame), 5000)


def test_a_compressed_shape_is_decoded_and_traced_on_the_page(browser, tmp_path, ring) -> None:
    path = tmp_path / "page.html"
    path.write_text(page_html(ring, "ring"), encoding="utf-8")
    assert path.stat().st_size < 200_000  # the decoded grid takes 8 MB
    shown = Shown(browser, path)
    agrees(shown.picture("nstr3d.set({shading: 'normals'})"), ring, camera(ring))
    picture = shown.picture("nstr3d.set({shading: 'normals', level: 0.05})")
    agrees(picture, ring, camera(ring), level=0.05)
    assert shown.errors == []
    assert "bytes, decoded here" in shown.tab.content()
    shown.tab.close()


@pytest.mark.parametrize("whole", [1, 2])
def test_the_page_decodes_the_same_numbers(browser, ring, whole) -> None:
    maker = Maker(Target(lambda at: np.abs(at).max(axis=1) - 0.7, np.full((1, 3), 0.7),
                         Box((-0.7,) * 3, (0.7,) * 3), Frame.identity()))  # fmt: skip
    box = maker.fit(maker.coded(Plan(5, 2, whole, 40, 20), 3e-4, 10**5))
    script = (files("nstr3d.view.page") / "pyramid.js").read_text(encoding="utf-8")
    tab = browser.new_page()
    for each in (ring, box):
        code = grid_code(each.field)
        values = tab.evaluate(
            f"async ([about, bytes]) => {{ {script}; "
            "return Array.from(await decodePyramid(about, Uint8Array.from(bytes))); }",
            [code.about, list(code.stream)],
        )
        expected = each.field.nodes.numpy().ravel()
        np.testing.assert_array_equal(np.array(values, np.float32), expected)
    broken = f"async ([about, bytes]) => {{ {script}; await decodePyramid(about, bytes); }}"
    with pytest.raises(Exception, match="This page is damaged"):
        tab.evaluate(broken, [code.about, list(code.stream[:-3])])
    tab.close()


def test_the_colours_are_those_of_render(browser, tmp_path: Path, model: Fit) -> None:
    """The field of colours of another fit stands in: what counts is that both draw it alike."""
    mesh = extract_mesh(model.sdf(), 24)
    unit = Mesh(model.frame.to_unit(mesh.vertices), mesh.faces)
    colours = sized_colours(6000, unit).build(3, 3, near=unit)
    with torch.no_grad():
        for parameter in colours.parameters():
            parameter.mul_(3.0)
        colours.decoder.out.bias[:] = torch.tensor([0.8, 0.5, 0.3])
    painted = replace(model, colour_field=colours)
    (tmp_path / "page.html").write_text(page_html(painted, "colours"), encoding="utf-8")
    shown = Shown(browser, tmp_path / "page.html")
    expected = render(painted.sdf(), camera(model), RenderConfig(Studio(), samples_per_axis=1))
    plain = render(model.sdf(), camera(model), RenderConfig(Studio(), samples_per_axis=1))
    mask = measure(model.sdf(), camera(model)).mask
    drawn = shown.picture("nstr3d.set({shading: 'studio'})")
    assert np.abs(drawn - expected)[mask].mean() < 0.03
    assert np.abs(plain - expected)[mask].mean() > 0.06
    assert shown.errors == []
    shown.tab.close()
