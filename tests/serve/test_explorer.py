"""The explorer: its answers, its refusals, and its page in a browser."""

import json
import os
import re
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from runpy import run_path

import numpy as np
import pandas as pd
import pytest
import torch
from fastapi.testclient import TestClient
from playwright.sync_api import expect

from gtc_pyg.datasets import from_frames
from gtc_pyg.models import GTC, ContentFilter, GraphRecommender, ItemBias, LightGCN
from gtc_pyg.nn import BPR
from gtc_pyg.recommend import Recommender
from gtc_pyg.serve.api import make_app
from gtc_pyg.serve.heavy import MAX_BYTES
from gtc_pyg.transforms import ItemKNNGraph
from tests.serve import browser as web

EXPLORER = Path(__file__).parents[2] / "examples" / "explorer"
USER = "7/../ü 😀"
BIG = 2**60
HOSTILE = r"<img src=x onerror=alert(1)> $a_b^c$ 100%s \frac &amp; 1,000,000 {x} *y*"


@pytest.fixture(scope="module")
def dataset():
    rng = np.random.default_rng(0)
    user, item = rng.integers(30, size=400), rng.integers(40, size=400)
    users = np.array([USER, *(f"u{row}" for row in range(1, 30))])
    items = pd.DataFrame({"item": range(100, 140), "title": [f"Title {i}" for i in range(40)]})
    items.loc[39, ["item", "title"]] = [BIG, HOSTILE]
    frame = pd.DataFrame({"user": users[user], "item": items["item"].to_numpy()[item]})
    return from_frames(frame, items, {"image": rng.random((40, 8))}, transform=ItemKNNGraph(k=5))


@pytest.fixture(scope="module")
def recommender(dataset):
    torch.manual_seed(0)
    content_filter = ContentFilter({"image": 8}, channels=16, strength=0.05)
    model = GTC(30, 40, {"image": 8}, content_filter, ranking=BPR(), heads=[ItemBias()])
    torch.nn.init.normal_(model.item_bias.weight, std=0.1)
    return Recommender(model, dataset)


@pytest.fixture(scope="module")
def folder(recommender, tmp_path_factory):
    return recommender.save(tmp_path_factory.mktemp("explorer") / "saved")


@pytest.fixture(scope="module")
def client(folder):
    # Its own errors are answers here, as they are for a browser.
    with TestClient(make_app(Recommender.load(folder)), raise_server_exceptions=False) as client:
        yield client


def ask(client, path, body=None):
    response = (
        client.get(f"/api/{path}") if body is None else client.post(f"/api/{path}", json=body)
    )
    assert response.status_code == 200, response.text
    return response.json()


def pairs(answer):
    return [(int(entry["id"]), entry["value"]) for entry in answer]


def as_pairs(table):
    return list(zip(table["item"], table["score"], strict=True))


def history(client, user=USER):
    response = client.get("/api/history", params={"user": user})
    assert response.status_code == 200, response.text
    return response.json()


def test_lists_and_similar_items_are_the_recommenders(client, recommender):
    lists = "recommendations"
    assert pairs(ask(client, lists, {"user": USER, "k": 7})) == as_pairs(
        recommender.recommend(USER, 7)
    )
    body = {"interactions": [101.0, "102", 101], "exclude": [100, 103, str(BIG)], "k": 36}
    table = recommender.fold_in([101, 102], 36, exclude=[100, 103, BIG])
    assert pairs(ask(client, lists, body)) == as_pairs(table)
    assert len(table) == 35
    body = {"user": "u3", "exclude_seen": False, "k": 40}
    assert len(ask(client, lists, body)) == 40
    assert pairs(ask(client, "similar?item=101&k=3")) == as_pairs(recommender.similar_items(101, 3))


def test_a_history_is_all_that_was_seen(client, recommender):
    row = recommender.users.rows(USER)
    seen = recommender.items[recommender.seen[1, recommender.seen[0] == row]]
    assert sorted(int(entry["id"]) for entry in history(client)) == sorted(seen)
    assert all(re.match(r"Title \d+|<img", entry["label"]) for entry in history(client))


