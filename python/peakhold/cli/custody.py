"""Check of the outbox: whether it can be used, is whole, and needs somebody."""

from __future__ import annotations

import os
import secrets
import shutil
from typing import TYPE_CHECKING

from peakhold.cli.errors import CommandError
from peakhold.cli.findings import Finding, fail, ok, warn
from peakhold.cli.looking import delivery_settings, status_of
from peakhold.cli.terminal import counting
from peakhold.delivery.settings import NoStateDirectoryError
from peakhold.outbox import StateDirectory, admin
from peakhold.outbox.schema import (
    FILE_NAME,
    NewerSchemaError,
    NoSQLiteError,
    check_sqlite,
    explained,
)

if TYPE_CHECKING:
    from pathlib import Path

    from peakhold.delivery.settings import DeliverySettings

CHECK = "outbox"
_OWN_IT = (
    "`chown` it to the user who runs the program and `chmod 700` it, or set "
    "PEAKHOLD_STATE_DIR to a directory of that user's own"
)
_DIRECTORY = "make it a directory that can be written, or set PEAKHOLD_STATE_DIR to one"


def check_outbox() -> Finding:
    """Return what is found about the outbox; nothing is left changed."""
    try:
        settings = delivery_settings()
    except CommandError as error:
        return fail(CHECK, str(error), "set or unset that variable")
    try:
        check_sqlite()
        directory = settings.directory()
    except (NoSQLiteError, NoStateDirectoryError) as error:
        text, _, remedy = str(error).partition(": ")
        return warn(CHECK, f"{text}; what is sealed waits in memory", remedy)
    state = StateDirectory(directory)
    try:
        return _unsuitable(state) or _examined(state, settings)
    except NewerSchemaError as error:
        text, _, remedy = str(error).partition(": ")
        return fail(CHECK, text, remedy)
    except admin.OutboxError as error:
        return fail(
            CHECK,
            str(error).partition(";")[0],
            "if it is damaged, the next process with a sink puts it aside and begins "
            "a new one; move a file away that is none of peakhold's",
        )


def _unsuitable(state: StateDirectory) -> Finding | None:
    """Return what is wrong with the directory itself, if anything is."""
    try:
        for name in ("journals", "owners"):
            _try(state.path / name)
    except OSError as error:
        cause = explained(OSError(error.errno, error.strerror))
        return warn(
            CHECK,
            f"{state.path} cannot be used, what is sealed waits in memory: {cause}",
            _DIRECTORY,
        )
    if exposure := state.exposure():
        return fail(
            CHECK,
            f"{state.path} {exposure}, who may change and delete what waits there",
            _OWN_IT,
        )
    if (owner := state.other_owner()) is not None:  # root may have been meant to
        return warn(
            CHECK,
            f"{state.path} belongs to another user, {owner}, who may change and delete "
            "what waits there",
            _OWN_IT,
        )
    return None


def _examined(state: StateDirectory, settings: DeliverySettings) -> Finding:
    left = admin.windows(state)["left"]
    windows = (
        f", {left:,} windows or batches of metadata of dead processes" if left else ""
    )
    if not state.has_outbox():
        nothing = f"nothing was sealed yet in {state.path}"
        return ok(CHECK, f"{nothing}{windows}{_kept(settings)}")
    problems = admin.problems(state, counting("Reading"))
    status = status_of(state)
    counts, destinations = status["counts"], status["destinations"]
    if problems:
        return fail(
            CHECK,
            f"{state.path / FILE_NAME}: {'; '.join(problems)}",
            "save what can be read, `peakhold outbox export`, and move the file away; "
            "a damaged body alone goes by `peakhold outbox drop`",
        )
    waiting = f"{counts['pending']:,} pending{windows}{_kept(settings)}"
    if counts["parked"] or counts["dead"]:
        return warn(
            CHECK,
            f"{waiting}, {counts['parked']:,} parked, {counts['dead']:,} dead",
            "see `peakhold status` for the causes",
        )
    if behind := [row for row in destinations if row["behind"]]:
        endpoints = ", ".join(sorted({row["endpoint"] for row in behind}))
        return warn(
            CHECK,
            f"{waiting}; reports fall behind, those to {endpoints}",
            "see `peakhold status` for cause and remedy",
        )
    if aside := sorted(state.path.glob(f"{FILE_NAME}.corrupt-*Z")):
        return warn(
            CHECK,
            f"{waiting}; damaged files were put aside, the last is {aside[-1]}",
            "have a look at the disk, then delete them",
        )
    return ok(CHECK, f"it is whole, {waiting}")


def _kept(settings: DeliverySettings) -> str:
    if settings.durability == "memory":
        return "; PEAKHOLD_DURABILITY is memory, which uses none"
    return ""


def _try(directory: Path) -> None:
    """Use a directory as a sink does, below one of its own, which goes again.

    A directory that does not exist is tried in the nearest one above it that does.

    Raises:
        OSError: It cannot be made or written, or locks do not work there.
    """
    existing = directory
    while not os.path.lexists(existing) and existing != existing.parent:
        existing = existing.parent
    own = existing / f"peakhold-doctor-{secrets.token_hex(8)}"
    trial = StateDirectory(own / directory.relative_to(existing))
    try:
        _ = trial.owner_id
    finally:
        trial.release()
        shutil.rmtree(own, ignore_errors=True)
