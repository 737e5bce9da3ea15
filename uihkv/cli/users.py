"""A user's id, as it is typed."""

from __future__ import annotations

from uihkv.cli.endings import CommandError
from uihkv.schema import Schema
from uihkv.userids import STRING


def parse_user(schema: Schema, text: str) -> int | str:
    """The user that a command names.

    Raises:
        CommandError: for what is no id of this store's kind.

    """
    if schema.user_id == STRING:
        return text
    try:
        user = int(text)
    except ValueError:
        raise CommandError(f"user {text!r} is not a whole number, and this store's user ids are int64") from None
    if not -(1 << 63) <= user < 1 << 63:
        raise CommandError(f"user {user} does not fit int64, which this store's user ids are")
    return user
