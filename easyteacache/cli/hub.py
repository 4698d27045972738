"""The program `easyteacache-hub`: look calibrations up, check them, share them."""

from __future__ import annotations

import click

from easyteacache._version import __version__
from easyteacache.cli.lazy import LazyCommand, LazyGroup

TABLE = {
    "audit": LazyCommand("easyteacache.cli.audit:audit", "Find borrowed, mistyped and misused coefficients in a tree."),
    "completion": LazyCommand("easyteacache.cli.completion:hub_completion", "Print the completion script of a shell."),
    "deprecate": LazyCommand("easyteacache.cli.retire:deprecate", "Say that a calibration should no longer be used."),
    "diff": LazyCommand("easyteacache.cli.diff:diff", "Show what differs between two records."),
    "identify": LazyCommand(
        "easyteacache.cli.identify:identify", "Name the calibration that a list of numbers belongs to."
    ),
    "index": LazyCommand("easyteacache.cli.index:index", "Make a registry folder's index, or check that it is fresh."),
    "list": LazyCommand("easyteacache.cli.listing:list_records", "List the calibrations that can be used."),
    "log": LazyCommand("easyteacache.cli.log:log", "Show the history of one record at the hub."),
    "lock": LazyCommand("easyteacache.cli.lock:lock", "Write down which calibrations a project runs with."),
    "pull": LazyCommand("easyteacache.cli.pull:pull", "Bring calibrations from a hub to this machine."),
    "push": LazyCommand("easyteacache.cli.push:push", "Propose calibrations to a hub as one pull request."),
    "resolve": LazyCommand(
        "easyteacache.cli.resolve:resolve", "Show what a calibration means for one length and step count."
    ),
    "review": LazyCommand("easyteacache.cli.review:review", "Judge a changed registry folder as CI does."),
    "serve": LazyCommand("easyteacache.cli.serve:serve", "Serve a folder of repositories to pull from and push to."),
    "show": LazyCommand("easyteacache.cli.show:show", "Show one calibration with everything that is known of it."),
    "site": LazyCommand("easyteacache.cli.site:site", "Write the registry as a static web site."),
    "stale": LazyCommand("easyteacache.cli.stale:stale", "Show whose checkpoint or source has moved since."),
    "update": LazyCommand("easyteacache.cli.update:update", "Show what has changed at the hub since the last pull."),
    "verify": LazyCommand("easyteacache.cli.verify:verify", "Check every record and the index of a registry folder."),
    "verify-claim": LazyCommand(
        "easyteacache.cli.verify_claim:verify_claim", "Repeat a record's points on prompts its submitter never saw."
    ),
    "where": LazyCommand("easyteacache.cli.where:where", "Show the registry layers and their folders."),
    "yank": LazyCommand("easyteacache.cli.retire:yank", "Say that a calibration must not be used."),
}


SIBLING = ("easyteacache", "easyteacache.cli.main:main")
# What `easyteacache` offers too: looking up and checking needs no hub.
SHARED = ("audit", "diff", "identify", "list", "resolve", "show", "verify")


@click.group(
    "easyteacache-hub",
    cls=LazyGroup,
    table=TABLE,
    sibling=SIBLING,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, package_name="easyteacache", prog_name="easyteacache-hub")
def main() -> None:
    """Look up, check and share caching calibrations for diffusion transformers.

    \b
    Examples:
      easyteacache-hub list wan
      easyteacache-hub show wan2.1/t2v-14b
      easyteacache-hub resolve wan2.1/t2v-14b --sequence-length 32760 --steps 50
    """


if __name__ == "__main__":
    main()
