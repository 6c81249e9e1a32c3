r"""Public data sets, folders and tables of one's own, and seeded data with a known answer."""

from gtc_pyg.datasets.amazon_reviews import AmazonReviews
from gtc_pyg.datasets.encoding import encode
from gtc_pyg.datasets.from_frames import from_frames
from gtc_pyg.datasets.interaction_dataset import InteractionDataset
from gtc_pyg.datasets.interaction_tables import InteractionTables
from gtc_pyg.datasets.lfm2k import LFM2k
from gtc_pyg.datasets.mmrec_folder import MMRecFolder
from gtc_pyg.datasets.planted import PlantedPreferences
from gtc_pyg.datasets.read_table import read_table
from gtc_pyg.datasets.tiktok import TikTok

__all__ = [
    "AmazonReviews",
    "InteractionDataset",
    "InteractionTables",
    "LFM2k",
    "MMRecFolder",
    "PlantedPreferences",
    "TikTok",
    "encode",
    "from_frames",
    "read_table",
]
