"""From a recipe and raw data to all that the loop needs: corpus, tokenizer, shards, packed rows, objective, model."""

from dataclasses import dataclass, replace
from pathlib import Path

from tilth.corpus.build import build_corpus
from tilth.corpus.output import are_elsewhere
from tilth.corpus.reader import Corpus, is_corpus, open_corpus
from tilth.corpus.settings import CorpusSettings
from tilth.errors import TilthError, UsageError
from tilth.files import write_text
from tilth.model.config import TrunkConfig
from tilth.model.families import FAMILIES, Family
from tilth.model.first_block import start_first_block
from tilth.model.model import Model, build_model, enlarge_tables
from tilth.model.warm_start import warm_start_embeddings
from tilth.objectives import OBJECTIVES, Objective, build_objective
from tilth.recipe import DataSettings, Recipe
from tilth.settings import nearest
from tilth.tokens.packing import Packing
from tilth.tokens.shards import Shards, open_shards, write_shards
from tilth.tokens.tokenizer import TextTokenizer, load_tokenizer, train_tokenizer

RECIPE = "recipe.yaml"
"""What a run writes first into its folder."""
TOKENIZER = "tokenizer.json"


@dataclass(frozen=True)
class Prepared:
    """What a run stands on."""

    corpus: Corpus
    tokenizer: TextTokenizer
    shards: Shards
    objective: Objective
    train: Packing
    validation: Packing


def prepare(
    recipe: Recipe, corpus_path: Path, run: Path, resume: bool, progress: bool, accept_changes: bool = False
) -> Prepared:
    """Make everything but the model; on resume, find in the run folder what was made before.

    corpus_path: a corpus, or raw data to build one from (it goes to `run/corpus`). accept_changes: on resume, make
    anew what was made from another corpus or tokenizer.
    Raises: UsageError when settings do not fit together, TilthError when the data, the tokenizer or the shards cannot
    be used or do not belong together.
    """
    # The vocabulary may yet differ; whatever else does not fit is said before the corpus is read.
    _trunk_config(recipe, check_family(recipe), recipe.tokenizer.vocab_size)
    tokenizer = _given_tokenizer(recipe, run, resume)
    corpus = _corpus(recipe, corpus_path, run, resume, progress, accept_changes)
    if tokenizer is None:
        tokenizer = _suitable(train_tokenizer(recipe.tokenizer, corpus, recipe.seed, progress=progress), recipe)
    if not resume:
        write_text(run / RECIPE, recipe.to_yaml())
    if not (resume and (run / TOKENIZER).exists()):
        tokenizer.save(run / TOKENIZER)
        tokenizer = load_tokenizer(run / TOKENIZER)
    objective = build_objective(recipe, tokenizer)
    shards_path = recipe.data.shards or run / "shards"
    made_before = resume and not recipe.data.shards and (run / "shards").exists()
    if recipe.data.shards or (made_before and not _changed(run / "shards", corpus, tokenizer, accept_changes)):
        cache = Path(recipe.data.cache) if recipe.data.cache else None
        shards = open_shards(shards_path, corpus.fingerprint, tokenizer.fingerprint, cache=cache)
    else:
        shards = write_shards(corpus, tokenizer, shards_path, progress=progress)
    packings = {}
    for split in ("train", "validation"):
        packings[split] = Packing(shards.split(split), objective.row_length, objective.framing)
        if packings[split].num_rows == 0:
            raise TilthError(f"the corpus {corpus.path} has no text in its {split} split; add documents")
    return Prepared(corpus, tokenizer, shards, objective, packings["train"], packings["validation"])


def fresh_model(recipe: Recipe, prepared: Prepared, warm: bool = True) -> Model:
    """The recipe's model at step 0.

    warm: False leaves out the start from the corpus, for weights that will be replaced.

    Raises: UsageError when the sizes do not fit together.
    """
    config = trunk_config(recipe, prepared.tokenizer)
    model = build_model(FAMILIES[recipe.family], config, prepared.objective.heads, recipe.seed)
    if warm and recipe.model.start == "corpus":
        warm_start_embeddings(model, prepared.shards.split("train"), prepared.tokenizer.special_ids, recipe.seed)
        start_first_block(model, recipe.seed)
    enlarge_tables(model)
    model.set_dropout(recipe.model.dropout)
    return model


def trunk_config(recipe: Recipe, tokenizer: TextTokenizer) -> TrunkConfig:
    """The shape of the recipe's trunk. Raises: UsageError when the sizes do not fit together."""
    config = _trunk_config(recipe, check_family(recipe), tokenizer.vocab_size)
    special = tokenizer.special
    pad = special.eot if special.pad is None else special.pad  # as a model folder is written
    if config.position_offset and pad is not None:
        # transformers counts RoBERTa's positions from the padding id, whatever the tokenizer's is.
        config = replace(config, position_offset=pad + 1)
    return config


