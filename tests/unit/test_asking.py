"""`gaps` and `backfill`, and the pages that they ask, over a real HTTP server."""

from __future__ import annotations

import asyncio
import io
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from google.protobuf.timestamp_pb2 import Timestamp
from pydantic import SecretStr
from rich.console import Console

from bridge.asking.backfill import backfill_shown, left
from bridge.asking.gaps import gap_row, gaps_shown, ranges, summary
from bridge.core.alerts import gap_told
from bridge.errors import UsageError
from bridge.pb.bridge.v1.gap_alert_pb2 import GapAlert, HeightRange
from bridge.settings import JournalSettings, Settings, StatusSettings
from bridge.status.tracking import routes
from tests.brokers.process import free_port

Pairs = list[list[int]]


def gap(missing: Pairs, status: str = "opened", **told: Any) -> dict[str, Any]:
    first, last = (missing[0][0], missing[-1][1]) if missing else (1, 1)
    return {
        "id": f"main-{first}-{last}",
        "status": status,
        "first": first,
        "last": last,
        "missing": missing,
        "missing_count": sum(b - a + 1 for a, b in missing),
        "cause": "unknown",
        "how": "",
        "attempts": 0,
        "opened_at": "2026-01-02T03:04:05.000000006Z",
        "changed_at": "2026-01-02T03:04:05Z",
        "detail": "",
        **told,
    }


def table(*gaps: dict[str, Any], **told: Any) -> dict[str, Any]:
    return {
        "network": "main",
        "highest": 30,
        "floor": 0,
        "missing": sum(each["missing_count"] for each in gaps),
        "stalled": False,
        "pending": 0,
        "gaps": list(gaps),
        **told,
    }


class Tracked:
    """A tracker that tells the tables given, one after the other, the last one for ever."""

    def __init__(self, *tables: dict[str, Any], fetches: bool = True) -> None:
        self.tables = list(tables)
        self.asked: list[tuple[int, int]] = []
        self.fetches = fetches

    @property
    def sought(self) -> Callable[[int, int], None] | None:
        return self._seek if self.fetches else None

    def _seek(self, first: int, last: int) -> None:
        self.asked.append((first, last))

    def table(self) -> dict[str, Any]:
        return self.tables.pop(0) if len(self.tables) > 1 else self.tables[0]


@asynccontextmanager
async def serving(tracked: Tracked, token: str = "") -> AsyncIterator[Settings]:
    @web.middleware
    async def guard(request: web.Request, handler: Any) -> web.StreamResponse:
        if request.headers.get("Authorization", "") != (f"Bearer {token}" if token else ""):
            raise web.HTTPUnauthorized(text="a bearer token is needed\n")
        answer: web.StreamResponse = await handler(request)
        return answer

    app = web.Application(middlewares=[guard])
    routes(app, tracked)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield at_port(runner.addresses[0][1], token)
    finally:
        await runner.cleanup()


def at_port(port: int, token: str = "", folder: Path = Path()) -> Settings:
    status = StatusSettings(port=port, token=SecretStr(token) if token else None)
    return Settings(status=status, journal=JournalSettings(dir=folder))


class Terminal:
    """What the person who asked sees."""

    def __init__(self) -> None:
        self.out = Console(file=io.StringIO(), width=200)
        self.err = Console(file=io.StringIO(), width=200)

    @property
    def printed(self) -> str:
        return written(self.out)

    @property
    def complaints(self) -> str:
        return written(self.err)


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


async def show(settings: Settings, seen: Terminal, **options: Any) -> int:
    return await asyncio.to_thread(gaps_shown, settings, seen.out, seen.err, **options)


async def fill(
    settings: Settings,
    first: int,
    last: int,
    seen: Terminal,
    pause: Any = lambda _: None,
    quiet: float = 0,
) -> int:
    return await asyncio.to_thread(
        backfill_shown,
        settings,
        first,
        last,
        seen.out,
        seen.err,
        pause=pause,
        quiet_seconds=quiet,
    )


# The pages


