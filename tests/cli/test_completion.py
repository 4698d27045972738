from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete
from click.testing import Result

from easyteacache.cli.hub import main as hub
from easyteacache.cli.lazy import LazyGroup
from easyteacache.cli.main import main as program

Run = Callable[..., Result]


def words(group: LazyGroup, arguments: list[str], incomplete: str) -> list[str]:
    return [item.value for item in ShellComplete(group, {}, "p", "_P_COMPLETE").get_completions(arguments, incomplete)]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_a_script_for_each_program(shell: str, run_hub: Run, run_program: Run) -> None:
    assert "_EASYTEACACHE_HUB_COMPLETE" in run_hub("completion", shell).stdout
    assert "_EASYTEACACHE_COMPLETE" in run_program("completion", shell).stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_valid_for_its_shell(shell: str, run_hub: Run, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    script = tmp_path / "script"
    script.write_text(run_hub("completion", shell).stdout)
    done = subprocess.run([shell, "-n", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_an_unknown_shell_is_wrong_usage(run_hub: Run) -> None:
    assert run_hub("completion", "tcsh").exit_code == 2


@pytest.mark.parametrize("command", ["show", "resolve"])
def test_model_keys_complete_from_the_index(command: str) -> None:
    assert words(hub, [command], "wan2.1/t2v-14b/no") == ["wan2.1/t2v-14b/no-retention"]
    assert len(words(hub, [command], "")) >= 60


def test_model_keys_complete_from_the_registry_that_was_named(registry_folder: Path) -> None:
    assert words(hub, ["show", "--registry", str(registry_folder)], "") == ["other/image", "tiny/video"]


def test_a_broken_registry_completes_nothing(registry_folder: Path) -> None:
    (registry_folder / "tiny" / "video.json").write_text("{")
    assert words(hub, ["show", "--registry", str(registry_folder)], "t") == []


def test_commands_options_and_choices_complete() -> None:
    assert words(hub, [], "re") == ["resolve", "review"]
    assert "--speedup" in words(hub, ["resolve"], "--s")
    assert words(hub, ["list", "--status"], "val") == ["validated"]
    assert "demo" in words(program, [], "")


@pytest.mark.skipif(shutil.which("easyteacache-hub") is None or os.name == "nt", reason="needs the installed program")
def test_the_installed_program_answers_bash() -> None:
    environment = {
        **os.environ,
        "_EASYTEACACHE_HUB_COMPLETE": "bash_complete",
        "COMP_WORDS": "easyteacache-hub show wan2.1/t2v-14b/no",
        "COMP_CWORD": "2",
    }
    done = subprocess.run(["easyteacache-hub"], capture_output=True, text=True, env=environment, check=False)
    assert done.stdout == "plain,wan2.1/t2v-14b/no-retention\n"
