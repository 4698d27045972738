"""A record, what the caller wants and what is known of the run, resolved to one policy."""
