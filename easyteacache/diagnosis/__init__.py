"""Is this cache right, on this pipeline, here: plain answers, each with what to do."""
