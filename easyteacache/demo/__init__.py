"""The demo: the reference model with and without caching, on the same seeds, measured and drawn."""
