"""Evaluation of a run: before and after, on every split, to the loggers and into the run folder."""

import logging
import re
import shutil
from functools import cached_property
from typing import Any, Literal, cast

import torch
from lightning.pytorch import Callback, Trainer
from typing_extensions import override

from viker_lightning.data.datasets import Benchmark, Questions
from viker_lightning.errors import UserError, check_least
from viker_lightning.evaluation import (
    Protocol,
    SummaryMetric,
    by_person,
    by_request,
    distances,
    in_order,
    note_form,
    person_sums,
    predict,
    score_texts,
)
from viker_lightning.evaluation.gibberish import GibberishClassifier
from viker_lightning.evaluation.summary import numbers
from viker_lightning.metrics import NUMBERS, REFUSALS, Prediction, load_scores, sacrebleu_signature
from viker_lightning.models import MLLM, PromptPrefixes, identify_weights
from viker_lightning.reporting import before_after_table, knowledge_table, write_cards
from viker_lightning.storage.files import check_folder, write_json
from viker_lightning.storage.runs import names
from viker_lightning.storage.runs.write import gold_answers, read_predictions, write_predictions
from viker_lightning.terminal.progress import Bar
from viker_lightning.terminal.shown import Plain
from viker_lightning.training import Unlearn, check_vanilla, published, vanilla_model
from viker_lightning.training.base import Stage

from .selection import Selection, candidate_folder, put_back
from .trainer_parts import back_on_device, data_of, run_folder
from .wandb_dashboard import define

log = logging.getLogger(__name__)

Numbers = dict[str, dict[str, float]]
"""Numbers by split."""


