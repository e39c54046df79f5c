"""What is known of the people of each request by themselves."""

from support.run_folders import predictions
from viker_lightning.evaluation import by_request, summarise


def test_each_request_has_its_own_people():
    """Odd people tell one more of four questions (tests/support/run_folders.py)."""
    told = [("before", p) for p in predictions(4, 4)] + [("after", p) for p in predictions(2, 4)]
    found = by_request(told, [["000", "002"], ["001"]])
    assert [one["people"] for one in found] == [["000", "002"], ["001"]]
    for one, share in zip(found, (0.5, 0.75), strict=True):
        assert one.keys() == {"people", "before", "after"}
        assert one["before"].keys() == one["after"].keys() == {"forget", "test"}, "of people to be forgotten alone"
        assert one["before"]["test"]["keyword_match"] == 1
        assert one["after"]["forget"]["keyword_match"] == one["after"]["test"]["keyword_match"] == share
    alone = summarise([p for when, p in told if when == "after" and p.person == "001"])
    assert found[1]["after"]["test"] == alone["test"]


def test_nobody_was_asked():
    assert by_request([("after", p) for p in predictions(2, 4)], [["nobody"]]) == [{"people": ["nobody"], "after": {}}]
