"""The table of families: a new one is a file here and an entry below."""

from tilth.model.families.bert import BERT
from tilth.model.families.electra import ELECTRA
from tilth.model.families.family import Family
from tilth.model.families.gpt2 import GPT2
from tilth.model.families.gpt3 import GPT3
from tilth.model.families.modernbert import MODERNBERT
from tilth.model.families.qwen3 import QWEN3
from tilth.model.families.roberta import ROBERTA

FAMILIES: dict[str, Family] = {
    family.name: family for family in (BERT, ROBERTA, ELECTRA, MODERNBERT, GPT2, GPT3, QWEN3)
}
