"""The program `easyteacache`: make calibrations and see them work."""

from __future__ import annotations

import click

from easyteacache._version import __version__
from easyteacache.cli.lazy import LazyCommand, LazyGroup

TABLE = {
    "compare": LazyCommand("easyteacache.cli.compare:compare", "Compare a cached result with the uncached one."),
    "bench": LazyCommand("easyteacache.cli.bench:bench", "Compare caches and samplers at equal computed work."),
    "completion": LazyCommand("easyteacache.cli.completion:main_completion", "Print the completion script of a shell."),
    "export": LazyCommand("easyteacache.cli.export:export", "Write a calibration in another engine's format."),
    "import": LazyCommand("easyteacache.cli.import_:import_", "Read another engine's file as a draft calibration."),
    "record": LazyCommand("easyteacache.cli.record:record", "Run a model in full and store a trace of every run."),
    "traces": LazyCommand("easyteacache.cli.traces:traces", "Look at trace files, check them, join them."),
    "report": LazyCommand("easyteacache.cli.report:report", "Draw a calibration and what its traces say of it."),
    "solve": LazyCommand("easyteacache.cli.solve:solve", "Solve a calibration from traces."),
    "validate": LazyCommand("easyteacache.cli.validate:validate", "Judge a calibration on runs it was not fitted to."),
    "demo": LazyCommand("easyteacache.cli.demo:demo", "Sample the reference model with and without caching."),
}


SIBLING = ("easyteacache-hub", "easyteacache.cli.hub:main")


@click.group(cls=LazyGroup, table=TABLE, sibling=SIBLING, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, package_name="easyteacache", prog_name="easyteacache")
def main() -> None:
    """Make caching calibrations for diffusion transformers, and see them work.

    Looking up, checking and sharing calibrations is the job of easyteacache-hub.

    \b
    Examples:
      easyteacache demo
      easyteacache demo --steps 30 --speedup 2 --out my-demo
    """


if __name__ == "__main__":
    main()
