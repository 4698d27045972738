"""EasyTeaCache against every peer: one command, one table, one picture. The same as ``easyteacache bench``.

python tools/bench/peers.py run --out bench.json
python tools/bench/peers.py report bench.json --plots pictures
"""

from __future__ import annotations

from easyteacache.cli.bench import bench

if __name__ == "__main__":
    bench()
