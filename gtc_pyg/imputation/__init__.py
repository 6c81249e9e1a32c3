r"""Content of modalities that some items lack: generated before any recommender is trained."""

from gtc_pyg.imputation.modality_filler import ModalityFiller

__all__ = ["ModalityFiller"]
