"""How the authors of a benchmark train: what ``data.protocol: published`` changes besides evaluation."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from viker_lightning.prompts import CAPTION_QUESTIONS

from .encoding import Template
from .records import ImageGroup, Labels


@dataclass(frozen=True)
class Published:
    """The published training of a benchmark.

    Attributes:
        labels: which tokens count in its losses.
        baselines: whether its objectives are those of MLLMU-Bench's scripts (see
            :meth:`~viker_lightning.methods.Method.published`); else they are ours.
        spaced: whether LLaVA's text has a space before ``ASSISTANT:`` and one behind the answer.
        drawn: questions of which one is drawn whenever any of them is to be asked in training.
        placeholders: whether the placeholders of an image are labels, too, where all text is.
    """

    labels: Labels
    baselines: bool = False
    spaced: bool = False
    drawn: tuple[str, ...] = ()
    placeholders: bool = False

    def template(self, own: Template) -> Template:
        """The text around questions, from that of the model family, which is MLLMU-Bench's for LLaVA."""
        if not self.spaced or "\nASSISTANT:" not in own.question:
            return own
        asked = {name: getattr(own, name) for name in ("question", "text_question")}
        spaced = {name: text.replace("\nASSISTANT:", " ASSISTANT:") for name, text in asked.items()}
        return replace(own, **spaced, answer=own.answer + " ")

    def trained(self, group: ImageGroup, labels: Labels, seed: str) -> ImageGroup:
        """An image group as a training step asks it: questions drawn, and with labels."""
        draw = random.Random(f"{seed}/{group.person}")
        asked = (draw.choice(self.drawn) if vqa.question in self.drawn else vqa.question for vqa in group.vqa)
        pairs = zip(group.vqa, asked, strict=True)
        return replace(group, vqa=tuple(replace(vqa, question=question, labels=labels) for vqa, question in pairs))


MLLMU_BENCH = Published(Labels.TEXT, baselines=True)
"""All text counts, no end of sequence (franciscoliu/MLLMU-Bench data_process/data_preprocess.py L355-374).

Of the text before the image all but the first token is counted, once for every question, as in the script. Whether
image placeholders count depends on the processor that transformers 4.45.1 finds: one saved without ``patch_size`` has
the model put the image in, which leaves them out; one saved with it writes a placeholder for every position, and all of
them are labels. ``data.image_labels`` says which; docs/benchmarks.md has what it changes.
"""

CLEAR_BENCH = Published(Labels.UNENDED, spaced=True, drawn=CAPTION_QUESTIONS)
"""The answer counts, and the question for a caption is another one each time (somvy/multimodal_unlearning
mm/dataset.py L118, L324-339, config/model_config.yaml L63). Here it is drawn by seed and step."""
