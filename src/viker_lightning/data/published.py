"""How the authors of a benchmark train: what ``data.protocol: published`` changes besides evaluation."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .encoding import Template
from .records import Labels


@dataclass(frozen=True)
class Published:
    """The published training of a benchmark.

    Attributes:
        labels: which tokens count in its losses.
        baselines: whether its objectives are those of MLLMU-Bench's scripts (see
            :meth:`~viker_lightning.methods.Method.published`); else they are ours.
        spaced: whether LLaVA's text has a space before ``ASSISTANT:`` and one behind the answer.
    """

    labels: Labels
    baselines: bool = False
    spaced: bool = False

    def template(self, own: Template) -> Template:
        """The text around questions, from that of the model family, which is MLLMU-Bench's for LLaVA."""
        if not self.spaced or "\nASSISTANT:" not in own.question:
            return own
        asked = {name: getattr(own, name) for name in ("question", "text_question")}
        spaced = {name: text.replace("\nASSISTANT:", " ASSISTANT:") for name, text in asked.items()}
        return replace(own, **spaced, answer=own.answer + " ")


MLLMU_BENCH = Published(Labels.TEXT, baselines=True)
"""All text counts, no end of sequence (franciscoliu/MLLMU-Bench data_process/data_preprocess.py L355-374).

Of the text before the image all but the first token is counted, once for every question, as in the script. Image
placeholders never count: in the transformers version of the script the model leaves them out itself.
"""

CLEAR_BENCH = Published(Labels.UNENDED, spaced=True)
"""The answer counts (somvy/multimodal_unlearning mm/dataset.py L324-339, config/model_config.yaml L63).

The question for a caption stays the same for a photo, where the script draws one at each access.
"""
