"""Other libraries: attach to their pipelines, record from them, write their configurations."""

from importlib.util import find_spec

from easyteacache.errors import MissingPackage

if find_spec("diffusers") is None:
    raise MissingPackage("diffusers", "a pipeline or transformer", 'pip install "easyteacache[diffusers]"')
