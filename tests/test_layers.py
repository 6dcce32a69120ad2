"""The architecture: modules import only from lower layers, and only the owners of a heavy package
import it."""

import ast
import runpy
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from inspect import signature
from pathlib import Path

import numpy as np
import pytest

import nstr3d

ROOT = Path(nstr3d.__file__).parent
# Packages and root modules in the order of their layers: each imports only from itself and from the
# names above it in this list. docs/architecture.md has the diagram.
ORDER = (
    "types",
    "autodiff",
    "sdf",
    "system",
    "kernels",
    "io",
    "geometry",
    "fields",
    "training",
    "model",
    "surface",
    "spectrum",
    "signals",
    "render",
    "jobs",
    "view",
    "batch",
    "bench",
    "cli",
)
PUBLIC = {"__init__", "__main__"}  # root modules that a user imports or runs
# Packages that are slow to load or may be absent, each with the modules that may import it.
OWNERS = {
    "trimesh": ("io", "render.contours"),
    "open3d": ("io.interop",),
    "PIL": ("io", "render", "cli"),
    "soundfile": ("io.audio",),
    "laspy": ("io.cloud",),
    "manifold3d": ("geometry.mesh", "io.polygons"),
    "collada": ("io.collada",),
    "DracoPy": ("io.draco",),
    "meshoptimizer": ("io.gltffile",),
    "igl": ("geometry.mesh", "kernels.geometry", "render.contours"),
    "scipy": ("geometry", "fields", "spectrum", "render.camera", "bench"),
    "imageio_ffmpeg": ("render.animation",),
    "OpenEXR": ("render.animation",),
    "pyrender": ("render.opengl",),
    "viser": ("view.browser",),
    "xatlas": ("surface.atlas",),
    "jinja2": ("view.page.template",),
    "numba": ("kernels",),
    "llvmlite": ("kernels",),
    "triton": ("kernels.field.decodergpu", "kernels.field.gpu", "kernels.field.levelgpu"),
    "safetensors": ("model",),
    "pydantic": ("model.schema", "batch.schema", "io.lockschema"),
    "matplotlib": ("bench",),
    "skimage": ("bench.speedreport",),
    "onnx": ("model.onnxheader",),
    "onnxruntime": ("model.exchange",),
    "onnxscript": ("model.exchange",),
    "fsspec": ("batch.store",),
    "ray": ("batch.engines",),
    "tyro": ("cli",),
    "tqdm": ("cli", "jobs.direct"),
}
EVERYWHERE = {"numpy", "torch", "nstr3d"} | set(sys.stdlib_module_names)
AT_THE_TOP = {
    "numba",
    "llvmlite",
    "triton",
    "tyro",
    "tqdm",
    "pydantic",
}  # their owners are imported late


def modules() -> dict[str, Path]:
    """The file of every module by its dotted name without nstr3d; a package names its __init__."""
    names = {}
    for path in sorted(ROOT.rglob("*.py")):
        name = path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
        names[name.removesuffix(".__init__")] = path
    return names


MODULES = modules()


def imports(name: str, top_level_only: bool = False) -> Iterator[str]:
    """Dotted names that a module imports: ``from a import b`` gives ``a.b`` if that is a module."""
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} has a relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner.removeprefix("nstr3d.") in MODULES else str(node.module)


def ours(name: str, top_level_only: bool = False) -> set[str]:
    """The modules of nstr3d that a module imports; the package itself is the empty name."""
    result = (
        target for target in imports(name, top_level_only) if target.split(".")[0] == "nstr3d"
    )
    return {target.partition(".")[2] for target in result}


def test_the_order_names_every_package_and_imports_are_read() -> None:
    assert {name.split(".")[0] for name in MODULES} == set(ORDER) | PUBLIC
    assert ours("training.fit") >= {"sdf", "training.losses", "training.sampling", "fields.base"}
    assert "igl" in set(imports("geometry.mesh.distance"))
    assert "igl" not in set(imports("geometry.mesh.distance", top_level_only=True))


@pytest.mark.parametrize("name", sorted(set(MODULES) - PUBLIC))
def test_imports_look_downwards(name: str) -> None:
    package = name.split(".")[0]
    allowed = set(ORDER[: ORDER.index(package) + 1])
    for target in ours(name):
        assert target in MODULES, f"{name} imports {target or 'the package itself'}"
        assert target.split(".")[0] in allowed, f"{name} looks up to {target}"


