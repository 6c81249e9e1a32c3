"""GTC beside MGCN, FREEDOM and LightGCN on Amazon Sports and Outdoors.

    python examples/sports.py --root data/sports --seed 0 1 2 --out results.csv

ROOT/raw is a folder in MMRec's format: sports.inter and, for each modality, dense vectors
(image_feat.npy, text_feat.npy) or a similarity graph (image_knn10_cos.npz) whose spectral embedding
stands in for them; the rows then say `graph-derived features`. Nothing is downloaded: MMRec's
repository says where the files are.

All models train with the default preset, gtc_pyg.experiment.DEFAULTS. No setting in it was chosen
by looking at this set. The test set is ranked once, with the weights of the epoch that was best on
validation.
"""

from gtc_pyg.datasets import MMRecFolder
from gtc_pyg.datasets.mmrec_folder import find_modalities
from gtc_pyg.distributed import rank_zero_first
from gtc_pyg.experiment import DEFAULTS, default_graph, one_line_errors, parse_args, run

SETTINGS = DEFAULTS

if __name__ == "__main__":
    args = parse_args(__doc__, root="data/sports")
    with one_line_errors():
        graph = default_graph(find_modalities(args.root))
        with rank_zero_first():
            dataset = MMRecFolder(args.root, "sports", pre_transform=graph)
        run("sports", dataset, SETTINGS, args)
