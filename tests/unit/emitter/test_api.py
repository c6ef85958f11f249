"""The simulated node's API: what recorded nodes answered, and blocks that rebuild."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from dataclasses import replace
from typing import Any

import pytest

from bridge.core.binary.admin import AdminBlock
from bridge.core.binary.credits import CreditBlock
from bridge.core.binary.directory import DirectoryBlock
from bridge.core.binary.entries import Entry, EntryBlock
from bridge.core.binary.factoid import FactoidBlock
from bridge.core.hashing import sha256
from bridge.core.rebuild import RawHeight, rebuild
from bridge.emitter.anchors import in_bitcoin, in_ethereum
from bridge.emitter.api import Api, Minute, serve_api
from bridge.emitter.archive import Archive
from bridge.emitter.block import Block, Load
from bridge.emitter.chain import Chain
from bridge.emitter.config import Broadcast
from bridge.emitter.counters import DROPPED, NOT_SENT, Counters
from bridge.emitter.mapping import Mapper
from bridge.errors import PortInUse
from tests.support.captures import find_capture, not_here
from tests.support.heights import API_CAPTURES, RecordedHeight, extract, recording

START = 1_767_225_600_000
NOT_OF_THE_CHAIN = ("properties", "current-minute", "heights")
AT = Minute(6, 5, 3, START, START + 180_000, START + 200_000, 600)


def archived(blocks: int, *, first: int = 0) -> tuple[Archive, list[Block]]:
    chain = Chain(3, first=first, load=Load(chains=2, entries=9))
    grown = [chain.grow(START + at * 600_000).block for at in range(blocks)]
    archive = Archive()
    for block in grown:
        archive.add(block)
    return archive, grown


class Client:
    """Asks as a client does, and keeps what is to be replayed."""

    def __init__(self, archive: Archive, at: Minute = AT) -> None:
        self.replays: list[tuple[int, int]] = []
        self._api = Api(archive, lambda: at, lambda *heights: self.replays.append(heights))

    def call(self, method: str, id_: object = 1, **params: object) -> tuple[int, Any]:
        asked = {"jsonrpc": "2.0", "id": id_, "method": method, "params": params}
        status, answer = self._api.answer(json.dumps(asked).encode())
        assert answer.pop("jsonrpc") == "2.0"
        assert answer.pop("id") == id_
        return status, answer

    def result(self, method: str, **params: object) -> Any:
        status, answer = self.call(method, **params)
        assert status == 200, answer
        return answer["result"]

    def error(self, method: str, **params: object) -> Any:
        status, answer = self.call(method, **params)
        assert status == 400, answer
        return answer["error"]

    def raw(self, answer: str, body: bytes) -> Any:
        status, told = self._api.answer(body)
        assert (status, told["id"]) == (400, None), answer
        return told["error"]


def block_of(recorded: RecordedHeight) -> Block:
    raw = recorded.raw
    blocks = tuple(map(EntryBlock.parse, raw.entry_blocks))
    return Block(
        DirectoryBlock.parse(raw.directory),
        AdminBlock.parse(raw.admin),
        FactoidBlock.parse(raw.factoid),
        CreditBlock.parse(raw.credit),
        blocks,
        tuple(map(Entry.parse, recorded.contents.values())),
    )


def test_recorded_blocks_are_answered_as_recorded() -> None:
    """On the extract that stands in the repository."""
    for recorded in extract():
        archive = Archive()
        archive.add(block_of(recorded))
        client = Client(archive)
        for (method, asked), result in recorded.answers.items():
            if method in NOT_OF_THE_CHAIN:
                continue
            name = (
                "height"
                if isinstance(asked, int)
                else "keymr"
                if method in ("entry-block", "directory-block")
                else "hash"
            )
            assert client.result(method, **{name: asked}) == result, (method, asked)


@pytest.mark.parametrize("name", API_CAPTURES)
def test_whole_recordings_are_answered_as_recorded_errors_included(name: str) -> None:
    capture = find_capture(name)
    if capture is None:
        not_here(name)
    archive, known = Archive(), recording(name)
    for height in sorted(
        asked
        for method, asked in known[0].answers
        if method == "fblock-by-height" and isinstance(asked, int)
    ):
        archive.add(block_of(replace(known[0], height=height)))
    client = Client(archive)
    compared = 0
    for line in (capture.folder / "api.jsonl").read_text(encoding="utf-8").splitlines():
        call = json.loads(line)
        if call["method"] in NOT_OF_THE_CHAIN:
            continue
        if call["method"] == "malformed":
            assert client.raw(line, b"{") == call["answer"]["error"]
            continue
        answer = {key: call["answer"][key] for key in call["answer"].keys() & {"result", "error"}}
        assert client.call(call["method"], **call["params"]) == (call["http"], answer), line[:200]
        compared += 1
    assert compared > 300


def test_raw_answers_rebuild_the_very_blocks() -> None:
    archive, blocks = archived(20)
    client = Client(archive)
    always = Mapper(Broadcast.ALWAYS, send_state_change=False)
    once = Mapper(Broadcast.ONCE, send_state_change=False)

    def part(name: str, height: int) -> bytes:
        return bytes.fromhex(client.result(f"{name}-by-height", height=height)["rawdata"])

    def data(hash_: bytes) -> bytes:
        return bytes.fromhex(client.result("raw-data", hash=hash_.hex())["data"])

    previous = None
    for block in blocks:
        directory = part("dblock", block.height)
        listed = DirectoryBlock.parse(directory).entry_blocks
        raw = RawHeight(
            directory,
            part("ablock", block.height),
            part("ecblock", block.height),
            part("fblock", block.height),
            tuple(data(each.key) for each in listed),
        )
        contents = {
            hash_: data(hash_)
            for each in raw.entry_blocks
            for hash_ in EntryBlock.parse(each).entry_hashes()
        }
        rebuilt = rebuild(raw, contents)
        assert rebuilt.message == always.replayed_block(block.whole()).directoryBlockCommit
        assert rebuild(raw).message == once.replayed_block(block.whole()).directoryBlockCommit
        header = rebuilt.message.directoryBlock.header
        assert previous is None or header.previousKeyMerkleRoot == previous
        previous = rebuilt.links.key_merkle_root


def test_where_the_node_stands() -> None:
    client = Client(archived(6)[0])
    assert client.result("heights") == {
        "directoryblockheight": 5,
        "leaderheight": 6,
        "entryblockheight": 5,
        "entryheight": 5,
    }
    told = client.result("current-minute")
    assert (told["leaderheight"], told["directoryblockheight"], told["minute"]) == (6, 5, 3)
    assert told["currenttime"] - told["currentblockstarttime"] == 200 * 10**9
    assert told["directoryblockinseconds"] == 600


def test_anchors_of_a_height_and_of_an_entry() -> None:
    archive, blocks = archived(4)
    client = Client(archive)
    assert client.result("anchors", height=2)["bitcoin"] is False
    record = in_bitcoin(blocks[2], START)
    archive.anchor(record)
    told = client.result("anchors", height=2)
    assert told["bitcoin"] == {
        "transactionhash": record.btc_tx_hash.hex(),
        "blockhash": record.btc_block_hash.hex(),
    }
    assert told["ethereum"] is False
    assert client.result("anchors", hash=blocks[2].entries[0].hash().hex()) == told
    assert client.error("anchors", height=4)["code"] == -32008
    # Source: factomd, HandleV2Anchors: with neither of the two, and nowhere else, an error.
    assert client.error("anchors")["code"] == -32602


@pytest.mark.parametrize("height", range(7))
def test_a_window_in_ethereum_anchors_each_of_its_blocks_by_a_path_to_its_root(height: int) -> None:
    """Source: factomd, HandleV2Anchors and BuildMerkleBranch; the names are of its public API."""
    archive, blocks = archived(8)
    last = in_ethereum(in_bitcoin(blocks[6], START))
    archive.anchor(last)
    told = Client(archive).result("anchors", height=height)
    assert (told["bitcoin"] is False) == (height != 6)
    proof = told["ethereum"]
    assert (proof["dbheightmin"], proof["dbheightmax"]) == (0, 6)
    assert list(proof) == [
        *("recordheight", "dbheightmax", "dbheightmin", "windowmr", "merklebranch"),
        *("contractaddress", "txid", "blockhash", "txindex"),
    ]
    reached = told["directoryblockkeymr"]
    for step in proof["merklebranch"]:
        assert reached in (step["left"], step["right"])
        reached = sha256(bytes.fromhex(step["left"] + step["right"])).hex()
        assert step["top"] == reached
    assert reached == proof["windowmr"]
    assert len(proof["merklebranch"]) == 3


def test_a_block_after_the_last_window_is_in_none_yet_and_windows_hold_1000_blocks() -> None:
    archive, blocks = archived(8)
    archive.anchor(in_ethereum(in_bitcoin(blocks[6], START)))
    assert Client(archive).result("anchors", height=7)["ethereum"] is False
    archive, blocks = archived(1_003, first=7)
    archive.anchor(in_ethereum(in_bitcoin(blocks[1_002], START)))
    client = Client(archive)
    assert client.result("anchors", height=9)["ethereum"] is False
    proof = client.result("anchors", height=10)["ethereum"]
    assert (proof["dbheightmin"], proof["dbheightmax"]) == (10, 1_009)


@pytest.mark.parametrize(
    ("asked", "named", "replayed"),
    [
        ({"startheight": 1, "endheight": 3}, (1, 3), (1, 3)),
        ({"startheight": 2}, (2, 5), (2, 5)),
        ({"startheight": 2, "endheight": 0}, (2, 5), (2, 5)),
        ({}, (0, 5), (0, 5)),
        ({"startheight": 5, "endheight": 5}, (5, 5), (5, 5)),
        # The end is not looked at: what is not there is not sent.
        ({"startheight": 4, "endheight": 900}, (4, 900), (4, 900)),
        ({"startheight": 4, "endheight": 1_004}, (4, 1_004), (4, 1_004)),
        ({"startheight": 4, "endheight": 1_005}, (4, 1_004), (4, 1_004)),
        ({"startheight": 0, "endheight": 2**31}, (0, 1_000), (0, 1_000)),
    ],
)
def test_replays(asked: dict[str, int], named: tuple[int, int], replayed: tuple[int, int]) -> None:
    client = Client(archived(6)[0])
    first, last = named
    assert client.result("replay-from-height", **asked) == {
        "message": f"Successfully initiated replay of blocks {first} through {last}",
        "startheight": first,
        "endheight": last,
    }
    assert client.replays == [replayed]


def test_a_replay_to_the_tip_can_name_a_block_that_is_not_saved_yet() -> None:
    client = Client(archived(6)[0], AT._replace(complete=6, minute=0))
    assert client.result("replay-from-height", startheight=1)["endheight"] == 6


@pytest.mark.parametrize(
    "asked",
    [
        {"startheight": 3, "endheight": 2},
        {"startheight": 6},
        {"startheight": -1, "endheight": 2},
        {"startheight": 0, "endheight": -2},
        {"startheight": "x"},
        {"startheight": 1.5},
        {"startheight": True},
    ],
)
def test_replays_that_make_no_sense_are_invalid(asked: dict[str, object]) -> None:
    client = Client(archived(6)[0])
    assert client.error("replay-from-height", **asked)["code"] == -32602
    assert client.replays == []


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"7", b"{}", b'{"jsonrpc":"1.0","method":"heights"}', b'{"jsonrpc":"2.0"}'],
)
def test_what_is_no_request_is_told_so(body: bytes) -> None:
    client = Client(Archive())
    assert client.raw("", body) == {"code": -32600, "message": "Invalid Request"}


def test_blocks_before_the_first_are_not_found() -> None:
    client = Client(archived(3, first=100)[0])
    assert client.error("dblock-by-height", height=99) == {
        "code": -32008,
        "message": "Block not found",
    }
    assert client.result("dblock-by-height", height=102)["dblock"]["header"]["dbheight"] == 102


async def test_over_http_an_error_is_a_400_and_all_is_plain_text() -> None:
    api = Api(archived(2)[0], lambda: AT, lambda first, last: None)
    counters = Counters()
    counters.dropped = 3
    async with serve_api(api, counters, 0) as port:

        def post(method: str) -> tuple[int, str, Any]:
            body = json.dumps({"jsonrpc": "2.0", "id": 0, "method": method}).encode()
            request = urllib.request.Request(f"http://127.0.0.1:{port}/v2", body)
            direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            try:
                with direct.open(request, timeout=5) as answer:
                    return answer.status, answer.headers["Content-Type"], json.load(answer)
            except urllib.error.HTTPError as error:
                with error:
                    return error.code, error.headers["Content-Type"], json.load(error)

        status, type_, answer = await asyncio.to_thread(post, "heights")
        assert (status, type_) == (200, "text/plain; charset=utf-8")
        assert answer["result"]["directoryblockheight"] == 1
        status, type_, answer = await asyncio.to_thread(post, "nonsense")
        assert (status, type_) == (400, "text/plain; charset=utf-8")
        assert answer == {
            "jsonrpc": "2.0",
            "id": 0,
            "error": {"code": -32601, "message": "Method not found"},
        }
        with pytest.raises(PortInUse):
            async with serve_api(api, counters, port):
                pass

        def metrics() -> list[str]:
            direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with direct.open(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                text: str = answer.read().decode()
                return text.splitlines()

        told = await asyncio.to_thread(metrics)
        assert {f"{DROPPED} 3.0", f"{NOT_SENT} 0.0"} <= set(told)