def check_family(recipe: Recipe) -> Family:
    """The recipe's family, after checking that its objective suits it.

    Raises: UsageError naming what is valid.
    """
    if recipe.family not in FAMILIES:
        raise UsageError(f"no family {recipe.family!r}{nearest(recipe.family, list(FAMILIES))}")
    family = FAMILIES[recipe.family]
    if recipe.size not in family.sizes:
        raise UsageError(f"{family.name} has no size {recipe.size!r}{nearest(recipe.size, list(family.sizes))}")
    objective = recipe.objective.name
    if objective not in OBJECTIVES:
        raise UsageError(f"objective.name: there is no objective {objective!r}{nearest(objective, list(OBJECTIVES))}")
    if OBJECTIVES[objective].heads not in family.architectures:
        suitable = ", ".join(name for name, kind in OBJECTIVES.items() if kind.heads in family.architectures)
        raise UsageError(f"objective.name: {family.name} does not learn by {objective!r}; valid: {suitable}")
    return family


def _trunk_config(recipe: Recipe, family: Family, vocab_size: int) -> TrunkConfig:
    config, changes = family.sizes[recipe.size], recipe.model
    width, heads = changes.width or config.width, changes.heads or config.heads
    max_length = changes.max_length or recipe.data.length
    if recipe.data.length > max_length:
        raise UsageError(
            f"data.length={recipe.data.length} is longer than the model reads (model.max_length={max_length}); "
            "lower one or raise the other"
        )
    head_size = config.head_size
    if changes.width or changes.heads:
        if width % heads:
            raise UsageError(f"model.width={width} is not divisible by model.heads={heads}")
        # As wide in all, beside the model's width, as the size's.
        all_heads = width if family.heads_fill_width else width * config.heads * config.head_size // config.width
        head_size = all_heads // heads
    kv_heads = config.kv_heads and max(1, config.kv_heads * heads // config.heads)
    while kv_heads and heads % kv_heads:
        kv_heads -= 1
    try:
        sized = replace(
            config,
            vocab_size=vocab_size,
            layers=changes.layers or config.layers,
            width=width,
            heads=heads,
            head_size=head_size,
            kv_heads=kv_heads,
            mlp_width=width * config.mlp_width // config.width,
            max_length=max_length,
        )
        family.write_config(sized)
    except ValueError as error:
        raise UsageError(f"{family.name} {recipe.size} could not be saved for transformers: {error}") from None
    return sized


def _changed(shards: Path, corpus: Corpus, tokenizer: TextTokenizer, accept_changes: bool) -> bool:
    """Whether a run's shards are to be made anew. Raises: UsageError when they would have to be, and may not."""
    manifest = open_shards(shards).manifest
    now = {"corpus": corpus.fingerprint, "tokenizer": tokenizer.fingerprint}
    differ = [f"{name} (was {manifest[name]}, is {value})" for name, value in now.items() if manifest[name] != value]
    if differ and not accept_changes:
        raise UsageError(
            f"the run's {shards} were made from another {' and another '.join(differ)}; "
            "give what the run was started with, accept the change with --accept-changes, or start another run"
        )
    return bool(differ)


def _corpus(recipe: Recipe, path: Path, run: Path, resume: bool, progress: bool, accept_changes: bool) -> Corpus:
    if is_corpus(path):
        if recipe.data.validation != DataSettings().validation:
            raise UsageError(
                f"data.validation={recipe.data.validation} has no effect on {path}, a corpus whose held-out documents "
                "are chosen; leave it out, or build another with tilth corpus build --validation"
            )
        return open_corpus(path)
    built = run / "corpus"
    if resume and is_corpus(built):
        corpus = open_corpus(built)
        sources = [source["source"] for source in corpus.card["sources"]]
        if sources == [path.absolute().name] and not are_elsewhere(built, [str(path)]):
            return corpus
        if not accept_changes:
            raise UsageError(
                f"the run in {run} was started on another {', '.join(sources)} than {path}; give the same --corpus, or "
                f"{built}, which holds its text, or accept the change with --accept-changes"
            )
    return build_corpus([str(path)], built, CorpusSettings(validation=recipe.data.validation), progress=progress)


def _given_tokenizer(recipe: Recipe, run: Path, resume: bool) -> TextTokenizer | None:
    """The run's own tokenizer or the recipe's, if there is one.

    Raises: TilthError when it cannot be read, UsageError when the recipe cannot use it.
    """
    made = run / TOKENIZER
    path = made if resume and made.exists() else recipe.tokenizer.path
    return None if path is None else _suitable(load_tokenizer(Path(path)), recipe)


def _suitable(tokenizer: TextTokenizer, recipe: Recipe) -> TextTokenizer:
    """The tokenizer. Raises: UsageError when the objective or the model cannot use it."""
    build_objective(recipe, tokenizer)
    trunk_config(recipe, tokenizer)
    return tokenizer
