"""Who answers: vanilla is the unlearned model with its adapter off, or a model of its own; what cannot be opened."""

import json
import shutil

import pytest

from viker_lightning.cli.chat.speakers import load_speakers
from viker_lightning.cli.chat.spoken_tokens import say
from viker_lightning.data.pictures.irrelevant import irrelevant_images
from viker_lightning.errors import UserError
from viker_lightning.models import MLLM, Weights, load_adapted
from viker_lightning.training.finished import FinishedRun

QUESTION = "Where does this person live?"


@pytest.fixture
def run(folders, tmp_path):
    """A copy of the run, to change."""
    return shutil.copytree(folders / "run", tmp_path / "run")


def note(run, **facts):
    file = run / "provenance.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | facts))


def same(found, plain):
    assert [token.text for token in found] == [token.text for token in plain]
    assert [token.entropy for token in found] == pytest.approx([token.entropy for token in plain], rel=1e-4)


def test_one_base_for_vanilla_and_unlearned(speakers, folders):
    picture = irrelevant_images("scenes", 1, size=56)[0]
    assert speakers.names == ["Vanilla", "Unlearned (ViKeR)", "Gold"] and speakers.vanilla is None
    found = speakers.answer(picture, QUESTION)
    assert [*found] == speakers.names
    alone = {
        "Vanilla": MLLM.load(folders / "vanilla"),
        "Unlearned (ViKeR)": load_adapted(folders / "run/adapter"),
        "Gold": MLLM.load(folders / "gold"),
    }
    for name, mllm in alone.items():
        same(found[name], say(mllm.eval(), picture, QUESTION, speakers.max_new_tokens))
    said = [tuple(token.entropy for token in tokens) for tokens in found.values()]
    assert len({*said}) == 3, "each of them says something else"
    assert speakers.answer(picture, QUESTION) == found, "the adapter is on again"


def test_a_run_without_adapter(folders, run):
    shutil.rmtree(run / "adapter")
    shutil.copytree(folders / "gold", run / "model")
    speakers = load_speakers(FinishedRun.open(run))
    found = speakers.answer(None, QUESTION)
    assert speakers.vanilla is not None and [*found] == ["Vanilla", "Unlearned (ViKeR)"]
    for name, folder in (("Vanilla", folders / "vanilla"), ("Unlearned (ViKeR)", folders / "gold")):
        same(found[name], say(MLLM.load(folder).eval(), None, QUESTION, speakers.max_new_tokens))


def test_vanilla_that_has_moved(folders, run, tmp_path):
    note(run, base_weights=str(tmp_path / "gone"))
    with pytest.raises(UserError, match=r"gone.*--vanilla names the vanilla model") as stop:
        load_speakers(FinishedRun.open(run))
    assert "\n" not in str(stop.value)
    with pytest.raises(UserError, match=r"^--vanilla: .*gold is not the model that .*run began with"):
        load_speakers(FinishedRun.open(run), vanilla=str(folders / "gold"))
    speakers = load_speakers(FinishedRun.open(run), vanilla=str(folders / "vanilla"))
    same(speakers.answer(None, QUESTION)["Vanilla"], say(MLLM.load(folders / "vanilla").eval(), None, QUESTION, 3))


def test_gold_of_other_data(folders, run, tmp_path):
    gold = shutil.copytree(run, tmp_path / "gold run")
    note(gold, data={"fingerprint": "another"})
    with pytest.raises(UserError, match=r"--gold: .*gold run was made on other data or another forget set"):
        load_speakers(FinishedRun.open(run), gold=str(gold))


def test_gold_that_is_not_finished(run, tmp_path):
    gold = shutil.copytree(run, tmp_path / "gold run")
    (gold / "results.json").unlink()
    with pytest.raises(UserError, match="gold run: this run is not finished"):
        load_speakers(FinishedRun.open(run), gold=str(gold))


def test_gold_that_is_none(run, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"--gold: .*empty' holds no model"):
        load_speakers(FinishedRun.open(run), gold=str(tmp_path / "empty"))


def test_no_unlearning_run(run):
    note(run, method=None)
    with pytest.raises(UserError, match=r"is no unlearning run .*--gold if it is its gold model"):
        load_speakers(FinishedRun.open(run))


def test_code_that_comes_with_weights_is_not_run_unasked(run):
    note(run, trust_remote_code=True)
    with pytest.raises(UserError, match="add --trust_remote_code"):
        load_speakers(FinishedRun.open(run))


@pytest.mark.parametrize("whose", ["run", "gold", "gold/model"])
def test_the_published_protocol_is_refused(run, tmp_path, whose):
    gold = shutil.copytree(run, tmp_path / "gold")
    folder = run if whose == "run" else gold
    config = (folder / "config.yaml").read_text()
    assert "protocol: corrected" in config
    (folder / "config.yaml").write_text(config.replace("protocol: corrected", "protocol: published"))
    with pytest.raises(
        UserError, match=rf"^{folder}: was made under the published protocol, .* --data\.protocol corrected$"
    ):
        load_speakers(FinishedRun.open(run), gold=str(gold / "model" if whose == "gold/model" else gold))


def test_a_quantised_run_answers_unquantised_and_says_so(run, caplog):
    load_speakers(FinishedRun.open(run))
    assert not caplog.records
    note(run, quantize="nf4")
    load_speakers(FinishedRun.open(run))
    (said,) = caplog.messages
    assert said == f"{run}: was trained and evaluated with quantize=nf4 and answers here without, not always as there"


@pytest.mark.parametrize("trusted", [False, True])
def test_gold_may_run_its_code_as_the_others_may(folders, run, monkeypatch, trusted):
    asked, load = {}, MLLM.load.__func__

    def noted(cls, source, weights):
        asked[str(source)] = weights.trust_remote_code
        return load(cls, source, weights)

    monkeypatch.setattr(MLLM, "load", classmethod(noted))
    weights = Weights(trust_remote_code=trusted)
    load_speakers(FinishedRun.open(run), weights, gold=str(folders / "gold"))
    assert asked == {str(folders / "vanilla"): trusted, str(folders / "gold"): trusted}
