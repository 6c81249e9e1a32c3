"""Which requests the guard lets through, and what it tells browsers."""

import pytest
from fastapi.responses import PlainTextResponse
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st

from gtc_pyg.serve.guard import HEADERS, Guard

TOKEN = "right.token_1"


def client(at="127.0.0.1:8000", **options):
    app = Guard(PlainTextResponse("a history"), **options)
    return TestClient(app, base_url=f"http://{at}", follow_redirects=False)


def status(host, at="127.0.0.1:8000", **options):
    return client(at, **options).get("/", headers={"Host": host}).status_code


@pytest.mark.parametrize(
    ("at", "host"),
    [
        ("127.0.0.1:8000", "127.0.0.1:8000"),
        ("127.0.0.1:8000", "localhost"),
        ("127.0.0.1:8000", "LOCALHOST:8000"),
        ("127.0.0.1:8000", "localhost:9"),
        ("127.0.0.1:8000", "[::1]:8000"),
        ("[::1]:8000", "[0:0:0:0:0:0:0:1]:8000"),
        ("[::1]:8000", "localhost"),
        ("192.168.0.7:80", "192.168.0.7"),
        ("192.168.0.7:80", "shop.example"),
        ("192.168.0.7:80", "Shop.Example:443"),
        ("[::ffff:192.168.0.7]:80", "192.168.0.7"),
    ],
)
def test_expected_hosts_are_answered(at, host):
    assert status(host, at, names=["shop.example"]) == 200


@pytest.mark.parametrize(
    ("at", "host"),
    [
        ("127.0.0.1:8000", "evil.example"),
        ("127.0.0.1:8000", "evil.example:8000"),
        ("127.0.0.1:8000", "127.0.0.1.evil.example"),
        ("127.0.0.1:8000", "localhost.evil.example"),
        ("127.0.0.1:8000", "evil.example@localhost"),
        ("127.0.0.1:8000", "localhost@evil.example"),
        ("127.0.0.1:8000", "localhost, evil.example"),
        ("127.0.0.1:8000", "127.0.0.1:8000:8000"),
        ("127.0.0.1:8000", "192.168.0.7"),
        ("127.0.0.1:8000", ""),
        ("192.168.0.7:80", "localhost"),
        ("192.168.0.7:80", "127.0.0.1"),
        ("192.168.0.7:80", "192.168.0.8"),
    ],
)
def test_other_hosts_are_refused(at, host):
    answer = client(at, names=["shop.example"]).get("/", headers={"Host": host})
    assert answer.status_code == 400
    assert "history" not in answer.text
    assert answer.json()["detail"].startswith("this service does not go by that host name")


@settings(deadline=None)
@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=20))
def test_no_other_name_is_let_through(host):
    ours = {"127.0.0.1", "localhost", "[::1]", "::1", "[127.0.0.1]", "[localhost]"}
    known = host.lower() in ours or host.lower().rpartition(":")[0] in ours
    assert (status(host) == 200) <= known


@pytest.mark.parametrize("given", [{}, {"Host": "evil.example"}])
@pytest.mark.parametrize("token", [None, TOKEN])
def test_every_answer_tells_browsers_what_they_may(given, token):
    answer = client(token=token).get("/", headers=given)
    assert {name: answer.headers.get(name) for name in HEADERS} == HEADERS
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": TOKEN},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": "Bearer "},
        {"Authorization": f"Bearer {TOKEN[:-1]}"},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": "Bearer ü"},
        {"Cookie": f"gtc_pyg_8000={TOKEN[:-1]}"},
        {"Cookie": f"gtc_pyg_8001={TOKEN}"},
    ],
)
@pytest.mark.parametrize("path", ["/", "/api/about", f"/api/about?token={TOKEN}", "/?token=", "//"])
def test_without_the_token_nothing_is_answered(headers, path):
    sent = {name: value.encode() for name, value in headers.items()}
    answer = client(token=TOKEN).get(path, headers=sent)
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert "Authorization: Bearer TOKEN" in answer.json()["detail"]
    assert "set-cookie" not in answer.headers


def test_a_query_of_many_fields_is_no_token():
    fields = "&".join(f"a{i}=1" for i in range(1000))
    assert client(token="a-token-of-ours").get(f"/?{fields}").status_code == 401


def test_programs_show_the_token_and_browsers_keep_it():
    browser = client(token=TOKEN)
    shown = {"Authorization": f"bearer {TOKEN}"}
    assert browser.get("/api/about", headers=shown).text == "a history"
    answer = browser.get(f"/?token={TOKEN}")
    assert (answer.status_code, answer.headers["Location"]) == (303, "./")
    cookie = answer.headers["set-cookie"]
    assert all(part in cookie for part in ("gtc_pyg_8000=", "HttpOnly", "SameSite=lax"))
    assert browser.get("/").text == "a history"  # by the cookie


@pytest.mark.parametrize("token", ["", "short", "with space", "ü" * 9, "semi;colon", "x" * 257])
def test_a_token_that_cannot_be_sent_is_refused(token):
    with pytest.raises(ValueError, match="the token must be 8 to 256 letters"):
        Guard(None, token=token)
