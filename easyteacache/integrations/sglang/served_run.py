"""One request of SGLang: what its hooks answer, and what was done.

The feature that leaves the blocks is what is predicted, of each branch for itself. A run begins with the first feature that is seen:
only then its length is known; that step is computed whatever a plan says.
"""

from __future__ import annotations

from typing import Any

import torch

from easyteacache.errors import EasyTeaCacheError, InvalidPlan
from easyteacache.integrations import last_run
from easyteacache.integrations.wish import SOURCES, PlanSource, Wish
from easyteacache.policy.request import Capabilities, RunContext
from easyteacache.runtime.driver import CallDriver
from easyteacache.runtime.notices import logger
from easyteacache.runtime.session import Session

FEATURES = Capabilities(sees=("feature",), corrects=False, euler=False)
#: Whose calls are not about what leaves the blocks of the generated stream: SGLang's own Spectrum serves them.
UNSERVED = ("MiniMaxH3",)
#: Where a transformer keeps the run that it is in.
ATTRIBUTE = "_easyteacache_run"


class Hooks:
    """Stand in for the methods of ``SpectrumMixin``; each takes the original and the transformer first.

    Args:
        key: the model's.
        plan: where plans come from.

    Raises:
        InvalidPlan: ``plan`` is none of ``SOURCES``.
    """

    def __init__(self, key: str, plan: str) -> None:
        known: dict[str, PlanSource] = {name: name for name in SOURCES}
        if plan not in known:
            raise InvalidPlan(f"{plan!r} is no source of plans: expected one of {', '.join(SOURCES)}")
        self._key, self._plan = key, known[plan]

    @torch.compiler.disable  # type: ignore[untyped-decorator,unused-ignore]
    def begin_spectrum_step(self, original: Any, transformer: Any) -> bool:
        """Do the blocks run?"""
        if _unserved(transformer):
            return bool(original(transformer))
        context = transformer._get_spectrum_context()
        transformer._spectrum_ctx = context
        if context is None:
            return True
        run = _run_of(transformer)
        if run is None or (context.current_step == 0 and not context.is_cfg_negative):
            run = self._begun(transformer)
        transformer.spectrum_is_cfg_negative = context.is_cfg_negative
        return run.computes(context)

    @torch.compiler.disable  # type: ignore[untyped-decorator,unused-ignore]
    def spectrum_record_features(self, original: Any, transformer: Any, features: torch.Tensor) -> None:
        """The blocks ran and gave ``features`` (B, L, D)."""
        if _unserved(transformer):
            original(transformer, features)
            return
        context, run = _context(transformer), _run_of(transformer)
        if context is not None and run is not None:
            run.observe(context, features, _request(), ranks=getattr(transformer, "sp_size", 1))

    @torch.compiler.disable  # type: ignore[untyped-decorator,unused-ignore]
    def spectrum_predict_features(self, original: Any, transformer: Any, template: torch.Tensor) -> torch.Tensor:
        """What leaves the blocks at a step that is not computed, like ``template``."""
        if _unserved(transformer):
            found: torch.Tensor = original(transformer, template)
            return found
        context, run = _context(transformer), _run_of(transformer)
        assert run is not None
        assert context is not None
        return run.give(context).to(dtype=template.dtype, device=template.device)

    def reset_spectrum_state(self, original: Any, transformer: Any, params: Any) -> None:
        """A request begins: nothing of the one before is left."""
        original(transformer, params)
        before = _run_of(transformer)
        if before is not None:
            before.end()
        setattr(transformer, ATTRIBUTE, None)

    def _begun(self, transformer: Any) -> ServedRun:
        before = _run_of(transformer)
        if before is not None:
            before.end()
        run = ServedRun(self._key, self._plan, transformer)
        setattr(transformer, ATTRIBUTE, run)
        return run


