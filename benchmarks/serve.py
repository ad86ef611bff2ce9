"""Serving over HTTP: plusx beside a FastAPI server as tutorials write it, and beside LitServe.

The same ImageNet ResNet-50, the same photographs, loopback, a load generator in a process of its
own: closed loop, each of C connections sends its next photograph when it has its answer. Servers
run one at a time, in turn, ``--rounds`` times:

    tutorial   FastAPI, a route per request, torchvision eager float32 (as PyTorch's and FastAPI's
               tutorials have it)
    litserve   LitServe with dynamic batching around plusx's engine (bfloat16), if it is installed
    plusx      ``plusx serve`` in bfloat16
    int8       ``plusx serve`` of an int8 file that ``plusx export`` wrote, if --int8 names it

    python benchmarks/serve.py --photos DATA/imagenet_val10 --weights resnet50.safetensors

Expected on two cores at concurrency 16: at least 2.8 times the tutorial's answers per second in
bfloat16 and 4 times in int8, no fewer than LitServe's, and at least 0.8 of what ``plusx predict``
reaches on the same files.
"""

from __future__ import annotations

import argparse
import http.client
import importlib.util
import json
import os
import platform
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

CONCURRENCY = (1, 4, 16, 64)


def load(port: int, photos: list[Path], concurrency: int, seconds: float) -> dict[str, Any]:
    """Closed loop; answers per second and latencies."""
    bodies = []
    kind = "multipart/form-data; boundary=b"
    for photo in photos:
        head = f'--b\r\nContent-Disposition: form-data; name="files"; filename="{photo.name}"\r\n'
        bodies.append(head.encode() + b"Content-Type: image/jpeg\r\n\r\n" + photo.read_bytes()
                      + b"\r\n--b--\r\n")  # fmt: skip
    taken: list[float] = []
    failed: list[int] = []
    end = time.perf_counter() + seconds

    def work(first: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        number = first
        while time.perf_counter() < end:
            began = time.perf_counter()
            connection.request("POST", "/v1/predict", bodies[number % len(bodies)],
                               {"Content-Type": kind})  # fmt: skip
            answer = connection.getresponse()
            answer.read()
            (failed if answer.status != 200 else taken).append(time.perf_counter() - began)
            number += concurrency
        connection.close()

    began = time.perf_counter()
    threads = [threading.Thread(target=work, args=(i,)) for i in range(concurrency)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    took = time.perf_counter() - began
    taken.sort()
    return {
        "images_per_s": len(taken) / took,
        "p50_ms": 1000 * taken[len(taken) // 2] if taken else None,
        "p99_ms": 1000 * taken[min(len(taken) - 1, int(0.99 * len(taken)))] if taken else None,
        "n": len(taken),
        "failed": len(failed),
    }


def beside(name: str) -> str:
    """A program of this folder."""
    return str(Path(__file__).with_name(name))


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def ready(port: int, photo: Path, process: subprocess.Popen[bytes]) -> None:
    """Wait until a photograph is answered."""
    while process.poll() is None:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1):
                pass
            found = load(port, [photo], 1, 0.01)
            if found["n"]:
                return
            if found["failed"]:
                raise SystemExit(f"a server refuses photographs: {process.args}")
        except OSError:
            pass
        time.sleep(0.1)
    raise SystemExit(f"a server ended with code {process.returncode}: {process.args}")


def resident_mib(pid: int) -> float:
    """Of a process and all that it started."""
    found = 0.0
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(folder.name) == pid or int(fields[1]) == pid:
                text = (folder / "smaps_rollup").read_text()
                found += int(text.partition("Pss:")[2].split()[0]) / 1024
        except OSError:
            continue
    return found


def turn(command: list[str], port: int, photos: list[Path], args: argparse.Namespace,
         environment: dict[str, str]) -> dict[str, Any]:  # fmt: skip
    """One server: cold start, then every concurrency."""
    began = time.perf_counter()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL, start_new_session=True)  # fmt: skip
    try:
        ready(port, photos[0], process)
        found: dict[str, Any] = {"cold_start_s": time.perf_counter() - began}
        for concurrency in args.concurrency:
            out = subprocess.run(
                [sys.executable, __file__, "--load", str(port), str(concurrency),
                 str(args.seconds), *map(str, photos)],
                capture_output=True, text=True, check=True,
            )  # fmt: skip
            found[str(concurrency)] = json.loads(out.stdout)
        found["resident_mib"] = resident_mib(process.pid)
        return found
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def predict_rate(run: str, photos: list[Path], precision: str) -> float:
    """Images/s of ``plusx predict``'s loop on the same files, after a warm-up."""
    from plusx import Predictor

    predictor = Predictor(run, precision=precision, engine="auto", batch_size=16)
    predictor.predict(photos[:32])
    began = time.perf_counter()
    predictor.predict(photos)
    return len(photos) / (time.perf_counter() - began)


def main() -> None:
    if sys.argv[1:2] == ["--load"]:
        port, concurrency, seconds, *photos = sys.argv[2:]
        found = load(int(port), [Path(p) for p in photos], int(concurrency), float(seconds))
        print(json.dumps(found))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True, help="a folder of photographs")
    parser.add_argument("--weights", required=True, help="ImageNet ResNet-50")
    parser.add_argument("--int8", help="an exported int8 file")
    parser.add_argument("--litserve-site", default="", help="a folder that holds LitServe")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=12)
    parser.add_argument("--concurrency", type=int, nargs="+", default=CONCURRENCY)
    parser.add_argument("--smoke", action="store_true")
    args = parser.parse_args()
    if args.smoke:
        args.rounds, args.seconds, args.concurrency = 1, 1.0, [1, 4]
    photos = sorted(p for p in args.photos.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg"))
    photos = photos[:: max(1, len(photos) // 256)][:256]
    print(f"{platform.machine()}, {os.cpu_count()} cores, "
          f"{len(photos)} photographs, {args.rounds} x {args.seconds:g} s")  # fmt: skip
    with TemporaryDirectory() as folder:
        run = str(Path(folder) / "run")
        imported = [sys.executable, "-m", "plusx", "import", args.weights, "--out", run]
        subprocess.run(imported, check=True, capture_output=True)
        _rounds(args, run, photos)


def _rounds(args: argparse.Namespace, run: str, photos: list[Path]) -> None:
    plain = dict(os.environ)
    peer = plain | {"PYTHONPATH": os.pathsep.join(
        filter(None, [args.litserve_site, plain.get("PYTHONPATH", "")]))}  # fmt: skip
    serve = [sys.executable, "-m", "plusx", "serve"]
    servers: dict[str, tuple[list[str], dict[str, str]]] = {
        "tutorial": ([sys.executable, beside("tutorial_server.py"), "{port}", args.weights], plain),
        "plusx": ([*serve, run, "--precision", "bfloat16", "--port", "{port}"], plain),
    }
    if args.litserve_site or importlib.util.find_spec("litserve"):
        servers["litserve"] = ([sys.executable, beside("litserve_peer.py"), "{port}", run], peer)
    else:
        print("LitServe is not installed: left out (pip install litserve)")
    if args.int8:
        servers["int8"] = ([*serve, args.int8, "--port", "{port}"], plain)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in servers}
    rates: list[float] = []
    for _ in range(args.rounds):
        for name, (command, environment) in servers.items():
            port = free_port()
            filled = [part.format(port=port) for part in command]
            found[name].append(turn(filled, port, photos, args, environment))
        rates.append(predict_rate(run, photos, "bfloat16"))
    _print(args, found, rates)


def _print(
    args: argparse.Namespace, found: dict[str, list[dict[str, Any]]], rates: list[float]
) -> None:
    def middle(name: str, concurrency: int, what: str) -> tuple[float, float, float]:
        values = sorted(one[str(concurrency)][what] for one in found[name])
        return statistics.median(values), values[0], values[-1]

    for concurrency in args.concurrency:
        print(f"\nconcurrency {concurrency}")
        base = middle("tutorial", concurrency, "images_per_s")[0]
        for name in found:
            mid, low, high = middle(name, concurrency, "images_per_s")
            p50, p99 = (middle(name, concurrency, what)[0] for what in ("p50_ms", "p99_ms"))
            failed = sum(one[str(concurrency)]["failed"] for one in found[name])
            n = sum(one[str(concurrency)]["n"] for one in found[name])
            print(f"  {name:<9} {mid:6.1f} images/s ({low:.1f}-{high:.1f})  {mid / base:4.2f} times"
                  f"  p50 {p50:.0f} ms  p99 {p99:.0f} ms  n {n}  failed {failed}")  # fmt: skip
    print()
    for name, rounds in found.items():
        cold = statistics.median(one["cold_start_s"] for one in rounds)
        memory = max(one["resident_mib"] for one in rounds)
        print(f"{name:<9} cold start {cold:.1f} s, resident {memory:.0f} MiB")
    rate = statistics.median(rates)
    print(f"plusx predict: {rate:.1f} images/s ({min(rates):.1f}-{max(rates):.1f})")
    if 16 in args.concurrency:
        share = middle("plusx", 16, "images_per_s")[0] / rate
        print(f"serving at concurrency 16 reaches {share:.2f} of it")


if __name__ == "__main__":
    main()