async def ask(settings: Settings, body: bytes, type_: str = "application/json") -> tuple[int, Any]:
    url = f"http://127.0.0.1:{settings.status.port}/backfill"
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, data=body, headers={"Content-Type": type_}) as answer,
    ):
        return answer.status, await answer.json()


async def test_heights_are_sought_as_asked() -> None:
    tracked = Tracked(table())
    async with serving(tracked) as settings:
        answer = await ask(settings, b'{"from": 4, "to": 26}')
        whole = await ask(settings, b'{"from": 0, "to": 999999}')
    assert answer == (202, {"from": 4, "to": 26})
    assert whole[0] == 202
    assert tracked.asked == [(4, 26), (0, 999_999)]


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        (b"", 400, "no JSON"),
        (b"{", 400, "no JSON"),
        (b"\xff", 400, "no JSON"),
        (b"[1, 2]", 400, "must be"),
        (b'{"from": 1}', 400, "must be"),
        (b'{"from": 1, "to": 2, "now": true}', 400, "must be"),
        (b'{"from": "1", "to": 2}', 400, "whole numbers"),
        (b'{"from": 1.5, "to": 2}', 400, "whole numbers"),
        (b'{"from": false, "to": true}', 400, "whole numbers"),
        (b'{"from": 2, "to": 1}', 400, "4294967295"),
        (b'{"from": -1, "to": 1}', 400, "4294967295"),
        (b'{"from": 4294967295, "to": 4294967296}', 400, "4294967295"),
        (b'{"from": 0, "to": 1000000}', 400, "1000000"),
        (b'{"from": 1, "to": 2}' + b" " * 1_024, 413, "smaller"),
    ],
)
async def test_what_makes_no_sense_is_refused_with_a_sentence(
    body: bytes, status: int, told: str
) -> None:
    tracked = Tracked(table())
    async with serving(tracked) as settings:
        code, answer = await ask(settings, body)
    assert code == status
    assert told in answer["error"]
    assert not tracked.asked


async def test_a_page_of_another_site_cannot_seek() -> None:
    tracked = Tracked(table())
    async with serving(tracked) as settings:
        code, answer = await ask(settings, b'{"from": 1, "to": 2}', "text/plain")
    assert (code, "application/json" in answer["error"]) == (415, True)
    assert not tracked.asked


async def test_without_a_nodes_api_nothing_can_be_sought() -> None:
    async with serving(Tracked(table(), fetches=False)) as settings:
        code, answer = await ask(settings, b'{"from": 1, "to": 2}')
    assert code == 409
    assert "BRIDGE_NODE__URL" in answer["error"]


def test_an_alert_is_told_in_the_words_of_the_contract() -> None:
    alert = GapAlert(
        gap_id="main-4-26",
        status=GapAlert.STATUS_BACKFILLING,
        cause=GapAlert.CAUSE_NODE_SILENT,
        first_height=4,
        last_height=26,
        missing=[HeightRange(first=4, last=9), HeightRange(first=20, last=26)],
        missing_count=13,
        attempts=2,
        opened_at=Timestamp(seconds=1_767_323_045),
        changed_at=Timestamp(seconds=1_767_323_046),
        detail="asked for",
    )
    assert gap_told(alert) == gap(
        [[4, 9], [20, 26]],
        "backfilling",
        cause="node-silent",
        attempts=2,
        opened_at="2026-01-02T03:04:05Z",
        changed_at="2026-01-02T03:04:06Z",
        detail="asked for",
    )
    assert gap_told(GapAlert(how=GapAlert.HOW_API))["how"] == "api"
    assert gap_told(GapAlert())["cause"] == ""


# gaps


def test_a_gap_is_a_line_with_its_age() -> None:
    told = gap([[4, 9], [20, 20]], "backfilling", cause="node-silent", attempts=3)
    row = gap_row(told, datetime(2026, 1, 2, 5, 9, 5, tzinfo=UTC))
    assert row == [
        "main-4-20",
        "[cyan]backfilling[/]",
        "4-20",
        "7: 4-9, 20",
        "node-silent",
        "",
        "3",
        "2 h 5 min",
    ]


