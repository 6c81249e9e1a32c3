"""The explorer's answers over HTTP: what a recommender says, and why a request is refused."""

import random
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
from fastapi import FastAPI, HTTPException, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from pandas.api.types import is_integer_dtype, is_numeric_dtype
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    WithJsonSchema,
    model_validator,
)

from gtc_pyg.datasets.frame_columns import show
from gtc_pyg.evaluation import GroupedEdges
from gtc_pyg.recommend import Recommender
from gtc_pyg.serve.guard import Guard, check_token, refusal
from gtc_pyg.serve.heavy import UNREADABLE, HeavyRequests

STATIC = Path(__file__).parent / "static"
MAX_K, MAX_ITEMS = 100, 10_000
WHOLE = re.compile(r"-?[0-9]{1,19}")
ONE_OF_BOTH: Any = [{"required": ["user"]}, {"required": ["interactions"]}]
HEAVY = {"/api/recommendations", "/api/explanations", "/api/similar"}
TOP = 5  # past and similar items of an explanation


def _whole(value: Any) -> Any:
    """JSON's 5.0 is 5."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _id(value: Any) -> Any:
    value = _whole(value)
    if type(value) is not int and not isinstance(value, str):
        raise ValueError("an id is a whole number or text")
    str(value).encode()  # half of a pair of surrogates is no character
    return value


ID = {"anyOf": [{"type": "integer"}, {"type": "string"}]}
Id = Annotated[int | str, BeforeValidator(_id), WithJsonSchema(ID)]
Ids = Annotated[list[Id], Field(max_length=MAX_ITEMS)]
Length = Annotated[int, Strict(), Field(ge=1, le=MAX_K), BeforeValidator(_whole)]
Limit = Annotated[int, Query(ge=1, le=MAX_K)]


class Problem(BaseModel):
    detail: str = Field(description="What was wrong, and what to do.")


class About(BaseModel):
    model: str
    users: int
    items: int
    reasons: bool = Field(description="Whether the model's lists can be explained.")


class Item(BaseModel):
    id: int | str
    label: str = Field(description="The label columns of the items' table.")


class Valued(Item):
    value: float = Field(description="Score, cosine, or part of a score.")


class Reasons(Item):
    score: float
    sources: dict[str, float] = Field(description="Parts of the score; they sum to it.")
    past_items: list[Valued] = Field(description="The user's items that speak most for it.")
    similar_items: list[Valued] = Field(description="Similar items through which it gets most.")


class Who(BaseModel):
    """A known user, or the items of anybody: exactly one of both."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"oneOf": ONE_OF_BOTH})
    user: Id = None  # type: ignore[assignment]  # left out; a null that is sent is refused
    interactions: Annotated[Ids, Field(min_length=1)] = None  # type: ignore[assignment]

    @model_validator(mode="after")
    def one_of_both(self) -> "Who":
        if (self.user is None) == (self.interactions is None):
            raise ValueError("give either 'user' or 'interactions'")
        return self


class ListRequest(Who):
    k: Length = 10
    exclude: Ids = Field([], description="Items to leave out.")
    exclude_seen: Annotated[bool, Strict()] = True


class ReasonsRequest(Who):
    items: Annotated[list[Id], Field(min_length=1, max_length=MAX_K)]


async def invalid(request: Request, error: Any) -> JSONResponse:
    """Says where and why; what was sent may be no JSON and is not repeated."""
    found = error.errors()[:3]
    texts = [".".join(map(str, e["loc"])) + ": " + e["msg"] for e in found]
    if request.method == "POST" and any(
        e["loc"] == ("body",) and e["type"] != "value_error" for e in found
    ):
        texts.append("send JSON, with Content-Type: application/json")
    return refusal(422, "; ".join(texts).encode("utf-8", "replace").decode())


async def unreadable(request: Request, error: Any) -> JSONResponse:
    """Bytes that are no text, numbers of thousands of digits, nesting without end."""
    return refusal(400, UNREADABLE)


