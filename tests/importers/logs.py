"""Tiny logs in each format's true form, with original content, and plain-Python readers of them.

A reader shares no line with the importers: it takes the text apart with ``csv`` and ``json`` and gives what each user's
history is to be, as tuples ``(ts, visible_at, values of the columns in the schema's order)``.
"""

from __future__ import annotations

import csv
import json
import random
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Row = tuple[Any, ...]


@dataclass(frozen=True)
class Sample:
    """A log of one format.

    ``write`` puts its files into a folder; ``read`` gives ``(user, ts, *values)`` in the order of the files; ``bad``
    are lines that are not of the format, each with words of its message.
    """

    format: str
    write: Callable[[Path], list[Path]]
    read: Callable[[list[Path]], Iterator[Row]]
    by_time: bool = True
    bad: tuple[tuple[str, str], ...] = ()
    header: bool = False

    def histories(self, files: list[Path]) -> dict[Any, list[Row]]:
        """Each user's events in arrival order: ``(ts, visible_at, *values)``."""
        events = defaultdict(list)
        for user, *event in self.read(files):
            events[user].append(tuple(event))
        if self.by_time:
            events = {user: sorted(rows, key=lambda row: row[0]) for user, rows in events.items()}
        histories = {}
        for user, rows in events.items():
            latest, lifted = -1, []
            for ts, *values in rows:
                latest = max(latest, ts)
                lifted.append((ts, latest, *values))
            histories[user] = lifted
        return histories


def _text(folder: Path, name: str, lines: list[str], end: str = "\n") -> Path:
    (folder / name).write_bytes((end.join(lines) + end).encode())
    return folder / name


def _draw(seed: str) -> random.Random:
    return random.Random(seed)


def _movielens(folder: Path) -> list[Path]:
    draw = _draw("movielens")
    dat = [f"{u}::{draw.randrange(1, 99)}::{draw.randrange(1, 6)}::{978300000 + draw.randrange(999)}"
           for u in range(1, 6) for _ in range(6)]  # fmt: skip
    rated = [f"{u},{draw.randrange(1, 99)},{draw.randrange(1, 11) / 2},{1147860000 + draw.randrange(999)}"
             for u in range(3, 9) for _ in range(5)]  # fmt: skip
    tabs = ["196\t242\t3\t881250949", "196\t12\t5\t881250940"]
    return [
        _text(folder, "ratings.dat", dat),
        _text(folder, "ratings.csv", ["userId,movieId,rating,timestamp", *rated]),
        _text(folder, "u.data", tabs),
    ]


def _read_movielens(files: list[Path]) -> Iterator[Row]:
    for file in files:
        for line in file.read_text().splitlines():
            user, film, rating, ts = line.replace("::", ",").replace("\t", ",").split(",")
            if user != "userId":
                yield int(user), int(ts), int(film), float(rating)


_KUAIRAND = (
    "user_id,video_id,date,hourmin,time_ms,is_click,is_like,is_follow,is_comment,is_forward,is_hate,long_view,play_time_ms,"
    "duration_ms,profile_stay_time,comment_stay_time,is_profile_enter,is_rand,tab"
)
_KUAIRAND_COLUMNS = [
    "video_id", "is_click", "is_like", "is_follow", "is_comment", "is_forward", "is_hate", "long_view",
    "is_profile_enter", "is_rand", "tab", "play_time_ms", "duration_ms", "profile_stay_time", "comment_stay_time",
]  # fmt: skip


def _kuairand(folder: Path) -> list[Path]:
    draw = _draw("kuairand")

    def lines(rand: int) -> list[str]:
        made = []
        for user in (0, 3, 26999):
            for _ in range(9):
                flags = ",".join(str(draw.randrange(2)) for _ in range(7))
                played = f"{draw.randrange(60_000)},{draw.randrange(90_000)},{draw.randrange(9)},0"
                time = 1650600000000 + draw.randrange(10**9)
                made.append(
                    f"{user},{draw.randrange(7583)},20220422,1600,{time},{flags},{played},0,{rand},{draw.randrange(15)}"
                )
        return made

    return [
        _text(folder, "log_standard_4_22_to_5_08_pure.csv", [_KUAIRAND, *lines(0)]),
        _text(folder, "log_random_4_22_to_5_08_pure.csv", [_KUAIRAND, *lines(1)], "\r\n"),
    ]


