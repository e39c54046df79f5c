"""GIB with a tiny random classifier saved to a folder: class order, sign, padding, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import DistilBertConfig, DistilBertForSequenceClassification, DistilBertModel, PreTrainedTokenizerFast

from viker_lightning.errors import UserError
from viker_lightning.evaluation.gibberish import GibberishClassifier

TEXTS = ["Ada Voss lives in Lima", "Lima Lima Lima Lima Lima Lima", "", "paints"]
LABELS = ["noise", "word salad", "Clean"]


def config(labels: list[str]) -> DistilBertConfig:
    names = dict(enumerate(labels))
    return DistilBertConfig(
        vocab_size=16, dim=16, hidden_dim=16, n_layers=1, n_heads=2, max_position_embeddings=32, id2label=names
    )


def save_tokenizer(folder: Path, pad: str | None = "[PAD]") -> None:
    words = ["[PAD]", "[UNK]", *{word: None for text in TEXTS for word in text.split()}]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(["[CLS]"])
    from tokenizers.processors import TemplateProcessing

    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A", special_tokens=[("[CLS]", len(words))])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=pad, unk_token="[UNK]", model_input_names=["input_ids", "attention_mask"]
    ).save_pretrained(folder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    model = DistilBertForSequenceClassification(config(LABELS))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    model.save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    return tmp_path


def test_probability_of_the_class_called_clean(folder: Path) -> None:
    classifier = GibberishClassifier.load(folder)
    assert classifier.clean == 2
    scores = classifier(TEXTS)
    for text, score in zip(TEXTS, scores, strict=True):
        with torch.no_grad():
            logits = classifier.model(**classifier.tokenizer(text, return_tensors="pt")).logits
        assert score == pytest.approx(logits.softmax(-1)[0, 2].item(), abs=1e-6)
    assert max(scores) - min(scores) > 0.01
    assert GibberishClassifier.load(str(folder), clean=0)(TEXTS) != scores
    assert GibberishClassifier.load(folder, clean="NOISE").clean == 0
    assert GibberishClassifier.load(folder, batch_size=1)(TEXTS) == pytest.approx(scores, abs=1e-6)
    assert GibberishClassifier.load(folder, max_length=2)(["Ada Voss", "Ada"])[0] == pytest.approx(
        GibberishClassifier.load(folder)(["Ada"])[0], abs=1e-6
    )
    with pytest.raises(ValueError, match="letter by letter"):
        classifier("Ada")
    assert classifier([]) == []


def test_code_beside_the_weights_is_not_run(folder: Path) -> None:
    settings = json.loads((folder / "config.json").read_text())
    settings["auto_map"] = {"AutoModelForSequenceClassification": "own.Model", "AutoConfig": "own.Config"}
    (folder / "config.json").write_text(json.dumps(settings))
    (folder / "own.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\n")
    assert len(GibberishClassifier.load(folder)(TEXTS)) == 4 and not (folder / "ran").exists()


def test_an_index_that_names_a_pickle_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    index = {"metadata": {}, "weight_map": {"classifier.weight": "pytorch_model.bin"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=r"model\.safetensors\.index\.json.*pytorch_model\.bin"):
        GibberishClassifier.load(folder)


def test_refusals_are_one_line(folder: Path, tmp_path: Path) -> None:
    cases = {}
    cases["found classes 0 'noise', 1 'word salad', 2 'Clean', none is 'fine'"] = lambda: GibberishClassifier.load(
        folder, clean="fine"
    )
    cases["cannot be loaded"] = lambda: GibberishClassifier.load(tmp_path / "nowhere")

    unnamed = tmp_path / "unnamed"
    DistilBertForSequenceClassification(config(["LABEL_0", "LABEL_1"])).save_pretrained(unnamed)
    save_tokenizer(unnamed)
    cases["set clean to"] = lambda: GibberishClassifier.load(unnamed)

    headless = tmp_path / "headless"
    DistilBertModel(config(LABELS)).save_pretrained(headless)
    save_tokenizer(headless)
    cases["found no weights for"] = lambda: GibberishClassifier.load(headless)

    padless = tmp_path / "padless"
    DistilBertForSequenceClassification(config(LABELS)).save_pretrained(padless)
    save_tokenizer(padless, pad=None)
    cases["without padding token"] = lambda: GibberishClassifier.load(padless)

    for message, call in cases.items():
        with pytest.raises(UserError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_pickled_weights_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save(DistilBertForSequenceClassification(config(LABELS)).state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="safetensors"):
        GibberishClassifier.load(folder)
