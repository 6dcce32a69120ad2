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
