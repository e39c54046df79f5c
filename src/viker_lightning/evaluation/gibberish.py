"""GIB: what a text classifier says about the fluency of answers."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import torch

from viker_lightning.errors import UserError
from viker_lightning.storage.files import check_index

DETECTOR = "madhurjindal/autonlp-Gibberish-Detector-492513457"
"""The classifier open-unlearning uses; classes 0 clean, 1 mild gibberish, 2 noise, 3 word salad."""

CLEAN = "clean"


class GibberishClassifier:
    """Gives texts the probability of being clean, in [0, 1]: high is fluent.

    open-unlearning's `classifier_prob` (`utility.py`: softmax probability of class 0, the class called "clean" in the
    detector's configuration), with the class looked up by its name. Neither MLLMU-Bench nor CLEAR defines GIB, and
    whether a paper prints this probability, its complement or another detector's output has to be read from the paper.
    """

    def __init__(
        self, model: Any, tokenizer: Any, clean: str | int = CLEAN, max_length: int = 512, batch_size: int = 32
    ) -> None:
        """Take a loaded classifier; see `load`.

        Args:
            model: A transformers model for sequence classification.
            tokenizer: Its tokenizer, with a padding token.
            clean: Name (case ignored) or index of the class of fluent text.
            max_length: Tokens kept of a text; open-unlearning keeps 32 on TOFU, 512 on MUSE.
            batch_size: Texts per forward pass.

        Raises:
            UserError: If there is no such class, no token is to be kept, or the tokenizer cannot pad.
        """
        if max_length <= (taken := tokenizer.num_special_tokens_to_add()):
            raise UserError(
                f"gibberish classifier: {max_length} tokens leave no room for a text; give at least {taken + 1}"
            )
        labels = {int(i): str(name) for i, name in model.config.id2label.items()}
        found = [i for i, name in labels.items() if clean == i or str(clean).casefold() == name.casefold()]
        if len(found) != 1:
            listed = ", ".join(f"{i} {name!r}" for i, name in labels.items())
            raise UserError(
                f"gibberish classifier: found classes {listed}, none is {clean!r}; set clean to one of them"
            )
        if tokenizer.pad_token is None:
            raise UserError("gibberish classifier: found a tokenizer without padding token; set one and save it again")
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.clean = found[0]
        self.max_length = max_length
        self.batch_size = batch_size

    @classmethod
    def load(
        cls,
        source: str | Path = DETECTOR,
        clean: str | int = CLEAN,
        max_length: int = 512,
        batch_size: int = 32,
        device: str | torch.device = "cpu",
    ) -> Self:
        """Load a classifier, by hub id or from a folder with model and tokenizer: safetensors only, no remote code.

        It runs on ``device``; the other arguments are those of the class.

        Raises:
            UserError: If it cannot be loaded, weights are missing, or there is no such class.
        """
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        for index in sorted(Path(source).glob("*.safetensors.index.json")):
            check_index(index)
        with _in_one_line(source):
            tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
            model, report = AutoModelForSequenceClassification.from_pretrained(
                source, use_safetensors=True, dtype=torch.float32, output_loading_info=True, trust_remote_code=False
            )
        missing = sorted(report["missing_keys"])
        if missing:
            raise UserError(
                f"gibberish classifier {source}: found no weights for {missing[0]} ({len(missing)} tensors missing); "
                "give a model fine-tuned for classification"
            )
        return cls(model.to(device), tokenizer, clean, max_length, batch_size)

    @staticmethod
    def weights(source: str | Path) -> int:
        """Return how many weights a classifier has, which `load` keeps in fp32; none of them is read.

        Args:
            source: Hub id or folder.

        Raises:
            UserError: If its configuration cannot be read.
        """
        from transformers import AutoConfig, AutoModelForSequenceClassification

        with _in_one_line(source), torch.device("meta"):
            config = AutoConfig.from_pretrained(source, trust_remote_code=False)
            model = AutoModelForSequenceClassification.from_config(config, trust_remote_code=False)
        return sum(p.numel() for p in model.parameters())

    @torch.inference_mode()
    def __call__(self, texts: Sequence[str]) -> list[float]:
        """Return the probability of each text being clean, in [0, 1]; an empty text gets the classifier's opinion.

        Raises:
            ValueError: If `texts` is a single string.
        """
        if isinstance(texts, str):
            raise ValueError("texts must be a list: a single string would be read letter by letter")
        scores: list[float] = []
        for start in range(0, len(texts), self.batch_size):
            batch = list(texts[start : start + self.batch_size])
            options = {"truncation": True, "max_length": self.max_length, "padding": True}
            inputs = self.tokenizer(batch, return_tensors="pt", **options).to(self.model.device)
            scores += self.model(**inputs).logits.float().softmax(-1)[:, self.clean].tolist()
        return scores


@contextmanager
def _in_one_line(source: str | Path) -> Iterator[None]:
    """Say in one line what transformers found wrong with a classifier."""
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"gibberish classifier {source}: cannot be loaded ({reason}); give a hub id or a folder with "
            "config.json, tokenizer files and model.safetensors"
        ) from error
