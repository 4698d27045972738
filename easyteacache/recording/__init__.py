"""One uncached run as a trace; needs torch, not diffusers."""
