"""GTC beside MGCN, FREEDOM and LightGCN on Amazon Cell Phones and Accessories, from raw files.

    python examples/cellphone.py --root data/cellphone --seed 0 1 2 --out results.csv

The publisher's three files are downloaded to ROOT/raw where they are missing (the images are
gigabytes):

    ratings_Cell_Phones_and_Accessories.csv           every rating is an interaction
    meta_Cell_Phones_and_Accessories.json.gz          title, brand, categories, description
    image_features_Cell_Phones_and_Accessories.b      4,096 numbers for each image

The five-core is split 8:1:1 at random for each user; the split is the same for all --seed. Words
become 256 numbers by TF-IDF and a singular value decomposition, and the rows say `tfidf256`. For
the embeddings of a language model, give the dataset below text_encoder=model.encode and
text_name="NAME". Where ROOT/raw has a cellphone.inter, it is read in MMRec's format instead.

All models train with the default preset, gtc_pyg.experiment.DEFAULTS. No setting in it was chosen
by looking at this set. The test set is ranked once, with the weights of the epoch that was best on
validation.
"""

from pathlib import Path

from gtc_pyg.datasets import AmazonReviews, InteractionDataset, MMRecFolder
from gtc_pyg.datasets.mmrec_folder import find_modalities
from gtc_pyg.distributed import rank_zero_first
from gtc_pyg.experiment import DEFAULTS, default_graph, one_line_errors, parse_args, run

SETTINGS = DEFAULTS


def load(root: str) -> InteractionDataset:
    """The publisher's raw files, or a folder in MMRec's format where there is one."""
    if Path(root, "raw", "cellphone.inter").is_file():
        return MMRecFolder(root, "cellphone", pre_transform=default_graph(find_modalities(root)))
    graph = default_graph(["image", "text"])
    return AmazonReviews(root, "Cell_Phones_and_Accessories", pre_transform=graph)


if __name__ == "__main__":
    args = parse_args(__doc__, root="data/cellphone")
    with one_line_errors():
        with rank_zero_first():
            dataset = load(args.root)
        run("cellphone", dataset, SETTINGS, args)
