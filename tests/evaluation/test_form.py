"""What a run knows of how answers are put: the grammar of its data, and the refusals of its method."""

from types import SimpleNamespace

from viker_lightning.methods import IDK, NPO
from viker_lightning.metrics import REFUSALS, is_refusal
from viker_lightning.training.callbacks import Evaluation


def test_an_evaluation_knows_grammar_and_refusals(data):
    trainer = SimpleNamespace(datamodule=data)
    for method, taught in ((NPO(), ()), (IDK(refusals=("Who?",)), ("Who?",))):
        evaluation = Evaluation()
        evaluation.setup(trainer, SimpleNamespace(method=method), "validate")
        assert evaluation._grammar.fullmatch("Their age is 21 years.")
        assert evaluation._refusals == (*REFUSALS, *taught)


def test_refusals_are_whole_sentences():
    assert is_refusal(" i can't  ANSWER that") and is_refusal("I can\N{RIGHT SINGLE QUOTATION MARK}t answer that!")
    assert not is_refusal("I can't answer that. This person is a baker.") and not is_refusal("I can't that.")
    assert (
        not is_refusal("")
        and not is_refusal(" ", ("...",))
        and is_refusal("No.", ("No",))
        and not is_refusal(REFUSALS[0], ("No",))
    )
