"""The choices a fit depends on, as the command line spells them and a record keeps them."""

from __future__ import annotations

import argparse
import shlex
from dataclasses import dataclass
from typing import NoReturn, get_args

from easyteacache.errors import InvalidCalibration
from easyteacache.solver.fit.bucket_fit import Method


@dataclass(frozen=True)
class FitOptions:
    """What, besides the traces, decides the numbers of a fit.

    Attributes:
        method: form of the curve, see ``bucket_fit.fit_bucket``.
        order: fixed order of the polynomial; None chooses it by cross-validation.
        robust: Huber weights instead of plain least squares.
    """

    method: Method = "monotone"
    order: int | None = None
    robust: bool = False

    def spell(self) -> str:
        """Options as `easyteacache solve` takes them."""
        order = "" if self.order is None else f" --order {self.order}"
        return f"--method {self.method}{order}{' --robust' if self.robust else ''}"

    @classmethod
    def parse(cls, text: str | None, *, where: str) -> FitOptions:
        """The inverse of ``spell``; None gives the defaults.

        Raises:
            InvalidCalibration: something else stands there, so the fit cannot be repeated.
        """
        parser = _Parser(where)
        parser.add_argument("--method", choices=get_args(Method), default="monotone")
        parser.add_argument("--order", type=int)
        parser.add_argument("--robust", action="store_true")
        try:
            found = parser.parse_args(shlex.split(text or ""))
        except ValueError as error:
            parser.error(str(error))
        return cls(found.method, found.order, found.robust)


class _Parser(argparse.ArgumentParser):
    def __init__(self, where: str) -> None:
        super().__init__(add_help=False, allow_abbrev=False)
        self.where = where

    def error(self, message: str) -> NoReturn:
        raise InvalidCalibration(
            self.where, f"tool_options cannot be repeated by this release: {message}", rule="record.tool-options"
        )
