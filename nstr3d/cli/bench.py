"""The command ``nstr3d bench``, which races fields, ``nstr3d bench speed``, which measures speed,
and ``nstr3d bench device``, which shows the paths of computation."""

from __future__ import annotations

from collections.abc import Sequence


def bench(words: Sequence[str], prog: str = "nstr3d bench") -> None:
    """Runs the benchmark that ``words`` ask for, as the program ``prog``. Raises ValueError or
    OSError with one sentence for the user, and SystemExit for unknown words."""
    from nstr3d.bench.options import parse, parse_device, parse_speed

    if words[:1] == ["speed"]:
        options = parse_speed(words[1:], f"{prog} speed")
        from nstr3d.bench import speedreport

        speedreport.run(options)
        return
    if words[:1] == ["device"]:
        options = parse_device(words[1:], f"{prog} device")
        from nstr3d.bench import devicereport

        devicereport.run(options)
        return
    options = parse(words, prog)
    from nstr3d.bench import races

    races.run(options)