@pytest.mark.parametrize(
    ("seconds", "age"),
    [(-3, "0 s"), (59, "59 s"), (60, "1 min"), (3_600, "1 h 0 min"), (180_000, "2 d 2 h")],
)
def test_ages_are_as_coarse_as_they_are_long(seconds: int, age: str) -> None:
    opened = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC).timestamp()
    assert gap_row(gap([[1, 1]]), datetime.fromtimestamp(opened + seconds, UTC))[7] == age


def test_of_many_ranges_the_first_are_told() -> None:
    assert ranges([[n, n] for n in range(1, 8)]) == "1, 2, 3, 4, and 3 more"


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (table(), ["highest height 30", "no gaps"]),
        (table(highest=None), ["no block yet", "no gaps"]),
        (table(stalled=True), ["stalled"]),
        (
            table(gap([[4, 9]]), gap([[12, 12]], "unresolved"), gap([], "resolved")),
            ["7 heights missing", "1 opened", "1 unresolved"],
        ),
    ],
)
def test_the_last_line_says_how_it_stands(told: dict[str, Any], words: list[str]) -> None:
    line = summary({**told, "fetches": True})
    assert all(word in line for word in words)
    assert "BRIDGE_NODE__URL" not in line


async def test_gaps_are_a_table_and_what_is_done_about_them() -> None:
    tracked = Tracked(table(gap([[4, 26]], detail="asked [at noon]")), fetches=False)
    seen = Terminal()
    async with serving(tracked, "secret") as settings:
        assert await show(settings, seen) == 0
        assert await show(settings, Terminal(), check=True) == 1
    (_, line, detail, last) = seen.printed.splitlines()
    assert line.split()[:5] == ["main-4-26", "opened", "4-26", "23:", "4-26"]
    assert detail == "- main-4-26: asked [at noon]"
    assert "23 heights missing" in last
    assert "no node's API is set (BRIDGE_NODE__URL)" in last


async def test_without_gaps_it_says_so_and_a_check_passes() -> None:
    seen = Terminal()
    async with serving(Tracked(table())) as settings:
        assert await show(settings, seen, check=True) == 0
    assert seen.printed == "highest height 30; no gaps\n"


async def test_as_json_all_of_it_is_told() -> None:
    told, seen = table(*(gap([[n, n]]) for n in range(0, 1_000, 2))), Terminal()
    async with serving(Tracked(told)) as settings:
        assert await show(settings, seen, as_json=True) == 0
    assert json.loads(seen.printed) == {**told, "fetches": True}


async def test_ten_thousand_gaps_take_no_second() -> None:
    told, seen = table(*(gap([[n, n]]) for n in range(0, 20_000, 2))), Terminal()
    async with serving(Tracked(told)) as settings:
        began = time.monotonic()
        await show(settings, seen)
        assert time.monotonic() - began < 1
    assert "and 9900 more (--json has all)" in seen.printed


class Interrupted:
    """Ctrl-C at the last of so many pauses."""

    def __init__(self, pauses: int) -> None:
        self._pauses = pauses

    def __call__(self, _seconds: float) -> None:
        self._pauses -= 1
        if not self._pauses:
            raise KeyboardInterrupt


async def test_watched_it_is_told_again_until_interrupted() -> None:
    tracked, seen = Tracked(table(gap([[4, 5]])), table(gap([[5, 5]])), table()), Terminal()
    async with serving(tracked) as settings:
        code = await show(settings, seen, watch=True, as_json=True, pause=Interrupted(3))
    told = [json.loads(line)["missing"] for line in seen.printed.splitlines()]
    assert (code, told) == (0, [2, 1, 0])


async def test_watched_a_bridge_that_goes_away_is_waited_for() -> None:
    seen = Terminal()
    async with serving(Tracked(table())) as settings:
        watching = asyncio.create_task(show(settings, seen, watch=True, pause=_Slowly(40)))
        await asyncio.sleep(0.1)
    assert await watching == 0
    # Nothing but the end is written to what is no terminal.
    assert "no bridge answers" in seen.printed


