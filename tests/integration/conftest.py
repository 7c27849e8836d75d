"""What the tests on a real Postgres share."""

from collections.abc import AsyncIterator

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from app.kit.db import open_engine


@pytest.fixture
async def engine(database: str) -> AsyncIterator[AsyncEngine]:
    made = open_engine(database, pool_size=12)
    yield made
    await made.dispose()
