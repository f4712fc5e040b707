"""Splits, captions, vocabulary and the story grammar: held-out stays out, words and scenes agree, everything is repeatable."""

import random
import re

import pytest

from weaver_core.picturebook import request_frames, story_words
from weaver_core.picturebook.agreement import plan_agreement
from weaver_core.picturebook.captions import dense_prompt, expected_parse, parse_dense_prompt
from weaver_core.picturebook.grammar import markup_of, sample_story, sample_understanding, tokenizer_texts
from weaver_core.picturebook.splits import held_out_character, held_out_place, held_out_reasons, is_train, load_splits, sample_scene
from weaver_core.picturebook.vocabulary import known_words
from weaver_core.picturebook.wordings import as_trained
from weaver_core.picturebook.world import COLOURS, HEROES, PLACES, PROPS, TIMES, WEARABLES, Character


def _stories(count, seed=0, **options):
    rng = random.Random(seed)
    return [sample_story(rng, **options) for _ in range(count)]


# splits

def test_training_scenes_hold_no_held_out_combination_and_every_word():
    rng = random.Random(1)
    scenes = [sample_scene(rng) for _ in range(4000)]
    assert all(is_train(scene) for scene in scenes)
    assert {(s.place, s.time) for s in scenes} == {(p, t) for p in PLACES for t in TIMES}
    characters = {f.character for s in scenes for f in s.figures}
    assert {c.species for c in characters} == set(HEROES) and {c.colour for c in characters} == set(COLOURS)
    assert {c.wearable for c in characters} == {None, *WEARABLES} and {s.prop for s in scenes} == {None, *PROPS}
    assert abs(sum(len(s.figures) == 1 for s in scenes) / 4000 - 0.72) < 0.03


def test_held_out_scenes_hold_a_held_out_character_or_place():
    rng = random.Random(2)
    for _ in range(1500):
        scene = sample_scene(rng, split="held_out")
        assert any(held_out_character(f.character) or held_out_place(f.character.species, scene.place) for f in scene.figures)
        assert held_out_reasons(scene) and not is_train(scene)


def test_two_figures_differ_in_species_and_colour():
    rng = random.Random(3)
    for split in ("train", "held_out", "any"):
        for _ in range(500):
            a, b = (f.character for f in sample_scene(rng, split=split, figures=2).figures)
            assert a.species != b.species and a.colour != b.colour


def test_a_held_out_wish_in_training_is_refused():
    species, colour = sorted(load_splits()["species_colour"])[0]
    with pytest.raises(ValueError, match="ask for split='any'"):
        sample_scene(random.Random(0), character=Character(species=species, colour=colour))


def test_sizes_of_the_held_out_lists():
    splits = load_splits()
    assert 0.08 <= len(splits["species_colour"]) / (len(HEROES) * len(COLOURS)) <= 0.12
    assert 0.08 <= len(splits["species_place"]) / (len(HEROES) * len(PLACES)) <= 0.12
    assert 0.06 <= len(splits["place_time_prop"]) / (len(PLACES) * len(TIMES) * len(PROPS)) <= 0.10


# captions

def test_every_caption_parses_back_exactly_and_is_short():
    rng = random.Random(4)
    for i in range(4000):
        scene, hide = sample_scene(rng, split="any"), rng.choice(("none", "identity"))
        first = rng.randrange(2) if len(scene.figures) == 2 else 0
        told_from = rng.choice(("left", "right"))
        text = dense_prompt(scene, rng if i % 4 else None, hide=hide, first=first, told_from=told_from)
        assert parse_dense_prompt(text) == expected_parse(scene, hide=hide, first=first, told_from=told_from), text
        assert len(text.split()) <= 45, text


def test_hidden_identity_names_no_species_colour_or_wearable():
    rng = random.Random(5)
    secret = re.compile(r"\b(" + "|".join((*HEROES, *COLOURS, *WEARABLES)) + r")\b")
    for _ in range(1500):
        assert not secret.search(dense_prompt(sample_scene(rng), rng, hide="identity").lower())


def test_any_text_parses_without_an_exception():
    for text in ("", "???", "hero hero hero", "a red fox a blue cat a green bear", "on the left", "\u0000"):
        assert parse_dense_prompt(text)["figures"] <= 2


def test_the_canonical_caption_is_one_wording():
    scene = sample_scene(random.Random(6), figures=1)
    assert dense_prompt(scene) == dense_prompt(scene)
    assert len({dense_prompt(scene, random.Random(i)) for i in range(60)}) > 30


# stories

def test_training_stories_hold_only_training_scenes_and_frames():
    held_out = load_splits()["request_frames"]
    for story in _stories(900) + _stories(200, seed=1, with_reference=True):
        assert all(is_train(scene) for scene in story.scenes)
        assert story.frame not in held_out


def test_held_out_stories_use_held_out_frames_and_often_unseen_scenes():
    stories = _stories(600, split="held_out")
    assert {story.frame for story in stories} <= load_splits()["request_frames"]
    assert sum(not all(is_train(s) for s in story.scenes) for story in stories) > 200


