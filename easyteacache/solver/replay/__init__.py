"""What a plan would have done on recorded runs."""
