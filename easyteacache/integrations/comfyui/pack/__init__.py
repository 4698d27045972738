"""EasyTeaCache for ComfyUI: the nodes come with the package ``easyteacache``, which this folder imports."""

from easyteacache.integrations.comfyui.nodes import comfy_entrypoint as comfy_entrypoint
