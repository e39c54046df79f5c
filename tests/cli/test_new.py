"""Files to begin with: those of the pages under another name, with a test that passes; what is refused."""

import os
import subprocess
import sys

import pytest
import yaml

from support.documented import ROOT, blocks
from viker_lightning.__main__ import main
from viker_lightning.cli.new import KINDS, new_files


@pytest.fixture(autouse=True)
def empty(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("kind", KINDS)
def test_they_pass_as_they_are(kind, empty, capsys):
    main(["new", kind, "PushAway"])
    assert sorted(os.listdir()) == ["push_away.py", "push_away.yaml", "test_push_away.py"]
    assert "PushAway" in (empty / "push_away.py").read_text() and "push_away.yaml" in capsys.readouterr().out
    assert "push_away" in str(yaml.safe_load((empty / "push_away.yaml").read_text()))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_push_away.py"]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0 and " passed" in ended.stdout, ended.stdout


@pytest.mark.parametrize("kind", KINDS)
def test_they_are_those_of_the_page(kind):
    page, shown = KINDS[kind]
    on_page = {block.file: block.text for block in blocks(ROOT / "docs" / page) if block.file}
    same, other = new_files(kind, shown), new_files(kind, "Zebra")
    assert {file: on_page[file] for file in same} == same
    assert list(other) == ["zebra.py", "zebra.yaml", "test_zebra.py"]
    left = "".join(other.values()).replace("VipLlavaFor", "").replace("VipLlavaConfig", "")
    assert shown not in left and next(iter(same)).removesuffix(".py") not in left.replace("vip_llava-", "")


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("3d", "new: found the name '3d', expected one of Python's, such as PushAway; give another"),
        ("push-away", "new: found the name 'push-away', expected .*"),
        ("../Away", r"new: found the name '\.\./Away', expected .*"),
        ("Größe", "new: found the name 'Größe', expected .*"),
        ("Class", "new: found the name 'Class', expected .*"),
        ("x" * 5000, "new: found the name 'x+.*, expected .*"),
        ("Random", "new: found the name Random, but random is a module already; give another"),
        ("Torch", "new: found the name Torch, but torch is a module already; give another"),
        ("Retain", "new: found the name Retain, but a method has Retain for something else; give another"),
        ("Mine", "test_mine.py: found a file, expected none; give another name, or move it away"),
    ],
)
def test_what_is_refused_in_one_line(name, line, empty):
    (empty / "test_mine.py").write_text("# mine")
    with pytest.raises(SystemExit, match=rf"^error: {line}$"):
        main(["new", "method", name])
    assert os.listdir() == ["test_mine.py"] and (empty / "test_mine.py").read_text() == "# mine"


def test_a_folder_of_data_may_have_the_name(empty):
    (empty / "cats").mkdir()
    main(["new", "dataset", "Cats"])
    assert (empty / "cats.py").is_file()
