"""`easyteacache-hub index` on the published registry.

python tools/index_registry.py            # write registry/index.json when it changed
python tools/index_registry.py --check    # exit 1 and name what differs, write nothing
"""

from __future__ import annotations

import sys
from pathlib import Path

from easyteacache.cli.hub import main

REGISTRY = Path(__file__).resolve().parents[1] / "registry"

if __name__ == "__main__":
    main(["index", "--registry", str(REGISTRY), *sys.argv[1:]])
