r"""Users and items that came after training: embedded from interactions and from content."""

from gtc_pyg.inductive.item_embedder import ItemEmbedder
from gtc_pyg.inductive.user_embedder import UserEmbedder

__all__ = ["UserEmbedder", "ItemEmbedder"]
