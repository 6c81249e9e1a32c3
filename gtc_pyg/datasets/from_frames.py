r"""One's own tables as a dataset."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gtc_pyg.datasets.interaction_dataset import InteractionDataset
from gtc_pyg.datasets.interaction_tables import InteractionTables
from gtc_pyg.datasets.splits import RATIOS
from gtc_pyg.functional import takes_numbers

if TYPE_CHECKING:
    import pandas as pd

    from gtc_pyg.datasets.frame_tables import ReadFrames


class _FrameDataset(InteractionDataset):
    def __init__(
        self,
        read: ReadFrames,
        transform: Callable[..., Any] | None,
        pre_transform: Callable[..., Any] | None,
    ) -> None:
        self._tables = [read.tables]
        super().__init__(None, transform, pre_transform)
        self._user_ids, self._item_ids, self._items = read.user_ids, read.item_ids, read.items

    def build(self) -> InteractionTables:
        return self._tables.pop()

    def __repr__(self) -> str:
        return (
            f"from_frames({self.num_users:,} users, {self.num_items:,} items, "
            f"{self._data['user', 'rates', 'item'].num_edges:,} training interactions, "
            f"{', '.join(self.modalities)})"
        )


def from_frames(
    interactions: pd.DataFrame,
    items: pd.DataFrame | None = None,
    features: Mapping[str, Any] | None = None,
    split: str = "random",
    *,
    user: str = "user",
    item: str = "item",
    rating: str | None = None,
    min_rating: float | None = None,
    weight: str | None = None,
    min_weight: float | None = None,
    time: str | None = None,
    split_column: str | None = None,
    ratios: Sequence[float] = RATIOS,
    seed: int = 0,
    k_core: int = 0,
    transform: Callable[..., Any] | None = None,
    pre_transform: Callable[..., Any] | None = None,
) -> InteractionDataset:
    r"""Makes a dataset of pandas tables, with one's own ids of users and items.

    In this order:

    1. An interaction that occurs more than once counts once: with the rating and the time of the
       last (by :obj:`time`, else by row; of equal times the later row) and the sum of the weights.
    2. Interactions below :obj:`min_rating` or :obj:`min_weight` are dropped.
    3. Users and items outside the :obj:`k_core` are dropped.
    4. The rest is split, so that every user has a training interaction. What is held out may be
       with an item that no training interaction has.

    Users are those who are left, sorted by id. Items are the rows of :obj:`items` in their order,
    or, without that table, all ids of interactions and content, sorted. An item that nobody touched
    (before the k-core) is kept where it has content, to be recommended by it, and left out where it
    has none.

    Args:
        interactions (pandas.DataFrame): One row per interaction. Ids are strings or integers.
        items (pandas.DataFrame, optional): One row per item: its id, as a column named like that of
            the interactions or as the index of that name, and anything to show, kept in
            ``dataset.items``. No item of :obj:`interactions` may be missing.
        features (dict): Modality to content: an array or tensor ``[n, F]`` with the rows of
            :obj:`items`; or, by item id, a DataFrame (ids as index or in the column :obj:`item`),
            or a Series, dict or column of vectors, which may be written as text such as
            ``"[0.1, 0.2]"``. Any precision, and sparse content, become float32. Items that are left
            out there lack the modality: ``data['item'].has_<modality>`` says so,
            ``dataset.incomplete`` names it, and GTC takes it as
            ``GTC(..., incomplete=dataset.incomplete)``.
        split (str): ``'random'``, for each user on their own
            (:func:`~gtc_pyg.datasets.splits.random_split`); ``'leave_last_out'``, each user's last
            interaction for test and the one before it for validation
            (:func:`~gtc_pyg.datasets.splits.leave_last_out_split`); or ``'global_time'``, at two
            moments (:func:`~gtc_pyg.datasets.splits.global_time_split`), where users who came after
            training are left out, and a warning in the log says how many.
            (default: :obj:`"random"`)
        user (str): The column of the users' ids. (default: :obj:`"user"`)
        item (str): The column of the items' ids. (default: :obj:`"item"`)
        rating (str, optional): The column of ratings. They choose interactions, nothing more.
        min_rating (float, optional): The least rating that is an interaction.
        weight (str, optional): The column of positive weights, such as a number of plays.
            **The models weigh all interactions alike**: what a weight does is to choose
            interactions by :obj:`min_weight`. Those of training are kept as
            ``dataset[0]['user', 'rates', 'item'].weight`` for use of one's own.
        min_weight (float, optional): The least weight, summed over duplicates.
        time (str, optional): The column of times, numbers or datetimes.
        split_column (str, optional): A column of ``'train'``, ``'val'`` and ``'test'``, used in
            place of :obj:`split`. Every user needs a training interaction.
        ratios (sequence of float): Shares of training, validation and test, for ``'random'`` and
            ``'global_time'``. At random every user of three or more has one or more in each,
            however small the shares. (default: :obj:`(0.8, 0.1, 0.1)`)
        seed (int): Seeds ``'random'``, whose outcome does not depend on the order of the rows.
            (default: :obj:`0`)
        k_core (int): The least number of interactions of every user and every touched item; 0
            keeps all. (default: :obj:`0`)
        transform, pre_transform: As in :class:`InteractionDataset`.

    Returns:
        An :class:`InteractionDataset`, in memory. ``user_ids`` and ``item_ids`` have the ids by
        row, of the type they came in (categories become what they stand for); ``items`` the rows
        of that table, or :obj:`None`.

    Raises:
        ModuleNotFoundError: If pandas is missing.
        TypeError: If a table is no DataFrame.
        ValueError: If a column is missing; an id is missing or ids are of mixed types; a rating,
            weight, time or entry of the content is no finite number; an item is unknown or twice in
            :obj:`items` or :obj:`features`; rows of content do not match :obj:`items`; nothing is
            left; a split is unknown or empty; or :obj:`split_column` leaves a user without
            training or parts duplicates (a leak). The message says what to do.

    Example:
        >>> import pandas as pd
        >>> from gtc_pyg.datasets import from_frames
        >>> users, items = list("aaaabbbb"), ["tea", "pie", "jam", "egg"] * 2
        >>> interactions = pd.DataFrame({"user": users, "item": items})
        >>> text = {"tea": [0.0, 1.0], "pie": [1.0, 0.0], "jam": [1.0, 1.0], "egg": [0.5, 0.0]}
        >>> dataset = from_frames(interactions, features={"text": text | {"fig": [0.2, 0.1]}})
        >>> dataset
        from_frames(2 users, 5 items, 4 training interactions, text)
        >>> dataset.item_ids.tolist()
        ['egg', 'fig', 'jam', 'pie', 'tea']
    """
    try:
        from gtc_pyg.datasets.frame_tables import FrameOptions, read_frames
    except ModuleNotFoundError as error:
        message = 'from_frames needs pandas: pip install "gtc-pyg[data]"'
        raise ModuleNotFoundError(message, name=error.name) from error

    options = takes_numbers(FrameOptions)(
        user=user,
        item=item,
        rating=rating,
        min_rating=min_rating,
        weight=weight,
        min_weight=min_weight,
        time=time,
        split=split,
        split_column=split_column,
        ratios=ratios,
        seed=seed,
        k_core=k_core,
    )
    read = read_frames(interactions, items, features, options)
    return _FrameDataset(read, transform, pre_transform)
