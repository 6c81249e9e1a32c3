r"""The layers of GTC; reading them top to bottom is reading the paper."""

from gtc_pyg.nn.conditional_denoiser import ConditionalDenoiser
from gtc_pyg.nn.modality_encoder import ModalityEncoder
from gtc_pyg.nn.noise_schedule import NoiseSchedule
from gtc_pyg.nn.similarity_gate import SimilarityGate
from gtc_pyg.nn.total_correlation import TotalCorrelationLoss

__all__ = [
    "ModalityEncoder",
    "NoiseSchedule",
    "ConditionalDenoiser",
    "TotalCorrelationLoss",
    "SimilarityGate",
]
