"""A finished run for every test of reports."""

import json

import pytest

from support.browser import chromium  # noqa: F401 - a fixture
from support.run_folders import key_tokens, photo, write_run
from viker_lightning.storage.files import write_json


@pytest.fixture
def run(tmp_path):
    """A finished ViKeR run with gold model, portraits and key tokens."""
    gold = write_run(tmp_path / "gold", 0, 4, stage="gold", before=False)
    folder = write_run(tmp_path / "run & <b>co", 1, 4, gold=gold)
    write_json(folder / "key_tokens.json", key_tokens())
    people = {"forget": {"000": photo(), "001": photo()}, "retain": {"050": photo()}}
    write_json(folder / "portraits.json", people)
    results = json.loads((folder / "results.json").read_text())
    results["key_tokens"] = {"images": 5, "tokens": 6, "private_tokens": 2, "auroc": 1.0, "auroc_first": 0.875}
    results["key_tokens"] |= {"entropy_private": 2.0, "entropy_template": 0.005}
    write_json(folder / "results.json", results)
    return folder
