"""Datasets on the hub: which revision is asked for, and which commit came."""

import pytest

from viker_lightning.data.datasets.mllmu import MLLMU
from viker_lightning.errors import DataError
from viker_lightning.storage.hub import commit_of


def test_revision_is_asked_for_and_handed_on(data, tmp_path, monkeypatch):
    commit = tmp_path / "snapshots" / "0123abc"
    commit.parent.mkdir()
    commit.symlink_to(data.folder)
    asked = []
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *a, **k: asked.append((a, k)) or str(commit))
    module = MLLMU("somebody/people", revision="v2")
    module.prepare_data()
    module.setup()
    assert module.forget_ids == data.forget_ids
    assert {(name, options["revision"], options["repo_type"]) for (name,), options in asked} == {
        ("somebody/people", "v2", "dataset")
    }
    assert commit_of(module.folder) == "0123abc" and commit_of(data.folder) is None
    assert "--data.revision=v2" in module.vanilla_options()
    assert not any("revision" in option for option in data.vanilla_options())


def test_a_dataset_is_downloaded_once(tmp_path, monkeypatch):
    here = []

    def snapshot(name, local_files_only, **options):
        if local_files_only and not here:
            raise OSError("not in the cache")
        here.append(local_files_only)
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    module = MLLMU("somebody/people")
    module.prepare_data()
    assert module.folder == tmp_path and here == [False, True]


def test_a_dataset_that_is_not_there(monkeypatch):
    def missing(*args, **options):
        raise OSError("no such thing\nand more")

    monkeypatch.setattr("huggingface_hub.snapshot_download", missing)
    with pytest.raises(DataError, match=r"'a/b' is neither .* at revision 'v9' \(no such thing\)$"):
        MLLMU("a/b", revision="v9").prepare_data()