@pytest.mark.parametrize("who", [{"user": USER}, {"interactions": [101, 102, 102, 105]}])
def test_reasons_add_up_to_the_scores_of_the_list(client, who):
    answer = ask(client, "recommendations", {**who, "k": 4})
    reasons = ask(client, "explanations", {**who, "items": [entry["id"] for entry in answer]})
    own = {101, 102, 105} if "user" not in who else {int(x["id"]) for x in history(client)}
    for entry, why in zip(answer, reasons, strict=True):
        assert (why["id"], why["label"]) == (entry["id"], entry["label"])
        assert list(why["sources"]) == ["interactions", "image", "popularity"]
        assert sum(why["sources"].values()) == pytest.approx(why["score"], abs=1e-5)
        assert why["score"] == pytest.approx(entry["value"], abs=1e-5)
        past = [x["value"] for x in why["past_items"]]
        assert past == sorted(past, reverse=True)
        assert {int(x["id"]) for x in why["past_items"]} <= own


def test_suggestions_begin_with_the_whole_id(client):
    assert ask(client, "users?query=u2&limit=4") == ["u2", "u20", "u21", "u22"]
    assert ask(client, "users?query=U29") == ["u29"]
    assert client.get("/api/users", params={"query": "/../"}).json() == [USER]
    assert ask(client, "users?query=nobody") == []
    assert [x["id"] for x in ask(client, "items?query=TITLE 3&limit=2")] == [103, 130]
    assert ask(client, "items?query=101")[0] == {"id": 101, "label": "Title 1"}
    assert ask(client, "random-user") in ask(client, "users?limit=30")


def test_ids_that_a_browser_would_round_come_and_go_as_text(client):
    (entry,) = ask(client, "items?query=onerror")
    assert entry == {"id": str(BIG), "label": HOSTILE}
    assert len(ask(client, f"similar?item={BIG}&k=5")) == 5
    body = {"interactions": [str(BIG)], "items": [str(BIG)]}
    assert ask(client, "explanations", body)[0]["past_items"][0]["id"] == str(BIG)


LISTS, REASONS = "/api/recommendations", "/api/explanations"
BAD_BODIES = [
    (LISTS, {"user": "u99"}, 404, "unknown user 'u99'"),
    (LISTS, {"user": 7}, 404, "unknown user 7"),
    (LISTS, {"interactions": [101, 5]}, 404, "unknown item 5"),
    (LISTS, {"interactions": [101, "one"]}, 404, "unknown item 'one'"),
    (LISTS, {"interactions": [2**63 - 1]}, 404, "unknown item"),
    (LISTS, {"user": "u1", "exclude": [9]}, 404, "unknown item 9"),
    (REASONS, {"user": "u1", "items": [9]}, 404, "unknown item 9"),
    (REASONS, {"user": "u99", "items": [101]}, 404, "unknown user"),
    (LISTS, {}, 422, "give either 'user' or 'interactions'"),
    (LISTS, {"user": "u1", "interactions": [101]}, 422, "give either"),
    (LISTS, {"user": "u1", "k": 0}, 422, "body.k: "),
    (LISTS, {"user": "u1", "k": 101}, 422, "less than or equal to 100"),
    (LISTS, {"user": "u1", "k": "5"}, 422, "body.k: "),
    (LISTS, {"user": "u1", "k": 1e400}, 422, "body.k: "),
    (LISTS, {"user": "u1", "length": 5}, 422, "body.length: "),
    (LISTS, {"user": ["u1"]}, 422, "body.user"),
    (LISTS, {"user": None, "interactions": [101]}, 422, "body.user"),
    (LISTS, {"user": True}, 422, "body.user"),
    (LISTS, {"user": 1.5}, 422, "body.user"),
    (LISTS, {"user": float("nan")}, 422, "body.user"),
    (LISTS, {"user": "\ud800"}, 422, "body.user"),
    (LISTS, {"user": "x" * 257}, 404, "unknown user"),
    (LISTS, {"user": 2**64}, 404, "unknown user 1844"),
    (LISTS, {"interactions": [2**63, -1, 10**30]}, 404, "unknown item"),
    (LISTS, {"interactions": []}, 422, "at least 1 item"),
    (LISTS, {"interactions": [None]}, 422, "body.interactions"),
    (LISTS, {"interactions": [101] * 10_001}, 422, "at most 10000"),
    (LISTS, {"\ud800": 1, "user": "u1"}, 422, "unicode"),
    (REASONS, {"user": "u1", "items": []}, 422, "at least 1 item"),
    (REASONS, {"user": "u1", "items": [101] * 101}, 422, "at most 100"),
    (LISTS, [], 422, "body: "),
    (LISTS, None, 422, "body: "),
    (LISTS, b"{", 422, "JSON"),
    (LISTS, b'{"user": "\xff"}', 400, "UTF-8"),
    (LISTS, b"[" * 100_000, 400, "cannot be read"),
    (LISTS, b'{"user": 1' + b"0" * 5000 + b"}", 400, "cannot be read"),
    (LISTS, b"", 422, "body: "),
    (LISTS, b" " * (MAX_BYTES + 1), 413, "at most 4,000,000 bytes"),
]


