import pytest
import torch

from gtc_pyg.lightning import InteractionDataModule


def test_content_can_be_chosen_and_an_unknown_modality_is_named(dataset):
    data = InteractionDataModule(dataset, modalities=["text"])
    assert list(data.inputs.features) == ["text"]
    with pytest.raises(ValueError, match=r"\['smell'\].*\['image', 'text'\]"):
        InteractionDataModule(dataset, modalities=["smell"])


@pytest.mark.parametrize("total", [1, 2, 3, 100])
def test_every_user_is_ranked_once_and_every_share_has_a_batch(dataset, monkeypatch, total):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("WORLD_SIZE", str(total))
    ranked = []
    for rank in range(total):
        monkeypatch.setenv("RANK", str(rank))
        data = InteractionDataModule(dataset, eval_batch_size=7)
        batches = list(data.val_dataloader())
        assert len(batches) >= 1  # Lightning would leave out what the others wait for
        ranked += batches
    assert torch.equal(torch.cat(ranked), data.rankers["val"].users)


def test_a_batch_smaller_than_the_processes_is_refused(dataset, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ValueError, match=r"number of processes, 3 \(got 2\)"):
        InteractionDataModule(dataset, batch_size=2)
