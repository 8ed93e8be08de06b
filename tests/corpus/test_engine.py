"""File tasks give the same corpus whoever runs them, and one bad record costs that record."""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from filelock import FileLock

from tilth.corpus import attempts, libraries, likeness
from tilth.corpus import build as build_module
from tilth.corpus.build import build_corpus
from tilth.corpus.file_task import ACCOUNT, plan_tasks, run_task
from tilth.corpus.mark import Mark, guarded, read_mark
from tilth.corpus.settings import CorpusSettings
from tilth.corpus.sources import find_sources
from tilth.corpus.stages import functions_of
from tilth.errors import TilthError, UsageError

WORDS = [f"word{number}" for number in range(3000)]


def text(seed: int, words: int = 40) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=words))


@pytest.fixture
def sources(tmp_path, monkeypatch) -> Path:
    """Six files, each a task of its own: 240 documents, of which 24 are in two files, a broken line in each file."""
    monkeypatch.setattr("tilth.corpus.file_task.MOST_FILES", 1)
    folder = tmp_path / "sources"
    folder.mkdir()
    for number in range(6):
        texts = [text(40 * number + index) for index in range(40)]
        texts += [text(40 * ((number + 1) % 6) + index) for index in range(4)]
        lines = [json.dumps({"id": f"{number}-{index}", "text": each}) for index, each in enumerate(texts)]
        (folder / f"{number}.jsonl").write_text("\n".join([*lines[:20], '{"text": ', *lines[20:]]))
    return folder


def hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_corpus_does_not_depend_on_the_workers(sources, build, tmp_path):
    found = []
    for workers in (None, 1, 3):
        card = build(sources, workers=workers, max_rejected=0.1).card
        found.append(hashes(tmp_path / "out"))
    assert found[0] == found[1] == found[2]
    assert (card["in"], card["kept"]) == (270, 240)
    assert (card["dropped"], card["rejected"]) == ({"duplicate": 24}, {"invalid_json": 6})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "sources"]


@pytest.mark.slow
def test_a_ray_cluster_gives_the_same_corpus(sources, build, tmp_path):
    pytest.importorskip("ray")
    build(sources, max_rejected=0.1)
    expected = hashes(tmp_path / "out")
    settings = CorpusSettings(max_rejected=0.1)
    build_corpus([str(sources)], tmp_path / "out", settings, on="ray", progress=False)
    assert hashes(tmp_path / "out") == expected


@pytest.mark.slow
def test_a_build_goes_on_without_a_machine_of_the_cluster_that_dies(sources, build, tmp_path, monkeypatch):
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    build(sources, max_rejected=0.1)
    expected = hashes(tmp_path / "out")
    (tmp_path / "patch").mkdir()
    (tmp_path / "patch" / "sitecustomize.py").write_text(
        "import time\n"
        "from tilth.corpus import sources\n"
        "opened = sources.open_stream\n"
        "def open_stream(*given):\n"
        "    time.sleep(2)\n"
        "    return opened(*given)\n"
        "sources.open_stream = open_stream\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "patch"), *filter(None, sys.path)]))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    second = cluster.add_node(num_cpus=1)
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    parts = tmp_path / ".out.parts"
    finished = []

    def kill() -> None:
        deadline = time.monotonic() + 120
        while len(finished) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
            finished[:] = parts.glob(f"[!.]*/{ACCOUNT}")
        cluster.remove_node(second, allow_graceful=False)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        settings = CorpusSettings(max_rejected=0.1)
        build_corpus([str(sources)], tmp_path / "out", settings, on="auto", progress=False)
    finally:
        killer.join()
        cluster.shutdown()
    assert 2 <= len(finished) <= 5  # it died in the middle
    assert hashes(tmp_path / "out") == expected


def test_a_wrong_cluster_or_number_of_workers_is_told(sources, tmp_path):
    for settings, words in (({"on": "spark"}, "not on 'spark'"), ({"on": "ray", "workers": 2}, "leave --workers out")):
        with pytest.raises(UsageError, match=words):
            build_corpus([str(sources)], tmp_path / "out", progress=False, **settings)
    with pytest.raises(UsageError, match="workers is 0"):
        build_corpus([str(sources)], tmp_path / "out", workers=0, progress=False)


@pytest.fixture
def deadly(tmp_path, monkeypatch):
    """Texts with DIE end the worker that cleans them, texts with HANG never end; a file *.dies does so when opened."""
    folder = tmp_path / "patch"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "import os, time\n"
        "from tilth.corpus import clean, sources\n"
        "cleaned, opened = clean.clean_text, sources.open_stream\n"
        "def clean_text(text, *rest):\n"
        "    if 'DIE' in text: os.write(2, b'about to die'); os.kill(os.getpid(), 11)\n"
        "    if 'HANG' in text: time.sleep(1000)\n"
        "    return cleaned(text, *rest)\n"
        "def open_stream(chunks, size, path):\n"
        "    if path.suffix == '.dies': os.kill(os.getpid(), 9)\n"
        "    return opened(chunks, size, path)\n"
        "clean.clean_text, sources.open_stream = clean_text, open_stream\n"
        "from tilth.corpus.formats import jsonl, table\n"
        "loads, record = jsonl.json.loads, table.Record\n"
        "class Json:\n"
        "    def loads(text):\n"
        "        if 'LOAD' in text: os.kill(os.getpid(), 11)\n"
        "        return loads(text)\n"
        "def Record(name, text, *rest):\n"
        "    if text == 'ROW': os.kill(os.getpid(), 11)\n"
        "    return record(name, text, *rest)\n"
        "jsonl.json, table.Record = Json, Record\n"
    )
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(attempts, "TIMEOUT", 2.0)
    monkeypatch.setattr("tilth.corpus.pool.TIMEOUT", 2.0)


