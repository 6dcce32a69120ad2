import configparser
from pathlib import Path

import programs


def test_a_missing_program_skips_for_strangers_and_not_where_it_was_promised(monkeypatch):
    monkeypatch.setitem(programs.FOUND, "xvfb", None)
    monkeypatch.delenv("CI", raising=False)
    mark = programs.needs("xvfb").mark
    assert mark.args == (True,)
    assert "xvfb not found; as root" in mark.kwargs["reason"]
    monkeypatch.setenv("CI", "1")
    assert programs.needs("xvfb").mark.args == (False,)
    monkeypatch.setitem(programs.FOUND, "xvfb", "/usr/bin/Xvfb")
    monkeypatch.delenv("CI")
    assert programs.needs("xvfb").mark.args == (False,)


def test_a_part_that_was_left_out_skips_everywhere_and_a_missing_one_for_strangers_only(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(programs, "PARTS", {"audio": "json", "export": "no_such_package"})
    monkeypatch.setattr(programs, "left_out_parts", lambda: {})
    monkeypatch.setenv("CI", "1")
    assert programs.needs_parts("audio", "export").mark.args == (False,)
    monkeypatch.delenv("CI")
    assert programs.needs_parts("audio").mark.args == (False,)
    mark = programs.needs_parts("audio", "export").mark
    assert mark.args == (True,)
    assert mark.kwargs["reason"] == "left out: [export] not installed"
    monkeypatch.setattr(programs, "left_out_parts", lambda: {"audio": "no wheel"})
    monkeypatch.setenv("CI", "1")
    mark = programs.needs_parts("audio", "export").mark
    assert mark.args == (True,)
    assert mark.kwargs["reason"] == "left out: [audio] no wheel"


def test_the_parts_are_those_of_setup_cfg_and_the_list_of_those_left_out_is_read(tmp_path):
    parser = configparser.ConfigParser()
    parser.read(Path(__file__).parents[1] / "setup.cfg")
    extras = set(parser["options.extras_require"])
    assert set(programs.PARTS) == extras - {"dev", "gs", "meshopt"}
    assert programs.left_out_parts(tmp_path) == {}
    (tmp_path / "left-out.json").write_text('{"open3d": "no wheel"}')
    assert programs.left_out_parts(tmp_path) == {"open3d": "no wheel"}