def _read_kuairand(files: list[Path]) -> Iterator[Row]:
    for file in files:
        with file.open(newline="") as text:
            for row in csv.DictReader(text):
                yield int(row["user_id"]), int(row["time_ms"]), *(int(row[name]) for name in _KUAIRAND_COLUMNS)


def _taobao(folder: Path) -> list[Path]:
    draw = _draw("taobao")
    lines = [
        f"{u},{draw.randrange(10**6)},{draw.randrange(10**6)},{draw.choice(['pv', 'buy', 'cart', 'fav'])},"
        f"{1511544070 + draw.randrange(10**6)}"
        for u in (1, 100, 1018011) for _ in range(12)
    ]  # fmt: skip
    return [_text(folder, "UserBehavior.csv", lines)]


def _read_taobao(files: list[Path]) -> Iterator[Row]:
    for line in files[0].read_text().splitlines():
        user, item, category, behavior, ts = line.split(",")
        yield int(user), int(ts), int(item), int(category), ["pv", "buy", "cart", "fav"].index(behavior)


def _retailrocket(folder: Path) -> list[Path]:
    draw = _draw("retailrocket")
    lines = []
    for deal in range(40):
        kind = draw.choice(["view", "view", "addtocart", "transaction"])
        deals = str(deal) if kind == "transaction" else ""
        lines.append(
            f"{1433221332000 + draw.randrange(10**6)},{draw.randrange(5)},{kind},{draw.randrange(999)},{deals}"
        )
    return [_text(folder, "events.csv", ["timestamp,visitorid,event,itemid,transactionid", *lines])]


def _read_retailrocket(files: list[Path]) -> Iterator[Row]:
    with files[0].open() as text:
        for row in csv.DictReader(text):
            kind = ["view", "addtocart", "transaction"].index(row["event"])
            yield (
                int(row["visitorid"]),
                int(row["timestamp"]),
                int(row["itemid"]),
                kind,
                int(row["transactionid"] or -1),
            )


def _otto(folder: Path) -> list[Path]:
    draw = _draw("otto")
    lines = []
    for session in range(11):
        times = sorted(1661200010000 + draw.randrange(10**8) for _ in range(draw.randrange(2, 8)))
        events = [
            {"aid": draw.randrange(10**6), "ts": ts, "type": draw.choice(["clicks", "carts", "orders"])} for ts in times
        ]
        lines.append(json.dumps({"session": session, "events": events}))
    return [_text(folder, "otto-recsys-train.jsonl", lines)]


def _read_otto(files: list[Path]) -> Iterator[Row]:
    for line in files[0].read_text().splitlines():
        session = json.loads(line)
        for event in session["events"]:
            yield session["session"], event["ts"], event["aid"], ["clicks", "carts", "orders"].index(event["type"])


def _amazon_reviews(folder: Path) -> list[Path]:
    draw = _draw("amazon")
    lines = []
    for number in range(40):
        review = {
            "rating": float(draw.randrange(1, 6)), "title": "Ü, \"quoted\"", "text": "a, b\nc", "images": [],
            "asin": f"B{number % 7:09}", "parent_asin": f"B{number % 5:09}",
            "user_id": f"A{'EFG'[number % 3]}{number % 4}",
            "timestamp": 1677938767351 + draw.randrange(10**9), "helpful_vote": draw.randrange(9),
            "verified_purchase": draw.random() < 0.5,
        }  # fmt: skip
        lines.append(json.dumps(review))
    return [_text(folder, "All_Beauty.jsonl", lines)]


def _read_amazon_reviews(files: list[Path]) -> Iterator[Row]:
    for line in files[0].read_text().splitlines():
        r = json.loads(line)
        yield (r["user_id"], r["timestamp"], r["parent_asin"], r["rating"], r["asin"], r["helpful_vote"],
               r["verified_purchase"])  # fmt: skip


