"""The architecture: modules import only from lower layers, and only the owners of a heavy package
import it."""

import ast
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

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
    "cli",
    "bench",
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
    "DracoPy": ("io.gltfscene",),
    "meshoptimizer": ("io.gltffile",),
    "igl": ("geometry.mesh", "kernels.geometry", "render.contours"),
    "scipy": ("geometry", "fields", "spectrum", "render.camera", "bench"),
    "imageio_ffmpeg": ("render.animation",),
    "OpenEXR": ("render.animation",),
    "pyrender": ("render.opengl",),
    "viser": ("view.browser",),
    "jinja2": ("view.page.template",),
    "numba": ("kernels",),
    "llvmlite": ("kernels",),
    "triton": ("kernels.field.decodergpu", "kernels.field.gpu", "kernels.field.levelgpu"),
    "safetensors": ("model",),
    "pydantic": ("model.schema", "batch.schema", "io.lockschema"),
    "matplotlib": ("bench",),
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


def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = ["trimesh", "igl", "numba", "scipy", "PIL", "skimage", "tyro", "matplotlib", "pydantic"]
    loaded = f"[name for name in {heavy} if name in sys.modules]"
    program = f"import sys, nstr3d; print({loaded}, 'torch' in sys.modules)"
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT.parent)
    assert result.stdout.split("\n")[0] == "[] True"
