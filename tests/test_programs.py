import sys
from pathlib import Path

import pytest
from programs import needs


def test_a_missing_program_skips_for_strangers_and_fails_where_it_was_promised(monkeypatch):
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="not installed; as root"):
        needs("no-such-program")
    monkeypatch.setenv("CI", "1")
    with pytest.raises(pytest.fail.Exception, match="should have done"):
        needs("no-such-program")
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    assert needs("python").endswith("python")
