"""The packaged video model and an untrained FLUX of reference size, both small enough to sample in a blink."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from easyteacache.bench.contender import Bed
from easyteacache.bench.results import COLUMNS, MEASURED, Cell
from easyteacache.bench.subject import Case, ReferenceSubject, digest_of, load_reference
from easyteacache.bench.trial import Uncached
from easyteacache.reference import MovingDigitsPipeline
from easyteacache.reference.architectures import FLUX, build_transformer

CASE = Case(1, 16, 16, 8)
TARGETS = (1.5, 2.0)


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _flux() -> ReferenceSubject:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformer = build_transformer(FLUX).eval().requires_grad_(False)
        transformer.proj_out.weight.normal_(std=0.2)
    pipe = MovingDigitsPipeline.from_transformer(transformer)
    return ReferenceSubject(pipe, name="untrained flux", digest=digest_of(pipe), key=None)


@pytest.fixture(scope="session")
def subjects() -> dict[str, ReferenceSubject]:
    """``wan`` and ``flux``."""
    return {"wan": load_reference(None), "flux": _flux()}


@pytest.fixture(scope="session")
def beds(subjects: dict[str, ReferenceSubject]) -> dict[str, tuple[Bed, Uncached]]:
    """A bed for each subject, with its uncached samples."""
    found = {}
    for name, subject in subjects.items():
        uncached = Uncached(subject, CASE)
        pairs = subject.pairs(2, first_seed=500)
        forwards = uncached.forwards(pairs[0])
        found[name] = (Bed(subject, CASE, forwards, pairs, TARGETS, record=subject.key), uncached)
    return found


@pytest.fixture
def make_cell() -> Callable[..., Cell]:
    """``make_cell("name", share=0.5, psnr=[40.0, 42.0])``: a measured point."""

    def make(
        contender: str, *, share: float, psnr: list[float], kind: str = "hold", case: str = "a@8", **more: Any
    ) -> Cell:
        columns: dict[str, list[Any]] = {name: [1.0] * len(psnr) for name in COLUMNS}
        columns |= {"share": [share] * len(psnr), "psnr": psnr, "right": [True] * len(psnr)}
        settings = more.pop("settings", {"threshold": share})
        return Cell(case, contender, kind, "test", "blocks", "", MEASURED, settings=settings, pairs=columns, **more)

    return make
