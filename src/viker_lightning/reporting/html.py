"""``report.html``: one file that holds everything it shows, and asks no network for anything."""

import functools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import yaml
from markupsafe import Markup, escape

from viker_lightning.errors import UserError
from viker_lightning.metrics import FORGOTTEN, KNOWLEDGE, SPLITS, Number
from viker_lightning.metrics.prediction import TEXT
from viker_lightning.metrics.statistics.intervals import DRAWS, FEWEST, Estimate, Sums, coverage, difference
from viker_lightning.storage.files import replacing_shared
from viker_lightning.storage.runs import names
from viker_lightning.storage.runs.read import Run, read_run
from viker_lightning.terminal.shown import in_markdown

from .answers import answers_of, token_views
from .attacked import attacked
from .contenders import Contender, Place, contenders, disagreements, marks_note, ranks, reference_of
from .history import curves, weights
from .plots import svg, trade_off_figure
from .run_scores import numbers_of
from .sequence import sequence
from .unmeasured import unmeasured
from .verdict import verdict


def write_report(run: Path, people: Sequence[str] | None = None, photos: bool = True) -> Path:
    """Writes ``report.html`` into a run folder, from its files alone, and returns where it is.

    Args:
        run: the folder of a finished run.
        people: IDs of the people whose answers are shown; by default those the run has chosen.
        photos: whether their pictures are shown, if the run kept any.

    Raises:
        UserError: if the run is not finished, or one of its files is not what it must be.
    """
    found = read_run(run)
    return write_page(run / names.REPORT, "run.html", _run_page(found, people, photos))


def write_comparison(runs: Sequence[Path], file: Path, reference: str = "") -> Path:
    """Writes a page that compares runs: forget against retain, and every headline number with its interval.

    Args:
        runs: folders of finished runs; those that differ in their seed alone count as one method.
        file: the page.
        reference: the method the others are compared with; by default ViKeR if it is among them, else the first.

    Raises:
        UserError: as :func:`write_report`, or if there is no such method.
    """
    return write_page(file, "comparison.html", _comparison_page([read_run(run) for run in runs], reference))


def write_attacks_page(folder: Path, title: str) -> Path:
    """Writes ``attacks/index.html``: every condition of every attack on a model.

    Args:
        folder: that has ``attacks/``.
        title: what was attacked.

    Raises:
        UserError: if nothing was attacked.
    """
    attacks = attacked(folder)
    if attacks is None:
        raise UserError(f"{folder}: no {names.ATTACKED}, so nothing was attacked; attack it first")
    return write_page(folder / names.ATTACKS / "index.html", "attacks.html", {"title": title, "attacks": attacks})


def token_page(answers: Sequence[dict[str, Any]]) -> str:
    """A page of its own with answers token by token: coloured by entropy, the ideal distribution behind each token.

    Args:
        answers: some of :func:`~viker_lightning.reporting.answers.token_views`.
    """
    return rendered("tokens.html", {"answers": answers})


