"""What the cache has to know of a transformer class, as data: its block lists, its argument names, where its signals are.

An adapter never copies a ``forward``: the model's own code runs, and hooks skip its blocks. A class that is not in ``table``
can be added by its user in a few lines with ``register_adapter``.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from easyteacache.errors import AttachError
from easyteacache.integrations.diffusers.models.token_layouts import ALONE, Layout, token_axes

if TYPE_CHECKING:
    import torch
    from torch import nn

    from easyteacache.integrations.diffusers.models.token_layouts import Tokens

    Extract = Callable[["nn.Module", Mapping[str, Any]], torch.Tensor]
    Refuse = Callable[["nn.Module"], str | None]
    Embed = Callable[["nn.Module", "torch.Tensor", Mapping[str, Any]], torch.Tensor]


@dataclass(frozen=True)
class Argument:
    """A signal that the first block is handed as an argument.

    Attributes:
        name: the argument's name in the block's ``forward``.
        pick: takes the signal out of the argument, where the argument is not the tensor itself.
    """

    name: str
    pick: Callable[[Any], torch.Tensor] | None = None


@dataclass(frozen=True)
class Output:
    """A signal that a submodule of the transformer returns before the first block runs.

    Attributes:
        module: dotted name of the submodule.
        index: position in the returned tuple; None when the submodule returns the tensor itself.
    """

    module: str
    index: int | None = None


@dataclass(frozen=True)
class Computed:
    """A signal computed from the first block's own layers and arguments, as the block itself begins.

    Attributes:
        of: ``(block, arguments) -> tensor``.
    """

    of: Extract


@dataclass(frozen=True)
class FirstBlock:
    """The first block's output minus its input: that block always runs, the decision falls after it."""


Source = Argument | Output | Computed | FirstBlock


@dataclass(frozen=True)
class Blocks:
    """One list of blocks, run in order.

    Attributes:
        path: dotted name of the list in the transformer.
        returns: the arguments that a block hands on, in the order it returns them; one name alone means that it returns a
            bare tensor. A name that starts with ``_`` is a returned value that is no argument; None stands for it when a
            block is skipped.
        layout: where the generated stream lies in these blocks' tensors (``layouts``); by default it is all of them.
        optional: the list may be absent or empty.
    """

    path: str
    returns: tuple[str, ...] = ("hidden_states",)
    layout: Layout = ALONE
    optional: bool = False


@dataclass(frozen=True)
class Adapter:
    """One transformer class.

    Attributes:
        transformer: name of the class.
        blocks: its block lists in the order they run.
        signals: where each signal that a calibration may ask for is found.
        streams: arguments of the first block whose residual is cached: the streams that are generated and read after the
            blocks. One that is None in a forward is left out.
        latent, timestep: the transformer's own arguments for the noisy sample and the noise level.
        conditioning: the transformer's own arguments that tell guidance branches apart where a pipeline sets no context.
        tokens: sequence length of the generated stream, from the first stream's tensor, the transformer's arguments, and the
            transformer; by default every axis between batch and channels.
        embeds: for a signal that follows from the noise level alone: ``(transformer, timesteps (N,), arguments) -> (N, …)``, so
            that a whole run's distances are known before step 0.
        refuses: why an instance cannot be served, or None.
        note: what a user should know.
    """

    transformer: str
    blocks: tuple[Blocks, ...]
    signals: Mapping[str, Source] = field(default_factory=dict)
    streams: tuple[str, ...] = ("hidden_states",)
    latent: str = "hidden_states"
    timestep: str = "timestep"
    conditioning: tuple[str, ...] = ("encoder_hidden_states",)
    tokens: Tokens = token_axes
    embeds: Mapping[str, Embed] = field(default_factory=dict)
    refuses: Refuse = lambda transformer: None
    note: str = ""

    def source(self, signal: str) -> Source | None:
        """Where ``signal`` is found; None when this class does not offer it."""
        return self._offered().get(signal)

    @property
    def signal_names(self) -> tuple[str, ...]:
        """Every signal that can be taken from this class."""
        return tuple(self._offered())

    def _offered(self) -> dict[str, Source]:
        offered = {**self.signals}
        offered.setdefault("hidden_states", Argument(self.streams[0]))
        # The first list may run beside the stream (control hints) and give nothing of it back.
        if set(self.streams) <= set(self.blocks[0].returns):
            offered["first_block_residual"] = FirstBlock()
        return offered


_REGISTERED: dict[str, Adapter] = {}


def register_adapter(adapter: Adapter) -> Adapter:
    """Make a transformer class known, or replace what is known of it; returns the adapter.

    Raises:
        AttachError: the adapter names no blocks, or a stream that its first blocks do not hand on.
    """
    if not adapter.blocks:
        raise AttachError(f"the adapter for {adapter.transformer} names no block lists")
    handed_on = adapter.blocks[-1].returns
    missing = [stream for stream in adapter.streams if stream not in handed_on]
    if missing:
        raise AttachError(
            f"the adapter for {adapter.transformer}: the last blocks return {handed_on}, which lacks the stream {missing[0]!r}"
        )
    _REGISTERED[adapter.transformer] = adapter
    return adapter


def adapters() -> tuple[Adapter, ...]:
    """Every known adapter, by class name."""
    _load_table()
    return tuple(_REGISTERED[name] for name in sorted(_REGISTERED))


def adapter_for(module: nn.Module) -> Adapter:
    """The adapter for a transformer.

    A subclass is covered by its base's adapter as long as it does not replace ``forward``.

    Raises:
        AttachError: there is none; the message says how to add one.
    """
    _load_table()
    kind = type(module)
    for base in kind.__mro__:
        if base.__name__ in _REGISTERED and getattr(base, "forward", None) is getattr(kind, "forward", None):
            return _REGISTERED[base.__name__]
    raise AttachError(
        f"no adapter for {kind.__name__}. If it is a transformer with one list of blocks, add one:\n\n"
        "    from easyteacache.integrations.diffusers import Adapter, Blocks, register_adapter\n"
        f"    register_adapter(Adapter({kind.__name__!r}, (Blocks('transformer_blocks'),)))\n\n"
        "docs/attach.md explains every field. Covered today: " + ", ".join(sorted(_REGISTERED))
    )


def located(adapter: Adapter, module: nn.Module) -> list[tuple[Blocks, nn.Module]]:
    """Every block of ``module`` in the order it runs, with the list it belongs to.

    Raises:
        AttachError: a list is missing, or there are fewer than two blocks.
    """
    found: list[tuple[Blocks, nn.Module]] = []
    for blocks in adapter.blocks:
        try:
            modules: Sequence[nn.Module] = list(operator.attrgetter(blocks.path)(module))
        except (AttributeError, TypeError):
            if blocks.optional:
                continue
            raise AttachError(
                f"{type(module).__name__} has no block list {blocks.path!r}, which its adapter names: "
                "another release of diffusers? Register an adapter for this one"
            ) from None
        found.extend((blocks, block) for block in modules)
    if len(found) < 2:
        raise AttachError(f"{type(module).__name__} has {len(found)} block(s): nothing can be skipped")
    return found


def _load_table() -> None:
    # Filled on first use, so that a user's own adapter for the same class is not replaced afterwards.
    from easyteacache.integrations.diffusers.models import table

    for adapter in table.ADAPTERS:
        _REGISTERED.setdefault(adapter.transformer, adapter)