def test_frames_are_many_and_disjoint():
    train, held_out = request_frames.TRAIN_FRAMES | request_frames.DRAW_FRAMES, request_frames.HELD_OUT_FRAMES
    assert len(train) >= 120 and len(held_out) >= 25
    assert not set(train.values()) & set(held_out.values()) and set(held_out) == load_splits()["request_frames"]


def test_things_may_have_a_colour_in_training_requests_only():
    coloured = re.compile(r"\b(" + "|".join(COLOURS) + r") (" + "|".join(PROPS) + r")\b")
    assert sum(bool(coloured.search(story.request.lower())) for story in _stories(400)) > 20
    assert not any(coloured.search(story.request.lower()) for story in _stories(400, split="held_out"))


def test_markup_is_exact_and_counts_equal():
    for story in _stories(400) + _stories(100, seed=2, split="held_out"):
        n = story.num_images
        assert n == len(story.scenes) == len(story.texts) == len(story.prompts)
        for tag in ("<imagine>", "</imagine><BOI>"):
            assert story.markup.count(tag) == n
        body = markup_of(story.title, story.texts, story.prompts)
        assert story.markup in (body, body + "\nThe end.")
        lines = story.markup.split("\n")
        assert lines[0] == f"# {story.title}" and all(re.fullmatch(r"[^<>]+ <imagine>[^<>]+</imagine><BOI>", line) for line in lines[1:n + 1])
        if story.known["num_images"] is None:
            assert n == 4


def test_page_k_opens_with_its_own_connective_class():
    classes = {**story_words.CONNECTIVES, "final": story_words.FINAL, 1: tuple({w for ws in story_words.OPENINGS.values() for w in ws})}
    firsts = {k: {phrase.split()[0] for phrase in phrases} for k, phrases in classes.items()}
    assert sum(len(words) for words in firsts.values()) == len(set().union(*firsts.values()))
    for story in _stories(600):
        for k, text in enumerate(story.texts, 1):
            if text.startswith(story_words.LOOKING):
                assert story.num_images == 1
                continue
            expected = "final" if k == story.num_images and k > 1 else k
            assert text.startswith(tuple(f"{phrase}, " for phrase in classes[expected])), (k, text)


def _pose_in(text):
    found = {pose for pose, stem in (("waving", "wav(?:ed|ing)"), ("jumping", "jump(?:ed|ing)"), ("sitting", "sat|sitting")) if re.search(rf"\b(?:{stem})\b", text)}
    return found or {"standing"}


def test_text_agrees_with_its_prompt():
    """Props, poses, times and places that a page tells are those of its prompt, and a prop in the prompt is told."""
    for with_reference in (False, True):
        for story in _stories(400, seed=8, with_reference=with_reference):
            for text, prompt, scene in zip(story.texts, story.prompts, story.scenes):
                low, parsed = text.lower(), parse_dense_prompt(prompt)
                props = set(re.findall(r"\b(" + "|".join(PROPS) + r")\b", low))
                assert props == ({parsed["prop"]} - {None}), (text, prompt)
                poses = {f.pose for f in scene.figures}
                assert _pose_in(low) == (poses if poses == {"standing"} else poses - {"standing"}), (text, prompt)
                places = set(re.findall(r"\b(" + "|".join(PLACES) + r")\b", low))
                assert places <= {scene.place}, (text, prompt)
                for time, words in (("night", r"night|moon"), ("sunset", r"evening|sunset|sun began|sun went"), ("day", r"morning|sunny day")):
                    assert not re.search(rf"\b(?:{words})\b", low) or scene.time == time, (text, prompt)


def test_prompts_restate_the_request_and_the_whole_look():
    for story in _stories(400, seed=9):
        for prompt, scene, first in zip(story.prompts, story.scenes, story.first_hero):
            parsed = parse_dense_prompt(prompt)
            assert parsed == expected_parse(scene)
            prefix = "" if first == 0 else "second_"
            for name, value in story.known["heroes"][0].items():
                assert name == "name" or value is None or parsed[prefix + name] == value
            assert not story.known["places"] or parsed["place"] in story.known["places"]
            assert story.known["time"] in (None, parsed["time"])
        assert story.known["prop"] is None or story.known["prop"] in {s.prop for s in story.scenes}
        assert any(name in story.title for name in story.cast) or story.texts[0].startswith(story_words.LOOKING)


def test_agreement_accepts_every_grammar_story_and_refuses_changed_ones():
    stories = _stories(300, seed=15) + _stories(100, seed=16, split="held_out") + _stories(60, seed=17, with_reference=True)
    for story in stories:
        kept = plan_agreement(story.texts, story.prompts, story.known, with_reference=story.with_reference)
        assert all(kept.values()), (kept, story)
    story = next(s for s in stories if s.num_images == 5 and s.known["places"] and s.known["prop"] and s.known["heroes"][0]["species"])
    texts, prompts, hero = story.texts, story.prompts, story.known["heroes"][0]["species"]
    other = next(s for s in HEROES if s not in {h["species"] for h in story.known["heroes"]})
    assert not plan_agreement(texts[1:], prompts[1:], story.known)["count"]
    assert not plan_agreement(texts, (prompts[0].replace(hero, other), *prompts[1:]), story.known)["hero"]
    assert not plan_agreement(texts, prompts, story.known | {"places": ["nowhere"]})["place"]
    assert not plan_agreement(("A kite and a ball.", *texts[1:]), prompts, story.known)["told"]


