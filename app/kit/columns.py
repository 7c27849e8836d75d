"""The metadata and the column types of every table."""

from sqlalchemy import Column, DateTime, MetaData, Text

metadata = MetaData(
    naming_convention={"ix": "ix_%(table_name)s_%(column_0_N_name)s", "pk": "pk_%(table_name)s"},
)


def time(name: str, *, nullable: bool = True) -> Column[object]:
    """A time, kept with its zone."""
    return Column(name, DateTime(timezone=True), nullable=nullable)


def words(name: str, *, nullable: bool = False) -> Column[str]:
    """A text of any length."""
    return Column(name, Text, nullable=nullable)


def storable(text: str) -> str:
    """A text of somebody else without what Postgres cannot hold: NUL, and halves of surrogate pairs."""
    return text.replace("\x00", "").encode(errors="replace").decode()
