"""Generate the tables in ``docs/benchmarks.md`` from the raw results in ``docs/benchmarks``, or check that they are fresh.

python tools/docs/benchmarks_page.py            # write it when it changed, and print what its text speaks of
python tools/docs/benchmarks_page.py --check    # exit 1 when it is stale, write nothing
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from easyteacache.bench import report, roster
from easyteacache.bench.curves import OURS, OWN, Standing
from easyteacache.bench.results import Results, load
from easyteacache.files import atomic_write, strict_json

PAGE = Path(__file__).resolve().parents[2] / "docs" / "benchmarks.md"
RAW = PAGE.with_suffix("")
#: What the tables of leads call a file's case, in their order: in the regime that real models run in, and at shift 3.
MATCHED_LABELS = {
    ("matched-digits-0.35", "4x16x16@50"): "4×16×16, 50 steps, shift 0.35",
    ("matched-flux-0.35", "1x16x16@50"): "FLUX 1×16×16, 50 steps, shift 0.35",
    ("matched-digits-0.5", "4x16x16@50"): "4×16×16, 50 steps, shift 0.5",
    ("matched-unipc-0.35", "1x16x16@50"): "UniPC 1×16×16, 50 steps, shift 0.35",
    ("matched-unipc-0.35", "1x16x16@25"): "UniPC 1×16×16, 25 steps, shift 0.35",
}
#: Under UniPC at its own shift, by the same command.
UNIPC_LABELS = {
    (f"matched-{model}unipc-3", f"1x16x16@{steps}"): f"{title}1×16×16, {steps} steps"
    for model, title in (("", ""), ("flux-", "FLUX "))
    for steps in (50, 30, 25)
}
SHIFT_3_LABELS = {
    ("digits-50", "4x16x16@50"): "4×16×16, 50 steps",
    ("digits-50", "1x16x16@50"): "1×16×16, 50 steps",
    ("digits-50", "4x20x20@50"): "4×20×20, 50 steps",
    ("digits-25", "4x16x16@25"): "4×16×16, 25 steps",
    ("digits-25", "1x16x16@25"): "1×16×16, 25 steps",
    ("digits-25", "4x20x20@25"): "4×20×20, 25 steps",
    ("matched-flux-3", "1x16x16@50"): "FLUX 1×16×16, 50 steps",
    ("matched-flux-3", "1x16x16@25"): "FLUX 1×16×16, 25 steps",
}
LABELS = MATCHED_LABELS | UNIPC_LABELS | SHIFT_3_LABELS
#: What ``tools/bench/choice.py`` measured, beside the raw results; and what its settings are called.
CHOICE = RAW / "choice" / "plans.json"
CHOICE_LABELS = {
    f"{model}{infix}-{shift}": f"{title}, {sampler}, shift {shift}"
    for model, title in (("wan", "Wan-class"), ("flux", "FLUX-class"))
    for infix, sampler in (("", "Euler"), ("-unipc", "UniPC"))
    for shift in ("3", "0.35")
}
#: This project's own runtime without a calibration: baselines, and nobody else's code.
RUNTIME = "easyteacache runtime"
#: The least lead over everybody else that is aimed at, in decibels, in the mean and in the worst tenth.
AIM, AIM_WORST = 6.0, 3.0
#: EasyTeaCache where its plans were chosen by sampling, and the aim there.
MEASURED = "EasyTeaCache, measured"
#: What files are called that `tools/bench/matched.py` made.
MATCHED_FILES = "matched-"
AIM_MEASURED, AIM_MEASURED_WORST = 8.0, 5.0
_MARKED = re.compile(r"<!-- generated: (?P<what>[^>]+) -->\n.*?<!-- end of generated -->", re.DOTALL)
_MATCHED, _UNIPC = "matched, ", "UniPC, "

Key = tuple[str, str]
Cases = Mapping[Key, Mapping[str, Any]]
Labels = Mapping[Key, str]
Asked = Callable[[Standing], bool]


@click.command(help=__doc__)
@click.option("--check", is_flag=True, help="Exit 1 when the page is stale; write nothing.")
def main(check: bool) -> None:
    """Entry point."""
    cases, present = read(), PAGE.read_text(encoding="utf-8")
    fresh = with_tables(present, cases)
    if fresh != present and check:
        click.echo(f"docs/{PAGE.name} is stale: run python tools/docs/benchmarks_page.py", err=True)
        sys.exit(1)
    if fresh == present:
        click.echo(f"docs/{PAGE.name} is fresh")
    else:
        atomic_write.write_text(PAGE, fresh)
        click.echo(f"wrote docs/{PAGE.name}")
    click.echo("\n".join(remarks(cases)))


def read(folder: Path = RAW) -> Cases:
    """(file, case) → what the benchmark's own report says of it."""
    files: dict[str, Results] = {path.stem: load(path) for path in sorted(folder.glob("*.json"))}
    return {(name, case["case"]): case for name, results in files.items() for case in report.tables(results)}


