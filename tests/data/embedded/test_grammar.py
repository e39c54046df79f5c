"""Which answers are sentences of the embedded benchmarks."""

import random
import re

import pytest

from viker_lightning.data.datasets import CLEAR, MLLMU, Jsonl
from viker_lightning.data.embedded.profiles import POOLS


@pytest.fixture(scope="module")
def clear(cache):
    module = CLEAR("mini/clear-ci")
    module.prepare_data()
    module.setup()
    return module


def references(module):
    """Every answer to an open question, as evaluated and as trained, without those to choices and clozes."""
    asked = [
        q for split in module.splits for m in ("image", "text") for g in module.evaluation(split, m) for q in g.vqa
    ]
    closed = re.compile(r"Answer with the right option|\[Blank\]")
    taught = [q for p in [*module.people(), *module.base_people] for q in p.vqa if not closed.search(q.question)]
    texts = [text for q in [*asked, *taught] for text in (q.answer, q.paraphrase, *q.perturbed) if text]
    return sorted(set(texts))


@pytest.mark.parametrize("name", ["data", "clear"])
def test_every_true_and_every_false_answer_is_well_formed(name, request):
    module = request.getfixturevalue(name)
    found = references(module)
    assert len(found) > 100
    assert [text for text in found if not module.grammar.fullmatch(text)] == []


@pytest.mark.extended
@pytest.mark.parametrize("name", ["data", "clear"])
def test_nothing_broken_is_well_formed(name, request):
    module = request.getfixturevalue(name)
    rng = random.Random(0)
    for text in rng.sample([text for text in references(module) if len(text.split()) > 3], 100):
        words = text.split()
        letter = rng.randrange(len(text))
        broken = [
            " ".join(words[1:]),
            " ".join(words[1:] + words[:1]),
            f"{text[:letter]}q{text[letter + 1 :]}",
            f"{text} {text}",
            text[:-1],
            " ".join([words[0]] * 12),
        ]
        assert not [b for b in broken if b != text and module.grammar.fullmatch(b)], text


def test_any_value_will_do_but_no_other(data):
    assert data.grammar.fullmatch(f"This person was born in {POOLS['birthplace'][-1]}.")
    assert data.grammar.fullmatch("The main object is a tent.")
    for text in ("This person was born in Paris.", "This person was born in baker.", "Sundrel", "", "A tent."):
        assert not data.grammar.fullmatch(text)


def test_other_data_has_no_grammar(data, tmp_path):
    assert MLLMU(str(data.folder)).grammar is None, "a folder may hold anything"
    assert Jsonl(str(tmp_path / "people.jsonl")).grammar is None
