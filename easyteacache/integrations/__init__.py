"""Other libraries: put the cache on their pipelines and models, record from them."""
