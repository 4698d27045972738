# /// script
# requires-python = ">=3.10"
# dependencies = ["easyteacache[diffusers]", "ftfy", "sentencepiece"]
# ///
"""Calibrate a model by name on a rented GPU, and bring the record home: one file, nothing to install.

    uv run tools/calibrate_job.py reference --steps 20 --keep results
    hf jobs uv run --flavor a100-large --secrets HF_TOKEN --timeout 6h tools/calibrate_job.py \\
        Wan-AI/Wan2.1-T2V-1.3B-Diffusers --upload YOU/wan-calibration -- --size 832x480 --frames 81 --dtype bfloat16

What stands after ``--`` goes to ``easyteacache calibrate``, which says how long it will take before it begins. The machine is gone when
the job ends, so say where the results go: ``--upload`` a dataset of your own on the Hub, ``--push`` a pull request to a calibration hub,
``--keep`` a folder. They are sent when the calibration passed, and the traces also when it did not: they are what the time was paid for.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

PROGRAM = [sys.executable, "-m", "easyteacache"]
HUB = [sys.executable, "-m", "easyteacache.cli.hub"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit code is that of the calibration, or of sending it."""
    given, further = _parsed(list(sys.argv[1:] if arguments is None else arguments))
    home = Path(given.work).absolute()
    traces = home / "traces"
    environment = {**os.environ, "EASYTEACACHE_HOME": str(home)}
    made = subprocess.run(
        [*PROGRAM, "calibrate", given.model, "--out", str(traces), *further], env=environment, check=False
    )
    records = sorted((home / "local").rglob("*.json")) if made.returncode == 0 else []
    records = [path for path in records if path.name != "index.json"]
    sent = _keep(given.keep, traces, records) if given.keep else 0
    if given.upload:
        sent = sent or _upload(given.upload, traces, records, private=given.private)
    if given.push and made.returncode == 0:
        repository = ["--repo", given.push]
        sent = (
            sent
            or subprocess.run(
                [*HUB, "push", *map(str, records), "--traces", str(traces), *repository], env=environment, check=False
            ).returncode
        )
    elif given.push:
        print("The calibration did not pass, so no pull request was opened.", file=sys.stderr)
    return made.returncode or sent


def _parsed(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    further: list[str] = []
    if "--" in arguments:
        place = arguments.index("--")
        arguments, further = arguments[:place], arguments[place + 1 :]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a diffusers pipeline on the Hub, or 'reference'")
    parser.add_argument("--keep", metavar="DIR", type=Path, help="copy record and traces there")
    parser.add_argument("--upload", metavar="OWNER/NAME", help="dataset repository to put record and traces into")
    parser.add_argument("--private", action="store_true", help="with --upload: make it private where it is new")
    parser.add_argument("--push", metavar="OWNER/NAME", help="calibration hub to open a pull request at")
    parser.add_argument("--work", metavar="DIR", default="calibrate-job", help="scratch folder; the same one goes on")
    given, rest = parser.parse_known_args(arguments)
    if not (given.keep or given.upload or given.push):
        parser.error("say where the results go, with --keep, --upload or --push: the machine is gone when the job ends")
    return given, [*rest, *further]


def _keep(folder: Path, traces: Path, records: Sequence[Path]) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    if traces.is_dir():
        shutil.copytree(traces, folder / "traces", dirs_exist_ok=True)
    for path in records:
        shutil.copy2(path, folder / path.name)
    print(f"Kept {len(records)} record{'s' * (len(records) != 1)} and the traces in {folder}.")
    return 0


def _upload(repository: str, traces: Path, records: Sequence[Path], *, private: bool) -> int:
    from huggingface_hub import HfApi

    api = HfApi()
    api.create_repo(repository, repo_type="dataset", private=private, exist_ok=True)
    if traces.is_dir():
        api.upload_folder(repo_id=repository, repo_type="dataset", folder_path=traces, path_in_repo="traces")
    for path in records:
        api.upload_file(repo_id=repository, repo_type="dataset", path_or_fileobj=path, path_in_repo=path.name)
    print(f"Uploaded to https://huggingface.co/datasets/{repository}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
