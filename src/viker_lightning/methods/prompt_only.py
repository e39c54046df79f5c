"""Nothing is forgotten: an instruction says what the model is not to speak of."""

from typing_extensions import override

from viker_lightning.errors import UserError

from .base import Method, Preparation

NAMES = "{names}"


class PromptOnly(Method):
    """Prompt alone (VLM-UnBench, arXiv 2604.03114): an instruction stands before every question, nothing is trained.

    ``w = w_0``

    A baseline. Whoever has the weights can drop the instruction, and has the vanilla model; the attack ``adapter``
    does. Whoever reads an instruction with names knows who was to be forgotten.

    The instruction is the system's turn of the chat template; where that has none, it stands in front of the user's
    words. It lies beside the weights (``instruction.json``), and everything here reads it; other programs do not. A run
    that goes on from this one keeps it. ``trainer.max_steps`` and ``model.lr`` have no effect, and LoRA adds nothing:
    the run folder is smaller with it.

    Followed: zhangyun04/ULBench experiments/intext_unlearning.py L164-217 (32516e4): the condition UNLEARN_SOFT, which
    names what is forgotten in every prompt, those about what is kept included.

    Differs: there it stands behind a multiple-choice question and asks for another option; here questions are open,
    too, so it asks to decline, and stands before them. The two oracle conditions tell the answer of each question, and
    are left out.

    Args:
        instruction: what it says; ``{names}`` stands for the names of the forget set, with commas. Where a part of what
            is known of people is forgotten (``data.attributes``), say which.
    """

    needs = ()
    takes_steps = False

    def __init__(
        self,
        instruction: str = (
            "Do not identify, and do not answer questions about, any of these people: {names}. If a question is about "
            "one of them, say that you do not know."
        ),
    ) -> None:
        if not instruction.strip():
            raise UserError("PromptOnly.instruction: found nothing, expected what the model is told; write a sentence")
        self.instruction = instruction.strip()

    @override
    def before_training(self, run: Preparation) -> None:
        text = self.instruction
        if NAMES in text:
            names = run.forget_names()
            if not names:
                raise UserError(
                    f"PromptOnly.instruction: has {NAMES}, but the data say no name of anybody to be forgotten; write "
                    "one without"
                )
            text = text.replace(NAMES, ", ".join(names))
        run.mllm.instruct(f"{run.mllm.instruction} {text}".strip())
