"""The house's order: modules import downwards, and each heavy package has one owner."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import nstr3d

ROOT = Path(nstr3d.__file__).parent
MODULES = sorted(
    path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".") for path in ROOT.rglob("*.py") if path.stem != "__init__"
)

# The layer of a module, or of every module in a package. A module imports from lower layers.
LAYER = {
    "types": 0,
    "autodiff": 1,
    "sdf": 1,
    "meshformats": 1,
    "io": 1,
    "audio": 1,
    "clouds": 1,
    "lines": 1,
    "interop": 2,
    "kernels": 2,
    "geometry": 2,
    "fields": 2,
    "sampling": 3,
    "losses": 3,
    "unsigned": 4,
    "metrics": 3,
    "fidelity": 3,
    "panels": 3,
    "splat": 3,
    "extract": 3,
    "trace": 3,
    "shading": 3,
    "flow": 3,
    "render": 3,
    "fit": 4,
    "unoriented": 5,
    "graphs": 4,
    "speed": 6,
    "roofline": 3,
    "footage": 4,
    "raster": 4,
    "contours": 4,
    "scene": 5,
    "window": 6,
    "browser": 6,
    "cli_view": 7,
    "cli_tables": 7,
    "frequency": 5,
    "tags": 5,
    "checkpoint": 5,
    "presets": 5,
    "outputs": 5,
    "signals": 5,
    "codec": 5,
    "signaljobs": 6,
    "jobs": 6,
    "solve": 5,
    "spectral": 5,
    "analysis": 6,
    "segments": 6,
    "localwave": 3,
    "relief": 7,
    "drawing": 4,
    "flowjobs": 8,
    "compare": 6,
    "tracks": 6,
    "cloudjobs": 7,
    "contenders": 7,
    "tables": 7,
    "exchange": 5,
    "page": 6,
    "cli_render": 7,
    "cli_export": 7,
    "batch": 8,
    "cli_batch": 9,
    "cli": 10,
    "__main__": 11,
}
# Within a layer, only these.
SIBLINGS = {
    "sdf": {"autodiff"},
    "io": {"meshformats"},
    "audio": {"io"},
    "clouds": {"io"},
    "lines": {"io"},
    "fit": {"graphs"},
    "checkpoint": {"tags"},
    "kernels.interpolate": {"kernels.cpu"},
    "kernels.cpu": {"kernels.threads"},
    "kernels.fused": {"kernels.interpolate", "kernels.fusedcpu", "kernels.gpu", "kernels.parts", "kernels.threads"},
    "kernels.adam": {"kernels.adamcpu", "kernels.interpolate", "kernels.threads"},
    "kernels.adamcpu": {"kernels.parts", "kernels.simd"},
    "kernels.descent": {
        "kernels.adam",
        "kernels.descentcpu",
        "kernels.fused",
        "kernels.interpolate",
        "kernels.parts",
        "kernels.threads",
        "kernels.tickets",
    },
    "kernels.descentcpu": {"kernels.adamcpu", "kernels.fusedcpu", "kernels.parts", "kernels.tickets"},
    "kernels.dipoles": {"kernels.threads"},
    "kernels.simd": {"kernels.parts"},
    "kernels.tickets": {"kernels.simd"},
    "kernels.triangles": {"kernels.parts", "kernels.simd", "kernels.threads"},
    "kernels.fusedcpu": {"kernels.parts", "kernels.simd"},
    "kernels.gpu": {"kernels.parts"},
    "kernels.hashing": {"kernels.cpu", "kernels.interpolate"},
    "fields.siren": {"fields.base", "fields.layers"},
    "fields.finer": {"fields.base", "fields.layers", "kernels.interpolate"},
    "fields.fourier": {"fields.base", "fields.layers"},
    "fields.ngp": {"fields.base", "fields.layers", "kernels.hashing"},
    "fields.carried": set(),
    "fields.completion": {"fields.cosines"},
    "fields.lapped": set(),
    "fields.positions": set(),
    "fields.cosines": {"fields.base", "fields.lapped", "fields.positions", "kernels.interpolate"},
    "geometry.distance": {"geometry.surface", "kernels.triangles"},
    "geometry.normals": set(),
    "geometry.ripples": {"geometry.primitives"},
    "geometry.repair": {"geometry.distance", "geometry.surface"},
    "geometry.cloudwinding": {"geometry.neighbours", "kernels.dipoles"},
    "geometry.patches": {"geometry.neighbours", "kernels.threads"},
    "geometry.topology": {"geometry.neighbours"},
    "geometry.trim": {"geometry.neighbours"},
    "geometry.orient": {"geometry.neighbours", "geometry.cloudwinding", "geometry.patches", "kernels.dipoles"},
    "geometry.cloud": {"geometry.neighbours", "geometry.orient", "geometry.surface"},
    "geometry.spline": {"kernels.spline", "kernels.threads"},
    "geometry.spanning": {"geometry.cloudwinding", "geometry.patches", "geometry.spline"},
    "geometry.clouddistance": {
        "geometry.cloudwinding",
        "geometry.patches",
        "geometry.spanning",
        "kernels.sides",
        "kernels.threads",
    },
    "fields.layers": {"kernels.parts"},
    "fields.base": {"kernels.adam"},
    "fields.waves": {"kernels.parts"},
    "fields.spectrum": {"fields.waves", "kernels.parts", "kernels.interpolate"},
    "fields.placement": {"fields.spectrum", "fields.waves"},
    "fields.linear": {"fields.layers", "fields.spectrum", "kernels.interpolate"},
    "fields.surfacewaves": {"fields.placement"},
    "fields.warm": {"fields.layers", "fields.nstr", "fields.spectrum", "kernels.interpolate"},
    "fields.nstr": {
        "fields.base",
        "fields.layers",
        "fields.linear",
        "fields.placement",
        "fields.spectrum",
        "fields.waves",
        "kernels.adam",
        "kernels.descent",
        "kernels.fused",
        "kernels.parts",
    },
    "page.lines": set(),
    "page.shader": set(),
    "page.html": {"page.lines", "page.shader"},
    "cli_export": {"cli_render"},
    "cli": {"cli_render", "cli_export", "cli_view", "cli_batch"},
    "cli_view": {"cli_render"},
    "batch.shapes": {"batch.store"},
    "batch.catalogue": {"batch.store"},
    "batch.lock": {"batch.store"},
    "batch.overview": {"batch.catalogue", "batch.store"},
    "batch.worker": {"batch.options", "batch.shapes", "batch.store"},
    "batch.attempt": {"batch.catalogue", "batch.options", "batch.shapes", "batch.store"},
    "batch.engines": {"batch.attempt"},
    "batch.run": {
        "batch.attempt",
        "batch.catalogue",
        "batch.engines",
        "batch.lock",
        "batch.options",
        "batch.overview",
        "batch.shapes",
        "batch.store",
    },
    "batch.dataset": {"batch.catalogue", "batch.store"},
    "shading": {"trace"},
    "render": {"trace", "shading"},
}
# Packages of a lower layer that a module may see; a module of layer 3 that is not named here sees none of them.
PACKAGES_SEEN = {"sampling": {"geometry"}, "metrics": {"geometry"}, "losses": {"fields"}, "roofline": {"fields", "kernels"}}
PACKAGES_SEEN |= {"flow": {"kernels"}, "extract": {"kernels"}}
OWNERS = {
    "trimesh": {"io", "meshformats", "interop"},
    "open3d": {"interop"},
    "PIL": {"io", "footage", "cli_render"},
    "soundfile": {"audio"},
    "laspy": {"clouds"},
    "igl": {"geometry.distance", "kernels.cells", "contours"},
    "scipy": {
        "geometry.repair",
        "geometry.holes",
        "geometry.neighbours",
        "geometry.orient",
        "geometry.patches",
        "fields.lapped",
        "fields.carried",
        "fields.placement",
        "fields.surfacewaves",
        "fields.warm",
        "flow",
        "segments",
        "localwave",
        "relief",
    },
    "imageio_ffmpeg": {"footage"},
    "OpenEXR": {"footage"},
    "pyrender": {"raster"},
    "viser": {"browser"},
    "numba": {
        "kernels.adamcpu",
        "kernels.cells",
        "kernels.cpu",
        "kernels.descentcpu",
        "kernels.dipoles",
        "kernels.entropy",
        "kernels.fusedcpu",
        "kernels.sides",
        "kernels.simd",
        "kernels.spline",
        "kernels.tickets",
        "kernels.triangles",
    },
    "llvmlite": {"kernels.adamcpu", "kernels.simd", "kernels.tickets"},
    "triton": {"kernels.gpu"},
    "safetensors": {"checkpoint"},
    "matplotlib": {"tables"},
    "onnxruntime": {"exchange"},
    "fsspec": {"batch.store"},
    "ray": {"batch.engines"},
    "tyro": {"cli", "cli_render", "cli_export", "cli_view", "cli_batch"},
    "tqdm": {"cli", "cli_render", "cli_export", "cli_batch"},
}
EVERYWHERE = {"numpy", "torch", "nstr3d"} | set(sys.stdlib_module_names)
AT_TOP = {
    "kernels.adamcpu": {"numba", "llvmlite"},
    "kernels.cells": {"numba"},
    "kernels.cpu": {"numba"},
    "kernels.descentcpu": {"numba"},
    "kernels.dipoles": {"numba"},
    "kernels.entropy": {"numba"},
    "kernels.fusedcpu": {"numba"},
    "kernels.sides": {"numba"},
    "kernels.simd": {"numba", "llvmlite"},
    "kernels.spline": {"numba"},
    "kernels.tickets": {"numba", "llvmlite"},
    "kernels.triangles": {"numba"},
    "kernels.gpu": {"triton"},
    "cli": {"tyro", "tqdm"},
    "cli_render": {"tyro", "tqdm"},
    "cli_export": {"tyro", "tqdm"},
    "cli_view": {"tyro"},
    "cli_batch": {"tyro", "tqdm"},
}  # modules that are themselves imported only when needed


def layer(module: str) -> int:
    name = module if module in LAYER else module.split(".")[0]
    assert name in LAYER, f"{module} has no layer: give it one in LAYER"
    return LAYER[name]


def imports(module: str, top_level_only: bool = False) -> Iterator[str]:
    """Full dotted names that a module imports, ``from a import b`` as ``a.b`` where that is a module of ours, else ``a``."""
    tree = ast.parse((ROOT / (module.replace(".", "/") + ".py")).read_text())
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if name.removeprefix("nstr3d.") in MODULES else str(node.module)


def ours(module: str) -> set[str]:
    """The modules of nstr3d that a module imports; the package itself counts as the top."""
    return {name.partition(".")[2] for name in imports(module) if name.split(".")[0] == "nstr3d"}


def test_modules_were_found_and_imports_are_read() -> None:
    assert {"types", "fields.nstr", "geometry.distance", "kernels.cpu"} <= set(MODULES)
    assert ours("fit") >= {"sdf", "losses", "sampling", "fields.base"}
    assert ours("kernels.interpolate") == {"kernels.cpu"}
    assert "igl" in set(imports("geometry.distance"))
    assert "igl" not in set(imports("geometry.distance", top_level_only=True))


@pytest.mark.parametrize("module", MODULES)
def test_imports_look_downwards(module: str) -> None:
    for target in ours(module):
        assert target in MODULES, f"{module} imports {target or 'the package itself'}"
        if layer(target) == layer(module):
            assert target in SIBLINGS.get(module, set()), f"{module} imports its sibling {target}"
        else:
            assert layer(target) < layer(module), f"{module} looks up to {target}"
        if layer(module) == 3 and layer(target) == 2:
            assert target.split(".")[0] in PACKAGES_SEEN.get(module, set()), f"{module} may not see {target}"


def test_siblings_have_an_order() -> None:
    done: set[str] = set()
    waiting = {module: needs - {module} for module, needs in SIBLINGS.items()}
    while waiting:
        ready = {module for module, needs in waiting.items() if not needs & waiting.keys() - done}
        assert ready, f"these import each other: {sorted(waiting)}"
        done |= ready
        waiting = {module: needs for module, needs in waiting.items() if module not in ready}


@pytest.mark.parametrize("module", MODULES)
def test_each_package_is_imported_by_its_owners_only(module: str) -> None:
    for name in {name.split(".")[0] for name in imports(module)} - EVERYWHERE:
        assert module in OWNERS.get(name, set()), f"{module} imports {name}, which belongs to {OWNERS.get(name, 'nobody')}"
    for name in {name.split(".")[0] for name in imports(module, top_level_only=True)} - EVERYWHERE:
        assert name in AT_TOP.get(module, set()), f"{module} imports {name} at its top: import it where it is needed"


def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = ["trimesh", "igl", "numba", "scipy", "PIL", "skimage", "tyro", "matplotlib"]
    program = f"import sys, nstr3d; print([name for name in {heavy} if name in sys.modules], 'torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT.parent)
    assert found.stdout.split("\n")[0] == "[] True"
