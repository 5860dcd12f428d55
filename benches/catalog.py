#!/usr/bin/env python3
"""What does it take to know what is in a source? A million files in folders, a hundred Parquet files, a thousand tar files.

    benches/catalog.py FOREBAY [WORK] [--scale 1.0]

Makes each source below WORK where it is not there yet (some 8 GB in all), and runs `forebay plan prepare` on it, which reads
the catalog and the headers of a few images. Prints CPU-seconds, peak memory and bytes read, of tar files for a first run and
for one that finds their index. pyarrow writes the Parquet files.
"""

import argparse
import io
import json
import os
import pathlib
import resource
import shutil
import subprocess
import tarfile
import threading
import time

# 1x1 pixel, gray: the least that is a PNG.
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b55"
    "0000000a49444154789c63600000000200014898a6ce0000000049454e44ae426082"
)


def folders(place, n):
    for name in range(1000):
        folder = place / f"class-{name:03}"
        folder.mkdir(parents=True)
        for file in range(n // 1000):
            (folder / f"{file:06}.png").write_bytes(PNG)


def parquet(place, n):
    import pyarrow
    import pyarrow.parquet

    names = [f"class-{name}" for name in range(100)]
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    image = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    schema = pyarrow.schema(
        [("image", image), ("label", pyarrow.int64())],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    data = PNG + bytes(20_000)
    (place / "data").mkdir(parents=True)
    for file in range(n):
        rows = [{"image": {"bytes": data, "path": "x.png"}, "label": row % 100} for row in range(1000)]
        table = pyarrow.Table.from_pylist(rows, schema=schema)
        path = place / "data" / f"train-{file:05}-of-{n:05}.parquet"
        pyarrow.parquet.write_table(table, path, compression="none", use_dictionary=False, row_group_size=100)


def tars(place, n):
    place.mkdir(parents=True)
    for file in range(n):
        with tarfile.open(place / f"train-{file:06}.tar", "w", format=tarfile.USTAR_FORMAT) as archive:
            for row in range(1000):
                for suffix, data in (("png", PNG + bytes(2_000)), ("cls", str(row % 100).encode())):
                    member = tarfile.TarInfo(f"{file:06}{row:06}.{suffix}")
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))


def run(forebay, source, work):
    """CPU-seconds, clock, peak memory (MiB) and bytes read (MiB) of a plan, and its samples."""
    read, peak = [0], [0]
    environment = {**os.environ, "XDG_CACHE_HOME": str(work / "cache")}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    process = subprocess.Popen(
        [forebay, "plan", "prepare", source, work / "none", "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment,
    )

    def watch():
        while process.poll() is None:
            try:
                lines = pathlib.Path(f"/proc/{process.pid}/io").read_text().splitlines()
                read[0] = int(lines[0].split()[1])
                # Not what rusage says, which begins with the memory of this program.
                lines = pathlib.Path(f"/proc/{process.pid}/status").read_text().splitlines()
                peak[0] = max(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
            except (OSError, IndexError, ValueError):
                return
            time.sleep(0.002)

    watcher = threading.Thread(target=watch)
    watcher.start()
    out = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = status
    watcher.join()
    assert status == 0, f"{source}: exit status {status}"
    samples = json.loads(out.splitlines()[-1])["samples"]
    cpu = usage.ru_utime + usage.ru_stime
    return cpu, time.perf_counter() - start, peak[0] / 1024, read[0] / 2**20, samples


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("forebay", type=pathlib.Path)
    parser.add_argument("work", type=pathlib.Path, nargs="?", default=pathlib.Path("catalog-bench"))
    parser.add_argument("--scale", type=float, default=1.0)
    asked = parser.parse_args()
    work = asked.work.resolve()
    shutil.rmtree(work / "cache", ignore_errors=True)
    print("| source | samples | CPU-s | clock, s | peak, MiB | read, MiB | on the disk, MiB |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    for name, make, n, runs in (
        ("files in folders", folders, 1_000_000, ("",)),
        ("Parquet files", parquet, 100, ("",)),
        ("tar files", tars, 1000, (", first", ", with index")),
    ):
        n = max(1, int(n * asked.scale))
        place = work / f"{name.split()[0]}-{n}"
        if not place.exists():
            making = place.with_name(place.name + ".part")
            shutil.rmtree(making, ignore_errors=True)
            make(making, n)
            making.rename(place)
        size = sum(f.stat().st_size for f in place.rglob("*.*") if f.is_file()) / 2**20
        for which in runs:
            cpu, clock, peak, read, samples = run(asked.forebay.resolve(), place, work)
            print(f"| {n:,} {name}{which} | {samples:,} | {cpu:.1f} | {clock:.1f} | {peak:.0f} | {read:.1f} | {size:.0f} |", flush=True)
    index = sum(f.stat().st_size for f in (work / "cache").rglob("*.json"))
    print(f"\nThe index of the tar files has {index / 2**20:.1f} MiB.")


if __name__ == "__main__":
    main()
