"""The nodes, in ComfyUI's own interface. This module alone imports ComfyUI."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from comfy_api.latest import ComfyExtension, io, ui

from easyteacache.integrations.comfyui.cached_model import AUTO, BY_SPEEDUP, QUALITIES, cached, reported
from easyteacache.integrations.comfyui.compared_images import compared
from easyteacache.integrations.comfyui.run_recorder import recorded_model
from easyteacache.integrations.wish import SOURCES

CATEGORY = "advanced/EasyTeaCache"
_KEY = "A model key of the registry (easyteacache-hub list), or auto: read off the checkpoint's configuration."


class EasyTeaCacheNode(io.ComfyNode):
    """Model in, cached model out."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs and outputs."""
        return io.Schema(
            node_id="EasyTeaCache",
            display_name="EasyTeaCache",
            category=CATEGORY,
            description=(
                "Computes some calls of the model and predicts the others by a plan of the registry, and says which record "
                "that is, what is known of it, and why every call is computed where that is so."
            ),
            inputs=[
                io.Model.Input("model"),
                io.Combo.Input(
                    "plan",
                    options=list(SOURCES),
                    default=SOURCES[0],
                    tooltip="Where the plan comes from; exact computes every call.",
                ),
                io.Float.Input(
                    "speedup",
                    default=2.0,
                    min=1.0,
                    max=8.0,
                    step=0.05,
                    tooltip="Calls divided by computed calls; 1 computes every call.",
                ),
                io.String.Input("model_key", default=AUTO, tooltip=_KEY),
                io.Combo.Input(
                    "quality",
                    options=list(QUALITIES),
                    default=BY_SPEEDUP,
                    optional=True,
                    tooltip="An error that runs which were held out stayed within, in place of the speed-up; records alone can say so.",
                ),
            ],
            outputs=[io.Model.Output(display_name="model"), io.String.Output(display_name="about")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, model: Any, plan: Any, speedup: float, model_key: str, quality: str = BY_SPEEDUP) -> io.NodeOutput:
        """Put the cache on a clone of the model."""
        show = _shown_on(cls.hidden.unique_id)
        found, text = cached(model, plan=plan, model_key=model_key, speedup=speedup, quality=quality, show=show)
        show(text)
        return io.NodeOutput(found, text, ui=ui.PreviewText(text))


class EasyTeaCacheRecordNode(io.ComfyNode):
    """Model in, model out that writes a trace of every run."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs and outputs."""
        return io.Schema(
            node_id="EasyTeaCacheRecord",
            display_name="EasyTeaCache Record",
            category=CATEGORY,
            description=(
                "Computes every call, and writes what a calibration is made of: a trace of some kilobytes, in which no picture can "
                "be seen. `easyteacache solve` makes a calibration of several."
            ),
            inputs=[
                io.Model.Input("model"),
                io.String.Input("model_key", default=AUTO, tooltip=_KEY),
                io.String.Input(
                    "prompt",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip="The run's text; its hash tells runs apart.",
                ),
                io.Boolean.Input(
                    "publish_prompt", default=False, optional=True, tooltip="Store the text, too, not its hash alone."
                ),
                io.String.Input(
                    "folder", default="", optional=True, tooltip="Where traces go; empty: the traces of this machine."
                ),
            ],
            outputs=[io.Model.Output(display_name="model")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls, model: Any, model_key: str, prompt: str = "", publish_prompt: bool = False, folder: str = ""
    ) -> io.NodeOutput:
        """Put the recorder on a clone of the model."""
        show = _shown_on(cls.hidden.unique_id)
        found, text = recorded_model(
            model,
            model_key=model_key,
            prompt=prompt,
            publish_prompt=publish_prompt,
            folder=folder,
            report=lambda report: reported(report, show),
        )
        show(text)
        return io.NodeOutput(found, ui=ui.PreviewText(text))


class EasyTeaCacheCompareNode(io.ComfyNode):
    """Two pictures in, their distance out."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs and outputs."""
        return io.Schema(
            node_id="EasyTeaCacheCompare",
            display_name="EasyTeaCache Compare",
            category=CATEGORY,
            description="PSNR and SSIM of two pictures or videos, and where they differ.",
            inputs=[
                io.Image.Input("reference"),
                io.Image.Input("other"),
                io.Float.Input(
                    "gain", default=4.0, min=1.0, max=64.0, step=1.0, tooltip="Differences are shown this many times."
                ),
            ],
            outputs=[
                io.Image.Output(display_name="difference"),
                io.String.Output(display_name="about"),
                io.Float.Output(display_name="psnr"),
                io.Float.Output(display_name="ssim"),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, reference: Any, other: Any, gain: float) -> io.NodeOutput:
        """Compare."""
        found = compared(reference, other, gain=gain)
        _shown_on(cls.hidden.unique_id)(found.text)
        worst = [value for value in found.ssim if value is not None]
        return io.NodeOutput(
            found.difference,
            found.text,
            min(found.psnr),
            min(worst, default=float("nan")),
            ui=ui.PreviewText(found.text),
        )


class EasyTeaCacheExtension(ComfyExtension):
    """The node pack."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """The nodes."""
        return [EasyTeaCacheNode, EasyTeaCacheRecordNode, EasyTeaCacheCompareNode]


async def comfy_entrypoint() -> ComfyExtension:
    """What ComfyUI asks a node pack for."""
    return EasyTeaCacheExtension()


def _shown_on(node: str | None) -> Callable[[str], None]:
    """Shows text on a node while a workflow runs, where there is a server to show it."""

    def show(text: str) -> None:
        # A workflow that runs without a server has nobody to show it to.
        with contextlib.suppress(ImportError, AttributeError):
            from server import PromptServer

            if node is not None:
                PromptServer.instance.send_progress_text(text, node)

    return show
