"""How far apart two results are: frames and latents from files, compared pair by pair.

``compare(A, B)`` is what `easyteacache compare A B` runs; docs/compare.md says what is read and how each figure is defined.
"""

from easyteacache.compare.report import Report, compare
from easyteacache.compare.results import Comparison, FrameResult, Summary

__all__ = ["Comparison", "FrameResult", "Report", "Summary", "compare"]