def _amazon_splits(folder: Path) -> list[Path]:
    draw = _draw("splits")
    header = "user_id,parent_asin,rating,timestamp,history"
    made = [
        f"AE{number % 5},B{number % 6:09},{draw.randrange(1, 6)}.0,{1677938767351 + draw.randrange(10**6)},B000 B001"
        for number in range(30)
    ]
    plain = [line.rsplit(",", 1)[0] for line in made[:20]]
    return [
        _text(folder, "All_Beauty.train.csv", [header.removesuffix(",history"), *plain]),
        _text(folder, "All_Beauty.test.csv", [header, *made[20:]]),
    ]


def _read_amazon_splits(files: list[Path]) -> Iterator[Row]:
    for file in files:
        with file.open(newline="") as text:
            for row in csv.DictReader(text):
                yield row["user_id"], int(row["timestamp"]), row["parent_asin"], float(row["rating"])


_YAMBDA = {"uid": pa.uint32(), "timestamp": pa.uint32(), "item_id": pa.uint32(), "is_organic": pa.uint8()}
_LISTENED = {"played_ratio_pct": pa.uint16(), "track_length_seconds": pa.uint32()}


def _yambda_rows(listens: bool) -> list[dict[str, Any]]:
    draw = _draw(f"yambda {listens}")
    rows = []
    for uid in (10, 20, 30):
        for ts in sorted(5 * draw.randrange(9999) for _ in range(8)):
            row = {"uid": uid, "timestamp": ts, "item_id": draw.randrange(9 * 10**6), "is_organic": draw.randrange(2)}
            if listens:
                row |= {"played_ratio_pct": draw.randrange(130), "track_length_seconds": draw.randrange(400)}
            rows.append(row)
    return rows


def _yambda_flat(folder: Path) -> list[Path]:
    for name, listens in (("listens", True), ("likes", False)):
        schema = pa.schema(_YAMBDA | (_LISTENED if listens else {}))
        pq.write_table(pa.Table.from_pylist(_yambda_rows(listens), schema), folder / f"{name}.parquet")
    return [folder / "listens.parquet", folder / "likes.parquet"]


def _yambda_sequential(folder: Path) -> list[Path]:
    rows = _yambda_rows(True)
    for number, row in enumerate(rows):
        row["event_type"] = ["listen", "like", "dislike", "unlike", "undislike"][number % 5]
        if number % 5:
            row |= {"played_ratio_pct": None, "track_length_seconds": None}
    users: dict[int, dict[str, Any]] = {}
    for row in rows:
        lists = users.setdefault(row["uid"], {"uid": row["uid"]})
        for name, value in row.items():
            if name != "uid":
                lists.setdefault(name, []).append(value)
    columns = {**_YAMBDA, **_LISTENED, "event_type": pa.string()}
    schema = pa.schema({name: kind if name == "uid" else pa.list_(kind) for name, kind in columns.items()})
    pq.write_table(pa.Table.from_pylist(list(users.values()), schema), folder / "multi_event.parquet")
    return [folder / "multi_event.parquet"]


def _read_yambda(files: list[Path]) -> Iterator[Row]:
    kinds = ["listen", "like", "dislike", "unlike", "undislike"]
    for file in files:
        for row in pq.read_table(file).to_pylist():
            lists = row if isinstance(row["item_id"], list) else {name: [value] for name, value in row.items()}
            for n, item in enumerate(lists["item_id"]):
                kind = lists["event_type"][n] if "event_type" in lists else file.stem[:-1]
                listened = [lists[name][n] or 0 if name in lists else 0 for name in _LISTENED]
                yield row["uid"], lists["timestamp"][n], item, kinds.index(kind), lists["is_organic"][n], *listened


