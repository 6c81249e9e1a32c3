r"""Training by Lightning: progress bar, early stop on validation, best checkpoint, logs, seeds."""

try:
    import lightning  # noqa: F401
except ModuleNotFoundError as error:
    message = 'gtc_pyg.lightning needs lightning: pip install "gtc-pyg[train]"'
    raise ModuleNotFoundError(message, name=error.name) from error

from gtc_pyg.lightning.data_module import InteractionDataModule
from gtc_pyg.lightning.recommender_module import RecommenderModule
from gtc_pyg.lightning.training import FitResult, fit
from gtc_pyg.loader import GraphInputs as GraphInputs

__all__ = ["FitResult", "InteractionDataModule", "RecommenderModule", "fit"]
