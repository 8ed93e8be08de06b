"""What all tests share."""

import os
import urllib.request
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import hypothesis
import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # a test that would reach for the network fails at once

# The same examples every time, and no verdict that depends on how busy the machine is.
hypothesis.settings.register_profile("tilth", deadline=None, derandomize=True)
hypothesis.settings.load_profile("tilth")


@pytest.fixture(scope="session", autouse=True)
def words_are_sampled_from_small_vocabularies():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tilth.train.word_sample.SMALL_VOCABULARY", 0)
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data beside the checkout; its SOURCES.md says what it is. The test is skipped where it is absent."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs the real data in ../shared/data, which is not beside this checkout")
    return folder


@pytest.fixture
def bucket_server(monkeypatch: pytest.MonkeyPatch):
    """A local server that speaks S3, with an empty bucket s3://bucket: (server, fsspec's file system)."""
    import fsspec
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    # What another server of this process held is still there.
    urllib.request.urlopen(urllib.request.Request(f"http://{host}:{port}/moto-api/reset", method="POST")).close()
    settings = {"AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s",
                "AWS_DEFAULT_REGION": "us-east-1", "AWS_MAX_ATTEMPTS": "1"}  # fmt: skip
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    files = fsspec.filesystem("s3", skip_instance_cache=True)
    files.mkdir("bucket")
    yield server, files
    server.stop()
    type(files).clear_instance_cache()


@pytest.fixture(scope="session")
def byte_tokenizer():
    """A function: a byte-level tokenizer of a few hundred entries, trained on some texts."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    from tilth.tokens.load import special_tokens
    from tilth.tokens.tokenizer import TextTokenizer
    from tilth.tokens.training import SPECIAL_NAMES

    def make(texts: Sequence[str], vocab_size: int = 300) -> TextTokenizer:
        backend = Tokenizer(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=SPECIAL_NAMES["byte_bpe"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        backend.train_from_iterator(texts, trainer)
        return TextTokenizer(backend, special_tokens(backend))

    return make


@pytest.fixture(scope="session")
def small_model():
    """A function: a small untrained model of a family, two blocks of width 32 that read 24 tokens, with changes."""
    from tilth.model.families import FAMILIES
    from tilth.model.model import Model, build_model

    def make(family: str, vocab_size: int, heads: tuple[str, ...], /, **changes) -> Model:
        shape = {"layers": 2, "width": 32, "heads": 2, "head_size": 16, "mlp_width": 64, "max_length": 24}
        config = replace(FAMILIES[family].sizes["mini"], **({"vocab_size": vocab_size} | shape | changes))
        return build_model(FAMILIES[family], config, heads, seed=0)

    return make


@pytest.fixture(scope="session")
def small_folder(tmp_path_factory: pytest.TempPathFactory, byte_tokenizer, small_model):
    """A function: the folder of a small untrained model of a family, with a byte-level tokenizer."""
    from tilth.model.folder import save_model

    folders: dict[tuple[str, tuple[str, ...]], Path] = {}

    def make(family: str, *heads: str) -> Path:
        if (family, heads) not in folders:
            tokenizer = byte_tokenizer(["the cat and the dog ran and sat", "this film is good, that film is bad"])
            folder = tmp_path_factory.mktemp(f"{family}-small") / "model"
            save_model(small_model(family, tokenizer.vocab_size, heads), tokenizer, folder)
            folders[family, heads] = folder
        return folders[family, heads]

    return make