def test_requests_tell_what_known_says():
    """Read with the vocabulary, a request names every species, place and prop it is said to fix, and the count as digit or word."""
    for story in _stories(400, seed=10):
        words = known_words(story.request)
        for hero in story.known["heroes"]:
            assert hero["species"] in (None, *words.species), story.request
            assert hero["name"] is None or hero["name"].lower() in story.request.lower()
        assert set(story.known["places"]) <= set(words.places), story.request
        assert story.known["prop"] in (None, *words.props), story.request
        n = story.known["num_images"]
        if n is not None and n > 1:
            assert re.search(rf"\b(?:{n}|{request_frames.NUMBER_WORDS[n]})\b", story.request.lower()), story.request


def test_reference_stories_hide_who_the_hero_is():
    secret = re.compile(r"\b(" + "|".join((*HEROES, *COLOURS)) + r")\b")
    for story in _stories(300, seed=11, with_reference=True):
        assert not secret.search((story.request + story.markup).lower()), story.request


def test_wishes_are_kept():
    for n in range(1, 9):
        assert sample_story(random.Random(n), num_images=n).num_images == n
    assert all(len(s.cast) == 2 for s in _stories(50, two_heroes=True))
    with pytest.raises(ValueError, match="1 to 8"):
        sample_story(random.Random(0), num_images=9)


def test_everything_is_repeatable():
    assert _stories(40, seed=12) == _stories(40, seed=12) != _stories(40, seed=13)
    assert list(tokenizer_texts(3, 30)) == list(tokenizer_texts(3, 30))
    assert [sample_understanding(random.Random(5))] == [sample_understanding(random.Random(5))]


def test_questions_are_answered_from_the_scene():
    rng = random.Random(14)
    for _ in range(1500):
        scene, question, answer = sample_understanding(rng)
        assert is_train(scene)
        if "colour" in question:
            assert answer[:-1].lower() in {f.character.colour for f in scene.figures}
        if question.startswith("How many"):
            assert answer == ("None.", "One.", "Two.")[len(scene.figures)]


# vocabulary

def test_known_words_follow_synonyms_and_report_the_unknown():
    words = known_words("A violet bunny with a cap and two puppies in the woods after dark, with a present")
    assert (words.species, words.colours, words.wearables) == (("rabbit", "dog"), ("purple",), ("hat",))
    assert (words.places, words.times, words.props, words.unknown) == (("forest",), ("night",), ("gift",), ())
    assert words.warning() is None
    strange = known_words("A dragon eats a castle cake in a spaceship")
    assert strange.unknown == ("dragon", "castle cake", "spaceship") and strange.props == () and strange.places == ()
    assert "does not know dragon" in strange.warning() and "heroes: fox, cat" in strange.warning()


@pytest.mark.parametrize(("request_", "told"), [
    ("pink rabbit in the forest", "A pink rabbit in the forest"),
    ("RED FOX AT THE BEACH", "A RED FOX AT THE BEACH"),
    ("Orange Lion goes home. cat follows", "An orange lion goes home. A cat follows"),
    ("pink pig and purple bear in a castle", "A pink pig and a purple bear at a castle"),
    ("Pip, tiny red fox, in the old palace", "Pip, a tiny red fox, at the old palace"),
    ("a story about fox and very small blue kitten", "a story about a fox and a very small blue kitten"),
    ("Two pictures - green frog in my room", "Two pictures - a green frog in the room"),
    ("green frog wearing crown, with Red Umbrella", "A green frog wearing a crown, with a red umbrella"),
    ("a dog finds old book and has glasses", "a dog finds an old book and has glasses"),
    ("a mouse in the kitchen", "a mouse in the house"),
])  # fmt: skip
def test_requests_are_told_in_the_wordings_of_the_training(request_, told):
    assert as_trained(request_) == told
    assert as_trained(told) == told


@pytest.mark.parametrize("request_", [
    "A pink rabbit in the forest", "Pip the red fox", "My red fox", "two red foxes", "Teddy and Kitty go home", "a small, red fox",
    "red fox's hat", "Ivy, the blue cat, and Hugo, the pink dog, at the castle", "in castles of sand", "mousetrap, catfish and dog-house",
    "1 image", "狐狸在森林里",
])  # fmt: skip
def test_requests_that_are_in_those_wordings_stay(request_):
    assert as_trained(request_) == request_


def test_requests_of_the_training_stay_as_they_are():
    rng = random.Random(3)
    requests = [sample_story(rng).request for _ in range(1500)]
    changed = [request for request in requests if as_trained(request) != request]
    assert len(changed) <= 15, changed
