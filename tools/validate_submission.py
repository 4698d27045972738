"""`easyteacache-hub review` on this repository, whatever folder it is called from.

python tools/validate_submission.py --base origin/main
python tools/validate_submission.py --base origin/main --traces DIR --github
"""

from __future__ import annotations

import sys
from pathlib import Path

from easyteacache.cli.hub import main

ROOT = Path(__file__).resolve().parents[1]

if __name__ == "__main__":
    main(["review", "--root", str(ROOT), *sys.argv[1:]])
