"""What a process of `test_batch_writers` does: it writes shapes to a data set as a shard does."""

import json
import time
from pathlib import Path
from typing import Any

from nstr3d.batch import lock
from nstr3d.batch.catalogue import REPORT, Catalogue
from nstr3d.batch.store import Bucket, open_store

SHAPES = 3  # of each shard


def report(name: str, status: str = "done") -> dict:
    batch = {"status": status, "error": None, "key": f"key of {name}", "config": "c", "stamp": "s"}
    return {"input": {"path": name}, "batch": batch}


def names(shard: int) -> list[str]:
    return [f"{shard}/{shape}" for shape in range(SHAPES)]


def write_shard(url: str, shard: int, begin: Any, uploaded: Any) -> None:
    """Puts the name of each shape into the queue ``uploaded`` after it has uploaded a catalogue
    with its row. All processes wait at the barrier ``begin`` with an empty catalogue."""
    lock.PAUSE = (0.001, 0.02)
    put = Bucket.put

    def slowly(self: Bucket, source: Path, name: str) -> None:
        time.sleep(0.3)  # in which other shards could upload all that they have
        put(self, source, name)

    if shard == 0:
        Bucket.put = slowly
    with Catalogue(open_store(url)) as rows:
        begin.wait(300)
        for name in names(shard):
            rows.store.write(f"{name}/{REPORT}", json.dumps(report(name)).encode())
            rows.add(name, report(name))
            rows.publish()
            uploaded.put(name)
