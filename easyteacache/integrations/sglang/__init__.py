"""The cache in SGLang: a plug-in that runs plans of the registry through the hooks that its models have for Spectrum."""
