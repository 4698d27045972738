"""vLLM-Omni's ``cache_backend="easyteacache"``: predicts the output after guidance, once for all branches and ranks.

Pipelines with ``CFGParallelMixin`` ask one method for the guided output of every step (``predict_noise_maybe_with_cfg``, 26 files of
0.30.0). The backend stands around it: a reused step computes neither branch, no branch can be taken for another, and every rank of a
CFG group decides the same, because nothing that is measured decides.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from easyteacache.errors import AttachError, EasyTeaCacheError, InvalidPlan
from easyteacache.integrations import last_run
from easyteacache.integrations.wish import SOURCES, PlanSource, Wish
from easyteacache.policy.request import Capabilities, RunContext
from easyteacache.runtime.driver import CallDriver
from easyteacache.runtime.notices import logger
from easyteacache.runtime.session import Session

METHOD = "predict_noise_maybe_with_cfg"
BRANCH = "guided"
GUIDED_OUTPUT = Capabilities(sees=("output",), corrects=False, euler=False, guided=True)


def backend_of(config: Any) -> Any:
    """The backend for a ``cache_config`` with ``model_key``, and ``speedup`` (2.0) and ``plan`` (``registry``) where they differ.

    Raises:
        InvalidPlan: there is no key although the plan needs one, or another value is out of range.
    """
    from vllm_omni.diffusion.cache.base import CacheBackend

    class EasyTeaCacheBackend(CacheBackend):  # type: ignore[misc,unused-ignore]
        """Adopts this package's plans for one pipeline."""

        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.runs = PipelineRuns(wish_of(config))

        def enable(self, pipeline: Any) -> None:
            """Stand around the pipeline's guided output."""
            self.runs.put_on(pipeline)
            self.enabled = True

        def refresh(self, pipeline: Any, num_inference_steps: int, verbose: bool = True) -> None:
            """A request begins."""
            self.runs.begin(num_inference_steps)

    return EasyTeaCacheBackend(config)


def wish_of(config: Any) -> Wish:
    """What a ``cache_config`` asks for; raises as ``backend_of``."""
    values = {name: _value(config, name) for name in ("model_key", "speedup", "plan")}
    plan, key = values["plan"] or "registry", values["model_key"]
    sources: dict[str, PlanSource] = {name: name for name in SOURCES}
    if plan not in sources:
        raise InvalidPlan(f"cache_config: {plan!r} is no source of plans: expected one of {', '.join(SOURCES)}")
    speedup = 2.0 if values["speedup"] is None else values["speedup"]
    if isinstance(speedup, bool) or not isinstance(speedup, int | float) or not math.isfinite(speedup) or speedup < 1:
        raise InvalidPlan(f"cache_config: speedup is {speedup!r}, expected a number of at least 1")
    wish = Wish(
        sources[plan], None if key is None else str(key), float(speedup), unknown="cache_config names no model_key"
    )
    if key is None and plan == "registry" and not wish.exact:
        raise InvalidPlan(
            'cache_config names no model_key: expected for example {"model_key": "wan2.1/t2v-14b", "speedup": 2.0}'
        )
    return wish


def status() -> dict[str, Any] | None:
    """The last request on this machine: record, evidence, refusal, what was reused; None where there was none."""
    return last_run.read("vllm-omni")


