"""Choose plans."""
