"""One run of one of ComfyUI's samplers: which call of the model is which, what is computed, and why nothing is where nothing may be.

Both guidance branches usually come in one batched call. Each conditioning has a name of its own all through a run (ComfyUI gives it an
identifier), and what is remembered of one is never given for another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import torch

from easyteacache.errors import EasyTeaCacheError
from easyteacache.integrations.comfyui import model_facts
from easyteacache.integrations.comfyui.sampler_facts import SamplerFacts
from easyteacache.policy.policy import Policy
from easyteacache.policy.request import Capabilities, RunContext
from easyteacache.runtime.driver import CallDriver
from easyteacache.runtime.session import Session

#: Noise levels of a call are those that were measured, up to this share: samplers keep them in single precision.
SAME_LEVEL = 1e-4
#: What is predicted where a plan was made for the output after guidance: one branch for all.
GUIDED = "guided"
_BRANCHES = {0: "cond", 1: "uncond"}

MakeSession = Callable[[RunContext], Session]


class Watched(NamedTuple):
    """What became of a run that was watched: the file that was written, or why there is none."""

    file: str | None
    why: str | None


class Watcher(Protocol):
    """Sees every call of a run that is computed in full."""

    def computed(
        self, executor: Any, args: Sequence[Any], kwargs: Mapping[str, Any], branches: Sequence[str], call: int
    ) -> Any:
        """Call number ``call`` of the model, with a part of the batch for each of ``branches``: computes it and gives what it gave."""
        ...

    def broken(self, why: str) -> None:
        """The run cannot be followed any further."""
        ...

    def over(self, *, whole: bool) -> Watched:
        """The run is over, or was broken off."""
        ...


class SampledRun:
    """A run, from its first call of the model to its last.

    Args:
        patcher: ComfyUI's model patcher.
        facts: of the sampler.
        shape: of the latent ``(B, C, …)``.
        make_session: gives the run's session, once it is known what the run is; None: nothing is reused.
        linear_guidance: the branches are added up with fixed weights, so that what is done to each is done to the sum.
        steady: the same conditioning acts at every step, with the same weights.
        masked: parts of the latent are given and put back at every step.
    """

    def __init__(
        self,
        patcher: Any,
        facts: SamplerFacts,
        shape: Sequence[int],
        make_session: MakeSession | None,
        *,
        linear_guidance: bool = True,
        steady: bool = True,
        masked: bool = False,
    ) -> None:
        self.patcher, self.facts, self.linear_guidance = patcher, facts, linear_guidance
        self._watcher: Watcher | None = None
        #: The file this run was recorded in; None where it was not.
        self.recorded: str | None = None
        self.context = RunContext(
            num_steps=facts.calls,
            shift=facts.shift,
            sampler=facts.record(),
            sequence_length=model_facts.tokens_of(patcher.model, shape),
            values_per_token=model_facts.values_per_token(patcher.model, shape),
            model=model_facts.identity_of(patcher),
            can=Capabilities(
                sees=("output",),
                corrects=facts.steps is not None and linear_guidance and not masked,
                euler=facts.euler,
                guided=facts.prediction == "velocity" and steady and not masked,
            ),
            begun=True,
        )
        #: Why nothing is reused (any more); None where something may be.
        self.refusal: str | None = refused(facts)
        self.session: Session | None = None
        self._driver: CallDriver | None = None
        self.call = -1
        self._level = 0.0
        self._names: dict[object, str] = {}
        self._seen: set[str] = set()
        self._acting: dict[str, object] = {}
        if make_session is not None and self.refusal is None:
            try:
                self.session = make_session(self.context)
                driver = CallDriver(self.session)
                driver.begin(self.context, sampler=facts.steps)
                self._driver = driver
            except EasyTeaCacheError as error:
                # A workflow goes on without the cache; the node says why.
                self.refusal = str(error)

    @property
    def policy(self) -> Policy | None:
        """What decides; None where nothing does."""
        return None if self.session is None or not self.session.has_policy else self.session.policy

    @property
    def guided(self) -> bool:
        """The output after guidance is predicted, not that of each branch."""
        return self._driver is not None and self.policy is not None and self.policy.combined and self.context.can.guided

    def stop(self, why: str) -> None:
        """From here on everything is computed."""
        if self.refusal is None:
            self.refusal = why
        if self._driver is not None:
            self._driver.end()
            self._driver = None
        if self._watcher is not None:
            self._watcher.broken(why)
            self._watcher = None

    def watch(self, watcher: Watcher) -> None:
        """Let somebody see the calls of this run, which has no session."""
        self._watcher = watcher

    def end(self, *, whole: bool = True) -> None:
        """The run is over, or was broken off: every tensor is let go of."""
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            self.recorded, why = watcher.over(whole=whole)
            self.refusal = self.refusal or why
        if self._driver is not None:
            self._driver.end()
            self._driver = None
        self._names.clear()
        self._acting.clear()

    # The sampler's calls -----------------------------------------------------------------------------------------------

    def predict(self, executor: Any, x: torch.Tensor, timestep: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """The sampler calls the guided model: for (B, C, …) at a noise level, gives the denoised sample."""
        self._next_call(float(timestep.flatten()[0]))
        driver = self._driver
        if driver is None or not self.guided or self._level == 0.0:
            return executor(x, timestep, *args, **kwargs)
        self._forget_where_others_act(GUIDED, {})
        decision = driver.before(GUIDED, self.call, shape=x.shape)
        if decision.reuse:
            return _denoised(x, driver.give(GUIDED), self._level)
        found = executor(x, timestep, *args, **kwargs)
        velocity = (x - found) / self._level
        # What stopped the run in between has nothing to hear of this call.
        handed = velocity if self._driver is None else driver.observe(GUIDED, velocity)
        return found if handed is velocity else _denoised(x, handed, self._level)

    def _next_call(self, level: float) -> None:
        self.call, self._level = self.call + 1, level
        self._seen.clear()
        if self._driver is None and self._watcher is None:
            return
        levels = self.facts.levels or ()
        expected = levels[self.call] if self.call < len(levels) - 1 else None
        if expected is None:
            self.stop(f"the sampler calls the model more than the {len(levels) - 1} times that were foreseen")
        elif abs(level - expected) > SAME_LEVEL * max(levels):
            self.stop(f"call {self.call} is at noise level {level:g}, foreseen was {expected:g}")

    # The model's calls -------------------------------------------------------------------------------------------------

    def compute(self, executor: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """The model is called, for one branch or several in a batch: compute it, or give what is predicted."""
        options = options_in(args, kwargs)
        following = self._watcher is not None or (self._driver is not None and not self.guided)
        if not following or options is None or self.call < 0:
            return executor(*args, **kwargs)
        x = args[0]
        branches = self._branches(options)
        if branches is None or not isinstance(x, torch.Tensor) or x.shape[0] % len(branches):
            self.stop("the model is called with a batch that is not one part a conditioning")
            return executor(*args, **kwargs)
        if self._seen.intersection(branches):
            self.stop(
                "the model is called more than once a step with one conditioning (context windows, skipped-layer or perturbed "
                "guidance), and such calls cannot be told apart"
            )
            return executor(*args, **kwargs)
        self._seen.update(branches)
        if self._watcher is not None:
            return self._watcher.computed(executor, args, kwargs, branches, self.call)
        return self._driven(executor, args, kwargs, options, branches)

    def _branches(self, options: Mapping[str, Any]) -> list[str] | None:
        """The name of each part of the batch; None where nobody says how many there are."""
        kinds = options.get("cond_or_uncond")
        if not isinstance(kinds, Sequence) or not kinds:
            return None
        ids = options.get("uuids")
        known: Sequence[object] = ids if isinstance(ids, Sequence) and len(ids) == len(kinds) else kinds
        return [self._name((kind, one), kind) for kind, one in zip(kinds, known, strict=True)]

    def _name(self, one: object, kind: object) -> str:
        if one not in self._names:
            base = _BRANCHES.get(kind, f"cond-{kind}") if isinstance(kind, int) else "cond"
            taken = set(self._names.values())
            self._names[one] = next(
                name for name in (base, *(f"{base}-{n}" for n in range(2, 1000))) if name not in taken
            )
        return self._names[one]

    def _driven(
        self,
        executor: Any,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        options: Mapping[str, Any],
        branches: list[str],
    ) -> Any:
        driver, x, size = self._driver, args[0], args[0].shape[0] // len(branches)
        assert driver is not None
        extra = {"control": kwargs.get("control") is not None or _control_among(args)}
        for branch in branches:
            self._forget_where_others_act(branch, extra)
        shape = (size, *x.shape[1:])
        reused = [driver.before(branch, self.call, shape=shape).reuse for branch in branches]
        if all(reused):
            return torch.cat([driver.give(branch) for branch in branches])
        if not any(reused):
            output = executor(*args, **kwargs)
            return self._observed(output, branches)
        # Their plans differ: only those that are to be computed make up the batch.
        wanted = [place for place, one in enumerate(reused) if not one]
        part = _Part(wanted, len(branches), x.shape[0])
        options = {
            **options,
            **{
                name: [options[name][place] for place in wanted]
                for name in ("cond_or_uncond", "uuids")
                if name in options
            },
        }
        found = executor(
            *(part.of(value, options) for value in args),
            **{name: part.of(value, options) for name, value in kwargs.items()},
        )
        computed = self._observed(found, [branches[place] for place in wanted])
        if self._driver is None or not isinstance(computed, torch.Tensor):
            return executor(*args, **kwargs)
        parts = iter(computed.chunk(len(wanted)))
        return torch.cat(
            [driver.give(branch) if one else next(parts) for branch, one in zip(branches, reused, strict=True)]
        )

    def _observed(self, output: Any, branches: list[str]) -> Any:
        driver = self._driver
        if not isinstance(output, torch.Tensor) or output.shape[0] % len(branches):
            self.stop(f"the model returns {type(output).__name__}, not one tensor with a part a conditioning")
            return output
        assert driver is not None
        parts = output.chunk(len(branches))
        handed = [driver.observe(branch, part) for branch, part in zip(branches, parts, strict=True)]
        untouched = all(one is other for one, other in zip(handed, parts, strict=True))
        return output if untouched else torch.cat(handed)

    def _forget_where_others_act(self, branch: str, extra: Mapping[str, object]) -> None:
        """Hooks give other weights to a conditioning, or a control comes or goes: what is remembered is of another model."""
        acting = (_acting(self.patcher), *sorted(extra.items()))
        before = self._acting.setdefault(branch, acting)
        if before != acting and self._driver is not None:
            self._driver.forget(branch)
        self._acting[branch] = acting


def refused(facts: SamplerFacts) -> str | None:
    """Why nothing may be reused under a sampler; None where something may."""
    name = facts.name.removeprefix("comfyui/")
    if facts.probe.stochastic:
        return (
            f"{name} draws noise at its steps, and what plans are made by holds for samplers that do not: choose euler, dpmpp_2m, "
            "uni_pc or res_multistep"
        )
    if facts.levels is None:
        return f"where {name} calls the model is not known: {facts.probe.reason}"
    return None


def options_in(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The transformer options in a call of the model, which models take by name or at a place of their own."""
    named = kwargs.get("transformer_options")
    if isinstance(named, Mapping):
        return named
    return next((value for value in reversed(args) if isinstance(value, Mapping) and "cond_or_uncond" in value), None)


