"""Blocks as the JSON of a node's API, wsapi v2. Bytes and hashes are lower-case hex there.

The shapes are those of recorded answers (factomd v6.5.2), oddities included: entries of a block have
no kind but by their keys, and an entry-credit block's minute is a bare number.
"""

from __future__ import annotations

from typing import Any

from bridge.core.binary.admin import AdminBlock, AdminEntry
from bridge.core.binary.commits import ChainCommit, EntryCommit
from bridge.core.binary.credits import BalanceIncrease, CreditBlock, Item
from bridge.core.binary.directory import (
    ADMIN_CHAIN,
    CREDIT_CHAIN,
    DIRECTORY_CHAIN,
    FACTOID_CHAIN,
    DirectoryBlock,
)
from bridge.core.binary.entries import Entry, EntryBlock
from bridge.core.binary.factoid import FactoidBlock
from bridge.core.binary.transactions import Output, Transaction
from bridge.core.hashing import merkle_root, sha256
from bridge.emitter.anchors import Window, path
from bridge.emitter.block import Block
from bridge.emitter.inputs import AnchorInfo

__all__ = [
    "admin_block",
    "anchors",
    "credit_block",
    "directory_block",
    "directory_listing",
    "entry",
    "entry_block",
    "factoid_block",
]

Json = dict[str, Any]

_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_FACTOIDS, _CREDITS = b"\x5f\xb1", b"\x59\x2a"
_DIRECTORY_HEAD = 113
_SIGNATURE_ENTRY, _ADD_FEDERATED, _DESCRIPTOR = 0x01, 0x05, 0x0B


def directory_block(block: DirectoryBlock) -> Json:
    """Return what `dblock-by-height` answers."""
    raw, hashes = block.raw, block.hashes()
    answer = {
        "dbhash": hashes.full_hash.hex(),
        "keymr": hashes.key_merkle_root.hex(),
        "headerhash": sha256(raw[:_DIRECTORY_HEAD]).hex(),
        "header": {
            "version": block.version,
            "networkid": block.network_id,
            "bodymr": hashes.body_merkle_root.hex(),
            "prevkeymr": block.previous_key_merkle_root.hex(),
            "prevfullhash": block.previous_full_hash.hex(),
            "timestamp": block.minutes,
            "dbheight": block.height,
            "blockcount": len(block.listed),
            "chainid": DIRECTORY_CHAIN.hex(),
        },
        "dbentries": _listed(block),
    }
    return {"dblock": answer, "rawdata": raw.hex()}


def directory_listing(block: DirectoryBlock) -> Json:
    """Return what `directory-block` answers."""
    return {
        "header": {
            "prevblockkeymr": block.previous_key_merkle_root.hex(),
            "sequencenumber": block.height,
            "timestamp": block.seconds,
        },
        "entryblocklist": _listed(block),
    }


def _listed(block: DirectoryBlock) -> list[Json]:
    return [{"chainid": each.chain_id.hex(), "keymr": each.key.hex()} for each in block.listed]


def admin_block(block: AdminBlock) -> Json:
    """Return what `ablock-by-height` answers."""
    hashes = block.hashes()
    answer = {
        "header": {
            "prevbackrefhash": block.previous_back_reference_hash.hex(),
            "dbheight": block.height,
            "headerexpansionsize": len(block.expansion),
            "headerexpansionarea": block.expansion.hex(),
            "messagecount": len(block.entries),
            "bodysize": sum(len(each.raw) for each in block.entries),
            "adminchainid": ADMIN_CHAIN.hex(),
            "chainid": ADMIN_CHAIN.hex(),
        },
        "abentries": [_admin_entry(each) for each in block.entries],
        "backreferencehash": hashes.back_reference_hash.hex(),
        "lookuphash": hashes.lookup_hash.hex(),
    }
    return {"ablock": answer, "rawdata": block.raw.hex()}


def _admin_entry(each: AdminEntry) -> Json:
    """Return an entry; of the kinds that the simulated chain has none of, the number only."""
    values: Any = each.values
    more: Json = {}
    if each.kind == _SIGNATURE_ENTRY:
        signed = {"pub": values[1].hex(), "sig": values[2].hex()}
        more = {"identityadminchainid": values[0].hex(), "prevdbsig": signed}
    elif each.kind == _ADD_FEDERATED:
        more = {"identitychainid": values[0].hex(), "dbheight": values[1]}
    elif each.kind == _DESCRIPTOR:
        more = {"Outputs": _outputs(values[0], _FACTOIDS)}
    return {"adminidtype": each.kind, **more}


def credit_block(block: CreditBlock) -> Json:
    """Return what `ecblock-by-height` answers."""
    hashes = block.hashes()
    raw = block.raw
    answer = {
        "header": {
            "bodyhash": hashes.body_hash.hex(),
            "prevheaderhash": block.previous_header_hash.hex(),
            "prevfullhash": block.previous_full_hash.hex(),
            "dbheight": block.height,
            "headerexpansionarea": block.expansion.hex(),
            "objectcount": len(block.items),
            "bodysize": _body_size(raw, block),
            "chainid": CREDIT_CHAIN.hex(),
            "ecchainid": CREDIT_CHAIN.hex(),
        },
        "body": {"entries": [_item(each) for each in block.items]},
        "headerhash": hashes.header_hash.hex(),
        "fullhash": hashes.full_hash.hex(),
    }
    return {"ecblock": answer, "rawdata": raw.hex()}


