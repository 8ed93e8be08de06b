"""Tokenizers: train one on a corpus, or load one from anywhere."""

from tilth.tokens.load import load_tokenizer
from tilth.tokens.text import SpecialTokens, TextTokenizer
from tilth.tokens.training import train_tokenizer

__all__ = ["SpecialTokens", "TextTokenizer", "load_tokenizer", "train_tokenizer"]
