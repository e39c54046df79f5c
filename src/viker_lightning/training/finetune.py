"""Stage 1: teach a model the people: all of them for the vanilla model, all but the forget set for gold."""

from pathlib import Path
from typing import Literal

from lightning.pytorch.cli import OptimizerCallable
from typing_extensions import override

from viker_lightning.data.datasets.base import Benchmark
from viker_lightning.data.embedded.embedded_models import EMBEDDED_MODELS
from viker_lightning.errors import UserError
from viker_lightning.methods.idk import REFUSALS
from viker_lightning.models import MLLM, Lora, Quantize, Weights
from viker_lightning.models.families import Family
from viker_lightning.storage.files import check_folder
from viker_lightning.storage.runs import names

from .base import Stage
from .engine import Engine
from .step import Groups, Terms, Totals, answers_of


def base_weights(base: str, data: Benchmark) -> str:
    """Folder or hub id of the weights that fine-tuning begins with; embedded ones are built first."""
    model = EMBEDDED_MODELS.get(base)
    if model is None:
        return base
    if model.needs_people:
        data.people()  # an error where there is nobody
    return str(model.build(lambda: [*data.texts(), *REFUSALS]))


class Finetune(Stage):
    """Supervised fine-tuning on answer tokens; ``data.stage`` says on whom.

    Args:
        base: ``mini`` for the embedded model, which comes with the package; ``untrained`` for what that began as;
            ``wider`` for the packaged one at four times its width (16 M parameters) and ``smol`` for SmolLM2-135M with
            EfficientNet-Lite0 (extra ``smol``), both built on first use; a folder, or a hub id.
        lora: adapter setting; ``None`` trains language model and projector fully. The vision tower is never trained.
        train_projector: with LoRA, whether the projector is trained beside it, in full and at the same rate, as for a
            model whose projector is new; ``adapter/`` then holds it too.
        lr: learning rate.
        weight_decay: weight decay.
        warmup_steps: linear warm-up.
        schedule: learning rate after the warm-up.
        dtype: of the weights.
        quantize: how the language model is kept below the adapter: ``nf4`` (4 bits, as QLoRA has it), ``int8`` or
            ``fp4``; needs bitsandbytes (extra ``quant``) and LoRA.
        revision: branch, tag or commit of a hub id.
        trust_remote_code: whether code that comes with hub weights may run.
        family: the model's family, by class path, where this package has none for it; docs/model.md shows one.
        engine: budgets, and what is kept where.
        optimizer: what steps, as ``class_path`` and ``init_args`` of any torch optimizer without ``lr`` and
            ``weight_decay``, which are those above; ``None`` is AdamW.
    """

    stages = ("vanilla", "gold")

    def __init__(  # noqa: PLR0913 - options of a run
        self,
        base: str = "mini",
        lora: Lora | None = None,
        train_projector: bool = False,
        lr: float = 1.5e-3,
        weight_decay: float = 0.0,
        warmup_steps: int = 60,
        schedule: Literal["constant", "linear", "cosine"] = "cosine",
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
        quantize: Quantize | None = None,
        revision: str | None = None,
        trust_remote_code: bool = False,
        family: Family | None = None,
        engine: Engine = Engine(),  # noqa: B008 - jsonargparse reads the default
        optimizer: OptimizerCallable | None = None,
    ) -> None:
        super().__init__(lr, weight_decay, warmup_steps, schedule, engine, optimizer)
        check_folder("model.base", base)
        self.base, self.lora, self.train_projector = base, lora, train_projector
        self.weights = Weights(dtype, quantize, revision, trust_remote_code, family)
        if quantize is not None and lora is None:
            raise UserError(f"quantize={quantize}: quantised weights cannot be trained themselves; set lora")

    @override
    def load_mllm(self) -> MLLM:
        self.base_weights = source = base_weights(self.base, self.data)
        mllm = MLLM.load(source, self.weights)
        self.choose_trained(mllm)
        return mllm

    @override
    def choose_trained(self, mllm: MLLM) -> None:
        if self.lora is None:
            mllm.train_fully()
        else:
            mllm.adapt(self.lora, projector=self.train_projector)

    @override
    def save_weights(self, run: Path) -> None:
        """Writes ``model/``, with any adapter merged in, so that a vanilla or gold model always loads by itself.

        An adapter is merged in float32, and so written, whatever type the run had: a smaller one may round it away.
        An adapter of a quantised model is merged into the weights as they were before, as is usual with QLoRA: the
        model written says nearly, not exactly, what the trained one said.
        """
        super().save_weights(run)
        if self.mllm.adapted:
            self.write_merged(run, names.MODEL)

    @override
    def loss_terms(self, groups: Groups, totals: Totals) -> Terms:
        """Mean cross-entropy of the answer tokens, nats."""
        batch = self.mllm.pack(groups["train"]) if groups["train"] else None
        tokens = answers_of(self.mllm, batch, totals["train"])
        return {"loss": tokens.mean(-tokens.log_probs)}