def test_what_kills_or_hangs_a_worker_is_set_aside_alone(sources, build, set_aside, deadly, tmp_path, capsys):
    for name, line in (("1", "DIE"), ("4", "HANG")):
        with open(sources / f"{name}.jsonl", "a") as file:
            file.write("\n" + json.dumps({"id": line, "text": f"{line} {text(999)}"}))
    (sources / "9.dies").write_text(text(1000))
    card = build(sources, workers=2, max_rejected=0.1).card
    assert card["kept"] == 240
    assert card["rejected"] == {"invalid_json": 6, "timed_out": 1, "worker_died": 2}
    rejected = {line["record"]: line for line in set_aside(tmp_path / "out") if line["reason"] != "invalid_json"}
    assert rejected.keys() == {"DIE", "HANG", "from the break on"}
    assert rejected["DIE"]["source"] == "sources/1.jsonl" and rejected["DIE"]["reason"] == "worker_died"
    assert rejected["HANG"]["detail"] == "the process that read it hung, twice"
    assert rejected["from the break on"]["source"] == "sources/9.dies"
    told = capsys.readouterr().err
    assert "sources/9.dies could not be read to its end (the process that read it died, twice)" in told


def test_a_record_that_kills_its_reader_is_set_aside_alone(tmp_path, build, set_aside, deadly):
    lines = [json.dumps({"id": str(number), "text": text(number)}) for number in range(60)]
    lines[40] = json.dumps({"id": "40", "text": "LOAD " + text(40)})
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    rows = ["text", *(text(100 + number) for number in range(20)), "ROW", text(200)]
    (tmp_path / "b.csv").write_text("\n".join(rows))
    card = build(tmp_path / "a.jsonl", tmp_path / "b.csv", workers=2).card
    assert card["kept"] == 59 + 20 and card["rejected"] == {"worker_died": 2}
    assert {(line["source"], line["record"]) for line in set_aside(tmp_path / "out")} == {
        ("a.jsonl", f"line 41, byte {sum(len(line) + 1 for line in lines[:40])}"),
        ("b.csv", "from the break on"),
    }


