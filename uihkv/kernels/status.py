"""Status codes that kernels return, and what each means in words."""

OK = 0
SHORT = 1
FORM = 2
NEWER = 3
SCHEMA = 4
RANGE = 5
CHECKSUM = 6
BLOCK = 7
LENGTH = 8
LZ4 = 9
LISTS = 10
GAP = 11
CODES = 12

MEANING = {
    SHORT: "the value is shorter than its header says",
    FORM: "the value does not begin with a chunk header",
    NEWER: "the chunk is of a newer format",
    SCHEMA: "the chunk's schema version or count of blocks is not in the manifest, which may be older than the shard",
    RANGE: "the chunk's range of versions is not the one of its key",
    CHECKSUM: "a checksum does not match",
    BLOCK: "a block descriptor holds an impossible value",
    LENGTH: "a block's length does not fit its elements",
    LZ4: "a block does not decompress",
    LISTS: "the lengths of a ragged column's lists do not add up to its elements",
    CODES: "codes of a bytes or string column are out of range, or the lengths of its values do not add up",
    GAP: "events of the history are missing between chunks",
}
