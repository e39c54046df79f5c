"""What a run leaves for its report, on shipped configs with tiny models."""

import json
import shutil

import pyarrow.parquet as pq
import pytest

from support.commands import ROOT, SHORT, run


@pytest.fixture(autouse=True)
def here(monkeypatch):
    """Configs name other configs relative to the repository."""
    monkeypatch.chdir(ROOT)


@pytest.fixture
def unlearn(base_folder, tmp_path):
    """Unlearns from a model nobody has trained, in one folder, whose files it gives."""

    def fit(config, *options):
        run("fit", f"mini/{config}", tmp_path, base_folder, *SHORT, *options)
        return tmp_path

    return fit


def test_viker_run(finished):
    folder = finished
    answers = json.loads((folder / "key_tokens.json").read_text())
    rows = pq.read_table(folder / "predictions.parquet").to_pylist()
    asked = {(row["person"], row["number"], row["reference"]) for row in rows if row["split"] == "forget"}
    assert answers and {(a["person"], a["number"], a["answer"]) for a in answers} <= asked
    for answer in answers:
        assert "".join(token["token"] for token in answer["tokens"]).strip().startswith(answer["answer"])
        assert any(token["private"] for token in answer["tokens"])
        for token in answer["tokens"]:
            assert token["entropy"] >= 0 and len(token["top"]) == 5
            probabilities = [p for _, p in token["top"]]
            assert probabilities == sorted(probabilities, reverse=True) and 0 < sum(probabilities) <= 1
    report = (folder / "report.html").read_text()
    assert report.count("data:image/jpeg;base64,") == 4  # one person of each split that has photos
    for said in ("ViKeR", "The ideal distribution would say", "Training curve: KL to ideal", "Gradient weight on key"):
        assert said in report


@pytest.mark.extended
def test_people_and_photos_are_chosen(finished, unlearn, tmp_path):
    """A second run in the same folder shows nothing of the first one, which is set aside as a whole."""
    folder = shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    assert (folder / "portraits.json").is_file()
    unlearn("npo", "--report.photos=false", "--report.people=[]")
    assert (folder / "earlier-1/portraits.json").is_file() and (folder / "earlier-1/report.html").is_file()
    assert not (folder / "portraits.json").exists() and not (folder / "key_tokens.json").exists()
    report = (folder / "report.html").read_text()
    assert "<img" not in report and "asked no ideal distribution" in report and "NPO" in report


def test_people_who_are_not_in_the_data_are_named_before_anything_is_trained(unlearn, tmp_path):
    with pytest.raises(SystemExit, match=r"report\.people: found 'nobody', expected IDs of people who are evaluated"):
        unlearn("npo", "--report.people=[nobody]")
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.extended
def test_a_page_about_people_to_keep_says_why_no_answer_is_coloured(finished, unlearn):
    rows = pq.read_table(finished / "predictions.parquet").to_pylist()
    kept = next(row["person"] for row in rows if row["split"] == "retain")
    report = (unlearn("viker", f"--report.people={json.dumps([kept])}") / "report.html").read_text()
    assert "none of these people is to be forgotten" in report and "asked no ideal distribution" not in report


@pytest.mark.extended
def test_a_report_fails_no_run(unlearn, monkeypatch, caplog):
    def broken(run):
        raise OSError("disk full")

    monkeypatch.setattr("viker_lightning.training.callbacks.report.write_report", broken)
    folder = unlearn("npo")
    assert (folder / "results.json").is_file() and not (folder / "report.html").exists()
    assert "no report (OSError: disk full)" in caplog.text