class ServedRun:
    """A request on one transformer.

    Args:
        key: the model's.
        plan: where the plan comes from.
        transformer: SGLang's.
    """

    def __init__(self, key: str, plan: PlanSource, transformer: Any) -> None:
        self._key, self._plan, self._class = key, plan, type(transformer).__name__
        self.session: Session | None = None
        #: Why every step is computed; None where some need not be.
        self.refusal: str | None = None
        self._driver: CallDriver | None = None

    def computes(self, context: Any) -> bool:
        """Do the blocks run at this step of this branch?"""
        driver, branch = self._driver, _branch(context)
        if driver is None or self.session is None:
            return True
        if self.session.known(branch) is None:
            return True
        return not driver.before(branch, context.current_step).reuse

    def observe(self, context: Any, features: torch.Tensor, request: Any, *, ranks: Any = 1) -> None:
        """The blocks ran; the first features of a run begin it.

        Args:
            context: SGLang's Spectrum context.
            features: (B, L, D), of this rank's tokens.
            request: SGLang's.
            ranks: over which tokens are spread.
        """
        if self._driver is None and self.refusal is None:
            spread = ranks if isinstance(ranks, int) and not isinstance(ranks, bool) and ranks > 0 else 1
            self._begin(context, request, features.shape[1] * spread)
        driver = self._driver
        if driver is not None:
            branch = _branch(context)
            if self.session is not None and self.session.known(branch) is None:
                driver.before(branch, context.current_step)
            driver.observe(branch, features)
        self._done(context)

    def give(self, context: Any) -> torch.Tensor:
        """The prediction for a step that is not computed."""
        assert self._driver is not None
        found = self._driver.give(_branch(context))
        self._done(context)
        return found

    def _done(self, context: Any) -> None:
        """A step of a branch is done; after the last one its tensors are let go of, and what was done is told."""
        if context.current_step >= context.num_inference_steps - 1:
            if self._driver is not None:
                self._driver.forget(_branch(context))
            self.tell()

    def end(self) -> None:
        """The request is over, or another one begins: every tensor is let go of."""
        if self._driver is not None:
            self._driver.end()
            self._driver = None

    def _begin(self, context: Any, request: Any, tokens: int) -> None:
        run, why = _context_of(context, request, tokens)
        if why is not None:
            self._refuse(why)
            return
        speedup = float(context.spectrum_params.window_size)
        try:
            session = Wish(self._plan, self._key, max(1.0, speedup)).session(run)
            driver = CallDriver(session)
            driver.begin(run)
        except EasyTeaCacheError as error:
            self._refuse(str(error))
            return
        self.session, self._driver = session, driver
        self.refusal = session.policy.refusal

    def _refuse(self, why: str) -> None:
        self.refusal = why
        logger.warning("%s: every step is computed: %s", self._key, why)

    def tell(self) -> None:
        """Remember what was done."""
        last_run.write_session("sglang", self.session, self.refusal, transformer=self._class)


def status() -> dict[str, Any] | None:
    """The last request that the plug-in served on this machine: record, evidence, refusal, what was reused; None where there was none."""
    return last_run.read("sglang")


def _context_of(context: Any, request: Any, tokens: int) -> tuple[RunContext, str | None]:
    """What is known of the run, and why nothing may be reused in it."""
    from easyteacache.integrations.diffusers.scheduler_facts import facts_of

    facts = facts_of(getattr(request, "scheduler", None))
    run = RunContext(
        num_steps=int(context.num_inference_steps),
        shift=None if facts is None else facts.shift,
        sampler=None if facts is None else facts.record(),
        sequence_length=tokens,
        can=FEATURES,
        begun=True,
    )
    if facts is not None and facts.stochastic:
        return run, f"{facts.name} draws noise at its steps, and what plans are made by holds for samplers that do not"
    if facts is not None and facts.calls != run.num_steps:
        return run, f"{facts.name} calls the model {facts.calls} times in {run.num_steps} steps"
    return run, None


def _unserved(transformer: Any) -> bool:
    return type(transformer).__name__.startswith(UNSERVED)


def _branch(context: Any) -> str:
    return "uncond" if context.is_cfg_negative else "cond"


def _context(transformer: Any) -> Any:
    return getattr(transformer, "_spectrum_ctx", None) or transformer._get_spectrum_context()


def _run_of(transformer: Any) -> ServedRun | None:
    found = getattr(transformer, ATTRIBUTE, None)
    return found if isinstance(found, ServedRun) else None


def _request() -> Any:
    from sglang.multimodal_gen.runtime.managers.forward_context import get_forward_context

    return get_forward_context().forward_batch