@functools.cache
def environment_of(package: str) -> jinja2.Environment:
    """What all pages of a package have in common; it keeps their templates, which take long to compile."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(package),
        autoescape=jinja2.select_autoescape(),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"draws": DRAWS, "fewest": FEWEST, "unplaced": Place()}
    environment.filters |= {"number": number, "marked": marked, "literal": lambda value: Markup(repr(value))}
    return environment


def rendered(template: str, page: dict[str, Any]) -> str:
    """A page, or a text, from a file of ``templates/`` and what it shows."""
    environment = environment_of("viker_lightning.reporting")
    if template.endswith(".md"):
        environment = environment.overlay(finalize=in_markdown)
    return environment.get_template(template).render(page | {"splits": SPLITS})


def write_page(file: Path, template: str, page: dict[str, Any]) -> Path:
    """Writes a self-contained page, whole or not at all."""
    text = rendered(template, page)
    with replacing_shared(file) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return file


def number(value: float | None) -> str:
    """A number for reading: three decimals, fewer where it is large."""
    if value is None:
        return "\N{EN DASH}"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}" if abs(value) < 1000 else f"{value:.3g}"


def marked(text: str) -> Markup:
    """Text of a :class:`~viker_lightning.reporting.section.Section` on a page: code and bold print are marked."""
    code = re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text)))
    return Markup(re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", code))


def _run_page(run: Run, people: Sequence[str] | None, photos: bool) -> dict[str, Any]:
    models, numbers = contenders([run]), numbers_of([run])
    own = next(model for model in models if run in model.runs)
    cards = _headlines(models, own, numbers)
    chosen = people if people is not None else run.option("report.people")
    _check_people(run, people)
    return {
        "title": f"{own.name} · {run.folder.resolve().name}",
        "run": run,
        "models": models,
        "own": own,
        "headlines": cards,
        "verdict": verdict(cards) if own.kind == "method" and _first([own], "test", "forget") else "",
        "tables": _tables(models, own, numbers),
        "answers": answers_of(run, chosen, photos),
        "tokens": token_views(run),
        "key_tokens": run.results.get("key_tokens"),
        "knowledge": run.results.get("knowledge"),
        "trade_off": trade_off(models),
        "sequence": sequence(run),
        "attacks": attacked(run.folder),
        "curves": curves(run),
        "weights": weights([run]),
        "others": _others(run, own, numbers),
        "config": yaml.safe_dump(run.config, sort_keys=False, allow_unicode=True) if run.config else "",
    }


def _comparison_page(runs: Sequence[Run], reference: str) -> dict[str, Any]:
    models = contenders(runs)
    reference = reference_of(models, reference)
    numbers = numbers_of(runs)
    columns = [place for place in _compared(numbers) if any(model.sums(*place) for model in models)]
    places = {(split, score): ranks(models, split, score, reference) for split, score in columns}
    rows = [
        (model, [(model.estimate(*column), places[column].get(model.name, Place())) for column in columns])
        for model in models
    ]
    return {
        "title": f"{sum(model.kind == 'method' for model in models)} methods compared",
        "models": models,
        "columns": [
            (split, numbers[score].title, numbers[score].arrow(split), numbers[score].sentence)
            for split, score in columns
        ],
        "rows": rows,
        "unmeasured": unmeasured(
            models,
            [(split, score, f"{split}: {numbers[score].title}") for split, score in columns],
            {(model.name, *at) for model in models for at in columns if model.sums(*at)},
        ),
        "marks": marks_note(models, reference),
        "coverage": coverage(_people(rows, columns)),
        "trade_off": trade_off(models),
        "disagreements": disagreements(runs),
        "runs": runs,
    }


def _compared(numbers: Mapping[str, Number]) -> list[tuple[str, str]]:
    """Split and score of the columns: first what is good by split, then of answers about forgotten people the rest."""
    shown = [one for one in numbers.values() if "comparison" in one.shown]
    found = [(s, one.name) for s in list(SPLITS)[:-1] for one in shown if one.good == "by split"]
    return found + [("test", one.name) for one in shown if one.good != "by split"]


def _people(rows: Sequence[tuple[Contender, Sequence[Any]]], columns: Sequence[tuple[str, str]]) -> dict[str, int]:
    """By split, the most people that any number is about."""
    found: dict[str, int] = {}
    for _, cells in rows:
        for (split, _), (estimate, _) in zip(columns, cells, strict=True):
            found[split] = max(found.get(split, 0), estimate.people if estimate else 0)
    return found


def _check_people(run: Run, people: Sequence[str] | None) -> None:
    known = {p.person for p in run.predictions.get("after", [])}
    if unknown := [person for person in people or () if person not in known]:
        some = ", ".join(sorted(known)[:5])
        raise UserError(f"{run.folder}: nobody was asked about person {unknown[0]!r}; there are {some}, ...")


def _first(models: Sequence[Contender], *splits: str) -> tuple[str, str] | None:
    """The first of the splits, and the score that tells what a model knows there."""
    for split in splits:
        for score in KNOWLEDGE:
            if all(model.sums(split, score) for model in models):
                return split, score
    return None


def _headlines(models: Sequence[Contender], own: Contender, numbers: Mapping[str, Number]) -> list[dict[str, Any]]:
    """What a reader wants to know first, a card each."""
    form = "well_formed" if own.sums("test", "well_formed") else "coherence"
    places = [_first([own], *some) for some in (FORGOTTEN[::-1], ["retain"], ["kept"], ["real", "general"])]
    found = []
    for split, score in filter(None, [*places, ("test", form), ("test", "kl_gold")]):
        if (own_estimate := own.estimate(split, score)) is None:
            continue
        name = f"{'forget' if split in FORGOTTEN else split} set"
        others = [(m.name, m.kind, e) for m in models if m is not own and (e := m.estimate(split, score))]
        ends = [e.high if e.has_interval else e.value for e in (own_estimate, *(e for _, _, e in others))]
        found.append(
            {
                "name": name if score in KNOWLEDGE else numbers[score].title,
                "about": "known" if score in KNOWLEDGE else "form" if score == form else "gold",
                "split": split,
                "score": numbers[score],
                "own": own_estimate,
                "others": others,
                "of": {"run": own_estimate.value} | {kind: e.value for _, kind, e in others},
                "top": max(1.0, *ends),  # all scores but the divergence end at 1
            }
        )
    return found


def _tables(models: Sequence[Contender], own: Contender, numbers: Mapping[str, Number]) -> list[dict[str, Any]]:
    """For each split, every score that has an interval: each model, and the paired change from vanilla.

    What has no value, be it a cell or a row that is not there, is named with its reason.
    """
    vanilla = next((m for m in models if m.kind == "vanilla" and m is not own), None)
    tables = []
    shown = [one for one in numbers.values() if "report" in one.shown]
    for split in (*SPLITS, *(split + TEXT for split in SPLITS)):
        rows = [_score_row(models, vanilla, sums, split, one) for one in shown if (sums := own.sums(split, one.name))]
        if rows:
            people = max(e.people for _, _, values, _ in rows for e in values if e)
            reasons = unmeasured(
                models,
                [(split, one.name, one.title) for one in shown],
                {(m.name, split, one.name) for m in models for one in shown if m.sums(split, one.name)},
            )
            found = {"split": split, "rows": rows, "people": people, "change": vanilla is not None}
            tables.append(found | {"unmeasured": reasons})
    return tables


def _score_row(
    models: Sequence[Contender], vanilla: Contender | None, own: Sums, split: str, score: Number
) -> tuple[Number, str, list[Estimate | None], Estimate | None]:
    """A score with its sign, every model's estimate, and the paired change from vanilla."""
    base = vanilla.sums(split, score.name) if vanilla else None
    estimates = [model.estimate(split, score.name) for model in models]
    return score, score.arrow(split), estimates, difference(own, base) if base else None