@pytest.mark.parametrize(("path", "body", "status", "why"), BAD_BODIES)
def test_a_malformed_body_is_refused_with_the_reason(client, path, body, status, why):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    response = client.post(path, content=content, headers=headers)
    assert (response.status_code, why in response.json()["detail"]) == (status, True), response.text


@pytest.mark.parametrize(
    ("address", "status", "why"),
    [
        ("history?user=u99", 404, "unknown user 'u99'"),
        ("history?user=%ff%00", 404, "unknown user"),
        ("history", 422, "query.user: Field required"),
        ("users?limit=0", 422, "query.limit: "),
        ("users?limit=101", 422, "query.limit: "),
        ("users?limit=x", 422, "query.limit: "),
        ("similar?item=9", 404, "unknown item 9"),
        ("similar?item=" + "9" * 256, 404, "unknown item"),
        ("similar?item=one", 404, "unknown item 'one'"),
        ("similar?item=101&k=1e9", 422, "query.k: "),
        ("nonsense", 404, "Not Found"),
        ("recommendations", 405, "Method Not Allowed"),
    ],
)
def test_a_malformed_address_is_refused_with_the_reason(client, address, status, why):
    response = client.get(f"/api/{address}")
    assert (response.status_code, why in response.json()["detail"]) == (status, True), response.text


def test_a_body_of_unknown_length_or_of_another_kind_is_refused(client):
    response = client.post(LISTS, content=iter([b"{}"]))
    assert (response.status_code, "Content-Length" in response.text) == (411, True)
    response = client.post(LISTS, data={"user": "u1"})
    assert (response.status_code, "application/json" in response.text) == (422, True)
    assert client.get("/static/../api.py").status_code == 404
    assert client.get("/static/%2e%2e/api.py").status_code == 404


def test_concurrent_requests_get_the_answers_of_sequential_ones(recommender):
    users = [f"u{row}" for row in range(1, 12)]
    bodies = [{"user": user, "k": 5} for user in users]
    bodies += [{"interactions": list(range(100 + i, 104 + i)), "k": 5} for i in range(12)]
    with TestClient(make_app(recommender)) as client:

        def one(body):
            answer = ask(client, "recommendations", body)
            body = {key: body[key] for key in body if key != "k"}
            return answer, ask(client, "explanations", {**body, "items": [answer[0]["id"]]})

        with ThreadPoolExecutor(16) as pool:
            together = list(pool.map(one, bodies))
        assert together == [one(body) for body in bodies]


class Silent(LightGCN):
    components = GraphRecommender.components  # does not say what its scores are sums of


def test_a_model_that_cannot_be_explained_still_gives_lists(dataset):
    client = TestClient(make_app(Recommender(Silent(30, 40), dataset)))
    assert not ask(client, "about")["reasons"]
    assert len(ask(client, "recommendations", {"user": "u1"})) == 10
    response = client.post(REASONS, json={"user": "u1", "items": [101]})
    assert (response.status_code, "Silent" in response.text) == (422, True)


