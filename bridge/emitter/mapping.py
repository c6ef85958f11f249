"""From what a node has to tell to the event that it sends, or to none.

The rules are the node's (factomd v6.5.2, `events/eventservices/eventMapper.go`), gaps included:
see `Mapper.state_change` for the event that has no member.
"""

from __future__ import annotations

from bridge.core.binary.wire import quirky_timestamp, timestamp
from bridge.emitter.config import Broadcast
from bridge.emitter.inputs import (
    AnchorInfo,
    ChainCommit,
    DirectoryBlockState,
    Entity,
    EntryCommit,
    EntryReveal,
)
from bridge.pb.eventmessages import (
    directoryBlock_pb2 as directory_block,
    factomEvents_pb2 as pb,
)

__all__ = ["Mapper"]

_REQUESTED = pb.EntityState.REQUESTED


class Mapper:
    """Makes events; their envelope is the service's.

    `timestamp_quirk`: times that the node reads from its own clock values (all but those of
    commits) have nanoseconds 1,000 times too small, as factomd v6.5.2 to v6.17.1 sends them.
    """

    def __init__(
        self, broadcast: Broadcast, *, send_state_change: bool, timestamp_quirk: bool = True
    ) -> None:
        self._broadcast = broadcast
        self._send_state_change = send_state_change
        self._quirk = timestamp_quirk
        self._timestamp = quirky_timestamp if timestamp_quirk else timestamp

    def registration(self, entity: Entity) -> pb.FactomEvent | None:
        """Return the event of a commit or reveal that came in; None: it is not sent."""
        if isinstance(entity, EntryReveal) and self._broadcast is Broadcast.NEVER:
            return None
        return self._whole(entity, _REQUESTED)

    def state_change(self, entity: Entity, state: pb.EntityState) -> pb.FactomEvent:
        """Return the event of a commit or reveal that was accepted or rejected.

        A reveal whose content must not travel, and whose change of state is not sent either,
        leaves nothing to say. The node sends that: an event without a member.
        """
        if self._send_state_change:
            change = pb.StateChange(entityHash=_hash(entity), entityState=state)
            return pb.FactomEvent(stateChange=change)
        if isinstance(entity, EntryReveal) and self._broadcast is not Broadcast.ALWAYS:
            return pb.FactomEvent()
        return self._whole(entity, state)

    def live_block(self, block: DirectoryBlockState) -> pb.FactomEvent:
        """Return the event of a block just saved: the node has cleared its entries by then."""
        return pb.FactomEvent(directoryBlockCommit=self._block(block))

    def replayed_block(self, block: DirectoryBlockState) -> pb.FactomEvent:
        """Return the event of a block that was asked for again, with its entry blocks."""
        commit = self._block(block)
        commit.entryBlocks.extend(block.entry_blocks)
        commit.entryBlockEntries.extend(block.entries)
        if self._broadcast is not Broadcast.ALWAYS:
            for entry in commit.entryBlockEntries:
                del entry.externalIDs[:]
                entry.ClearField("content")
                entry.ClearField("version")
        return pb.FactomEvent(directoryBlockCommit=commit)

    def anchor(self, info: AnchorInfo) -> pb.FactomEvent:
        """Return the event of a changed anchor record."""
        return pb.FactomEvent(
            directoryBlockAnchor=directory_block.DirectoryBlockAnchor(
                directoryBlockHash=info.directory_block_hash,
                directoryBlockMerkleRoot=info.directory_block_merkle_root,
                blockHeight=info.block_height,
                timestamp=self._timestamp(info.milliseconds),
                btcTxHash=info.btc_tx_hash,
                btcTxOffset=info.btc_tx_offset,
                btcBlockHeight=info.btc_block_height,
                btcBlockHash=info.btc_block_hash,
                btcConfirmed=info.btc_confirmed,
                ethereumAnchorRecordEntryHash=info.ethereum_anchor_record_entry_hash,
                ethereumConfirmed=info.ethereum_confirmed,
            )
        )

    def _whole(self, entity: Entity, state: pb.EntityState) -> pb.FactomEvent:
        match entity:
            case ChainCommit():
                return pb.FactomEvent(chainCommit=entity.message(state))
            case EntryCommit():
                return pb.FactomEvent(entryCommit=entity.message(state))
            case EntryReveal():
                reveal = pb.EntryReveal(
                    entityState=state,
                    entry=entity.entry.message(),
                    timestamp=self._timestamp(entity.milliseconds),
                )
                return pb.FactomEvent(entryReveal=reveal)

    def _block(self, block: DirectoryBlockState) -> pb.DirectoryBlockCommit:
        commit = pb.DirectoryBlockCommit(
            directoryBlock=block.directory_block,
            adminBlock=block.admin_block,
            factoidBlock=block.factoid_block,
            entryCreditBlock=block.entry_credit_block,
        )
        for transaction in commit.factoidBlock.transactions:
            at = transaction.timestamp
            if self._quirk and at.nanos >= 1_000_000:
                at.nanos //= 1000
            elif not self._quirk and 0 < at.nanos < 1_000_000:
                at.nanos *= 1000
        return commit


def _hash(entity: Entity) -> bytes:
    match entity:
        case ChainCommit():
            return entity.chain_id_hash
        case EntryCommit():
            return entity.entry_hash
        case EntryReveal():
            return entity.entry.hash()
