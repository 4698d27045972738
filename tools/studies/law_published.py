"""Published plans and ratios of real models beside the law and the universal plan."""


def plans() -> None:
    """To be filled."""


def ratios() -> None:
    """To be filled."""