class Evaluation(Callback):
    """Evaluates every split before and after training, and during validate and test; the same code each time.

    The values go to all loggers as ``<split>/<metric>``; the run folder gets ``results.json`` and
    ``predictions.parquet``, written last, so that a folder with ``results.json`` is a finished run.

    Args:
        before: whether the model is evaluated before training.
        every_n_epochs: also evaluate after every n-th epoch; ``None`` is never.
        gold: folder of the model retrained without the forget set, to report KL(gold || model).
        gold_predictions: ``predictions.parquet`` of the gold model on the same data and with the same protocol, to
            report forget quality and membership; by default that of ``gold``, if this is a run folder.
        gibberish: hub id or folder of a gibberish classifier, to report GIB; none by default.
        gibberish_tokens: how many tokens of an answer it reads at most; open-unlearning has 32 on TOFU, 512 on MUSE.
        coherence: whether a language model judges, without images, how coherent answers are, refusals aside.
        judge: which one, a model folder or hub id of any tokenizer, or the YAML of a fine-tuning run, which is made
            first where it is missing, as ``model.vanilla`` is; by default the model before unlearning, which a
            stage without adapter no longer has. A gold model compares with others if their vanilla model judges it.
        selection: the weights of which evaluation the run ends with; see :class:`Selection`.
        stop: ends the run at the first evaluation after an epoch where ``selection.by`` on the forget set is at most
            this number, or gold's (``gold``), and on the retain set at least ``selection.min_retain``; ``None`` takes
            all steps.
        max_new_tokens: where a generated answer ends at the latest, the gate's answers among them; the authors of CLEAR
            (``data.protocol: published``) have 300 of their own.
        scores: scores of your own beside those of the project, e.g. ``mine.UnigramF1`` for a
            :class:`~viker_lightning.metrics.Score` of that name in ``mine.py``; one, or a list.
    """

    def __init__(  # noqa: PLR0913 - options of a run
        self,
        before: bool = True,
        every_n_epochs: int | None = None,
        gold: str | None = None,
        gold_predictions: str | None = None,
        gibberish: str | None = None,
        gibberish_tokens: int = 512,
        coherence: bool = True,
        judge: str | None = None,
        selection: Selection = Selection(),  # noqa: B008 - jsonargparse reads the default
        stop: float | Literal["gold"] | None = None,
        max_new_tokens: int = 50,
        scores: list[str] | str | None = None,
    ) -> None:
        check_least("evaluation", 1, every_n_epochs=every_n_epochs, gibberish_tokens=gibberish_tokens)
        check_least("evaluation", 1, max_new_tokens=max_new_tokens)
        check_vanilla("evaluation.judge", judge)
        for name, folder in (("gold", gold), ("gibberish", gibberish)):
            check_folder(f"evaluation.{name}", folder)
        self.before, self.every_n_epochs, self.gold = before, every_n_epochs, gold
        self.max_new_tokens = max_new_tokens
        self.gold_predictions, self.gibberish, self.gibberish_tokens = gold_predictions, gibberish, gibberish_tokens
        self.coherence, self.judge, self.selection, self.stop = coherence, judge, selection, stop
        self.scores = load_scores(scores)
        self.numbers = {one.name: one for one in (*NUMBERS, *self.scores)}
        self.summaries: dict[str, Numbers] = {}
        self._predictions: list[tuple[str, Prediction]] = []
        self._summary: SummaryMetric
        self._enough: float | None = None  # of the forget set, where the run may stop
        self._prefixes: PromptPrefixes | None = None  # examples read in this evaluation
        self._gold: MLLM | None = None
        self._judge: MLLM | None = None
        self._gold_answers: list[Prediction] = []
        self._read: dict[tuple[str, str], float] = {}  # what the model before unlearning thinks of texts
        self._classifier: GibberishClassifier | None = None
        self._protocol: Protocol
        self._grammar: re.Pattern[str] | None = None
        self._refusals = REFUSALS

    @override
    def setup(self, trainer: Trainer, pl_module: Stage, stage: str) -> None:
        self._prefixes = None  # of a run that broke off
        data = data_of(trainer)
        self._protocol, self._grammar = published.protocol_of(data), data.grammar
        method = getattr(pl_module, "method", None)
        taught = method.other_answers if method else ()
        self._refusals = (*REFUSALS, *(taught if isinstance(taught, tuple) else ()))
        self._gold_answers = gold_answers(self.gold, self.gold_predictions)
        if other := {p.protocol for p in self._gold_answers} - {self._protocol.name}:
            raise UserError(
                f"evaluation.gold_predictions: made with data.protocol={other.pop()}, but this run has "
                f"{self._protocol.name}; validate the gold model with the same protocol"
            )
        if stage != "fit" or trainer.strategy.root_device.type != "cpu":  # a GPU may have no room for both, later
            self._make_judge(data)
        if self.gibberish and self._classifier is None:
            device, most = trainer.strategy.root_device, self.gibberish_tokens
            self._classifier = GibberishClassifier.load(self.gibberish, max_length=most, device=device)
        self._summary = SummaryMetric(
            in_order,
            gold=self._gold_answers,
            gibberish=self._classifier,
            protocol=self._protocol,
            paired=data.paired,
            scores=self.scores,
        )
        if stage == "fit" and trainer.is_global_zero:  # a resumed run is not finished any more
            (run_folder(trainer) / names.RESULTS).unlink(missing_ok=True)
            for made_of_it in (names.MERGED, names.LANGUAGE_MODEL):
                shutil.rmtree(run_folder(trainer) / made_of_it, ignore_errors=True)
        if stage == "fit":
            self._check_in_between(bool(self.every_n_epochs) and isinstance(pl_module, Unlearn))

    def _check_in_between(self, evaluates: bool) -> None:
        """Makes sure there are evaluations to choose from or to stop at, and gold's number, if that is the bound."""
        if not evaluates and self.selection.rule != "last":
            raise UserError(
                f"evaluation.selection: {self.selection.rule} chooses among the evaluations of an unlearning run; set "
                "evaluation.every_n_epochs, or the rule to last"
            )
        if not evaluates and self.stop is not None:
            raise UserError(
                f"evaluation.stop: found {self.stop}, but this is no unlearning run that is evaluated in between; set "
                "evaluation.every_n_epochs, or stop to null"
            )
        if self.stop != "gold":
            self._enough = self.stop
            return
        of_gold = [p for p in self._gold_answers if p.split == "forget"]
        self._enough = numbers(of_gold, None, self._protocol).get(self.selection.by) if of_gold else None
        if self._enough is None:
            raise UserError(
                f"evaluation.stop: found gold, but no gold model's {self.selection.by} on the forget set is known; set "
                "evaluation.gold to a run that was evaluated, or give a number"
            )

    def _make_judge(self, data: Benchmark) -> None:
        """Makes the judge that a YAML asks for, or waits for whoever does; what has no true answers needs none."""
        if self.judge and self.coherence and not isinstance(data, Questions):
            self.judge = str(vanilla_model(self.judge, data, "evaluation.judge"))

    @override
    def on_train_start(self, trainer: Trainer, pl_module: Stage) -> None:
        """Evaluates before the first step; a resumed run takes up what it had measured, and misses nothing."""
        self._take_up(trainer)
        if self.before and "before" not in self.summaries:
            self.evaluate(trainer, pl_module, "before")
        if 0 < trainer.global_step == trainer.current_epoch * trainer.num_training_batches:  # stopped between epochs
            self._in_between(trainer, pl_module, trainer.current_epoch)

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: Stage) -> None:
        self._in_between(trainer, pl_module, trainer.current_epoch + 1)

    @override
    def on_fit_end(self, trainer: Trainer, pl_module: Stage) -> None:
        """Saves the trained weights, evaluates them and writes the results, in a run that had stopped here, too."""
        back_on_device(trainer, pl_module)
        self._take_up(trainer)
        pl_module.save_weights(run_folder(trainer))
        self.evaluate(trainer, pl_module, "after")
        if self.selection.rule != "last":
            pl_module.report.selection = self._select(trainer)
        if isinstance(pl_module, Unlearn):
            pl_module.merge(run_folder(trainer))
        before, after = self.summaries.get("before", {}), self.summaries["after"]
        way = distances(before, after)
        if way:
            self._log(trainer, "distance_to_gold/", way)
        report = pl_module.report.to_dict() | ({"distance_to_gold": way} if way else {})
        self._write(trainer, "fit", {**self.summaries, **report})
        if trainer.is_global_zero:
            Plain().print(before_after_table(before, after, self.numbers.values()))

    def _select(self, trainer: Trainer) -> dict[str, Any]:
        """Ends with the chosen weights: what was measured of it becomes ``after``, and the last one's ``last``."""
        candidates = {m: s for m, s in self.summaries.items() if m == "after" or m.startswith("epoch ")}
        chosen, met = self.selection.choose(candidates)
        run = run_folder(trainer)
        if chosen != "after":
            self.summaries["last"], self.summaries["after"] = self.summaries["after"], self.summaries[chosen]
            renamed = [("last" if when == "after" else when, p) for when, p in self._predictions]
            self._predictions = renamed + [("after", p) for when, p in renamed if when == chosen]
            if trainer.is_global_zero:
                put_back(run, chosen)
        values = {m: {s: c[s][self.selection.by] for s in ("forget", "retain")} for m, c in candidates.items()}
        log.info("selection: %s%s", chosen, "" if met else f"; no retain value reaches {self.selection.min_retain}")
        return vars(self.selection) | {"chosen": chosen, "met": met, "candidates": values}

    def _take_up(self, trainer: Trainer) -> None:
        """Reads the answers that belong to what was measured before the run stopped."""
        file = run_folder(trainer) / names.PREDICTIONS
        if file.is_file() and trainer.is_global_zero and not self._predictions:
            self._predictions = [(when, p) for when, p in read_predictions(file) if when in self.summaries]
            self._write(trainer)

    def _in_between(self, trainer: Trainer, pl_module: Stage, epoch: int) -> None:
        """Evaluates after an epoch, if asked and not done yet."""
        when = f"epoch {epoch}"
        last = trainer.should_stop or epoch == trainer.max_epochs or trainer.global_step == trainer.max_steps
        if self.every_n_epochs and epoch % self.every_n_epochs == 0 and not last and when not in self.summaries:
            if self.selection.rule != "last":
                pl_module.save_weights(candidate_folder(run_folder(trainer), when))
            self.evaluate(trainer, pl_module, when)
            trainer.should_stop = trainer.should_stop or self._far_enough(when)

    def _far_enough(self, when: str) -> bool:
        """Whether so much is forgotten, and so much kept, that no further step is needed."""
        if (most := self._enough) is None:
            return False
        _, kept = self.selection.choose({when: self.summaries[when]})
        value = self.summaries[when]["forget"][by := self.selection.by]
        if reached := kept and value <= most:
            log.info("stops after %s: %s on forget is %.3f, at most %.3f was asked for", when, by, value, most)
        return reached

    def evaluate(self, trainer: Trainer, pl_module: Stage, when: str) -> None:
        """Answers all evaluation questions and logs the numbers.

        The judge is made only now where there is room: another run may have made it in the meantime.
        """
        self._make_judge(data_of(trainer))
        batches = data_of(trainer).evaluation_dataloader()
        shown = trainer.is_global_zero and trainer.progress_bar_callback is not None
        bar = Bar(f"evaluation {when}", len(batches), "questions", shown=shown)
        with pl_module.mllm.together(), bar:
            for batch in batches:
                answers = self._answers(pl_module, batch)
                self._summary.update(answers)
                bar.advance(1, len(answers) * trainer.world_size)
        self._finish(trainer, when)
        self._write(trainer)

    @override
    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: Stage, outputs: Any, batch: Any, *args: Any, **kwargs: Any
    ) -> None:
        with pl_module.mllm.together():
            self._summary.update(self._answers(pl_module, batch))

    on_test_batch_end = on_validation_batch_end  # type: ignore[assignment]

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: Stage) -> None:
        """Logs and writes the numbers of a validate run, and prints what is known of whom."""
        summary = self._finish(trainer, "validate")
        people = by_person([p for when, p in self._predictions if when == "validate"], self.scores)
        if trainer.is_global_zero:
            Plain().print(knowledge_table(summary, people, numbers=self.numbers.values()))
        self._write(trainer, "validate", {"validate": summary, "people": people, **pl_module.report.to_dict()})

    @override
    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: Stage, outputs: Any, batch: Any, *args: Any, **kwargs: Any
    ) -> None:
        """Answers a batch of evaluation groups; questions without known answers are left to ``Answers``."""
        if not isinstance(data_of(trainer), Questions):
            self.on_validation_batch_end(trainer, pl_module, outputs, batch)

    @override
    def on_test_end(self, trainer: Trainer, pl_module: Stage) -> None:
        self._write(trainer, "test", {"test": self._finish(trainer, "test")})

    @override
    def on_predict_end(self, trainer: Trainer, pl_module: Stage) -> None:
        if not isinstance(data_of(trainer), Questions):
            self._write(trainer, "predict", {"predict": self._finish(trainer, "predict")})

    def _answers(self, pl_module: Stage, batch: Any) -> list[Prediction]:
        """Answers a batch of evaluation groups."""
        if self._prefixes is None:
            self._prefixes = PromptPrefixes(pl_module.mllm)
        gold, most = self._gold_model(pl_module), self.max_new_tokens
        found = predict(pl_module.mllm, batch.content, gold, self._protocol, self._prefixes, most)
        note_form(found, self._grammar, self._refusals)
        if self.coherence and (judge := self._judge_model(pl_module)) is not None:
            score_texts(judge, found, self._read)
        return found

    def _write(self, trainer: Trainer, command: str = "fit", results: dict[str, Any] | None = None) -> None:
        """Writes predictions, then results, if there are any yet."""
        if trainer.is_global_zero:
            (run := run_folder(trainer)).mkdir(parents=True, exist_ok=True)
            write_predictions(run / names.of_command(names.PREDICTIONS, command), self._predictions)
            if results is not None:
                run_facts = {
                    "steps": trainer.global_step,
                    "epochs": int(trainer.global_step // trainer.num_training_batches) if trainer.global_step else 0,
                    "seed": torch.initial_seed(),
                    "world_size": trainer.world_size,
                    "protocol": self._protocol.name,
                    "sacrebleu": sacrebleu_signature(),
                    "other_weights": self.other_weights,
                    "data": {"skipped": data_of(trainer).skipped, "warnings": data_of(trainer).warnings},
                }
                stage = cast(Stage, trainer.lightning_module)
                if command != "fit":  # of a fit, provenance.json has it
                    run_facts["weights"] = identify_weights(stage.base_weights) | {"commit": stage.mllm.commit}
                if len(requests := data_of(trainer).requests) > 1:
                    run_facts["requests"] = by_request(self._predictions, requests, self._classifier, self._protocol)
                described: dict[str, Any] = {"metrics": {name: one.described() for name, one in self.numbers.items()}}
                if self.scores:
                    described["sums"] = person_sums(self._predictions, self.scores)
                results = {**results, **run_facts, **described}
                if command == "fit":
                    write_cards(run, results)
                write_json(run / names.of_command(names.RESULTS, command), results)

    @cached_property
    def other_weights(self) -> dict[str, dict[str, str | None]]:
        """Which weights the numbers are also of, by option."""
        return {
            f"evaluation.{n}": identify_weights(s) for n in ("gold", "judge", "gibberish") if (s := getattr(self, n))
        }

    @override
    def state_dict(self) -> dict[str, Any]:
        """What was measured so far, so that a resumed run does not measure it on a changed model."""
        return {"summaries": self.summaries}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.summaries = state_dict["summaries"]

    def _gold_model(self, pl_module: Stage) -> MLLM | None:
        if self.gold and self._gold is None:
            self._gold = pl_module.mllm.beside(self.gold, pl_module.weights.dtype, "evaluation.gold")
        return self._gold

    def _judge_model(self, pl_module: Stage) -> MLLM | None:
        """Who reads answers, if anybody: a model trained in full has overwritten the one before training."""
        mllm: MLLM = pl_module.mllm
        if self.judge is None:
            return mllm if mllm.adapted or not any(p.requires_grad for p in mllm.parameters()) else None
        if self._judge is None:
            self._judge = mllm.judge(self.judge, pl_module.weights.dtype)
        return self._judge

    def _finish(self, trainer: Trainer, when: str) -> Numbers:
        self._prefixes = None  # the weights may change now
        self._summary.update([])  # a process may have had no question
        summary: Numbers = self._summary.compute()
        answers = self._summary.answers
        self._summary.reset()
        self.summaries[when] = summary
        self._predictions = [other for other in self._predictions if other[0] != when] + [(when, p) for p in answers]
        self._log(trainer, "", summary)
        return summary

    def _log(self, trainer: Trainer, prefix: str, summary: Numbers) -> None:
        flat = {f"{prefix}{split}/{name}": v for split, values in summary.items() for name, v in values.items()}
        for logger in trainer.loggers:
            define(logger, flat, self.numbers)
            logger.log_metrics(flat, step=trainer.global_step)
            logger.save()
