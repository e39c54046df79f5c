"""Reading everything a datamodule holds, for tests of bad data."""

import pytest

from viker_lightning.data.records import Split
from viker_lightning.errors import DataError


def module(kind, root, **options):
    data = kind(str(root), **options)
    data.prepare_data()
    data.setup()
    for split in Split:
        for modality in ("image", "text"):
            data.evaluation(split, modality)
    return data


def one_line(kind, root, **options):
    with pytest.raises(DataError) as error:
        module(kind, root, **options)
    assert "\n" not in str(error.value)
    return str(error.value)
