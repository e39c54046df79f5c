"""The embedded model that comes with the package can be made again."""

import pytest

from support.commands import SHORT, here, run  # noqa: F401 - `here` is used by every test of this file
from viker_lightning.data.embedded.__main__ import main


@pytest.mark.extended
def test_a_short_version_is_trained_packaged_and_started_from(cache, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("viker_lightning.data.embedded.base_model.DATA", "mini/ci")
    run("fit", "mini/base", tmp_path / "base", None, *SHORT)
    main(["package", str(tmp_path / "base"), "--to", str(tmp_path / "packaged")])
    assert capsys.readouterr().out.endswith(f"{tmp_path / 'packaged'}\n")
    results = run("fit", "mini/vanilla", tmp_path / "run", None, *SHORT, f"--model.base={tmp_path / 'packaged'}")
    assert results["after"]["retain"]["accuracy"] >= 0