def with_tables(page: str, cases: Cases) -> str:
    """``page`` with every marked table generated anew."""

    def table(found: re.Match[str]) -> str:
        what = found["what"]
        return f"<!-- generated: {what} -->\n\n{_table(what, cases)}\n\n<!-- end of generated -->"

    return _MARKED.sub(table, page)


def remarks(cases: Cases) -> Iterator[str]:
    """What the text of the page says of all cases together."""
    for labels, groups in (
        (MATCHED_LABELS, ("",)),
        (UNIPC_LABELS, ("",)),
        (SHIFT_3_LABELS, ("50 steps", "25 steps")),
    ):
        bounds: dict[str, list[tuple[float, str]]] = {"all others": [], "hold": []}
        for key, label in labels.items():
            for at in cases[key]["targets"] if key in cases else ():
                for one in at["differences"]:
                    where = f"{label}, {at['target']:g}x"
                    value = one.psnr.low if one.against == "all others" else one.psnr.mean
                    if one.against in bounds and (one.against != "hold" or at["target"] >= 2):
                        bounds[one.against].append((value, where))
        for against, what in (
            ("all others", "lowest bound of a 95 % interval"),
            ("hold", "over the best hold-type cache"),
        ):
            for steps in groups:
                found = sorted(each for each in bounds[against] if steps in each[1])
                if found:
                    (low, first), (high, last) = found[0], found[-1]
                    about = f"{what}, {steps or ('matched' if labels is MATCHED_LABELS else 'UniPC')}"
                    yield f"{about}: {low:.1f} dB ({first}) to {high:.1f} dB ({last})"


def _table(what: str, cases: Cases) -> str:
    if what == "choice":
        return _choice(CHOICE)
    labels = SHIFT_3_LABELS
    for prefix, others in ((_MATCHED, MATCHED_LABELS), (_UNIPC, UNIPC_LABELS)):
        labels = others if what.startswith(prefix) else labels
    asked = what.removeprefix(_MATCHED).removeprefix(_UNIPC)
    if asked == "ahead of us":
        return _ahead(cases, labels)
    if asked == "short of the aim":
        return _short(cases, labels)
    if asked == "measured, short of the aim":
        return _short(cases, labels, ours=MEASURED, aim=AIM_MEASURED, aim_worst=AIM_MEASURED_WORST)
    if asked == "lead over everything else":
        return _leads(cases, labels, lambda one: one.cell.kind not in OURS)
    if asked == "measured, lead over other projects":
        return _leads(cases, labels, _of_other_projects, ours=MEASURED)
    if asked == "lead over other projects":
        return _leads(cases, labels, _of_other_projects)
    if asked == "plan without a record":
        return _leads(cases, labels, _of_other_projects, ours="uncalibrated")
    file, _, case = what.partition(" ")
    if file.startswith(MATCHED_FILES):
        return _matched(file, case, cases)
    if (file, case) not in cases:
        raise click.ClickException(
            f"docs/{PAGE.name}: no results for the table {what!r}; expected one of {list(cases)}"
        )
    return _standings(cases[file, case])


