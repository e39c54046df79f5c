"""What a stage knows of its step and reports of its run."""

from viker_lightning.training.state import RunReport


def test_a_report_comes_back_from_a_checkpoint():
    """As a dictionary of what is set, in the order of results.json, which is also what older checkpoints hold."""
    saved = {"knowledge": {"known": 1.0}, "key_tokens": {"auroc": 0.9}, "stopped": {"step": 4, "why": "nan"}}
    report = RunReport.from_checkpoint(saved)
    assert report.to_dict() == saved and list(report.to_dict()) == list(saved)
    assert RunReport.from_checkpoint({}).to_dict() == {} and report.selection is None
