"""GTC beside MGCN, FREEDOM and LightGCN on Baby, MMRec's split: 19,445 users, 7,050 items.

    python examples/baby.py --root data/baby --seed 0 1 2 --out results.csv

ROOT/raw holds baby.inter and either the dense vectors (image_feat.npy, text_feat.npy, as MMRec
has them) or the published similarity graphs (image_knn10_cos.npz, text_knn10_cos.npz). With the
graphs alone, content is their spectral embedding and the rows say `graph-derived features`. The
settings are those of the default preset, gtc_pyg.experiment.DEFAULTS, which was found here: GTC's
by hand, the baselines' as the best of twenty trials each (benchmarks/search.py), FREEDOM's by hand
after its twenty; see benchmarks/notes.md. The test set is ranked once, with the weights of the
epoch that was best on validation.
"""

from gtc_pyg.datasets import MMRecFolder
from gtc_pyg.datasets.mmrec_folder import find_modalities
from gtc_pyg.distributed import rank_zero_first
from gtc_pyg.experiment import DEFAULTS, default_graph, one_line_errors, parse_args, run

SETTINGS = DEFAULTS

if __name__ == "__main__":
    args = parse_args(__doc__, root="data/baby")
    with one_line_errors():
        graph = default_graph(find_modalities(args.root))
        with rank_zero_first():
            dataset = MMRecFolder(args.root, "baby", pre_transform=graph)
        run("baby", dataset, SETTINGS, args)