def test_the_description_names_every_answer(client):
    paths = client.get("/api/openapi.json").json()["paths"]
    assert len(paths) == 8
    for methods in paths.values():
        for entry in methods.values():
            assert set(entry["responses"]) == {"200", "400", "404", "411", "413", "422"}


def serve(monkeypatch, *options):
    monkeypatch.syspath_prepend(EXPLORER)
    monkeypatch.setattr(sys, "argv", ["serve.py", *map(str, options)])
    with pytest.raises(SystemExit) as end:
        run_path(str(EXPLORER / "serve.py"), run_name="__main__")
    return str(end.value)


def test_what_cannot_be_served_is_said_in_one_line(folder, tmp_path, monkeypatch):
    assert "no such folder" in serve(monkeypatch, tmp_path / "missing")
    assert "no saved recommender" in serve(monkeypatch, tmp_path)
    assert "['title'] (got 'name')" in serve(monkeypatch, folder, "--label", "name")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert "choose another --port" in serve(monkeypatch, folder, "--port", port)
    assert "--host" in serve(monkeypatch, folder, "--host", "no.such.host.invalid")
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert serve(monkeypatch, folder).endswith('uvicorn: pip install "gtc-pyg[recommend,serve]"')


def test_help_teaches(monkeypatch, capsys):
    assert serve(monkeypatch, "--help") == "0"
    assert "python examples/explorer/serve.py" in capsys.readouterr().out
    assert serve(monkeypatch, "x", "--port", "70000") == "2"
    assert "65535" in capsys.readouterr().err


needs_chromium = pytest.mark.skipif(
    not web.CHROMIUM, reason="no chromium here: apt-get install chromium"
)


