"""Recordings of the feed: written from what arrives, played back as it came or with faults.

`docs/recording.md` is the format and the reasons. Pure: `format`, `frames`, `faults`.
"""

from bridge.errors import RecordingDamaged
from bridge.recording.faults import Faults
from bridge.recording.file import FileReader, FileWriter
from bridge.recording.folder import FolderReader, import_folder, open_recording
from bridge.recording.format import Record, Transport, What
from bridge.recording.line import Address
from bridge.recording.play import Player
from bridge.recording.record import Recorder, open_recorder
from bridge.recording.shown import parse_speed, play_shown, record_shown

__all__ = [
    "Address",
    "Faults",
    "FileReader",
    "FileWriter",
    "FolderReader",
    "Player",
    "Record",
    "Recorder",
    "RecordingDamaged",
    "Transport",
    "What",
    "import_folder",
    "open_recorder",
    "open_recording",
    "parse_speed",
    "play_shown",
    "record_shown",
]
