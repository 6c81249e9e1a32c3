"""What tests of recommenders take from a dataset."""

import torch


def edges(dataset, *splits):
    views = [dataset.view(split)["user", "rates", "item"].edge_label_index for split in splits]
    return torch.cat(views, dim=1)


def content_of(dataset, rows):
    return {name: x[rows] for name, x in dataset.features.items()}
