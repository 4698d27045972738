"""The catalogue: a registry as a static web site, where people see what exists, how good it is and how to use it."""