def _body_size(raw: bytes, block: CreditBlock) -> int:
    # Four hashes, height, size of the expansion and the expansion, two counts.
    return len(raw) - (4 * 32 + 4 + 1 + len(block.expansion) + 16)


def _item(item: Item) -> Json:
    match item:
        case ChainCommit() | EntryCommit():
            chain = (
                {"chainidhash": item.chain_id_hash.hex(), "weld": item.weld.hex()}
                if isinstance(item, ChainCommit)
                else {}
            )
            return {
                "version": item.version,
                "millitime": item.milliseconds.to_bytes(6, "big").hex(),
                **chain,
                "entryhash": item.entry_hash.hex(),
                "credits": item.credits,
                "ecpubkey": item.public_key.hex(),
                "sig": item.signature.hex(),
            }
        case BalanceIncrease():
            return {
                "ecpubkey": item.public_key.hex(),
                "txid": item.transaction_id.hex(),
                "index": item.index,
                "numec": item.amount,
            }
        case _:
            return {"number": item.number}


def factoid_block(block: FactoidBlock) -> Json:
    """Return what `fblock-by-height` answers."""
    hashes = block.hashes()
    answer = {
        "bodymr": hashes.body_merkle_root.hex(),
        "prevkeymr": block.previous_key_merkle_root.hex(),
        "prevledgerkeymr": block.previous_ledger_key_merkle_root.hex(),
        "exchrate": block.exchange_rate,
        "dbheight": block.height,
        "transactions": [_transaction(each) for minute in block.minutes for each in minute],
        "chainid": FACTOID_CHAIN.hex(),
        "keymr": hashes.key_merkle_root.hex(),
        "ledgerkeymr": hashes.ledger_key_merkle_root.hex(),
    }
    return {"fblock": answer, "rawdata": block.raw.hex()}


def _transaction(each: Transaction) -> Json:
    return {
        "txid": sha256(each.ledger).hex(),
        "blockheight": 0,
        "millitimestamp": each.milliseconds,
        "inputs": _outputs(each.inputs, _FACTOIDS),
        "outputs": _outputs(each.outputs, _FACTOIDS),
        "outecs": _outputs(each.credit_outputs, _CREDITS),
        "rcds": [f"01{proof.public_key.hex()}" for proof in each.proofs],
        "sigblocks": [{"signatures": [proof.signature.hex()]} for proof in each.proofs],
    }


def _outputs(outputs: tuple[Output, ...], prefix: bytes) -> list[Json]:
    return [
        {"amount": amount, "address": to.hex(), "useraddress": _readable(prefix + to)}
        for amount, to in outputs
    ]


def _readable(data: bytes) -> str:
    """Return an address as users know it: base 58, with a check sum."""
    value = int.from_bytes(data + sha256(sha256(data))[:4], "big")
    text = ""
    while value:
        value, digit = divmod(value, len(_ALPHABET))
        text = _ALPHABET[digit] + text
    return text


def entry_block(listed: EntryBlock, block: Block) -> Json:
    """Return what `entry-block` answers: without the minute markers, but with the times."""
    start = block.directory.seconds
    return {
        "header": {
            "blocksequencenumber": listed.sequence,
            "chainid": listed.chain_id.hex(),
            "prevkeymr": listed.previous_key_merkle_root.hex(),
            "timestamp": start,
            "dbheight": listed.height,
        },
        "entrylist": [
            {"entryhash": each.hex(), "timestamp": at} for each, at in listed.times(start)
        ],
    }


def entry(each: Entry) -> Json:
    """Return what `entry` answers."""
    return {
        "chainid": each.chain_id.hex(),
        "content": each.content.hex(),
        # Where there is none, Go has no list.
        "extids": [name.hex() for name in each.external_ids] or None,
    }


def anchors(block: Block, record: AnchorInfo | None, window: Window | None) -> Json:
    """Return what `anchors` answers; False stands for an anchor that there is not yet."""
    bitcoin = record is not None and {
        "transactionhash": record.btc_tx_hash.hex(),
        "blockhash": record.btc_block_hash.hex(),
    }
    return {
        "directoryblockheight": block.height,
        "directoryblockkeymr": block.directory.hashes().key_merkle_root.hex(),
        "bitcoin": bitcoin,
        "ethereum": window is not None and _ethereum(block, window),
    }


def _ethereum(block: Block, window: Window) -> Json:
    proof = window.record.ethereum_anchor_record_entry_hash
    at = block.height - window.first
    return {
        "recordheight": window.record.block_height + 1,
        "dbheightmax": window.record.block_height,
        "dbheightmin": window.first,
        "windowmr": merkle_root(window.roots).hex(),
        "merklebranch": [
            {"left": step.left.hex(), "right": step.right.hex(), "top": step.top.hex()}
            for step in path(window.roots, at)
        ],
        "contractaddress": f"0x{sha256(b'contract').hex()[:40]}",
        "txid": f"0x{sha256(b'transaction' + proof).hex()}",
        "blockhash": f"0x{sha256(b'block' + proof).hex()}",
        "txindex": proof[0],
    }