def _matched(file: str, case: str, cases: Cases) -> str:
    """A table of the matched regime, and who has no line in it yet."""
    command = f"`python tools/bench/matched.py {file.removeprefix(MATCHED_FILES)} --folder runs/matched`"
    if (file, case) not in cases:
        return f"Not measured yet: {command}."
    found = cases[file, case]
    known = {name for at in found["targets"] for name in at["standings"]}
    known |= {name for name, *_ in found["short"]} | {cell.contender for cell in found["missing"]}
    missing = [f"*{contender.name}*" for contender in roster.everybody() if contender.name not in known]
    if not missing:
        return _standings(found)
    return f"{_standings(found)}\n\nNot measured yet ({command}): {', '.join(missing)}."


def _ahead(cases: Cases, labels: Labels) -> str:
    """Every cell of another contender that is ahead of EasyTeaCache in the mean or in the worst tenth."""
    found = []
    for key, label in labels.items():
        for at in cases[key]["targets"] if key in cases else ():
            own = _own(at["standings"])
            for name, one in at["standings"].items():
                mean, worst = one.psnr.mean - own.psnr.mean, one.worst - own.worst
                if one.cell.kind not in OURS and max(mean, worst) > 0:
                    found.append(
                        f"* **{name}** at {at['target']:g}× ({label}): {_signed(mean)} dB in the mean, {_signed(worst)} dB in the "
                        "worst tenth"
                    )
    return (
        "\n".join(found)
        or "Nowhere: no contender is ahead in any cell below, neither in the mean nor in the worst tenth."
    )


def _short(
    cases: Cases, labels: Labels, *, ours: str | None = None, aim: float = AIM, aim_worst: float = AIM_WORST
) -> str:
    """The cells whose lead over other projects and fewer steps is short of the aim, in the mean or in the worst tenth."""
    leads = {
        f"{label}, {at['target']:g}×": _lead(at["standings"], _of_other_projects, ours)
        for key, label in labels.items()
        for at in (cases[key]["targets"] if key in cases else ())
    }
    known = {where: lead for where, lead in leads.items() if lead is not None}
    found = [
        f"{where} ({_signed(mean)}, {_signed(worst)})"
        for where, (mean, worst) in known.items()
        if mean < aim or worst < aim_worst
    ]
    return f"{len(found)} of {len(known)} cells: {'; '.join(found)}." if found else f"None of {len(known)} cells."


def _leads(cases: Cases, labels: Labels, asked: Asked, *, ours: str | None = None) -> str:
    rows = []
    for key, label in labels.items():
        if key in cases and (ours is None or any(ours in at["standings"] for at in cases[key]["targets"])):
            leads = [_lead(at["standings"], asked, ours) for at in cases[key]["targets"]]
            rows.append(
                [label, *("–" if each is None else f"{_signed(each[0])} ({_signed(each[1])})" for each in leads)]
            )
    measured = next((cases[key] for key in labels if key in cases), None)
    return "Not measured yet." if measured is None or not rows else _markdown(measured, rows)


def _of_other_projects(one: Standing) -> bool:
    """Whether it is another project's code or rule, or sampling with fewer steps."""
    return one.cell.kind not in OURS and one.cell.family != RUNTIME


def _lead(standings: Mapping[str, Standing], asked: Asked, ours: str | None = None) -> tuple[float, float] | None:
    """By how much ``ours`` is above the best of the others, in the mean and in the worst tenth; None where either is not there."""
    own = _own(standings) if ours is None else standings.get(ours)
    others = [one for one in standings.values() if asked(one)]
    if own is None or not others:
        return None
    return own.psnr.mean - max(one.psnr.mean for one in others), own.worst - max(one.worst for one in others)


def _own(standings: Mapping[str, Standing]) -> Standing:
    [own] = [one for one in standings.values() if one.cell.kind == OWN]
    return own


