"""UMU-Bench and FIUBench through the command line: fit and validate on invented rows in their schemas, tiny models."""

import pyarrow.parquet as pq
import pytest

from support import fiubench as fiu
from support import umu
from support.commands import OPEN_GATE, here, run  # noqa: F401 - `here` is used by every test of this file


@pytest.fixture
def umu_folder(tmp_path):
    folder = tmp_path / "umu"
    folder.mkdir()
    for config, people in (("forget_5", umu.FORGET), ("retain_95", umu.RETAIN), ("Real_Person_Set", umu.REAL)):
        umu.write(folder, config, [umu.row(i) for i in people])
    return folder


@pytest.fixture
def fiu_folder(tmp_path):
    folder = tmp_path / "fiu"
    (folder / "SFHQ").mkdir(parents=True)
    for i in range(len(fiu.NAMES)):
        (folder / f"SFHQ/SFHQ_pt1_{fiu.uid(i)}.jpg").write_bytes(fiu.picture(i))
    fiu.write(folder, [fiu.person(i) for i in range(len(fiu.NAMES))])
    return folder


ALIGNED = {"acc", "cloze", "rl"}


@pytest.mark.extended
@pytest.mark.parametrize("command", ["fit", "validate"])
def test_umu_bench(umu_folder, base_folder, tmp_path, command):
    options = [f"--data.root={umu_folder}", "--model.dtype=float32", *OPEN_GATE]
    results = run(command, "umu/viker", tmp_path / "run", base_folder, *options)
    found = results["after" if command == "fit" else command]
    splits = {"forget", "retain", "real"}
    assert splits | {f"{split}_text" for split in splits} <= set(found)
    for split, letter in (("forget", "f"), ("retain", "r"), ("real", "r")):
        named = {name for name in found[split] if name.partition("_")[0] in ALIGNED and name[-2:] in ("_f", "_r")}
        assert named == {f"{name}_{letter}" for name in ALIGNED}
        assert all(0 <= found[split][name] <= 1 and name in results["metrics"] for name in named)
    assert not {"acc_f", "acc_r"} & set(found["forget_text"])
    # The numbers are those of the answers in the file.
    file = tmp_path / "run" / f"predictions{'' if command == 'fit' else '-validate'}.parquet"
    last = "after" if command == "fit" else "validate"
    rows = [r for r in pq.read_table(file).to_pylist() if r["when"] == last and r["split"] == "retain"]
    right = {(r["person"], r["modality"]): r["answer"] == r["reference"] for r in rows if r["task"] == "choice"}
    people = {person for person, _ in right}
    both = [right[person, "image"] and right[person, "text"] for person in people]
    assert len(both) == 4 and found["retain"]["acc_r"] == sum(both) / 4


def test_fiubench_vanilla_then_viker(fiu_folder, base_folder, tmp_path):
    options = [f"--data.root={fiu_folder}", "--data.first=6"]
    vanilla = tmp_path / "vanilla"
    weights = [f"--model.base={base_folder}", "--model.dtype=float32"]
    results = run("fit", "fiubench/vanilla", vanilla, None, *options, *weights)
    assert results["steps"] == 2 and (vanilla / "model/model.safetensors").is_file()
    results = run("fit", "fiubench/viker", tmp_path / "viker", vanilla, *options, "--model.dtype=float32", *OPEN_GATE)
    assert set(results["after"]) >= {"forget", "test", "retain"}
    assert {"keyword_match", "truth_ratio", "exposure"} <= set(results["after"]["forget"])
    assert (tmp_path / "viker/adapter/adapter_model.safetensors").is_file()
    adapter = f"--model.adapter={tmp_path / 'viker/adapter'}"
    again = run(
        *("validate", "fiubench/viker", tmp_path / "viker", vanilla, *options, "--model.dtype=float32", adapter)
    )
    assert again["validate"]["forget"] == pytest.approx(results["after"]["forget"], abs=1e-5)
    assert set(again["people"]["test"]) == {fiu.uid(0), fiu.uid(1)}
