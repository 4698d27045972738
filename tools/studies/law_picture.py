"""The figure of the law study."""


def draw(*args: object) -> None:
    """To be filled."""
