r"""Embedding tables laid row-wise over processes by :mod:`torch.distributed.tensor`."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Partial, Shard, distribute_tensor
from torch.nn import Embedding, Module, Parameter

from gtc_pyg.distributed import gather_rows, world_size
from gtc_pyg.functional import check_ids

__all__ = ["RowWiseEmbedding", "distribute_tables"]


class RowWiseEmbedding(Module):
    r"""An embedding table of which each process holds a block of rows.

    The table is one parameter, a :class:`~torch.distributed.tensor.DTensor` with the placement
    ``Shard(0)``, so that its gradient and the optimizer's state lie row-wise too. Every call is
    made by all processes together:

    - ``embedding(ids)`` looks up rows, other ones on each process. Ids are gathered, each process
      gives the rows that it holds, and the sum is scattered: memory and traffic are those of the
      rows that all processes look up. :func:`torch.nn.functional.embedding` of a ``DTensor`` does
      the same (a masked partial sum), but in its backward pass every process makes a gradient of
      the whole table; so the lookup in the block is ours.
    - ``embedding.weight`` is the **whole** table, gathered: what a full-graph step needs. It is a
      copy: writing into it changes no table. What the table is made of is ``embedding.rows``.

    Gradients are **summed** over processes. With losses that weigh the processes' shares so that
    they add up to the batch's (:func:`own_rows` divided by :func:`world_size`), a step is that of
    one process.

    Args:
        embedding: The table, the same on all processes; a frozen one stays frozen.
        mesh: The processes, in one dimension.

    Raises:
        ValueError: For a mesh that does not hold all processes in one dimension, too few rows, or a
            table with ``padding_idx``, ``max_norm`` or ``scale_grad_by_freq``.
    """

    def __init__(self, embedding: Embedding, mesh: DeviceMesh) -> None:
        super().__init__()
        num, size = embedding.num_embeddings, mesh.size()
        for name in ("padding_idx", "max_norm", "scale_grad_by_freq"):
            value = getattr(embedding, name)
            if value is not None and value is not False:
                raise ValueError(f"'embedding' must have no {name} (got {value})")
        if mesh.ndim != 1 or size != world_size():
            raise ValueError(
                f"'mesh' must hold the {world_size()} processes in one dimension "
                f"(got {list(mesh.shape)})"
            )
        self.rows_per_process = -(-num // size)  # as Shard(0) cuts
        if -(-num // self.rows_per_process) < size:
            raise ValueError(
                f"'embedding' must have rows for {size} processes (got {num}, in blocks of "
                f"{self.rows_per_process}); start fewer processes"
            )
        self.num_embeddings, self.embedding_dim, self.mesh = num, embedding.embedding_dim, mesh
        rows = distribute_tensor(embedding.weight.detach(), mesh, [Shard(0)])
        self.rows = Parameter(rows, requires_grad=embedding.weight.requires_grad)

    @property
    def weight(self) -> Tensor:
        r"""The whole table ``[num_embeddings, embedding_dim]``, gathered anew at each call."""
        table: DTensor = self.rows  # type: ignore[assignment]
        return table.full_tensor(grad_placements=[Partial()])

    def forward(self, ids: Tensor) -> Tensor:
        r"""Rows ``[N, embedding_dim]`` of ids ``[N]``; all processes call it together.

        Raises:
            ValueError: For an id out of range, on all processes.
        """
        parts = gather_rows(ids)
        size = max(part.numel() for part in parts)
        wanted = torch.cat([F.pad(part, (0, size - part.numel())) for part in parts])
        check_ids(wanted, self.num_embeddings, "'ids' holds")
        table: DTensor = self.rows  # type: ignore[assignment]
        local = table.to_local()
        position = wanted - self.rows_per_process * self.mesh.get_local_rank()
        held = (position >= 0) & (position < local.size(0))
        found = F.embedding(position.where(held, 0), local).masked_fill_(~held.view(-1, 1), 0)
        summed = DTensor.from_local(found, self.mesh, [Partial()], run_check=False)
        return summed.redistribute(placements=[Shard(0)]).to_local()[: ids.numel()]

    def extra_repr(self) -> str:
        r"""Numbers of rows, columns and processes."""
        return f"{self.num_embeddings}, {self.embedding_dim}, processes={self.mesh.size()}"


def distribute_tables(model: Module, mesh: DeviceMesh) -> Module:
    r"""Lays a model's embedding tables row-wise over processes, in place.

    Draw the weights before: ``reset_parameters`` of a module with such tables is refused from then
    on, since it would write into gathered copies.

    Args:
        model: Has :class:`torch.nn.Embedding` modules, ``user_emb`` and ``item_emb`` say; with the
            same weights on all processes.
        mesh: The processes, in one dimension.

    Returns:
        ``model``.

    Raises:
        ValueError: As :class:`RowWiseEmbedding`, where there is no table, where ``model`` is itself
            one, or where a table's weight is in the model under several names. The model is then
            as it was.
    """
    if isinstance(model, Embedding):
        raise ValueError("'model' must hold its tables (got Embedding); use RowWiseEmbedding")
    tables = {name: m for name, m in model.named_modules() if isinstance(m, Embedding)}
    if not tables:
        raise ValueError(f"'model' must have embedding tables (got {type(model).__name__})")
    weights = list(model.named_parameters(remove_duplicate=False))
    for table in tables.values():
        names = [name for name, weight in weights if weight is table.weight]
        if len(names) > 1:
            raise ValueError(f"'model' must have each table under one name (got {names})")
    made = {name: RowWiseEmbedding(table, mesh) for name, table in tables.items()}
    for name, row_wise in made.items():
        model.set_submodule(name, row_wise)
        holder: Any = model.get_submodule(name.rpartition(".")[0])
        if hasattr(holder, "reset_parameters"):
            holder.reset_parameters = _refuse_reset
    return model


def _refuse_reset() -> None:
    raise RuntimeError("reset parameters before the tables are distributed: they are row-wise now")
