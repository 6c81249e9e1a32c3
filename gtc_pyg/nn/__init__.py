r"""The layers of GTC; reading them top to bottom is reading the paper."""

from gtc_pyg.nn.conditional_denoiser import Condition, ConditionalDenoiser
from gtc_pyg.nn.ddim_sampler import AffineStep, DDIMSampler
from gtc_pyg.nn.modality_encoder import ModalityEncoder
from gtc_pyg.nn.noise_schedule import NoiseSchedule
from gtc_pyg.nn.ranking_loss import BPR, RankingLoss, SampledSoftmax
from gtc_pyg.nn.similarity_gate import SimilarityGate, UniformGate
from gtc_pyg.nn.total_correlation import PairwiseInfoNCE, TotalCorrelationLoss

__all__ = [
    "ModalityEncoder",
    "NoiseSchedule",
    "ConditionalDenoiser",
    "Condition",
    "DDIMSampler",
    "AffineStep",
    "TotalCorrelationLoss",
    "PairwiseInfoNCE",
    "SimilarityGate",
    "UniformGate",
    "RankingLoss",
    "BPR",
    "SampledSoftmax",
]
