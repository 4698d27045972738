"""How long the programs take to start, as a multiple of an empty Python.

    python tools/bench/startup.py
    python tools/bench/startup.py --runs 21 --json

Every command runs in a new process; commands take turns, so that a busy moment hits all of them. The median is divided by the
median of ``python -c pass`` of the same run, because seconds say more about the machine than about the program.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

import click

from easyteacache.cli import text

HUB = "import sys; sys.argv = ['easyteacache-hub', {}]; from easyteacache.cli.hub import main; main()"
BASE = "python -c pass"
COMMANDS = {
    BASE: "pass",
    "import pydantic, click": "import pydantic, click",
    "import easyteacache": "import easyteacache",
    "from easyteacache import Registry": "from easyteacache import Registry",
    "easyteacache-hub --help": HUB.format("'--help'"),
    "easyteacache-hub list": HUB.format("'list'"),
    "easyteacache-hub show wan2.1/t2v-14b": HUB.format("'show', 'wan2.1/t2v-14b'"),
    "from easyteacache import TeaCache": "from easyteacache import TeaCache",
    "import torch": "import torch",
}


@click.command(help=__doc__)
@click.option("--runs", type=click.IntRange(3), default=11, show_default=True, help="Runs of each command.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: runs, and per command milliseconds and ratio.")
def main(runs: int, as_json: bool) -> None:
    """Entry point."""
    medians = measure(runs)
    rows = [{"command": name, "milliseconds": ms, "ratio": ms / medians[BASE]} for name, ms in medians.items()]
    if as_json:
        text.echo_json({"runs": runs, "commands": rows})
        return
    columns = [text.Column("COMMAND"), text.Column("MEDIAN", "right"), text.Column("RATIO", "right")]
    click.echo(
        text.table(columns, [(row["command"], f"{row['milliseconds']:.0f} ms", f"{row['ratio']:.1f}") for row in rows])
    )


def measure(runs: int) -> dict[str, float]:
    """Median wall time of each command, milliseconds."""
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    with click.progressbar(range(runs + 1), label="measuring", file=sys.stderr) as rounds:
        for number in rounds:
            for name, code in COMMANDS.items():
                begin = time.perf_counter()
                subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
                # The first round fills the disk's cache and counts for nothing.
                if number:
                    times[name].append(1000 * (time.perf_counter() - begin))
    return {name: statistics.median(values) for name, values in times.items()}


if __name__ == "__main__":
    main()