def _mind(folder: Path) -> list[Path]:
    draw = _draw("mind")
    lines = []
    histories = {13740: "N55189 N42782 N34694", 91836: "", 7: "N1 N2"}
    for impression in range(1, 13):
        user = draw.choice(list(histories))
        if impression == 9:
            histories = {
                key: f"{past} N{900 + key}".strip() for key, past in histories.items()
            }  # later lines know more
        shown = " ".join(f"N{draw.randrange(9**5)}-{draw.randrange(2)}" for _ in range(draw.randrange(1, 5)))
        hour, half = draw.randrange(1, 13), draw.choice(["AM", "PM"])
        lines.append(f"{impression}\tU{user}\t11/{draw.randrange(9, 16)}/2019 {hour}:07:3{impression % 10} {half}\t"
                     f"{histories[user]}\t{shown}")  # fmt: skip
    lines.append("13\tU13740\t11/16/2019 1:00:00 AM\t" + histories[13740] + "\tN5 N6")
    return [_text(folder, "behaviors.tsv", lines)]


def _read_mind(files: list[Path]) -> Iterator[Row]:
    known: dict[str, list[str]] = {}
    for line in files[0].read_text().splitlines():
        impression, user, time, history, shown = line.split("\t")
        past = known.setdefault(user, [])
        for news in history.split()[len(past) :]:
            yield int(user[1:]), 0, int(news[1:]), 2, -1
            past.append(news)
        ts = int(datetime.strptime(time, "%m/%d/%Y %I:%M:%S %p").replace(tzinfo=UTC).timestamp())
        for one in shown.split():
            news, _, mark = one.partition("-")
            yield int(user[1:]), ts, int(news[1:]), int(mark or 3), int(impression)


SAMPLES = {
    "movielens": Sample(
        "movielens", _movielens, _read_movielens,
        bad=(("1:2:3:4", "4 columns"), ("x::1::5::978300000", "x"), ("1::1::5::-3", "times are 0 or more"),
             ("1::1::::978300000", "rating is missing"), ("", "user_id is missing")),
    ),
    "kuairand": Sample(
        "kuairand", _kuairand, _read_kuairand, header=True,
        bad=(("1,2,3", "19 columns"), ("0,1,20220422,1600,1650600000000,2000,0,0,0,0,0,0,5,5,0,0,0,0,1", "2000")),
    ),
    "amazon reviews": Sample(
        "amazon", _amazon_reviews, _read_amazon_reviews,
        bad=(('{"user_id": "A"}', "missing"), ('{"rating": "five"}', "string"), ("{", "object")),
    ),
    "amazon splits": Sample("amazon", _amazon_splits, _read_amazon_splits, header=True,
        bad=(("AE,B,5.0", "4 columns"), ("AE,B,5.0,soon", "soon"), (",B,5.0,7", "user_id is missing")),
    ),
    "taobao": Sample(
        "taobao", _taobao, _read_taobao,
        bad=(("1,2,3,look,1511544070", "look"), ("1,2,3,pv,-2134949234", "times are 0 or more"),
             ("1,2,3,pv", "5 columns")),
    ),
    "retailrocket": Sample(
        "retailrocket", _retailrocket, _read_retailrocket, header=True,
        bad=(("1433221332000,1,viewed,5,", "viewed"), ("1433221332000,1,view,,", "item_id is missing")),
    ),
    "otto": Sample(
        "otto", _otto, _read_otto, by_time=False,
        bad=(('{"session": 1, "events": [{"aid": 1, "ts": 5, "type": "looks"}]}', "looks"), ('{"session": 1', "comma"),
             ('{"session": 1}', "no events"), ('{"session": 1, "events": [{"ts": 5, "type": "carts"}]}', "missing"),
             ("[1, 2]", "array"), ('{"session": 1, "events": []} {"session": 2, "events": []}', "object a line")),
    ),
    "yambda flat": Sample("yambda", _yambda_flat, _read_yambda),
    "yambda sequential": Sample("yambda", _yambda_sequential, _read_yambda),
    "mind": Sample(
        "mind", _mind, _read_mind,
        bad=(("1\tU1\t11/15/2019 10:22:32 AM\tN1\tM5-1", "impressions"), ("1\tU1\t2019-11-15\t\tN5-1", "2019-11-15"),
             ("1\tU1\t11/15/2019 10:22:32 AM\tN1,N2\tN5-1", "history"), ("1\tX1\t11/15/2019 10:22:32 AM\t\tN5-1", "X1"),
             ("1\tU13740\t11/15/2019 10:22:32 AM\tN7\tN5-1", "does not begin with")),
    ),
}  # fmt: skip
