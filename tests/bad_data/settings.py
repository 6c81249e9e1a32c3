r"""YAML files for ``read_settings``."""

from __future__ import annotations

from pathlib import Path

from gtc_pyg.experiment import Settings
from gtc_pyg.experiment.config import read_settings
from tests.bad_data.case import Case, missing, write_bytes

FILE = "mine.yaml"
LR, MORE = "expected a number above 0", "an integer, at least 1"
RUN = b"gtc: {lr: !!python/object/apply:os.system [touch it_has_run]}"
TWICE = b"gtc:\n  lr: 0.1\n  epochs: 3\n  lr: 0.2\n"

TABLE = [
    # text, where, value, remedy
    (
        b"gtc:\n  epochs: 3\n  learning_rate: 0.1\n",
        f"{FILE}, line 3",
        "learning_rate",
        "some of lr,",
    ),
    (
        b"gtc:\n  epoch: 3\n",
        f"{FILE}, line 2: unknown key",
        "'epoch' in gtc",
        "did you mean 'epochs'?",
    ),
    (
        b"gct: {}\n",
        f"{FILE}, line 1: unknown key",
        "'gct'",
        "did you mean 'gtc'? (expected some of",
    ),
    (
        b"gtc: {model: {edge_dropuot: 0.1}}",
        "line 1: unknown",
        "in gtc.model",
        "mean 'edge_dropout'?",
    ),
    (
        b"gtc: {model: {num_users: 3}}",
        "line 1: unknown",
        "'num_users' in gtc.model",
        "some of content_filter",
    ),
    (
        b"lightgcn: {model: {temperature: 1}}",
        "line 1: unknown",
        "'temperature'",
        "some of hidden_ch",
    ),
    (b"? [gtc]\n: {}\n", f"{FILE}, line 1: unknown key", "a list", "expected some of lightgcn"),
    (TWICE, f"{FILE}, line 4", "gtc.lr", "is there twice, expected once (the first is in line 2)"),
    (b"gtc: {lr: fast}", f"{FILE}, line 1: gtc.lr", "'fast'", LR),
    (b"gtc: {lr: '0.1'}", f"{FILE}, line 1: gtc.lr", "'0.1'", LR),
    (b"gtc:\n  lr: 0\n", f"{FILE}, line 2: gtc.lr", "is 0,", LR),
    (b"gtc: {lr: .nan}", f"{FILE}, line 1: gtc.lr", "nan", LR),
    (b"gtc: {lr: .inf}", f"{FILE}, line 1: gtc.lr", "inf", LR),
    (b"gtc: {lr: [1, 2]}", f"{FILE}, line 1: gtc.lr", "[1, 2]", LR),
    (b"gtc: {lr: null}", f"{FILE}, line 1: gtc.lr", "None", LR),
    (b"gtc: {epochs: 2.5}", f"{FILE}, line 1: gtc.epochs", "2.5", MORE),
    (b"gtc: {epochs: yes}", f"{FILE}, line 1: gtc.epochs", "True", MORE),
    (b"gtc: {batch_size: 0}", f"{FILE}, line 1: gtc.batch_size", "is 0,", MORE),
    (b"gtc: {patience: -1}", f"{FILE}, line 1: gtc.patience", "-1", "an integer, at least 0"),
    (b"gtc: {weight_averaging: 1}", "line 1: gtc.weight_averaging", "is 1,", "a number in [0, 1)"),
    (b"gtc: {spectral_start: 1}", "line 1: gtc.spectral_start", "is 1,", "expected true or false"),
    (b"gtc: {modalities: image}", "line 1: gtc.modalities", "'image'", "a list of names or null"),
    (b"gtc: {modalities: [1]}", "line 1: gtc.modalities", "[1]", "a list of names or null"),
    (
        b"gtc:\n  model:\n    edge_dropout: 1.5\n",
        "line 3: gtc.model",
        "got 1.5",
        "must lie in [0, 1)",
    ),
    (
        b"gtc: {model: {score_scale: 2}}",
        "line 1: gtc.model.score_scale",
        "the form of an earlier version",
        "ranking: {class: ..., scale: ...}",
    ),
    (
        b"gtc:\n  model:\n    low_pass_channels: 3\n",
        "line 3: gtc.model.low_pass_channels",
        "the form of an earlier version",
        "heads: [{class: SpectralHead, channels: ...}]",
    ),
    (
        b"gtc: {model: {ranking: {class: Hinge}}}",
        "line 1: gtc.model.ranking.class",
        "'Hinge'",
        "expected SampledSoftmax or BPR",
    ),
    (
        b"gtc: {model: {ranking: 3}}",
        "line 1: gtc.model.ranking",
        "'3'",
        "expected a mapping with the class",
    ),
    (
        b"gtc: {model: {heads: {class: ItemBias}}}",
        "line 1: gtc.model.heads",
        "a mapping",
        "expected a list of mappings with the class",
    ),
    (
        b"gtc: {model: {heads: [{class: ItemBias, scale: 2}]}}",
        "line 1: unknown key",
        "'scale' in gtc.model.heads[0]",
        "(expected some of class)",
    ),
    (
        b"gtc: {model: {ranking: {class: BPR, scale: 0}}}",
        "line 1: gtc.model",
        "got 0",
        "'scale' must be from 1e-6",
    ),
    (
        b"gtc: {model: {loss_weights: {diffusoin: 0.1}}}",
        "line 1: gtc.model",
        "diffusoin",
        "must name some of",
    ),
    (
        b"gtc: {model: {loss_weights: {diffusion: much}}}",
        "line 1: gtc.model.loss_weights",
        "much",
        "expected a mapping of names to numbers",
    ),
    (
        b"gtc: {model: {content_filter: {num_steps: 5}}}",
        "line 1: gtc.model",
        "(got 1, 100, 5)",
        "expected 0 <= 'num_",
    ),
    (
        b"freedom: {model: {modality_weight: -1}}",
        "freedom.model.modality_weight",
        "-1",
        "at least 0",
    ),
    (
        b"gtc: {model: {content_filter: {channels: wide}}}",
        "gtc.model.content_filter.channels",
        "'wide'",
        "an integer",
    ),
    (
        b"gtc: {model: {ranking: {num_negatives: 9999999999}}}",
        "gtc.model.ranking.num_negatives",
        "9999999999",
        "to 10,000,000",
    ),
    (
        b"gtc: {model: {content_filter: {user_ids: 'true'}}}",
        "gtc.model.content_filter.user_ids",
        "'true'",
        "true or false",
    ),
    (b"- gtc\n", f"{FILE}, line 1: the file", "a list", "expected 'key: value' lines"),
    (b"gtc: 3\n", f"{FILE}, line 1: gtc", "'3'", "expected 'key: value' lines"),
    (b"", FILE, "got none", "expected settings of models, some of ['lightgcn'"),
    (b"gtc: [1", FILE, "line 1, column 8", "expected settings of models in YAML"),
    (b"gtc:\n\tlr: 3\n", FILE, "line 2, column 1", "expected settings of models in YAML"),
    (b"gtc: \xff", FILE, "0xff", "expected settings of models in YAML"),
    (b"[" * 5000, FILE, "recursion", "expected settings of models in YAML"),
    (b"gtc: &a {model: *a}", FILE, "aliases are not read", "expected settings of models in YAML"),
    (b"gtc: {lr: 1" + b"0" * 400 + b"}", f"{FILE}, line 1: gtc.lr", "10000000", LR),
    (
        b"gtc:\n  modalities: [!!timestamp x]",
        f"{FILE}, line 2: gtc.modalities",
        "AttributeError",
        "cannot be read",
    ),
    (
        RUN,
        FILE,
        "tag:yaml.org,2002:python/object/apply:os.system",
        "expected settings of models in",
    ),
]


def write(root: Path) -> None:
    (root / "raw").mkdir()


def read(root: Path) -> dict[str, Settings]:
    return read_settings(root / "raw" / FILE)


CASES = [
    Case(f"settings: {text[:40]!r}", write_bytes(FILE, text), read, *rest, write=write)
    for text, *rest in TABLE
] + [missing("settings", FILE, read, write)]