def test_what_is_learned_from_a_sample_outlives_a_record_that_kills_its_reader(
    sources, build, set_aside, deadly, tmp_path
):
    with open(sources / "1.jsonl", "a") as file:
        file.write("\n" + json.dumps({"id": "DIE", "text": f"DIE {text(999)}"}))
    (tmp_path / "good.jsonl").write_text("\n".join(json.dumps({"text": text(number)}) for number in range(40)))
    filters = {"nearest": {"paths": [str(tmp_path / "good.jsonl")], "keep": 0.25}}
    card = build(sources, workers=2, max_rejected=0.1, filters=filters).card
    assert card["rejected"] == {"invalid_json": 6, "worker_died": 1}
    assert card["kept"] == pytest.approx(60, abs=10)
    assert [line["record"] for line in set_aside(tmp_path / "out") if line["reason"] == "worker_died"] == ["DIE"]


def test_a_sample_takes_the_first_records_of_files_until_it_has_enough(sources, tmp_path, monkeypatch):
    monkeypatch.setattr(likeness, "SAMPLED", 30)
    monkeypatch.setattr(likeness, "SAMPLED_OF_A_FILE", 10)
    ran = []

    def run(tasks, folder, tick):
        ran.append([file.name for task in tasks for file in task.files])
        return build_module._run_here(tasks, folder, tick)

    found = find_sources([str(sources)], None)
    (tmp_path / "parts").mkdir()
    texts = list(likeness.sample_texts(found, CorpusSettings(), tmp_path / "parts", run))
    firsts = {f"sources/{number}.jsonl": [text(40 * number + index) for index in range(10)] for number in range(6)}
    assert len(ran) == 1 and len(ran[0]) == 3
    assert texts == [each for name in ran[0] for each in firsts[name]]
    assert list(likeness.sample_texts(found, CorpusSettings(), tmp_path / "parts", run)) == texts and ran[1] == []
    monkeypatch.setattr(likeness, "SAMPLED", 10)  # a file at first, then two, then the other three
    for number in range(6):
        (sources / f"{number}.jsonl").write_text(json.dumps({"text": text(number)}))
    ran.clear()
    texts = list(likeness.sample_texts(find_sources([str(sources)], None), CorpusSettings(), tmp_path / "parts", run))
    assert [len(names) for names in ran] == [1, 2, 3] and sorted(texts) == sorted(map(text, range(6)))


def test_workers_that_do_nothing_but_die_end_the_build(sources, build, deadly, monkeypatch, tmp_path):
    monkeypatch.setattr(attempts, "MOST_DEATHS", 3)
    (sources / "0.jsonl").write_text("\n".join(json.dumps({"text": f"DIE {n} " + text(n)}) for n in range(9)))
    told = (
        r"(?s)3 worker processes died or hung, the last one reading sources/0\.jsonl.*ended with SIGSEGV: about to die"
    )
    with pytest.raises(TilthError, match=told):
        build(sources, workers=1)


