"""One sentence for an error that no command expects: what happened, and where the traceback is."""

from __future__ import annotations

import re

from easyteacache.cli import text
from easyteacache.cli.extras import EXTRAS

DEBUG = "--debug"
LONGEST = 300
_NO_MEMORY = re.compile(r"out of memory|can't allocate memory|not enough memory|unable to allocate", re.IGNORECASE)
_AMOUNT = re.compile(r"tried to allocate ([\d.]+ ?\w+)|unable to allocate ([\d.]+ ?\w+)", re.IGNORECASE)


def sentence(error: Exception) -> str:
    """What happened and what to do, ready for a terminal."""
    missing = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if missing:
        package, extra = EXTRAS.get(missing, (missing, None))
        advice = f'pip install "easyteacache[{extra}]"' if extra else f"pip install {package}"
        return text.plain(f"this needs {package}, which is not installed: {advice}")
    if _out_of_memory(error):
        amount = _AMOUNT.search(str(error))
        found = f", {next(filter(None, amount.groups()))} more were asked for" if amount else ""
        return text.plain(
            f"there is not enough memory for this{found}. Smaller or fewer samples, another --dtype or --offload need less, "
            f"where the command has them; {DEBUG} shows the traceback."
        )
    first = next(iter(str(error).split("\n\n")[0].splitlines()), "").strip()
    kind = type(error).__name__
    said = f"{kind}: {text.shorten(first, LONGEST)}" if first else kind
    return text.plain(f"this was not expected, {said.rstrip('.')}. {DEBUG} shows the traceback.")


def _out_of_memory(error: Exception) -> bool:
    # torch.OutOfMemoryError has had two places; on a CPU it is a RuntimeError.
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & {"MemoryError", "OutOfMemoryError"}) or (
        isinstance(error, RuntimeError) and _NO_MEMORY.search(str(error)) is not None
    )