@pytest.fixture(scope="module")
def url(folder):
    command = [sys.executable, str(EXPLORER / "serve.py"), str(folder), "--port", "0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server:
        try:
            yield server.stdout.readline().split()[0]
        finally:
            server.kill()


@pytest.fixture(scope="module")
def browser():
    with web.chromium() as browser:
        yield browser


@pytest.fixture
def page(browser, url):
    """A fresh page; the test fails for an error in the console or a request to another place."""
    page, asked, logged = web.open_page(browser), [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: logged.append(message.text))
    page.on("pageerror", lambda error: logged.append(str(error)))
    page.goto(url)
    web.says(page, "#about", "GTC, 30 users, 40 items")
    yield page
    page.close()
    assert asked
    assert all(address.startswith((url, "data:")) for address in asked), asked
    assert not logged


LIST, HISTORY = "#list > li > .row b", "#history > li b"


def shows(page, css, items):
    """Waits until the ids in a list are those of the items."""
    expect(page.locator(css)).to_have_text([str(entry["id"]) for entry in items])


def press(page, *keys):
    for key in keys:
        page.keyboard.press(key)


def choose(page, box, text, found):
    """Writes text at once, for one search, and chooses the first suggestion by its keys."""
    page.keyboard.insert_text(text)
    option = page.locator(f"{box} > li").first
    expect(option).to_contain_text(str(found))
    press(page, "ArrowDown")
    expect(option).to_have_attribute("aria-selected", "true")
    press(page, "Enter")


def tab_to(page, start, steps=200):
    """Presses Tab until what has the focus begins so; the focus can be seen on the whole way."""
    seen = "x => [x.ariaLabel || x.id, getComputedStyle(x).outlineWidth]"
    for _ in range(steps):
        press(page, "Tab")
        name, width = page.evaluate(f"({seen})(document.activeElement)")
        if name:
            assert width == "3px", name
            if name.startswith(start):
                return
    raise AssertionError(f"{start} was never reached")


@needs_chromium
def test_keyboard_alone_makes_changes_and_explains_a_list(page, client):
    tab_to(page, "user", 1)
    choose(page, "#user-options", "7/", USER)
    web.says(page, "#status", f"User {USER}: list as trained.")
    shows(page, LIST, ask(client, "recommendations", {"user": USER}))
    entries = history(client)
    shows(page, HISTORY, entries)

    items, many = [entry["id"] for entry in entries], len(entries)
    tab_to(page, "Drop")
    press(page, "Enter")
    web.says(page, "#status", f"Dropped item {items[0]}: list folded in from {many - 1} items")
    expect(page.get_by_label(f"Drop item {items[1]}", exact=True)).to_be_focused()
    answer = ask(client, "recommendations", {"interactions": items[1:]})
    shows(page, LIST, answer)

    press(page, "Shift+Tab")
    expect(page.locator("#add")).to_be_focused()
    chosen = answer[3]
    choose(page, "#add-options", chosen["label"], chosen["id"])
    web.says(page, "#status", f"Added item {chosen['id']}: list folded in from {many} items")
    again = ask(client, "recommendations", {"interactions": [chosen["id"], *items[1:]]})
    shows(page, LIST, again)

    web.says(page, "#legend", "popularity")
    for opener, heading in (
        (f"Why item {again[0]['id']}", "Their items that speak for it"),
        ("Similar", "Similar items, by cosine"),
    ):
        tab_to(page, opener)
        press(page, "Space")
        expect(page.locator(":focus")).to_have_attribute("aria-expanded", "true")
        expect(page.locator("#list .details").first).to_contain_text(heading)


@needs_chromium
def test_edits_can_be_undone_and_the_last_item_dropped(page, client):
    user = min((f"u{row}" for row in range(1, 30)), key=lambda user: len(history(client, user)))
    trained = ask(client, "recommendations", {"user": user})
    web.pick_user(page, user)
    shows(page, LIST, trained)
    for entry in history(client, user):
        page.get_by_label(f"Drop item {entry['id']}", exact=True).click()
        web.says(page, "#status", f"Dropped item {entry['id']}:")
    web.says(page, "#status", "add one")
    shows(page, LIST, [])
    expect(page.locator("#add")).to_be_focused()
    page.locator("#reset").click()
    web.says(page, "#status", "All edits undone: list as trained")
    shows(page, LIST, trained)
    page.locator("#list [aria-label^='Add']").first.click()
    web.says(page, "#status", f"Added item {trained[0]['id']}")
    shows(page, HISTORY, [trained[0], *history(client, user)])


@needs_chromium
def test_a_bar_shows_the_shares_and_what_fails_is_said(page):
    page.locator("#random").click()
    web.says(page, "#legend", "image")
    bar = page.locator("#list .bar").first
    parts = [float(x.replace("−", "-")) for x in re.findall(r"[−\d.]+", bar.get_attribute("title"))]
    expect(bar).to_have_accessible_name(bar.get_attribute("title"))
    widths = bar.evaluate("bar => [...bar.children].map(x => x.getBoundingClientRect().width)")
    shares = np.abs(parts) / np.abs(parts).sum()
    assert len(parts) == 3
    assert np.allclose(np.array(widths) / sum(widths), shares, atol=0.03)
    page.locator("#user").fill("nobody")
    page.locator("#user").press("Enter")
    web.says(page, "#problem", "Nothing is found for “nobody”")


@needs_chromium
def test_a_narrow_page_and_foreign_text_stay_in_their_place(page):
    page.set_viewport_size({"width": 360, "height": 740})
    page.emulate_media(color_scheme="dark")
    web.pick_user(page, "u3")
    page.locator("#add").fill("onerror")
    web.says(page, "#add-options", HOSTILE)
    page.locator("#add").press("Enter")
    web.says(page, "#status", f"Added item {BIG}:")
    web.says(page, "#history", HOSTILE)
    web.says(page, "#legend", "popularity")
    for opener in page.locator("#list button[aria-expanded]").all()[:4]:
        opener.click()
        expect(opener).to_have_attribute("aria-expanded", "true")
    expect(page.locator("#list .details").nth(1)).to_contain_text("Similar items, by cosine")
    expect(page.locator("img")).to_have_count(0)
    wide = "document.scrollingElement.scrollWidth - document.scrollingElement.clientWidth"
    assert page.evaluate(wide) == 0
    body = page.locator("body")
    expect(body).to_have_css("background-color", "rgb(23, 25, 27)")
    page.emulate_media(color_scheme="light")
    expect(body).to_have_css("background-color", "rgb(255, 255, 255)")
