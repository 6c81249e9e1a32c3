import pytest
import torch

from gtc_pyg.inductive.user_embedder import new_users
from tests.models.graphs import arguments, csr_of, gtc_of, seeded


@pytest.mark.parametrize("condition", ["item", "neighbors", "user"])
def test_a_users_parts_add_up_to_their_embedding(planted, condition: str) -> None:
    graph = planted()
    model, csr = gtc_of(graph, condition=condition).eval(), csr_of(graph)
    with torch.no_grad():
        components = model.components(graph.features, csr)
        whole = model.embed(graph.features, csr)[0]
        items = csr.user_items.split(csr.num_items_of_users.tolist())
        for user in torch.randperm(graph.num_users, generator=seeded())[:5].tolist():
            alone = torch.stack([torch.zeros_like(items[user]), items[user]])
            start = model.ids(csr).unit_user[user]
            new = new_users(alone, 1, graph.num_items)
            own, past, filtered = components.of_user(new, start)
            found = (own.sum(dim=0) + past.sum(dim=(0, 1))) / model.ranking.scale
            torch.testing.assert_close(found, whole[user], atol=1e-5, rtol=1e-4)
            assert list(filtered) == list(graph.features)
    assert components.sources == ("interactions", *graph.features)
    assert model(*arguments(graph))[0].shape[0] == graph.num_users
