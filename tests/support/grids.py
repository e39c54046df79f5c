"""Grids whose runs were made by hand, in a moment."""

import json

import yaml

from support.run_folders import key_tokens as answers_by_token
from support.run_folders import photo, write_run
from viker_lightning.grids.tables import Table, write_table
from viker_lightning.storage.files import write_json

ROWS = {
    "Vanilla": {"before": "ViKeR"},
    "Gold": {"config": "configs/mini/gold.yaml", "seeds": 1},
    "NPO": {"config": "configs/mini/npo.yaml"},
    "ViKeR": {"config": "configs/mini/viker.yaml"},
}


def small_grid(folder, rows=ROWS, **more):
    """Two methods at two forget ratios, with published numbers and tried settings."""
    setting, numbers = {"model.lr": 0.001}, {"score": 0.25, "forgetting": 0.125, "retention": 0.125}
    tried = [{"number": 0, "setting": setting, "error": "no"}, {"number": 1, "setting": setting} | numbers]
    write_json(folder / "tuning.json", {"methods": {"npo": {"trials": tried}}})
    scale = {"note": "Made <b>by hand</b>.", "gold": "Gold", "rows": rows, "tuning": str(folder / "tuning.json")}
    scale["blocks"] = {"5 %": {"data.forget": 5}, "10 %": {"data.forget": 10}}
    columns = {"forget": {"keyword_match": "Keywords", "accuracy": "MC"}, "test": {"coherence": "Coherence"}}
    found = {"title": "Small", "columns": columns | {"retain": {"keyword_match": "Keywords"}}, "published": "mllmu"}
    file = folder / "small.yaml"
    file.write_text(yaml.safe_dump(found | {"scales": {"mini": scale}} | more, sort_keys=False))
    return file


def tabulate(grid, out, results):
    """The table of a grid, written down."""
    table = Table(grid, out)
    write_table(table, results)
    return table


def finish(cell, told=0, kept=4, key_tokens=True, **more):
    """A cell's run, finished; ``told`` and ``kept`` are out of four questions; people as ``write_run`` has them."""
    stage = "gold" if cell.row.startswith("Gold") else "unlearn"
    write_run(cell.folder, told, kept, cell.row, stage=stage, seed=cell.seed, before=stage == "unlearn", **more)
    if stage == "gold" or not key_tokens:  # neither has a regulariser
        lines = (cell.folder / "metrics.csv").read_text().replace("gradient_weight", "something")
        (cell.folder / "metrics.csv").write_text(lines)
    else:
        results = json.loads((cell.folder / "results.json").read_text())
        numbers = {"images": 5, "auroc": 0.9 + cell.seed / 20, "auroc_first": 0.8}
        results["key_tokens"] = numbers | {"entropy_private": 2.0, "entropy_template": 0.01}
        write_json(cell.folder / "results.json", results)
        write_json(cell.folder / "key_tokens.json", answers_by_token())
    if cell.row == "ViKeR":
        record = json.loads((cell.folder / "provenance.json").read_text())
        drawn = {"kind": "scenes", "k": 5, "seed": cell.seed, "images": []}
        write_json(cell.folder / "provenance.json", record | {"threads": 2, "irrelevant_images": drawn})
    write_json(cell.folder / "portraits.json", {"forget": {"001": photo()}, "retain": {"050": photo()}})
    noted = {"exit_code": 0, "seconds": 100 + 20 * cell.seed, "peak_memory_bytes": 2**30}
    write_json(cell.folder / "cell.json", {"fingerprint": cell.fingerprint()} | noted)
