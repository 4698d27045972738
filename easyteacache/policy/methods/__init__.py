"""Published methods as mathematics: which steps each computes, and the rows of weights that its recurrence comes to.

Every function here is pure: step counts, noise levels and published numbers in, computed steps or rows out. A row holds the weights of
the latest computed steps up to and including its own step, oldest first; no tensor, no file and no model is involved.

A method whose decisions follow from its own numbers in a record also registers how they lead to computed steps in one run
(``planned.register_rule``); every module of this package is imported, so that none has to be listed.
"""

from __future__ import annotations

import importlib
import pkgutil

from easyteacache.policy.planned import of_steps, rule_for

__all__ = ["of_steps", "rule_for"]

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
