"""Binary forms of entries, commits and blocks, read and written without loss.

A module for each kind: `directory`, `admin`, `factoid` with `transactions`, `credits` with
`commits`, `entries`. Each has a frozen value with `parse` (bytes to value), `raw` (value to bytes:
what `parse` accepts comes back unchanged), its hashes, `message` (value to the feed's protobuf
message, as the node maps it) and `of_message` (the reverse, where the message holds enough).

Facts of the formats: "Factom Data Structures" (FactomProject/FactomDocs) and the recordings. All
numbers are big-endian. Whatever the bytes or messages, the only exception that leaves these modules
is `DecodeError` with the reason `invalid-binary`; nothing is allocated for a length or a count
before that many bytes are known to be there.
"""
