"""The program `easyteacache`: look calibrations up, make them, and see them work."""

from __future__ import annotations

import click

from easyteacache._version import __version__
from easyteacache.cli import hub
from easyteacache.cli.lazy import LazyCommand, LazyGroup

TABLE = {
    "add": LazyCommand("easyteacache.cli.add:add", "File a calibration in the local layer."),
    "calibrate": LazyCommand(
        "easyteacache.cli.calibrate:calibrate", "Make the calibration of a model, in one command."
    ),
    "compare": LazyCommand("easyteacache.cli.compare:compare", "Compare a cached result with the uncached one."),
    "bench": LazyCommand("easyteacache.cli.bench:bench", "Compare caches and samplers at equal computed work."),
    "comfyui": LazyCommand("easyteacache.cli.comfyui:comfyui", "Put the nodes into a ComfyUI, and ask what they did."),
    "completion": LazyCommand("easyteacache.cli.completion:main_completion", "Print the completion script of a shell."),
    "export": LazyCommand("easyteacache.cli.export:export", "Write a calibration in another engine's format."),
    "import": LazyCommand("easyteacache.cli.import_:import_", "Read another engine's file as a draft calibration."),
    "record": LazyCommand("easyteacache.cli.record:record", "Run a model in full and store a trace of every run."),
    "traces": LazyCommand("easyteacache.cli.traces:traces", "Look at trace files, check them, join them."),
    "report": LazyCommand("easyteacache.cli.report:report", "Draw a calibration and what its traces say of it."),
    "solve": LazyCommand("easyteacache.cli.solve:solve", "Solve a calibration from traces."),
    "validate": LazyCommand("easyteacache.cli.validate:validate", "Judge a calibration on runs it was not fitted to."),
    "doctor": LazyCommand(
        "easyteacache.cli.doctor:doctor", "Check a cache on a model, here: what is right, what is not."
    ),
    "demo": LazyCommand("easyteacache.cli.demo:demo", "Sample the reference model with and without caching."),
}

SHARED = {name: hub.TABLE[name] for name in hub.SHARED}
SIBLING = ("easyteacache-hub", "easyteacache.cli.hub:main")


@click.group(
    "easyteacache",
    cls=LazyGroup,
    table=TABLE,
    shared=SHARED,
    sibling=SIBLING,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, package_name="easyteacache", prog_name="easyteacache")
def main() -> None:
    """Look up, make and check caching calibrations for diffusion transformers, and see them work.

    Sharing them with other people is the job of easyteacache-hub.

    \b
    Examples:
      easyteacache list wan
      easyteacache show wan2.1/t2v-14b
      easyteacache demo
      easyteacache demo --steps 30 --speedup 2 --out my-demo
    """


if __name__ == "__main__":
    main()
