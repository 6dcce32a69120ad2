"""Reports as the few lines that a command prints when it is done."""

from __future__ import annotations

from typing import Any

from nstr3d.jobs.stages import Outcome
from nstr3d.surface.certified import Certificate, describe


def table(outcome: Outcome) -> str:
    """The main figures of a report on a mesh, and the paths of the files."""
    report: dict[str, Any] = outcome.report
    seconds, field = report["seconds"], report["field"]
    rows = [
        _size_row(field),
        *_error_rows(field),
        *_accuracy_rows(report),
        ("mesh", _mesh(report)),
        *_proven_rows(report),
        *_colour_rows(report),
        ("seconds", ", ".join(f"{name} {value:.1f}" for name, value in seconds.items() if value)),
    ]
    return _aligned(rows, outcome)


def _size_row(field: dict[str, Any]) -> tuple[str, str]:
    if field["parameters"] is None:
        return "cells / bytes on disk", f"{field['cells']} / {field['bytes']:,}"
    return "parameters / bytes on disk", f"{field['parameters']:,} / {field['bytes']:,}"


def _error_rows(field: dict[str, Any]) -> list[tuple[str, str]]:
    if "error" not in field:
        return []
    return [("surface error as asked for", f"{field['error']:.2e} of the unit box")]


def _accuracy_rows(report: dict[str, Any]) -> list[tuple[str, str]]:
    accuracy = report["accuracy"]
    if accuracy is None:
        return [("accuracy", f"not measured: {report['accuracy_failed']}")]
    count = f"{accuracy['samples']:,} samples"
    return [
        ("|f - d| near / on / whole box", _distances(accuracy) + "  x 1e-4 of the unit box"),
        (
            "normals of field / mesh",
            f"{accuracy['normal_error_field']:.2f} / {accuracy['normal_error_mesh']:.2f} degrees",
        ),
        (
            "IoU in the volume / near",
            f"{_overlap(accuracy, 'iou_volume')} / {_overlap(accuracy, 'iou_near')}  ({count})",
        ),
        (
            "Chamfer / Hausdorff",
            f"{accuracy['chamfer']:.2e} / {accuracy['hausdorff']:.2e} of the diagonal",
        ),
        (f"F-score at {accuracy['tau']:.1%} of it", f"{accuracy['f_score']:.4f}"),
        *_kink_rows(report),
    ]


def _overlap(accuracy: dict[str, Any], name: str) -> str:
    value = accuracy[name]
    return f"{value:.4f}" if value is not None else f"unknown ({accuracy[f'{name}_failed']})"


def _kink_rows(report: dict[str, Any]) -> list[tuple[str, str]]:
    """A row on the creases of the surface between cells; no row for a field without cells."""
    accuracy = report["accuracy"]
    if "kink_failed" in report:
        return [("kinks of cells", f"not measured: {report['kink_failed']}")]
    if accuracy["kink_mean"] is None:
        return []
    at, inside = (
        f"{accuracy[f'{where}_mean']:.3f} (p99 {accuracy[f'{where}_p99']:.2f})"
        for where in ("kink", "kink_control")
    )
    return [("kinks at cells / inside", f"{at} / {inside} degrees")]


def _mesh(report: dict[str, Any]) -> str:
    mesh = report["mesh"]
    if "structure_failed" in report:
        return f"{mesh['faces']:,} faces, else not measured: {report['structure_failed']}"
    closed = "" if mesh["watertight"] else "not "
    return f"{mesh['faces']:,} faces, {mesh['components']} component(s), {closed}watertight"


def _proven_rows(report: dict[str, Any]) -> list[tuple[str, str]]:
    certificate = report["mesh"]["certificate"]
    return [("proven", describe(Certificate(**certificate)))] if certificate else []


def _colour_rows(report: dict[str, Any]) -> list[tuple[str, str]]:
    if "colour_failed" in report:
        return [("colours", f"not measured: {report['colour_failed']}")]
    colour = report.get("colour")
    if not colour:
        return []
    ratio = "exact" if colour["psnr"] is None else f"{colour['psnr']:.1f} dB"
    words = f"{ratio} at points held out, {colour['parameters']:,} parameters"
    return [(f"colours of {colour['source']}", words)]


