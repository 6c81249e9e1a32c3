"""The application as a whole: its guard, ids of any length, what is heavy."""

import pytest
from fastapi.testclient import TestClient

from gtc_pyg.serve.api import HEAVY, longest_id, make_app
from tests.serve.conftest import LONG_ITEM, LONG_USER


@pytest.fixture(scope="module")
def client(recommender):
    with TestClient(make_app(recommender), raise_server_exceptions=False) as client:
        yield client


def test_ids_of_any_length_are_found_and_answered(client, recommender):
    assert longest_id(recommender) == len(LONG_USER.encode())
    assert client.get("/api/users", params={"query": LONG_USER}).json() == [LONG_USER]
    assert client.get("/api/items", params={"query": LONG_ITEM}).json()[0]["id"] == LONG_ITEM
    history = client.get("/api/history", params={"user": LONG_USER}).json()
    assert {x["id"] for x in history} == set(recommender.history(LONG_USER)["item"])
    similar = client.get("/api/similar", params={"item": LONG_ITEM, "k": 3}).json()
    assert [x["id"] for x in similar] == recommender.similar_items(LONG_ITEM, 3)["item"].tolist()
    for who in ({"user": LONG_USER}, {"interactions": [LONG_ITEM]}):
        found = client.post("/api/recommendations", json={**who, "exclude": [LONG_ITEM]})
        assert found.status_code == 200
        found = client.post("/api/explanations", json={**who, "items": [LONG_ITEM]})
        assert found.json()[0]["id"] == LONG_ITEM


@pytest.mark.parametrize("size", [257, 60_000])
def test_unknown_ids_of_any_length_are_told_so_in_short(client, size):
    unknown = "y" * size
    answers = [client.get("/api/history", params={"user": unknown})]
    answers += [client.post("/api/recommendations", json={"user": unknown})]
    answers += [client.post("/api/explanations", json={"user": "u1", "items": ["i1", unknown]})]
    for answer in answers:
        assert answer.status_code == 404
        assert answer.json()["detail"].startswith("unknown ")
        assert len(answer.text) < 250


def test_a_token_that_cannot_be_sent_is_refused_at_once(recommender):
    with pytest.raises(ValueError, match="the token must be 8 to 256 letters"):
        make_app(recommender, token="short")


def test_another_host_and_a_missing_token_are_refused(recommender):
    token = "the-right-token"
    client = TestClient(make_app(recommender, names=["shop.example"], token=token))
    shown = {"Authorization": f"Bearer {token}"}
    assert client.get("/api/random-user").status_code == 401
    assert client.get("/api/random-user", headers=shown).status_code == 200
    for host, status in (("shop.example", 200), ("evil.example", 400)):
        found = client.get("/api/random-user", headers={**shown, "Host": host})
        assert found.status_code == status
    assert client.get("/static/explorer.js").status_code == 401


def test_heavy_paths_are_paths_of_the_application(client):
    assert client.get("/api/openapi.json").json()["paths"].keys() >= HEAVY
