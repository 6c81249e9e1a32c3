import pytest
import torch

from gtc_pyg.loader import GraphInputs


def test_presence_masks_travel_with_the_content(dataset):
    data = dataset[0]
    data["item"].has_text = torch.arange(dataset.num_items) % 2 == 0
    inputs = GraphInputs.from_data(data)
    assert list(inputs.features) == ["image", "text", "has_text"]
    assert inputs.features["has_text"].dtype == torch.bool


def test_content_edges_and_weights_are_those_of_the_data(dataset):
    data = dataset[0]
    inputs = GraphInputs.from_data(data, ["text"])
    assert list(inputs.features) == ["text"]
    assert inputs.features["text"] is data["item"].x_text
    assert inputs.edge_index_dict.keys() == set(data.edge_types)
    assert list(inputs.edge_weight_dict) == [("item", "similar", "item")]
    moved = inputs.to(torch.device("cpu"))
    assert all(torch.equal(moved.features[k], x) for k, x in inputs.features.items())


def test_an_unknown_modality_is_named(dataset):
    with pytest.raises(ValueError, match=r"\['smell'\]; the data has \['image', 'text'\]"):
        GraphInputs.from_data(dataset[0], ["smell"])


def test_modalities_that_tell_nothing_apart_are_named(dataset):
    data = dataset[0]
    assert GraphInputs.from_data(data).silent() == []
    data["item"].x_image = torch.full((dataset.num_items, 2), 0.3)
    data["item"].has_text = torch.arange(dataset.num_items) == 5
    assert GraphInputs.from_data(data).silent() == ["image", "text"]
    data["item"].has_text[7] = True
    assert GraphInputs.from_data(data).silent() == ["image"]
    data["item"].has_text[:] = False
    assert GraphInputs.from_data(data, ["text"]).silent() == ["text"]