def _genera(report: dict[str, Any]) -> str:
    if "genus_failed" in report:
        return f"not measured: {report['genus_failed']}"
    return ", ".join(
        "open" if genus is None else str(genus) for genus in report["mesh"]["genus"][:8]
    )


def points_table(outcome: Outcome) -> str:
    """The main figures of a report on points, and the paths of the files."""
    report: dict[str, Any] = outcome.report
    source, field, points, accuracy = (
        report[part] for part in ("input", "field", "points", "accuracy")
    )
    bad = sum(source[name] for name in ("not_finite", "origins", "without_normal"))
    left_out = f", {source['outliers']:,} outliers and {source['duplicates']:,} copies left out"
    left_out += f", {bad:,} without value" if bad else ""
    rows = [
        (
            "points",
            f"{source['points']:,}{left_out}; normals "
            f"{'given' if source['measured'] else 'estimated'}",
        ),
        ("columns", source["columns"]),
        (
            "noise / spacing",
            f"{source['noise']:.3g} / {source['spacing']:.3g}, in the points' units",
        ),
        (
            "points to surface / back",
            f"{points['mean']:.2e} / {points['gap']:.2e} of the diagonal, mean"
            if points
            else f"not measured: {report['points_failed']}",
        ),
        ("parameters / bytes on disk", f"{field['parameters']:,} / {field['bytes']:,}"),
        *_colour_rows(report),
    ]
    if "accuracy_failed" in report:
        rows += _accuracy_rows(report)
    elif accuracy:
        count = f"{accuracy['samples']:,} samples"
        rows += [
            (
                "to the reference / back",
                f"{accuracy['accuracy']:.2e} / {accuracy['completeness']:.2e} of the diagonal, "
                "mean",
            ),
            (
                "Chamfer / Hausdorff",
                f"{accuracy['chamfer']:.2e} / {accuracy['hausdorff']:.2e} of the diagonal  "
                f"({count})",
            ),
            (f"F-score at {accuracy['tau']:.1%} of it", f"{accuracy['f_score']:.4f}"),
            (
                "normals of field / mesh",
                f"{accuracy['normal_error_field']:.2f} / {accuracy['normal_error_mesh']:.2f} "
                "degrees",
            ),
        ]
    rows += [
        ("mesh", _mesh(report)),
        *_proven_rows(report),
        ("genus", _genera(report)),
        (
            "seconds",
            ", ".join(f"{name} {value:.1f}" for name, value in report["seconds"].items() if value),
        ),
    ]
    return _aligned(rows, outcome)


def signal_table(outcome: Outcome) -> str:
    """The main figures of a report on an image or a sound, and the paths of the files."""
    report: dict[str, Any] = outcome.report
    accuracy, field, source = report["accuracy"] or {}, report["field"], report["input"]
    measures = [
        ("PSNR (peak 1)", "psnr", " dB"),
        ("SNR", "snr", " dB"),
        ("SSIM", "ssim", ""),
        ("SNR where hidden", "snr_hidden", " dB"),
    ]
    rows = [
        ("samples", " x ".join(str(n) for n in source["shape"])),
        ("parameters / bytes on disk", f"{field['parameters']:,} / {field['bytes']:,}"),
        ("bits per sample place", f"{field['bits_per_sample']:.3f}"),
        *(
            (name, f"{accuracy[key]:.4g}{unit}")
            for name, key, unit in measures
            if accuracy.get(key) is not None
        ),
    ]
    if not accuracy:
        rows.append(("accuracy", f"not measured: {report['accuracy_failed']}"))
    if error := accuracy.get("spectral_error"):
        rows.append(
            (
                "spectral convergence / log",
                f"{error['convergence']:.4f} / {error['log_magnitude']:.2f} dB",
            )
        )
    rows.append(
        (
            "seconds",
            ", ".join(f"{name} {value:.1f}" for name, value in report["seconds"].items() if value),
        )
    )
    return _aligned(rows, outcome)


def _distances(accuracy: dict[str, Any]) -> str:
    parts = ("distance_error_near", "distance_error_surface", "distance_error_volume")
    return " / ".join(f"{accuracy[part] * 1e4:.2f}" for part in parts)


def _aligned(rows: list[tuple[str, str]], outcome: Outcome) -> str:
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:<{width}}  {value}" for name, value in rows]
    return "\n".join([*lines, "wrote " + ", ".join(str(path) for path in outcome.files)])
