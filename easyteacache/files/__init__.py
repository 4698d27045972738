"""Read text that nobody vouches for; write whole files or none."""
