"""GTC beside FREEDOM and LightGCN on Amazon Baby, MMRec's split: 19,445 users, 7,050 items.

    python examples/baby.py --root data/baby --seed 0 1 2 --out results.csv

ROOT/raw holds baby.inter and either the dense vectors (image_feat.npy, text_feat.npy, as MMRec
has them) or the published similarity graphs (image_knn10_cos.npz, text_knn10_cos.npz). With the
graphs alone, content is their spectral embedding and the rows say `graph-derived features`. The
baselines' settings follow published ones; benchmarks/notes.md has the trials. The test set is
ranked once, with the weights of the epoch that was best on validation.
"""

from gtc_pyg.datasets import MMRecFolder
from gtc_pyg.distributed import rank_zero_first
from gtc_pyg.experiment import Settings, parse_args, run
from gtc_pyg.transforms import ItemKNNGraph

SETTINGS = {
    "gtc": Settings(
        lr=0.002,
        epochs=45,
        model={
            "edge_dropout": 0.5,
            "content_strength": 0.3,
            "score_scale": 1.5,
            "num_negatives": 1024,
            "item_bias": True,
        },
        spectral_start=True,
        weight_averaging=0.99,
    ),
    "mgcn": Settings(lr=0.001, epochs=120),
    "freedom": Settings(lr=0.001, epochs=120),
    "lightgcn": Settings(lr=0.002, epochs=120),
}

if __name__ == "__main__":
    args = parse_args(__doc__, root="data/baby")
    graph = ItemKNNGraph(k=10, weights={"image": 0.1, "text": 0.9})
    with rank_zero_first():
        dataset = MMRecFolder(args.root, "baby", pre_transform=graph)
    run("baby", dataset, SETTINGS, args)
