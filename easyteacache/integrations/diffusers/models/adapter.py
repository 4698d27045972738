"""What the cache has to know of a transformer class, as data: its block lists, its argument names, where its signals are.

An adapter never copies a ``forward``: the model's own code runs, and hooks skip its blocks. The adapters themselves are in
``table``; ``registry`` finds one for a module and takes those of users.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from easyteacache.integrations.diffusers.models.token_layouts import ALONE, Layout, token_axes, whole

if TYPE_CHECKING:
    import torch
    from torch import nn

    from easyteacache.integrations.diffusers.models.token_layouts import Own, Tokens

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
        layout: where the generated stream lies in these blocks' tensors (``token_layouts``); by default it is all of them.
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
        own: what is recorded of the first stream's tensor ``(B, L, D)``: the generated tokens, where others stand beside them of which
            branches have different numbers.
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
    own: Own = whole
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
