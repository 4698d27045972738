"""The benchmark: quality at equal computed work, every cache and sampler by its own code, on one model and the same noise."""
