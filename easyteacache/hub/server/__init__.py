"""A private hub: serves a folder of repositories to pull from and push to."""
