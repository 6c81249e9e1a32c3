r"""No graph, however wrong, ends the process: :mod:`tests.functional.native_calls` tries them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("seed", [0, 1])
def test_no_graph_crashes_or_passes_unseen(seed: int) -> None:
    command = [sys.executable, "-X", "faulthandler", "-m", "tests.functional.native_calls"]
    done = subprocess.run(
        [*command, str(seed)], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    # The last line of stderr before a crash says which function it was.
    assert done.returncode == 0, done.stderr[-2000:]
    *wrong, names = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(names) >= 50
    assert wrong == []
