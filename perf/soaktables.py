"""What a soak found, as tables: what was done, how often, by whom and how durably, what was lost, and what was held."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from perf.report import Cell, Report, Section
from perf.soakjournal import ACTS, DURABILITIES, FINDINGS, Journal
from perf.soakroles import WRITERS

MIB = 1 << 20
Rows = list[dict[str, Cell]]


@dataclass(slots=True)
class Watched:
    """What was seen while it ran.

    Attributes:
        kills: by role and durability.
        workers_killed: processes of the loader that were killed alone.
        memory, files: resident bytes and open files of each role, time after time.
        checks: what each verification beside the others saw.
        findings: what must not be, by kind; ``words``: what was said of it.
        seconds: that it ran; ``stopped_s``: of these, those in which it was stopped as a whole.

    """

    kills: Counter[tuple[str, str]] = field(default_factory=Counter)
    workers_killed: int = 0
    memory: dict[str, list[int]] = field(default_factory=dict)
    files: dict[str, list[int]] = field(default_factory=dict)
    checks: list[dict[str, int]] = field(default_factory=list)
    findings: Counter[str] = field(default_factory=Counter)
    words: list[str] = field(default_factory=list)
    seconds: float = 0.0
    stopped_s: float = 0.0


def tabulate(watched: Watched, journal: Journal, team: Sequence[str], held: Path) -> Report:
    """The report of a soak; ``held``: what the holder has noted."""
    costs = [json.loads(line) for line in held.read_text().splitlines()] if held.exists() else []
    sections = [
        Section(
            f"{watched.seconds / 60:.1f} minutes, {len(team)} processes: what was done", _done(watched, journal, team)
        ),
        Section("How often each was killed (SIGKILL)", _killed(watched)),
        Section("What was lost", _lost(watched)),
        Section("What was held, over the first and the last third of the time", _held(watched)),
    ]
    if costs:
        most = sorted(costs, key=lambda cost: -(cost["kept bytes"] or 0))[:12]
        sections.append(Section("What snapshots cost that were held for long", [_cost(cost) for cost in most]))
    return Report(
        sections=sections,
        facts={
            "findings": watched.words, "minutes": watched.seconds / 60, "stopped_s": watched.stopped_s,
            "kills": {role: sum(n for (one, _), n in watched.kills.items() if one == role) for role in ACTS},
            "workers killed": watched.workers_killed, "checks": watched.checks, "held": costs,
        },
    )  # fmt: skip


def _done(watched: Watched, journal: Journal, team: Sequence[str]) -> Rows:
    rows: Rows = []
    for role, acts in ACTS.items():
        members = [number for number, one in enumerate(team) if one == role]
        for act in acts:
            if role in WRITERS:
                rows += [
                    {"process": role, "durability": level, "what": act, "times": journal.of(act, members, level)}
                    for level in DURABILITIES
                ]
            else:
                rows.append({"process": role, "durability": "", "what": act, "times": journal[act]})
    times = len(watched.checks)
    rows.append({"process": "", "durability": "", "what": "whole verifications beside all of them", "times": times})
    return rows


def _killed(watched: Watched) -> Rows:
    rows: Rows = []
    for role in ACTS:
        for level in DURABILITIES if role in WRITERS else ("",):
            rows.append({"process": role, "durability": level, "SIGKILLs": watched.kills[role, level]})
    rows.append({"process": "a loader's worker alone", "durability": "", "SIGKILLs": watched.workers_killed})
    every = watched.kills.total() + watched.workers_killed
    rows.append({"process": "all", "durability": "", "SIGKILLs": every})
    return rows


def _lost(watched: Watched) -> Rows:
    rows: Rows = [{"what": kind, "found": watched.findings[kind]} for kind in FINDINGS]
    rows.append(
        {"what": "reader slots of killed processes left behind", "found": sum(c["stale slots"] for c in watched.checks)}
    )
    rows.append({"what": "processes left behind", "found": sum(c["left behind"] for c in watched.checks)})
    return rows


def _held(watched: Watched) -> Rows:
    rows: Rows = []
    for what, unit, of_role in (("MiB of memory", MIB, watched.memory), ("open files", 1, watched.files)):
        rows += [_thirds(f"{what}, {role}", values, unit) for role, values in of_role.items()]
    for key, title, unit in (
        ("bytes", "MiB of the store's files", MIB), ("free bytes", "MiB of free pages in them", MIB),
        ("readers", "open read transactions", 1), ("reader lag", "transactions since the oldest of them began", 1),
        ("slots cleaned", "slots of killed readers that a check found and freed", 1),
    ):  # fmt: skip
        if watched.checks:
            rows.append(_thirds(title, [check[key] for check in watched.checks], unit))
    return rows


def _thirds(title: str, values: Sequence[int], unit: int) -> dict[str, Cell]:
    third = max(1, len(values) // 3)
    first, last = float(np.median(values[:third])) / unit, float(np.median(values[-third:])) / unit
    return {"held": title, "first third": first, "last third": last, "most": max(values) / unit}


def _cost(cost: dict[str, Any]) -> dict[str, Cell]:
    kept = cost["kept bytes"]
    return {
        "held for s": cost["seconds"], "transactions meanwhile": cost["transactions"],
        "MiB the files grew": cost["grown bytes"] / MIB,
        "MiB kept from being used again": None if kept is None else kept / MIB,
    }  # fmt: skip
