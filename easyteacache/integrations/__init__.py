"""Other libraries: attach to their pipelines, record from them, write their configurations."""
