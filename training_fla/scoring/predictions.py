"""Prediction files: tables with the columns `prediction`, `reference` and, optionally, `id`."""

import dataclasses
import os
from pathlib import Path

from training_fla.errors import InputError
from training_fla.names import plain_name
from training_fla.tables import NOT_A_SENTENCE, BadRows, read_table


@dataclasses.dataclass
class PredictionFile:
    """A system's sentences beside the references, as written in the file."""

    path: Path
    ids: list[str]  # the `id` column, or the row numbers from 1
    predictions: list[str]
    references: list[str]
    has_ids: bool = False


def read_predictions(path: str | os.PathLike) -> PredictionFile:
    """Read a table with the columns `prediction`, which may be empty, `reference`, which may not, and perhaps `id`."""
    path, bad = Path(path), BadRows()
    rows = read_table(path, ("prediction", "reference"), ("id",), bad)
    table = PredictionFile(path, [], [], [])
    for line, row in rows:
        with bad.at(path, line):
            for column in ("prediction", "reference"):
                if row[column].strip().lower() in NOT_A_SENTENCE:
                    raise InputError(f"column {column!r}: {row[column]!r} is not a sentence")
            if not row["reference"].strip():
                raise InputError("column 'reference': the cell is empty")
        table.has_ids = "id" in row
        table.ids.append(row.get("id", str(len(table.ids) + 1)))
        table.predictions.append(row["prediction"])
        table.references.append(row["reference"])
    bad.refuse()
    if not table.ids:
        raise InputError(f"{path} has a header and no rows")
    return table


def pair_up(table: PredictionFile, other: PredictionFile) -> PredictionFile:
    """The rows of `other` in the order of `table`: by id where both files have ids, else by row."""
    if len(table.ids) != len(other.ids):
        raise InputError(
            f"{other.path} has {len(other.ids)} rows and {table.path} has {len(table.ids)}: they must match"
        )
    order = list(range(len(table.ids)))
    if table.has_ids and other.has_ids and len(set(map(plain_name, other.ids))) == len(other.ids):
        place = {plain_name(identifier): index for index, identifier in enumerate(other.ids)}
        if missing := [identifier for identifier in table.ids if plain_name(identifier) not in place]:
            raise InputError(f"{other.path}, column 'id': no row with the id {missing[0]!r} of {table.path}")
        order = [place[plain_name(identifier)] for identifier in table.ids]
    for row, index in enumerate(order):
        if plain_name(table.references[row]).split() != plain_name(other.references[index]).split():
            raise InputError(
                f"{other.path}, row {index + 2}, column 'reference': {other.references[index]!r} differs from "
                f"{table.references[row]!r} in {table.path}"
            )
    predictions, references = ([side[i] for i in order] for side in (other.predictions, other.references))
    return PredictionFile(other.path, table.ids, predictions, references, table.has_ids)