def _choice(path: Path) -> str:
    """What the solver chooses from few and many runs, by traces alone and by sampling, beside the best of what was sampled."""
    found = strict_json.parse(path.read_bytes())["settings"]
    known = [name for name in CHOICE_LABELS if name in found]
    counts = list(found[known[0]])
    ways = [way for way in found[known[0]][counts[0]] if way != "candidates"]
    lines = [
        f"| | chosen from | {' | '.join(f'{count} computed' for count in counts)} |",
        f"|---|---|{'---:|' * len(counts)}",
    ]
    losses: list[float] = []
    for name in known:
        for place, way in enumerate([*ways, "best of all candidates"]):
            cells = []
            for count in counts:
                rows = found[name][count]
                tried = [row["psnr"] for row in rows.get("candidates", ())]
                if way in rows:
                    cells.append(_mean_and_worst(rows[way]["psnr"]))
                else:
                    best = max(tried, key=_mean, default=None)
                    cells.append("–" if best is None else f"{_mean_and_worst(best)} of {len(tried)}")
                if place == 0 and tried:
                    losses.append(max(map(_mean, tried)) - _mean(rows[ways[-2]]["psnr"]))
            lines.append(f"| {CHOICE_LABELS[name] if place == 0 else ''} | {way} | {' | '.join(cells)} |")
    few = {
        way: [
            _mean(found[name][count][way]["psnr"]) - _mean(found[name][count][ways[-2]]["psnr"])
            for name in known
            for count in counts
        ]
        for way in ways
    }
    told = ", ".join(f"{way} {_signed(_mean(values))} dB" for way, values in few.items() if way != ways[-2])
    return "\n".join(
        [
            *lines,
            "",
            f"Against the choice from {ways[-2]}, in the mean of {len(known) * len(counts)} cells: {told}. What is chosen from {ways[-2]} is "
            f"{_mean(losses):.1f} dB below the best candidate in the mean of {len(losses)} cells, {_beyond(losses)}. "
            f"Short of the aim of 1 dB at every budget: the choice from {ways[0]} loses {_beyond([-gain for gain in few[ways[0]]])}, and a cell's mean is "
            "known to 0.8 dB.",
        ]
    )


def _beyond(losses: Sequence[float]) -> str:
    """How often more than a decibel is lost, and how much at most."""
    return f"more than 1 dB in {sum(loss > 1.0 for loss in losses)} of {len(losses)}, {max(losses):.1f} dB at most"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _mean_and_worst(values: Sequence[float]) -> str:
    worst = sorted(values)[: max(1, round(len(values) / 10))]
    return f"{_mean(values):.1f} ({_mean(worst):.1f})"


def _signed(value: float) -> str:
    return f"{value:+.1f}".replace("-", "−")


def _standings(case: Mapping[str, Any]) -> str:
    targets = [at["standings"] for at in case["targets"]]
    names = sorted({name for at in targets for name in at}, key=lambda name: _place(name, targets))
    rows = []
    for name in names:
        found = [at.get(name) for at in targets]
        bold = "**" if any(one is not None and one.cell.kind in OURS for one in found) else ""
        shown = ["–" if one is None else f"{bold}{one.psnr.mean:.1f} ({one.worst:.1f}){bold}" for one in found]
        rows.append([f"{bold}{name}{bold}", *shown])
    return _markdown(case, rows)


def _place(name: str, targets: list[Mapping[str, Standing]]) -> tuple[float, float, str]:
    """By the mean at 2×, best first, equal ones by name; those that do not get there last."""
    twice = targets[1].get(name)
    return (1.0, 0.0, name) if twice is None else (0.0, -twice.psnr.mean, name)


def _markdown(case: Mapping[str, Any], rows: list[list[str]]) -> str:
    heads = [f"{at['target']:g}×" for at in case["targets"]]
    lines = [f"| | {' | '.join(heads)} |", f"|---|{'---:|' * len(heads)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


if __name__ == "__main__":
    main()
