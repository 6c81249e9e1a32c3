"""The command: what it refuses to serve, and a server of its own."""

import http.client
import json
import os
import subprocess
import sys
from runpy import run_module, run_path
from urllib.parse import quote

import pytest

from tests.serve.conftest import LONG_USER

TOKEN = "a-token-of-the-test"


def run(monkeypatch, *options):
    """What the command ends with."""
    monkeypatch.setattr(sys, "argv", ["serve", *map(str, options)])
    with pytest.raises(SystemExit) as end:
        run_module("gtc_pyg.serve", run_name="__main__")
    return str(end.value)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1"])
def test_other_addresses_are_not_served_without_a_token(monkeypatch, tmp_path, host):
    said = run(monkeypatch, tmp_path / "missing", "--host", host)
    assert f"whoever reaches {host}:8000 can read all ids, histories" in said
    assert "give --token, or --no-token to serve them without one" in said
    assert "\n" not in said


def test_other_addresses_are_served_when_asked_with_a_warning(monkeypatch, tmp_path, capsys):
    said = run(monkeypatch, tmp_path / "missing", "--host", "0.0.0.0", "--no-token")
    assert "no such folder" in said
    assert capsys.readouterr().err.startswith("warning: whoever reaches 0.0.0.0:8000 can read")


@pytest.mark.parametrize("options", [["--token", TOKEN], ["--token"], ["--host", "127.0.0.2"]])
def test_a_token_or_loopback_needs_no_warning(monkeypatch, tmp_path, capsys, options):
    host = [] if "--host" in options else ["--host", "0.0.0.0"]
    assert "no such folder" in run(monkeypatch, tmp_path / "missing", *host, *options)
    assert "warning" not in capsys.readouterr().err


@pytest.mark.parametrize("token", ["short", "with space in it", "ü" * 20])
def test_a_token_that_cannot_be_sent_is_refused(monkeypatch, tmp_path, capsys, token):
    assert run(monkeypatch, tmp_path, "--token", token) == "2"
    assert "must be 8 to 256 letters" in capsys.readouterr().err


def test_the_script_of_the_examples_is_the_command(monkeypatch, tmp_path, pytestconfig):
    monkeypatch.setattr(sys, "argv", ["serve.py", str(tmp_path)])
    script = pytestconfig.rootpath / "examples" / "explorer" / "serve.py"
    with pytest.raises(SystemExit, match="no saved recommender"):
        run_path(str(script), run_name="__main__")


@pytest.fixture(scope="module")
def served(folder):
    command = [sys.executable, "-m", "gtc_pyg.serve", str(folder), "--port", "0", "--token"]
    server = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    try:
        yield server.stdout.readline().split()[0]
    finally:
        server.terminate()
        server.wait(20)


def test_the_printed_address_lets_in(served):
    place, _, query = served.removeprefix("http://").partition("/")
    connection = http.client.HTTPConnection(place, timeout=30)

    def ask(path, **headers):
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer, answer.read()

    assert ask("/api/about")[0].status == 401
    answer, _ = ask(f"/{query}")
    assert answer.status == 303
    cookie = answer.headers["Set-Cookie"].partition(";")[0]
    answer, page = ask("/", Cookie=cookie)
    assert (answer.status, b"<title>Explorer</title>" in page) == (200, True)
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert ask("/", Cookie=cookie, Host="evil.example")[0].status == 400
    shown = {"Authorization": f"Bearer {query.partition('=')[2]}"}
    assert json.loads(ask("/api/about", **shown)[1])["users"] == 20
    answer, text = ask(f"/api/history?user={quote(LONG_USER, safe='')}", **shown)
    assert (answer.status, len(json.loads(text)) > 0) == (200, True)