class _Part:
    """Some of the conditionings of a batch.

    Args:
        wanted: their places.
        count: of all.
        total: rows of the whole batch.
    """

    def __init__(self, wanted: Sequence[int], count: int, total: int) -> None:
        self._wanted, self._count, self._total = wanted, count, total

    def of(self, value: Any, options: Mapping[str, Any]) -> Any:
        """The same argument for these alone: of tensors with a row a sample their rows, ``options`` in place of the options."""
        if isinstance(value, torch.Tensor):
            rows = value.ndim > 0 and value.shape[0] == self._total
            return torch.cat([value.chunk(self._count)[place] for place in self._wanted]) if rows else value
        if isinstance(value, Mapping):
            return (
                options if "cond_or_uncond" in value else {name: self.of(one, options) for name, one in value.items()}
            )
        return type(value)(self.of(one, options) for one in value) if type(value) in (list, tuple) else value


def _control_among(args: Sequence[Any]) -> bool:
    return any(isinstance(value, Mapping) and "cond_or_uncond" not in value for value in args)


def _denoised(x: torch.Tensor, velocity: torch.Tensor, level: float) -> torch.Tensor:
    return x - velocity * level


def _acting(patcher: Any) -> tuple[object, ...]:
    """The hooks that act on the weights, with their strength at this moment."""
    current = getattr(getattr(patcher.model, "current_patcher", None) or patcher, "current_hooks", None)
    return tuple((id(hook), getattr(hook, "strength", None)) for hook in getattr(current, "hooks", None) or ())
