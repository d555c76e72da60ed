"""SQLAlchemy's asyncio bridge (greenlets) and its plain engine, in tasks and beside them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import HANG, in_task, in_thread, in_threads, join_all
from sqlalchemy import create_engine, event, func, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker
from sqlalchemy.pool import QueuePool
from sqlalchemy.util import await_only, greenlet_spawn

import pygo

asyncio.run(create_async_engine("sqlite+aiosqlite://").dispose())  # what it imports when first used, it imports here


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)
    value: Mapped[int]


async def use_database(count: int, wait: Callable[[], object]) -> int:
    """An engine, a session, and hooks of SQLAlchemy that wait in pygo, below its greenlets."""
    engine = create_async_engine("sqlite+aiosqlite://")
    waits = []

    @event.listens_for(engine.sync_engine, "before_cursor_execute")
    def before(*args: Any) -> None:
        wait()
        waits.append(None)

    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    sessions = async_sessionmaker(engine, expire_on_commit=False)
    async with sessions() as session:
        session.add_all([Item(value=value) for value in range(count)])
        await session.flush()
        await session.commit()
    async with sessions() as session:
        total = await session.run_sync(lambda sync: sync.scalar(select(func.sum(Item.value))))
        await asyncio.gather(asyncio.sleep(0), asyncio.sleep(0.0005))
        async for row in await session.stream(select(Item.value).order_by(Item.id)):
            assert row[0] >= 0
    await engine.dispose()
    assert waits
    return int(total)


@pytest.mark.parametrize("wait", [lambda: None, pygo.yield_now, lambda: pygo.sleep(0.0002)], ids=["", "yield", "sleep"])
def test_the_asyncio_engine_in_many_tasks(wait: Any, workers: int) -> None:
    tasks = [pygo.spawn(lambda: asyncio.run(use_database(8, wait))) for _ in range(4)]
    assert join_all(tasks) == [28] * 4


def test_the_asyncio_engine_beside_tasks(workers: int) -> None:
    """In an ordinary thread and in the main one, while tasks have greenlets and others do not."""
    tasks = [pygo.spawn(lambda: asyncio.run(use_database(5, pygo.yield_now))) for _ in range(2)]
    ticks = pygo.spawn(lambda: [pygo.sleep(0.0005) for _ in range(20)])
    assert in_thread(lambda: asyncio.run(use_database(5, pygo.yield_now))) == 10
    assert asyncio.run(use_database(5, lambda: None)) == 10
    assert join_all(tasks) == [10, 10]
    assert len(ticks.join(timeout=HANG)) == 20


def test_the_bridge_itself(workers: int) -> None:
    """``await_only`` below ``greenlet_spawn``, with waits of pygo on both sides."""

    def sync_side(number: int) -> int:
        pygo.yield_now()
        answer = await_only(async_side(number))
        pygo.sleep(0.0001)
        return answer + await_only(async_side(0))

    async def async_side(number: int) -> int:
        await asyncio.sleep(0.0002)
        pygo.yield_now()
        return number + 1

    async def many() -> list[int]:
        return await asyncio.gather(*(greenlet_spawn(sync_side, number) for number in range(10)))

    assert join_all([pygo.spawn(lambda: asyncio.run(many())) for _ in range(6)]) == [list(range(2, 12))] * 6
    assert in_threads([lambda: asyncio.run(many())] * 2) == [list(range(2, 12))] * 2


def test_errors_come_through_the_bridge(workers: int) -> None:
    async def body() -> None:
        engine = create_async_engine("sqlite+aiosqlite://")
        try:
            async with AsyncSession(engine) as session:
                await session.execute(select(Item))
        finally:
            await engine.dispose()

    for _ in range(3):
        with pytest.raises(Exception, match="no such table"):
            in_task(lambda: asyncio.run(body()))


def test_a_pool_of_connections_shared_by_tasks_that_move(tmp_path: Path, workers: int) -> None:
    """The plain engine: its pool hands connections from thread to thread, and more tasks want one than there are."""
    engine = create_engine(
        f"sqlite:///{tmp_path}/database", poolclass=QueuePool, pool_size=2, max_overflow=1, pool_timeout=HANG,
        connect_args={"check_same_thread": False, "timeout": HANG},
    )  # fmt: skip
    Base.metadata.create_all(engine)
    sessions: sessionmaker[Session] = sessionmaker(engine)

    def write(number: int) -> int:
        for value in range(5):
            with sessions.begin() as session:
                session.add(Item(value=number))
                pygo.sleep(0.0001 * value)
        with sessions() as session:
            return len(session.scalars(select(Item).where(Item.value == number)).all())

    assert join_all([pygo.spawn(write, number) for number in range(8)]) == [5] * 8
    engine.dispose()