def test_a_killed_build_goes_on_from_its_finished_parts(sources, build, tmp_path, monkeypatch):
    script = (
        "import sys; from pathlib import Path\n"
        "from tilth.corpus import file_task; file_task.MOST_FILES = 1\n"
        "from tilth.corpus import pool; run = pool._Worker.start\n"
        "def start(self, attempts, folder):\n"
        "    if attempts.task.files[0].name.endswith('3.jsonl'): import time; time.sleep(1000)\n"
        "    run(self, attempts, folder)\n"
        "pool._Worker.start = start\n"
        "from tilth.corpus.build import build_corpus\n"
        "from tilth.corpus.settings import CorpusSettings\n"
        "build_corpus([sys.argv[1]], Path(sys.argv[2]), CorpusSettings(max_rejected=.1), workers=1, progress=False)\n"
    )
    command = [sys.executable, "-c", script, str(sources), str(tmp_path / "out")]
    parts = tmp_path / ".out.parts"
    driver = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))})
    deadline = time.monotonic() + 60
    while len(list(parts.glob(f"[!.]*/{ACCOUNT}"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    finished = {path.parent.name for path in parts.glob(f"[!.]*/{ACCOUNT}")}
    assert len(finished) == 3 and not (tmp_path / "out").exists()
    run, started = build_module.run_in_processes, []

    def note(tasks, *rest, **more):
        started.extend(task.id for task in tasks)
        return run(tasks, *rest, **more)

    monkeypatch.setattr(build_module, "run_in_processes", note)
    card = build(sources, workers=2, max_rejected=0.1).card
    assert len(started) == 3 and not finished & set(started)
    resumed = hashes(tmp_path / "out")
    build(sources, max_rejected=0.1)
    assert hashes(tmp_path / "out") == resumed and card["kept"] == 240
    assert not parts.exists()


def test_parts_that_workers_made_of_a_small_build_are_kept(build, tmp_path, monkeypatch):
    """Pages go to workers whatever the size of the build."""
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "a.html").write_text(f"<html><body><article><p>{text(1)}</p></article></body></html>")

    def stop(*rest):
        raise KeyboardInterrupt

    for source, kept in ((tmp_path / "raw", True), (tmp_path / "plain.txt", False)):
        (tmp_path / "plain.txt").write_text(text(2))
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(build_module, "assemble", stop)
            build(source)
        assert (tmp_path / ".out.parts").exists() == kept
        shutil.rmtree(tmp_path / ".out.parts", ignore_errors=True)


def test_parts_of_changed_files_or_settings_are_not_taken(sources, build, tmp_path, monkeypatch):
    def stop(*rest):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(build_module, "assemble", stop)
        build(sources, workers=1, max_rejected=0.1)
    before = {path.name for path in (tmp_path / ".out.parts").iterdir() if path.is_dir()}
    assert len(before) == 6
    with open(sources / "2.jsonl", "a") as file:
        file.write("\n" + json.dumps({"id": "new", "text": text(5000)}))
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(build_module, "assemble", stop)
        build(sources, workers=1, max_rejected=0.2)
    after = {path.name for path in (tmp_path / ".out.parts").iterdir() if path.is_dir()}
    assert len(after - before) == 1
    assert build(sources, workers=1, max_rejected=0.1).card["kept"] == 241


def test_another_version_of_a_library_makes_anew_what_it_made(sources, build, tmp_path, monkeypatch):
    for module in ("resiliparse", "phonenumbers"):
        pytest.importorskip(module)
    (sources / "page.html").write_text(f"<html><body><p>{text(7000, 200)}</p></body></html>")
    started: list[list[str]] = []

    def noted(tasks, *rest, **more):
        started.append([Path(task.files[0].path).name for task in tasks])
        return run(tasks, *rest, **more)

    def stop(*rest):
        raise KeyboardInterrupt

    run = build_module.run_in_processes
    monkeypatch.setattr(build_module, "run_in_processes", noted)

    def build_until_assembled(**settings):
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(build_module, "assemble", stop)
            build(sources, workers=1, max_rejected=0.1, **settings)
        return started.pop()

    every = [*(f"{number}.jsonl" for number in range(6)), "page.html"]
    masked = {"filters": {"personal": {"kinds": ["phone"]}}}
    assert build_until_assembled() == every and build_until_assembled() == []
    assert build_until_assembled(**masked) == every and build_until_assembled(**masked) == []
    now = libraries._version
    for newer, again, again_masked in (("resiliparse", ["page.html"], ["page.html"]), ("phonenumbers", [], every)):
        with monkeypatch.context() as patched:
            patched.setattr(libraries, "_version", lambda name, newer=newer: "0.0" if name == newer else now(name))
            assert build_until_assembled() == again
            assert build_until_assembled(**masked) == again_masked
        shutil.rmtree(tmp_path / ".out.parts")
        assert build_until_assembled() == build_until_assembled(**masked) == every
    card = build(sources, max_rejected=0.1, **masked).card
    assert card["libraries"] == {"resiliparse": now("resiliparse")}
    personal = next(stage for stage in card["stages"] if stage["name"] == "personal")
    assert personal["libraries"] == {name: now(name) for name in ("phonenumbers", "python-stdnum")}


def test_parts_made_with_another_list_are_not_taken(sources, build, tmp_path, monkeypatch):
    def stop(*rest):
        raise KeyboardInterrupt

    listed = tmp_path / "list.txt"
    listed.write_text("nowhere\n")
    settings = {"max_rejected": 0.1, "filters": {"words": {"path": str(listed)}}}
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(build_module, "assemble", stop)
        build(sources, workers=1, **settings)
    listed.write_text(f"{text(0).split()[0]}\n")
    assert build(sources, workers=1, **settings).card["dropped"]["listed_words"] >= 1


def test_a_part_that_stopped_early_is_made_again_with_a_larger_limit(tmp_path, build):
    lines = [json.dumps({"text": text(number)}) for number in range(300)] + ['{"text": '] * 1500
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    with pytest.raises(TilthError, match=r"most records of a\.jsonl are broken"):
        build(tmp_path / "a.jsonl", workers=1)
    card = build(tmp_path / "a.jsonl", workers=1, max_rejected=1).card
    assert (card["in"], card["kept"]) == (1800, 300)


def test_a_task_that_is_run_twice_at_one_time_leaves_one_part(sources, tmp_path):
    (task, *_) = plan_tasks(find_sources([str(sources)], None), CorpusSettings())
    part = tmp_path / task.id
    run_task(task, part, functions_of(CorpusSettings()))
    first = hashes(part)
    run_task(task, part, functions_of(CorpusSettings()))
    assert hashes(part) == first
    assert [path.name for path in tmp_path.iterdir() if task.id in path.name] == [task.id]


def test_two_builds_do_not_write_one_corpus(sources, build, tmp_path):
    (tmp_path / ".out.parts").mkdir()
    with FileLock(tmp_path / ".out.parts" / "lock"), pytest.raises(UsageError, match="another build is writing"):
        build(sources)
    assert build(sources, max_rejected=0.1).card["kept"] == 240


@pytest.mark.parametrize("workers", [None, 2])
def test_near_duplicates_are_dropped_but_for_the_first(build, documents, tmp_path, workers):
    texts = {f"{number}": text(number, 200) for number in range(30)}
    copies = {f"{name}-copy": each.replace(" ", " and ", 1) for name, each in list(texts.items())[:10]}
    others = {
        f"{name}-half": " ".join(each.split()[:100] + text(100 + int(name), 100).split())
        for name, each in texts.items()
    }
    lines = [json.dumps({"id": name, "text": each}) for name, each in {**texts, **copies, **others}.items()]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    assert build(tmp_path / "a.jsonl", workers=workers).card["kept"] == 70
    corpus = build(tmp_path / "a.jsonl", workers=workers, near_duplicates="drop")
    assert corpus.card["dropped"] == {"near_duplicate": 10}
    assert documents(corpus).keys() == {**texts, **others}.keys()


def test_documents_that_were_not_compared_whole_are_no_near_duplicates(build, tmp_path, monkeypatch):
    monkeypatch.setattr("tilth.corpus.sketch.MAX_BYTES", 1000)
    monkeypatch.setattr("tilth.corpus.assemble.MAX_BYTES", 1000)
    texts = [f"{text(0, 200)} {text(number, 300)}" for number in (1, 2)] + [text(3, 100), f"{text(3, 100)} and more"]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"text": each}) for each in texts))
    card = build(tmp_path / "a.jsonl", near_duplicates="drop").card
    assert (card["kept"], card["dropped"]) == (3, {"near_duplicate": 1})


def test_a_record_that_is_refused_is_not_blamed_for_what_follows(tmp_path):
    with Mark(tmp_path / "mark", {}, timeout=60), pytest.raises(ValueError, match="refused"), guarded(b"a record"):
        assert read_mark(tmp_path / "mark").digest is not None
        raise ValueError("refused")
    assert read_mark(tmp_path / "mark").digest is None


def test_a_small_build_leaves_what_may_hang_to_workers(build, documents, deadly, tmp_path, capsys):
    (tmp_path / "0.txt").write_text(text(0))
    (tmp_path / "1.html").write_text(f"<html><body><p>{text(1)}")
    (tmp_path / "2.html").write_text(f"<html><body><p>HANG {text(2)}")
    (tmp_path / "3.txt").write_text(text(3))
    corpus = build(*(tmp_path / name for name in ("0.txt", "1.html", "2.html", "3.txt")), max_rejected=0.3)
    assert corpus.card["rejected"] == {"timed_out": 1} and corpus.card["kept"] == 3
    assert {document.text for document in documents(corpus).values()} == {text(0), text(1), text(3)}