class PipelineRuns:
    """The requests of one pipeline.

    Args:
        wish: what is asked for.
    """

    def __init__(self, wish: Wish) -> None:
        self._wish = wish
        self._pipeline: Any = None
        self._original: Any = None
        self._steps: int | None = None
        self._call = -1
        self.session: Session | None = None
        self._driver: CallDriver | None = None
        #: Why every step is computed; None where some need not be.
        self.refusal: str | None = None

    def put_on(self, pipeline: Any) -> None:
        """Stand around the pipeline's guided output.

        Raises:
            AttachError: it has no such method.
        """
        self._original = getattr(pipeline, METHOD, None)
        if self._original is None:
            raise AttachError(
                f"{type(pipeline).__name__} has no {METHOD}: only pipelines with CFGParallelMixin can be cached by 'easyteacache'; "
                "with --diffusion-load-format diffusers use TeaCache.attach"
            )
        self._pipeline = pipeline
        setattr(pipeline, METHOD, self._predict)

    def take_off(self) -> None:
        """The pipeline is as it was."""
        self.end()
        if self._pipeline is not None:
            delattr(self._pipeline, METHOD)
            self._pipeline = None

    def begin(self, num_steps: int | None) -> None:
        """A request begins; nothing of the one before is left."""
        self.end()
        self._steps, self._call = num_steps or None, -1
        self.session, self.refusal = None, None

    def end(self) -> None:
        """The request is over, or was broken off: every tensor is let go of."""
        if self._driver is not None:
            self._driver.end()
            self._driver = None

    def _predict(self, *args: Any, **kwargs: Any) -> Any:
        self._call += 1
        if self._call == 0 and not self._wish.exact:
            self._begin_run(args, kwargs)
        driver = self._driver
        if driver is None:
            return self._original(*args, **kwargs)
        if driver.before(BRANCH, self._call).reuse:
            found: Any = driver.give(BRANCH)
        else:
            found = self._original(*args, **kwargs)
            if isinstance(found, torch.Tensor):
                driver.observe(BRANCH, found)
            else:
                self._refuse(f"the pipeline predicts {type(found).__name__}, not one tensor")
        if self._steps is not None and self._call == self._steps - 1:
            self._tell()
            self.end()
        return found

    def _begin_run(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        from easyteacache.integrations.diffusers.scheduler_facts import facts_of

        facts = facts_of(getattr(self._pipeline, "scheduler", None))
        if facts is not None:
            self._steps = facts.calls
        if getattr(self._pipeline, "is_dmd", False) or (facts is not None and facts.stochastic):
            name = "the distilled loop of this pipeline" if facts is None or not facts.stochastic else facts.name
            self._refuse(f"{name} draws noise at its steps, and what plans are made by holds for samplers that do not")
            return
        hidden = (kwargs.get("positive_kwargs") or (args[2] if len(args) > 2 else {})).get("hidden_states")
        run = RunContext(
            num_steps=self._steps,
            shift=None if facts is None else facts.shift,
            sampler=None if facts is None else facts.record(),
            sequence_length=tokens_of(hidden, getattr(self._pipeline, "transformer", None)),
            can=GUIDED_OUTPUT,
            begun=True,
        )
        try:
            session = self._wish.session(run)
            driver = CallDriver(session)
            driver.begin(run)
        except EasyTeaCacheError as error:
            self._refuse(str(error))
            return
        self.session, self._driver, self.refusal = session, driver, session.policy.refusal

    def _refuse(self, why: str) -> None:
        self.refusal = why
        self.end()
        logger.warning("every step is computed: %s", why)
        self._tell()

    def _tell(self) -> None:
        last_run.write_session("vllm-omni", self.session, self.refusal, pipeline=type(self._pipeline).__name__)


def tokens_of(hidden: Any, transformer: Any) -> int | None:
    """The tokens of what enters a transformer: packed ones ``(B, L, C)`` as they are, a latent by its patch size; None where that is not known."""
    if not isinstance(hidden, torch.Tensor) or hidden.ndim < 3:
        return None
    if hidden.ndim == 3:
        return int(hidden.shape[1])
    patch = getattr(getattr(transformer, "config", None), "patch_size", getattr(transformer, "patch_size", None))
    sizes = hidden.shape[2:]
    if isinstance(patch, int) and not isinstance(patch, bool):
        patch = (*(1,) * (len(sizes) - 2), patch, patch)
    if (
        not isinstance(patch, Sequence)
        or len(patch) != len(sizes)
        or not all(isinstance(one, int) and one > 0 for one in patch)
    ):
        return None
    counts: list[int] = [math.ceil(size / each) for size, each in zip(sizes, patch, strict=True)]
    return math.prod(counts)


def _value(config: Any, name: str) -> Any:
    return config.get(name) if isinstance(config, Mapping) else getattr(config, name, None)