def trade_off(models: Sequence[Contender], where: str = "") -> dict[str, Any] | None:
    """What is forgotten against what is kept, as plot and as points; ``None`` for one model or without scores."""
    forget, keep = _first(models, "test", "forget"), _first(models, "retain", "real")
    if forget is None or keep is None or len(models) < 2:
        return None
    points = []
    for model in models:
        x, y = model.estimate(*forget), model.estimate(*keep)
        assert isinstance(x, Estimate) and isinstance(y, Estimate)  # _first has looked
        points.append((model, x, y))
    labels = [f"{split}: {numbers_of()[score].title}" for split, score in (forget, keep)]
    title = f"What is forgotten against what is kept{where and f', {where}'}"
    plot = svg(trade_off_figure({"": points}, [f"{labels[0]}  (near ★)", f"{labels[1]}  better →"]), title)
    return {"plot": plot, "points": points, "labels": labels, "gold": any(m.kind == "gold" for m in models)}


def _others(run: Run, own: Contender, numbers: Mapping[str, Number]) -> list[tuple[str, str, float | None, float, str]]:
    """Numbers of ``results.json`` that are in no table here: split, score, before, after, what it is."""
    in_tables = {one.name for one in numbers.values() if "report" in one.shown}
    counts = {one.name for one in numbers.values() if one.good == "none"}
    after = run.results.get("after", {})
    before = run.results.get("before", {})
    return [
        (split, name, before.get(split, {}).get(name), value, numbers[name].sentence if name in numbers else "")
        for split, values in after.items()
        for name, value in values.items()
        if (name not in in_tables or own.sums(split, name) is None) and name not in counts
    ]
