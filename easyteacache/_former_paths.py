"""Import paths that documentation showed before the modules moved into folders: they lead to where the modules are now."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import MappingProxyType, ModuleType

FORMER = MappingProxyType(
    {
        "easyteacache.hub.schema": "easyteacache.hub.review.check_record",
        "easyteacache.integrations.recording": "easyteacache.integrations.diffusers.recording",
        "easyteacache.recorder": "easyteacache.recording.recorder",
        "easyteacache.sketch": "easyteacache.recording.sketch",
        "easyteacache.solver.validate": "easyteacache.solver.validation.validate",
        "easyteacache.trace": "easyteacache.records.trace_set",
    }
)


class FormerPaths(MetaPathFinder, Loader):
    """Finds a module under the name it had; what is imported is the module itself, not a copy of it."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """A spec for a former name; None for every other."""
        return ModuleSpec(fullname, self) if fullname in FORMER else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """An empty stand-in, which ``exec_module`` replaces by the real module."""
        return ModuleType(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Put the module in the place of its former name."""
        sys.modules[module.__name__] = importlib.import_module(FORMER[module.__name__])


def install() -> None:
    """Let former names be found; once is enough."""
    if not any(isinstance(finder, FormerPaths) for finder in sys.meta_path):
        # Before the finder of files: a folder left behind by an older release would be taken for a package.
        sys.meta_path.insert(0, FormerPaths())
