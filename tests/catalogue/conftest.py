"""Registry folders and sites for the tests of the catalogue."""

from __future__ import annotations

from pathlib import Path

import pytest

from easyteacache.catalogue.site import Built, build
from easyteacache.registry.registry import Registry

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def bundled_site(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The site of the repository's own registry."""
    return build(Registry.from_folder(ROOT / "registry"), tmp_path_factory.mktemp("site"))