def labels_of(table: pd.DataFrame | None, names: Sequence[str] | None, num: int) -> list[str]:
    """The label columns of each item, joined; all columns of text where none is named."""
    table = pd.DataFrame() if table is None else table
    columns = [name for name in table.columns if name != "item"]
    if names is None:
        names = [c for c in columns if not is_numeric_dtype(table[c])]
    for name in names:
        if name not in columns:
            raise ValueError(f"--label must be one of the items' columns {columns} (got {name!r})")
    if not names:
        return [""] * num
    rows = table[list(names)].astype(object).itertuples(index=False)
    return [" · ".join(filter(None, map(text_of, row))) for row in rows]


def text_of(value: Any) -> str:
    """A cell as text: lists joined, nothing where there is nothing."""
    if pd.api.types.is_list_like(value):
        return ", ".join(filter(None, map(text_of, value)))
    return "" if pd.isna(value) else str(value)


def longest_id(recommender: Recommender) -> int:
    """The bytes of the longest id of a user or an item, in UTF-8."""
    ids = (recommender.users.index, recommender.items.index)
    return max(len(str(one).encode()) for index in ids for one in index)


def make_app(
    recommender: Recommender,
    label: Sequence[str] | None = None,
    names: Iterable[str] = (),
    token: str | None = None,
) -> FastAPI:
    """The application, for any ASGI server; ``python -m gtc_pyg.serve`` runs it by uvicorn.

    Requests for lists, reasons and similar items are worked on by few threads, in the order in
    which they came, so that the others are answered at once.

    Args:
        recommender: It is read only. All that it makes when first asked is made here, so that
            requests can be answered side by side.
        label: Columns of the items' table that name an item; all of text where ``None``.
        names: Host names under which the service is reached, besides the address that a request
            came to. Requests for other hosts are refused (:class:`~gtc_pyg.serve.guard.Guard`).
        token: What a request must show; nothing where ``None``.

    Raises:
        ValueError: For a column that the items' table lacks, or a token of other characters than
            :class:`~gtc_pyg.serve.guard.Guard` admits.
    """
    check_token(token)
    r = recommender
    users, items = r.users, r.items
    labels = labels_of(r.table, label, r.num_items)
    seen = GroupedEdges(r.seen, r.num_users)
    user_text = pd.Series(users.index.astype(str)).str.casefold()
    item_text = pd.Series(items.index.astype(str)).str.casefold()
    item_text = item_text + " " + pd.Series(labels, dtype=item_text.dtype).str.casefold()
    r.recommend(users.index[0], k=1)
    r.fold_in([items.index[0]], k=1)
    no_reasons = ""
    try:
        r.explain(users.index[0], items.index[0])
    except (TypeError, ValueError) as error:
        no_reasons = str(error)

    def known(ids: Any, given: list[Any]) -> list[Any]:
        """Ids as the recommender has them: whole numbers may come as text."""
        if is_integer_dtype(ids.index.dtype):
            given = [int(x) if WHOLE.fullmatch(str(x)) else x for x in given]
        missing = ids.index.get_indexer(pd.Index(given, dtype=None if given else object)) < 0
        if missing.any():  # Ids.rows would look for ids that are nearly the same, for long
            first = show(given[int(missing.argmax())])
            raise HTTPException(404, f"unknown {ids.kind} {first}; /api/{ids.kind}s finds ids")
        return given

    def id_of(ids: Any, row: int) -> int | str:
        """As JSON has it: browsers round whole numbers of 2^53 or more."""
        value = ids.index[row]
        return str(value) if isinstance(value, str) or abs(value) >= 2**53 else int(value)

    def shown(row: int) -> Item:
        return Item(id=id_of(items, row), label=labels[row])

    def valued(table: pd.DataFrame, column: str) -> list[Valued]:
        pairs = zip(items.rows(table["item"]).tolist(), table[column], strict=True)
        return [Valued(id=id_of(items, row), label=labels[row], value=x) for row, x in pairs]

    def found(text: pd.Series, query: str, limit: int) -> list[int]:
        """Rows whose text holds the query: whole words at its beginning first."""
        query = query.strip().casefold()
        text = text[text.str.contains(query, regex=False)]
        rank = 2 - text.str.startswith(query) - (text + " ").str.startswith(query + " ")
        return text.index[np.argsort(rank.to_numpy(), kind="stable")[:limit]].tolist()

    refused = {
        400: "unreadable",
        404: "unknown id",
        411: "no length",
        413: "too large",
        422: "malformed",
    }
    app = FastAPI(
        title="gtc-pyg explorer",
        version="1",
        description=(
            "Lists, similar items and reasons of a saved recommender; nothing is written. Any "
            "request may be refused with 400 (another host), 401 (no token), 408 (a body that does "
            "not come) or 503 (too many wait)."
        ),
        docs_url=None,  # their pages load scripts from elsewhere
        redoc_url=None,
        openapi_url="/api/openapi.json",
        exception_handlers={RequestValidationError: invalid, 400: unreadable},
        responses={s: {"model": Problem, "description": why} for s, why in refused.items()},
    )
    app.add_middleware(HeavyRequests, paths=HEAVY)
    app.add_middleware(Guard, names=names, token=token)  # the outermost is the last
    app.mount("/static", StaticFiles(directory=STATIC))

    @app.get("/", include_in_schema=False)
    def page() -> FileResponse:
        return FileResponse(STATIC / "index.html")

    @app.get("/api/about")
    def about() -> About:
        """What is served."""
        name = type(r.model).__name__
        return About(model=name, users=len(users), items=len(items), reasons=not no_reasons)

    @app.get("/api/users")
    def find_users(query: str = "", limit: Limit = 10) -> list[int | str]:
        """Users whose id holds the query."""
        return [id_of(users, row) for row in found(user_text, query, limit)]

    @app.get("/api/random-user")
    def random_user() -> int | str:
        """A user drawn at random."""
        return id_of(users, random.randrange(len(users)))

    @app.get("/api/history")
    def history(user: str) -> list[Item]:
        """The items that a user has interacted with."""
        row = users.rows(known(users, [user]))
        return [shown(i) for i in seen(row)[1].tolist()]

    @app.get("/api/items")
    def find_items(query: str = "", limit: Limit = 10) -> list[Item]:
        """Items whose id or label holds the query."""
        return [shown(row) for row in found(item_text, query, limit)]

    @app.get("/api/similar")
    def similar(item: str, k: Limit = 10) -> list[Valued]:
        """The items most similar to one, by the cosine of their embeddings."""
        return valued(r.similar_items(known(items, [item])[0], k), "score")

    def whose(asked: Who) -> dict[str, Any]:
        if asked.interactions is None:
            return {"user": known(users, [asked.user])[0]}
        return {"interactions": known(items, asked.interactions)}

    @app.post("/api/recommendations")
    def recommendations(asked: ListRequest) -> list[Valued]:
        """The best items of a known user, or of anybody from their items."""
        exclude = known(items, asked.exclude) or None
        make_list = r.recommend if asked.interactions is None else r.fold_in
        (given,) = whose(asked).values()
        table = make_list(given, asked.k, asked.exclude_seen, exclude=exclude)
        return valued(table, "score")

    @app.post("/api/explanations")
    def explanations(asked: ReasonsRequest) -> list[Reasons]:
        """What the score of each item is made of."""
        if no_reasons:
            raise HTTPException(422, no_reasons)
        given, out = whose(asked), []
        asked_for = known(items, asked.items)
        for item, row in zip(asked_for, items.rows(asked_for).tolist(), strict=True):
            why = r.explain(item=item, **given, k=0)
            parts = [valued(x.head(TOP), "value") for x in (why.past_items, why.similar_items)]
            out.append(
                Reasons(
                    id=id_of(items, row),
                    label=labels[row],
                    score=why.score,
                    sources={str(name): float(value) for name, value in why.sources.items()},
                    past_items=parts[0],
                    similar_items=parts[1],
                )
            )
        return out

    return app
