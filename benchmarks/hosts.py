"""Several hosts on one machine: training over TCP between network namespaces, a worker killed, the result compared.

    sudo .venv/bin/python benchmarks/hosts.py [--hosts 2] [--processes 1]

Each "host" is a network namespace with its own address on a bridge; torchrun on each meets the others over TCP (c10d).
Runs the same recipe without a break, then again with `kill -9` of one worker, and compares the final weights, optimizer
state and losses bit for bit. Needs root and iproute2; it removes what it made.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from pydoc_data.topics import topics

from machine import describe

from tilth.corpus.build import build_corpus
from tilth.corpus.settings import CorpusSettings
from tilth.train.trackers import read_log

RESULTS = Path(__file__).parent / "results" / "hosts.md"
BRIDGE, PREFIX = "tilthbr0", "tilth-host"
RECIPE = (
    "bert-mini", "model.layers=2", "model.width=32", "model.heads=2", "model.dropout=0.1", "tokenizer.vocab_size=300",
    "data.length=32", "train.budget=40 steps", "train.batch_tokens=512", "train.micro_batch_tokens=128",
    "train.save_every=5 steps", "train.evaluate_every=10 steps", "train.device=cpu", "train.precision=float32",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hosts", type=int, default=2)
    parser.add_argument("--processes", type=int, default=1, help="on each host")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("network namespaces need root: run with sudo")
    with tempfile.TemporaryDirectory() as folder, network(arguments.hosts) as hosts:
        result = trial(Path(folder), hosts, arguments.processes)
    print(json.dumps(result))
    rows = [f"| {name.replace('_', ' ')} | {value} |" for name, value in result.items()]
    what = __doc__.partition("\n")[0]
    head = f"# Several hosts\n\n{what}\n\nMachine: {describe('float32')}.\n\n| measure | value |\n|---|---|\n"
    RESULTS.write_text(head + "\n".join(rows) + "\n", encoding="utf-8")
    if not result["equal"]:
        sys.exit(1)


def trial(out: Path, hosts: list[tuple[str, str]], processes: int) -> dict[str, object]:
    """Train twice, once with a worker killed; returns what to report."""
    texts = [{"id": name, "text": topics[name][:180]} for name in sorted(topics)[:24]]
    (out / "texts.jsonl").write_text("".join(json.dumps(text) + "\n" for text in texts))
    build_corpus([str(out / "texts.jsonl")], out / "corpus", CorpusSettings(validation=0.125), progress=False)
    for name, killed in (("straight", None), ("killed", len(hosts) - 1)):
        train(hosts, processes, out, name, killed)
    shape = {"hosts": len(hosts), "processes": len(hosts) * processes}
    return shape | compare(out / "straight", out / "killed")


@contextlib.contextmanager
def network(count: int) -> Iterator[list[tuple[str, str]]]:
    """(namespace, address) of each host."""
    hosts = [(f"{PREFIX}{number}", f"10.77.0.{number + 1}") for number in range(count)]
    try:
        ip("link", "add", BRIDGE, "type", "bridge")
        ip("link", "set", BRIDGE, "up")
        for number, (space, address) in enumerate(hosts):
            outer, inner = f"tilthv{number}", f"tilthi{number}"
            ip("netns", "add", space)
            ip("link", "add", outer, "type", "veth", "peer", "name", inner)
            ip("link", "set", outer, "master", BRIDGE, "up")
            ip("link", "set", inner, "netns", space)
            ip("-n", space, "addr", "add", f"{address}/24", "dev", inner)
            ip("-n", space, "link", "set", inner, "up")
            ip("-n", space, "link", "set", "lo", "up")
        yield hosts
    finally:
        for space, _ in hosts:
            subprocess.run(["ip", "netns", "delete", space], stderr=subprocess.DEVNULL)
        subprocess.run(["ip", "link", "delete", BRIDGE], stderr=subprocess.DEVNULL)


def ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"ip {' '.join(arguments)}: {done.stderr.strip()}; network namespaces cannot be made here")


def train(hosts: list[tuple[str, str]], processes: int, out: Path, name: str, killed: int | None) -> None:
    """Train on all hosts; kill a worker of host `killed` once a checkpoint is there."""
    command = [
        sys.executable, "-m", "torch.distributed.run", f"--nnodes={len(hosts)}", f"--nproc-per-node={processes}",
        "--rdzv-backend=c10d", f"--rdzv-endpoint={hosts[0][1]}:29500", f"--rdzv-id={name}", "--max-restarts=3",
        "-m", "tilth", "pretrain", RECIPE[0], "--corpus", str(out / "corpus"), "--out", str(out / name), *RECIPE[1:],
    ]  # fmt: skip
    agents = []
    for number, (space, address) in enumerate(hosts):
        environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": f"tilthi{number}"}
        # torchrun looks for the endpoint's address under the machine's name, which namespaces share.
        is_host = f"--rdzv-conf=is_host={int(number == 0)}"
        with open(out / f"{name}-{number}.txt", "w") as log:
            agents.append(
                subprocess.Popen(
                    ["ip", "netns", "exec", space, *command[:3], f"--local-addr={address}", is_host, *command[3:]],
                    env=environment,
                    stdout=log,
                    stderr=log,
                )  # fmt: skip
            )
    while killed is not None and not any(step >= 12 for step in steps(out / name)):
        if any(agent.poll() is not None for agent in agents):
            break
        time.sleep(0.01)
    if killed is not None:
        # `ip netns exec` becomes the command, so the agent is the process that was started.
        children = Path(f"/proc/{agents[killed].pid}/task/{agents[killed].pid}/children").read_text().split()
        os.kill(int(children[-1]), signal.SIGKILL)
    statuses = [agent.wait(timeout=600) for agent in agents]
    if any(statuses):
        sys.exit(
            f"the {name} run failed:\n" + "\n".join(path.read_text() for path in sorted(out.glob(f"{name}-*.txt")))
        )


def steps(run: Path) -> list[int]:
    path = run / "log.jsonl"
    return [record["step"] for record in read_log(path) if record["event"] == "step"] if path.exists() else []


def compare(straight: Path, killed: Path) -> dict[str, object]:
    """Whether two runs ended in the same weights, optimizer state and losses, and where the second went on."""
    losses = [
        [(record["step"], record["loss"]) for record in read_log(run / "log.jsonl") if record["event"] == "step"]
        for run in (straight, killed)
    ]
    newest = max((straight / "checkpoints").glob("step-*")).name
    files = [Path("checkpoints") / newest / f"{name}.safetensors" for name in ("weights", "optimizer")]
    files.append(Path("model") / "model.safetensors")
    equal = all((straight / file).read_bytes() == (killed / file).read_bytes() for file in files)
    resumed = [record["step"] for record in read_log(killed / "log.jsonl") if record["event"] == "resume"]
    return {"resumed_from": resumed, "steps": len(losses[0]), "equal": equal and losses[0] == losses[1]}


if __name__ == "__main__":
    main()