class _Slowly(Interrupted):
    def __call__(self, seconds: float) -> None:
        time.sleep(0.01)
        super().__call__(seconds)


async def test_where_no_bridge_answers_that_is_said(tmp_path: Path) -> None:
    seen = Terminal()
    port = free_port()
    assert await show(at_port(port), seen) == 69
    assert f"no bridge answers on 127.0.0.1:{port}" in seen.complaints
    unknown = Terminal()
    assert await show(at_port(0, folder=tmp_path), unknown) == 69
    assert "ports.json" in unknown.complaints
    refused = Terminal()
    async with serving(Tracked(table()), "secret") as settings:
        assert await show(at_port(settings.status.port), refused) == 69
    assert "a bearer token is needed" in refused.complaints


async def test_a_port_taken_at_the_start_is_found_in_the_journals_folder(tmp_path: Path) -> None:
    async with serving(Tracked(table())) as settings:
        (tmp_path / "ports.json").write_text(json.dumps({"status": settings.status.port}))
        assert await show(at_port(0, folder=tmp_path), Terminal()) == 0


# backfill


async def test_heights_are_followed_until_they_are_there() -> None:
    tracked = Tracked(
        table(gap([[40, 50]]), pending=1),
        table(gap([[4, 26]], "backfilling"), gap([[40, 50]])),
        table(gap([[5, 6], [9, 26]], "backfilling"), gap([[40, 50]])),
        table(gap([[40, 50]])),
    )
    seen = Terminal()
    async with serving(tracked) as settings:
        assert await fill(settings, 4, 26, seen) == 0
    assert tracked.asked == [(4, 26)]
    assert len(tracked.tables) == 1
    assert seen.printed == "all 23 heights from 4 to 26 are there\n"


async def test_what_is_not_yet_taken_note_of_is_not_taken_for_there() -> None:
    tracked = Tracked(table(pending=1), table(gap([[4, 4]])), table())
    async with serving(tracked) as settings:
        assert await fill(settings, 4, 4, Terminal()) == 0
    assert len(tracked.tables) == 1


async def test_what_cannot_be_had_is_listed() -> None:
    rest = gap([[5, 6], [25, 40]], "unresolved", detail="the node has not the block")
    tracked, seen = Tracked(table(gap([[4, 40]], "backfilling")), table(rest)), Terminal()
    async with serving(tracked) as settings:
        assert await fill(settings, 4, 26, seen) == 1
    assert seen.printed.splitlines() == [
        "4 of 23 heights cannot be had: 5-6, 25-26",
        "- main-5-40: the node has not the block",
    ]


async def test_what_is_given_up_is_waited_for_while_other_pages_of_its_gap_come() -> None:
    tracked = Tracked(
        *(table(gap([[4, n]], "unresolved")) for n in range(9, 5, -1)),
        table(gap([[4, 6]], "unresolved")),
        table(),
    )
    async with serving(tracked) as settings:
        assert await fill(settings, 4, 9, Terminal(), quiet=10) == 0


def test_of_the_gaps_only_the_heights_sought_count() -> None:
    told = table(gap([[4, 9], [20, 30]], "unresolved"), gap([[40, 50]], "backfilling"))
    assert left(told, 8, 22) == ([(8, 9), (20, 22)], [(8, 9), (20, 22)], ("main-4-30: ",))
    assert not left(told, 25, 45).is_given_up
    assert left(told, 31, 39).heights == 0


async def test_interrupted_it_says_that_the_bridge_goes_on() -> None:
    seen = Terminal()
    async with serving(Tracked(table(gap([[4, 9]])))) as settings:
        assert await fill(settings, 4, 9, seen, Interrupted(2)) == 0
    assert "the bridge goes on by itself" in seen.printed


async def test_a_bridge_that_cannot_fetch_says_why() -> None:
    seen = Terminal()
    async with serving(Tracked(table(), fetches=False)) as settings:
        assert await fill(settings, 4, 9, seen) == 69
    assert "BRIDGE_NODE__URL" in seen.complaints
    with pytest.raises(UsageError, match="from 9 to 4"):
        await fill(settings, 9, 4, seen)
