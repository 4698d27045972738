"""The cache in ComfyUI: nodes, and the wrappers that they put around a model. Importing this needs torch and no ComfyUI."""
