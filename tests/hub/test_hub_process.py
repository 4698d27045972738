"""The hub that the tests start."""

from __future__ import annotations

import gc
import warnings
from pathlib import Path

import pytest

from .hub_process import HubProcess


def test_a_hub_that_does_not_start_leaves_no_process_and_no_open_file(tmp_path: Path) -> None:
    # Another program, which does not say where it listens.
    hub = HubProcess(tmp_path / "hub", module="json.tool", log=tmp_path / "log")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        with pytest.raises(AssertionError, match="the server said ''"):
            hub.start()
        assert hub.process is None
        gc.collect()
    assert not [one for one in caught if issubclass(one.category, ResourceWarning)]