def test_no_modules_import_each_other() -> None:
    waiting = {name: ours(name, top_level_only=True) - {name, ""} for name in MODULES}
    while waiting:
        ready = {name for name, needs in waiting.items() if not needs & waiting.keys()}
        assert ready, f"these import each other: {sorted(waiting)}"
        waiting = {name: needs for name, needs in waiting.items() if name not in ready}


@pytest.mark.parametrize("name", sorted(MODULES))
def test_each_package_is_imported_by_its_owners_only(name: str) -> None:
    for package in {target.split(".")[0] for target in imports(name)} - EVERYWHERE:
        owners = OWNERS.get(package, ())
        owned = any(f"{name}.".startswith(f"{owner}.") for owner in owners)
        assert owned, f"{name} imports {package}, which belongs to {owners or 'nobody'}"
    at_top = {target.split(".")[0] for target in imports(name, top_level_only=True)} - EVERYWHERE
    assert at_top <= AT_THE_TOP, f"{name} imports {at_top} at its top: import it where it is needed"


def test_the_house_is_small_enough_to_see() -> None:
    root = {name for name in MODULES if "." not in name and MODULES[name].name != "__init__.py"}
    assert len(root | {"__init__"}) <= 6
    assert sum(1 for name in ORDER if MODULES[name].name == "__init__.py") <= 16


def test_the_page_about_the_packages_shows_the_imports() -> None:
    page = runpy.run_path(str(Path(__file__).parents[1] / "docs" / "packages.py"))
    page["imports"].__globals__["ROOT"] = ROOT.parent  # the tested package
    text = page["PAGE"].read_text(encoding="utf-8")
    assert page["redrawn"](text) == text, "run python docs/packages.py"


HEAVY = ["torch", "numba", "scipy", "pydantic", "trimesh", "igl", "PIL", "skimage", "matplotlib"]


@pytest.mark.parametrize(
    ("program", "light"),
    [
        ("import nstr3d", "numpy tyro"),
        ("import nstr3d.types, nstr3d.io, nstr3d.jobs.options, nstr3d.jobs.signaloptions", "tyro"),
        ("from nstr3d.cli import main; main([])", "numpy tyro"),
        ("from nstr3d.cli import main; main(['--help'])", "numpy tyro"),
        *(
            (f"from nstr3d.cli import main; main({[*words, '--help']})", "")
            for words in (
                ["fit"],
                ["fit", "a.png"],
                ["points"],
                ["batch"],
                ["check"],
                ["combine"],
                ["flow"],
                ["info"],
                ["render"],
                ["export"],
                ["view"],
                ["bench"],
                ["bench", "speed"],
                ["bench", "device"],
            )
        ),
    ],
)
def test_help_and_options_load_nothing_heavy(program: str, light: str) -> None:
    loaded = f"[name for name in {HEAVY + light.split()} if name in sys.modules]"
    ending = f"atexit.register(lambda: print('loaded', {loaded}))"
    command = [sys.executable, "-c", f"import atexit, sys; {ending}; {program}"]
    result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT.parent)
    assert result.stdout.splitlines()[-1] == "loaded []"


def test_the_package_offers_the_names_that_it_declares() -> None:
    tree = ast.parse((ROOT / "__init__.py").read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    declared = {
        alias.name: str(node.module).removeprefix("nstr3d.")
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert declared == nstr3d._HOMES
    assert set(nstr3d.__all__) == declared.keys()
    for name in declared:
        assert getattr(nstr3d, name) is not None
        assert callable(getattr(nstr3d, name)) or name == "PRESETS"
    assert nstr3d.geometry.mesh.__name__ == "nstr3d.geometry.mesh"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = nstr3d.nothing  # type: ignore[attr-defined]


def test_a_package_with_the_name_of_a_function_is_both() -> None:
    import nstr3d.render.traced as traced

    assert nstr3d.render.traced is traced  # type: ignore[attr-defined]
    assert signature(nstr3d.render) == signature(traced.render)
    ball = nstr3d.Sdf(lambda p: p.norm(dim=1) - 1, nstr3d.Box((-1.0,) * 3, (1.0,) * 3))
    camera = nstr3d.Camera.around(ball.bounds, width=4, height=3)
    assert np.array_equal(nstr3d.render(ball, camera), traced.render(ball, camera))
    assert nstr3d.render(ball, camera).shape == (3, 4, 3)
    clashes = {name for name in nstr3d._HOMES if name in ORDER}
    assert clashes == {"render"}
    with pytest.raises(ModuleNotFoundError):
        import_module("nstr3d.fit")  # a function, never a module
