"""L2P (arXiv 2604.26365): its schedules; the learned matrix is not redistributed.

``python tools/published/plans/l2p.py WEIGHTS REGISTRY`` makes the plans from a copy of the published ``predictor/weight.txt``, for the
registry folder of whoever has the right to use it.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).resolve().parents[3]), str(Path(__file__).resolve().parents[2])]

from easyteacache.policy.methods.l2p import l2p_rows
from easyteacache.records.plan import Plan
from easyteacache.records.preset import Preset
from published.plans.method import Fact, Method, computed_of

_MATRIX = (
    "The learned 50 × 50 matrix that fills reused steps is not stored here: its licence is not stated (badge Flux-dev NC). Who has it "
    "makes the plan with tools/published/plans/l2p.py."
)


def _setting(fact: Fact) -> Preset:
    extra = fact["extra"]
    weights = extra["weights"]
    parameters = {"interval": extra["interval"], "full_steps": computed_of(fact), "weights": weights["path"]}
    return Preset(engine="L2P-Cache", method="L2P", parameters=parameters)


def plan_with(fact: Fact, matrix: list[list[float]]) -> Plan:
    """The applicable plan of one fact, from the published matrix.

    Raises:
        ValueError: the matrix is not the published one: its known entries differ.
    """
    for (row, column), value in known_entries(fact).items():
        if abs(matrix[row][column] - value) > 1e-6:
            raise ValueError(f"W[{row}][{column}] is {matrix[row][column]}, the published matrix has {value} there")
    rows = l2p_rows(computed_of(fact), fact["num_steps"], matrix)
    rounded = tuple(tuple(float(f"{weight:.9g}") for weight in row) for row in rows)
    return Plan(computed=computed_of(fact), rows=rounded, applied_to="output")


def known_entries(fact: Fact) -> dict[tuple[int, int], float]:
    """(row, column) → the published matrix's entry, as far as it was read."""
    found = {}
    for place, values in fact["extra"]["weights"]["fingerprint"].items():
        row, columns = place.removeprefix("W[").removesuffix("]").split("][")
        first = int(columns.split(":")[0])
        for offset, value in enumerate(values if isinstance(values, list) else [values]):
            found[int(row), first + offset] = float(value)
    return found


def read_matrix(path: Path) -> list[list[float]]:
    """The matrix from ``weight.txt``, a Python list of lists; read as a literal, nothing of it is run."""
    found = ast.literal_eval(path.read_text(encoding="utf-8"))
    return [[float(value) for value in row] for row in found]


METHOD = Method(
    takes=("L2P",),
    part=lambda fact: "l2p",
    title=lambda part: "L2P",
    setting=_setting,
    notes=lambda part: (_MATRIX,),
)


def main(arguments: list[str]) -> int:
    """Write the record of plans into a registry folder; the exit status."""
    from published import import_plans
    from published.plans.build import build_record

    weights, registry = Path(arguments[0]), Path(arguments[1])
    facts = [fact for fact in import_plans.read_facts() if fact["method"] == "L2P"]
    matrix = read_matrix(weights)
    method = Method(METHOD.takes, METHOD.part, METHOD.title, lambda fact: plan_with(fact, matrix))
    record = build_record(facts[0]["model_key_suggestion"], method, facts)
    import_plans.write(record, registry, check=False)
    print(f"{record.model_key}: {len(facts)} plans written to {registry}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
