"""The node texts in five languages: complete, nothing left over, and in words that ComfyUI's page shows as they are."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from node_texts import ENGLISH, as_json, english_texts

LOCALES = Path(__file__).resolve().parents[1] / "locales"
LANGUAGES = ("en", "zh", "ja", "fr", "de")
TRANSLATIONS = LANGUAGES[1:]
# What must stand in a translation as it stands in English: numbers, tags, file and folder names, versions, environment variables.
KEPT = re.compile(r"</?\w+>|[A-Z]+_[A-Z_]+|\b\w+(?:\.\w+)+\b|\b(?:models|output)/[\w-]+|\b\d+\b")


def texts_of(language: str) -> dict:
    return json.loads((LOCALES / language / "nodeDefs.json").read_text(encoding="utf-8"))


def flat(value, path: str = "") -> dict[str, str]:
    """"WeaverPlan.inputs.seed.tooltip" -> text"""
    if isinstance(value, str):
        return {path: value}
    return {at: text for key, inner in value.items() for at, text in flat(inner, f"{path}.{key}" if path else key).items()}


@pytest.fixture(scope="module")
def english() -> dict[str, str]:
    return flat(texts_of("en"))


def test_there_is_a_folder_for_each_language_and_no_other():
    assert {folder.name for folder in LOCALES.iterdir()} == set(LANGUAGES)


def test_english_is_what_the_nodes_say():
    said = as_json(english_texts())
    assert ENGLISH.read_text(encoding="utf-8") == said, "a node's text has changed: run tests/node_texts.py, then translate"


@pytest.mark.parametrize("language", TRANSLATIONS)
def test_every_text_is_translated_and_none_is_left_over(english, language):
    translated = flat(texts_of(language))
    assert set(translated) == set(english)
    assert [at for at, text in translated.items() if not text.strip() or text != text.strip()] == []


@pytest.mark.parametrize("language", TRANSLATIONS)
def test_sentences_are_not_english(english, language):
    translated = flat(texts_of(language))
    sentences = [at for at in english if at.endswith(("tooltip", "description"))]
    assert [at for at in sentences if translated[at] == english[at]] == []


@pytest.mark.parametrize("language", TRANSLATIONS)
def test_names_and_numbers_are_those_of_the_english_text(english, language):
    translated = flat(texts_of(language))
    changed = {at: (kept(text), kept(translated[at])) for at, text in english.items() if at.endswith(("tooltip", "description"))}
    assert {at: pair for at, pair in changed.items() if not pair[0] <= pair[1]} == {}


@pytest.mark.parametrize("language", TRANSLATIONS)
def test_no_two_nodes_have_the_same_name(language):
    names = [node["display_name"] for node in texts_of(language).values()]
    assert sorted(set(names)) == sorted(names)


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_text_holds_what_the_page_takes_for_message_syntax(language):
    # vue-i18n compiles names and descriptions: braces, @ and | have a meaning there.
    assert [at for at, text in flat(texts_of(language)).items() if re.search(r"[{}@|\\]", text)] == []


def kept(text: str) -> set[str]:
    return set(KEPT.findall(text))
