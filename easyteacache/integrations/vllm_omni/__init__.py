"""The cache in vLLM-Omni: a plug-in with a cache backend of its own, over the guided output of its pipelines."""
