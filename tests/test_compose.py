"""The composer: deterministic pictures, everything distinguishable, nothing outside the frame."""

import hashlib
import random
from pathlib import Path

import numpy as np
import pytest

from weaver_core.picturebook import atlas, compose, world
from weaver_core.picturebook.world import (COLOURS, HEROES, PLACES, POSES, POSITIONS, PROPS, TIMES, WEARABLES, Character,
                                           Figure, Scene)

ROOT = Path(__file__).parent.parent


def one(species="cat", colour="blue", wearable=None, *, pose="standing", position="centre", place="meadow", time="day",
        prop=None, seed=3):
    character = Character(species=species, colour=colour, wearable=wearable)
    return Scene(place=place, time=time, figures=(Figure(character=character, position=position, pose=pose),), prop=prop, seed=seed)


def random_scenes(count: int):
    rng = random.Random(11)
    for _ in range(count):
        positions = rng.choice((("left", "right"), ("left",), ("centre",), ("right",)))
        figures = tuple(Figure(character=Character(species=rng.choice(HEROES), colour=rng.choice(COLOURS),
                                                   wearable=rng.choice((None, *WEARABLES))),
                               position=p, pose=rng.choice(POSES)) for p in positions)
        yield Scene(place=rng.choice(PLACES), time=rng.choice(TIMES), figures=figures, prop=rng.choice((None, *PROPS)),
                    seed=rng.randrange(2**31))


def changed(a: np.ndarray, b: np.ndarray) -> int:
    """How many pixels differ clearly (by more than 48 of 255 in some channel)."""
    return int((np.abs(a.astype(int) - b).max(-1) > 48).sum())


def assert_all_differ(pictures: dict, least: int):
    names = list(pictures)
    for i, first in enumerate(names):
        for second in names[i + 1:]:
            count = changed(pictures[first], pictures[second])
            assert count >= least, f"{first} and {second} differ in {count} pixels only"


def test_the_same_scene_is_the_same_picture_even_with_cold_caches():
    scenes = list(random_scenes(6))
    before = [compose.render_array(scene) for scene in scenes]
    for cached in (compose._figure, compose._outlined, compose._prop, compose._shadow, compose.picture, atlas.scaled, atlas.load):
        cached.cache_clear()
    for scene, picture in zip(scenes, before):
        np.testing.assert_array_equal(compose.render_array(Scene.from_json(scene.to_json())), picture)


def test_a_render_does_not_touch_the_shared_background():
    empty = Scene(place="castle", time="night", seed=3)
    before = compose.render_array(empty)
    compose.render_array(one(place="castle", time="night", prop="cake"))
    np.testing.assert_array_equal(compose.render_array(empty), before)


def test_the_seed_varies_the_scenery_and_nothing_else():
    plans = [compose.layout(one(prop="ball", seed=seed)) for seed in range(40)]
    assert {p.variant for p in plans} == set(range(compose.variant_count("meadow", "day")))
    assert len({(p.figures, p.prop) for p in plans}) == 1


def test_every_species_looks_different():
    assert_all_differ({s: compose.render_array(one(s)) for s in HEROES}, 150)


@pytest.mark.parametrize("time", TIMES)
@pytest.mark.parametrize("species", HEROES)
def test_every_colour_of_a_species_looks_different(species, time):
    assert_all_differ({c: compose.render_array(one(species, c, time=time)) for c in COLOURS}, 600)


@pytest.mark.parametrize("species", HEROES)
def test_every_wearable_shows_on_every_species(species):
    for pose in POSES:
        assert_all_differ({w: compose.render_array(one(species, "yellow", w, pose=pose)) for w in (None, *WEARABLES)}, 60)


def test_wearables_show_on_every_colour():
    for colour in COLOURS:
        assert_all_differ({w: compose.render_array(one("bear", colour, w)) for w in (None, *WEARABLES)}, 60)


def test_every_pose_and_position_looks_different():
    assert_all_differ({p: compose.render_array(one(pose=p)) for p in POSES}, 150)
    assert_all_differ({p: compose.render_array(one(position=p)) for p in POSITIONS}, 1000)


@pytest.mark.parametrize("position", POSITIONS)
def test_every_prop_looks_different(position):
    assert_all_differ({p: compose.render_array(one(position=position, prop=p)) for p in (None, *PROPS)}, 100)


def test_every_place_and_time_looks_different():
    pictures = {(p, t): compose.background(p, t, 0) for p in PLACES for t in TIMES}
    assert_all_differ(pictures, 128 * 128 // 6)


def test_variants_of_a_place_differ():
    for place in PLACES:
        assert_all_differ({v: compose.background(place, "day", v) for v in range(compose.variant_count(place, "day"))}, 300)


def test_night_is_dark_and_day_is_bright_everywhere():
    for place in PLACES:
        for variant in range(compose.variant_count(place, "day")):
            day, sunset, night = (compose.background(place, t, variant).astype(float) for t in TIMES)
            assert night.mean() < 0.6 * day.mean()
            assert (sunset[..., 0] - sunset[..., 2]).mean() > (day[..., 0] - day[..., 2]).mean() + 15  # redder


def test_backgrounds_fill_the_frame_without_black_strips():
    for place in PLACES:
        for size in (128, (176, 128), (128, 176)):
            picture = compose.background(place, "day", 1, size)
            edge = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
            assert edge.max(-1).min() > 40, f"{place} has a black edge at {size}"


def test_squares_are_drawn_as_ever():
    """The shipped weights and the recorded scores were made with these pixels."""
    places = [compose.layout(scene) for scene in random_scenes(60)]
    assert hashlib.sha256(repr(places).encode()).hexdigest()[:16] == "0e4a4e08060d0ce8"


def test_every_aspect_has_the_square_in_it_in_whole_tokens():
    assert world.size_of("4:3", 256) == (352, 256)
    for aspect, (width, height) in world.SIZES.items():
        across, down = map(int, aspect.split(":"))
        assert width % 16 == height % 16 == 0 and min(width, height) == 128
        assert width / height == pytest.approx(across / down, rel=0.04)
    with pytest.raises(ValueError, match="'16:9'.*1:1, 4:3, 3:4"):
        world.size_of("16:9")
    with pytest.raises(ValueError, match="44x32"):
        world.size_of("4:3", 32)


@pytest.mark.parametrize("size", world.SIZES.values())
def test_figures_and_props_lie_inside_the_frame_and_off_each_other(size):
    for scene in random_scenes(400 if size == (128, 128) else 200):
        plan = compose.layout(scene, size)
        for figure in plan.figures:
            sprite, (ax, ay) = compose.figure_sprite(figure.character, figure.pose, figure.height, figure.flip)
            ys, xs = np.nonzero(sprite[..., 3])
            assert xs.min() + figure.x - ax >= 0 and xs.max() + figure.x - ax < plan.width, scene
            assert ys.min() + figure.y - ay >= 0 and ys.max() + figure.y - ay < plan.height, scene
        boxes = compose.hero_boxes(scene, size)
        if len(boxes) == 2:
            assert boxes[0][2] - boxes[1][0] < 18  # raised hands may cross, faces may not touch
        if plan.prop:
            x0, y0, x1, y1 = compose.prop_box(scene, size)
            assert 0 <= x0 < x1 <= plan.width and 0 <= y0 < y1 <= plan.height
            assert x1 - x0 >= 12 * min(size) / 128 and y1 - y0 >= 18 * min(size) / 128


def test_figures_of_another_page_are_those_of_the_square_moved_by_whole_tokens():
    """What a visualizer learned of a figure on squares, it knows on every page."""
    moves = set()
    for scene in random_scenes(200):
        square = compose.layout(scene).figures
        for size in ((176, 128), (128, 176)):
            for one, other in zip(square, compose.layout(scene, size).figures):
                assert (one.pose, one.height, one.flip) == (other.pose, other.height, other.flip)
                move = other.x - one.x, other.y - one.y
                if move[0] % 16 or move[1] % 16:  # moved into the square by its edge, which the wide page has further out
                    assert size == (176, 128) and abs(move[0] - 32) < 16
                moves.add((size, *move))
    assert {(size, x, y) for size, x, y in moves if not x % 16} == {
        ((176, 128), 16, 0), ((176, 128), 32, 0), ((128, 176), 0, 48)}


def test_boxes_hold_what_the_figure_and_the_prop_change():
    for position in POSITIONS:
        bare = one("lion", "purple", position=position, place="snow", seed=5)
        scene = Scene(place="snow", time="day", figures=bare.figures, prop="apple", seed=5)
        x0, y0, x1, y1 = compose.prop_box(scene)
        difference = (compose.render_array(scene) != compose.render_array(bare)).any(-1)
        outside = difference.copy()
        outside[y0:y1, x0:x1] = False
        assert difference.sum() > 300 and not outside.any()
        (x0, y0, x1, y1), = compose.hero_boxes(bare)
        empty = compose.background("snow", "day", compose.layout(bare).variant)
        difference = np.abs(compose.render_array(bare).astype(int) - empty).max(-1) > 48
        outside = difference.copy()
        outside[y0:y1, x0:x1] = False
        outside[110:] = False  # the shadow on the ground belongs to no box
        assert difference.sum() > 1500 and not outside.any()


def test_a_picture_can_be_rebuilt_from_its_layout():
    """What the oracle reader relies on: background, then sprites at their placements, is the picture (shadows apart)."""
    for scene in random_scenes(12):
        plan = compose.layout(scene)
        canvas = compose.background(plan.place, plan.time, plan.variant).astype(float)
        parts = [(*compose.figure_sprite(f.character, f.pose, f.height, f.flip), f.x, f.y) for f in plan.figures]
        if plan.prop:
            half = plan.prop.size // 2
            parts.append((compose.prop_sprite(plan.prop.prop, plan.prop.size), (half, half), plan.prop.x, plan.prop.y))
        covered = np.zeros((128, 128), bool)
        for sprite, (ax, ay), x, y in parts:
            for row, column in zip(*np.nonzero(sprite[..., 3])):
                r, c, alpha = y - ay + row, x - ax + column, sprite[row, column, 3] / 255
                canvas[r, c] = canvas[r, c] * (1 - alpha) + sprite[row, column, :3] * alpha
                covered[r, c] |= alpha == 1
        assert np.abs(canvas - compose.render_array(scene))[covered].max() <= 1.5


@pytest.mark.parametrize("size", [64, 256, (176, 128), (128, 176)])
def test_other_sizes_render_at_their_size_with_everything_inside(size):
    width, height = (size, size) if isinstance(size, int) else size
    for scene in random_scenes(40):
        assert compose.render_array(scene, size).shape == (height, width, 3)
        for x0, y0, x1, y1 in compose.hero_boxes(scene, size):
            assert 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height


@pytest.mark.parametrize("call, word", [
    (lambda: compose.render(one(), 100), "100x100"),
    (lambda: compose.render(one(), (128, 20)), "128x20"),
    (lambda: compose.background("moon", "day", 0), "moon"),
    (lambda: compose.background("snow", "noon", 0), "noon"),
    (lambda: compose.background("snow", "day", 99), "99"),
    (lambda: compose.prop_sprite("sword", 28), "sword"),
    (lambda: compose.figure_sprite(one().figures[0].character, "flying", 84), "flying"),
    (lambda: compose.figure_sprite(one().figures[0].character, "standing", 2), "2 pixels"),
    (lambda: atlas.sprite("head/dragon/red"), "head/dragon/red"),
])
def test_bad_input_says_what_was_wrong(call, word):
    with pytest.raises(ValueError, match=word):
        call()


def test_the_atlas_is_small_and_carries_its_licence():
    assert (atlas.ART / "atlas.png").stat().st_size < 1_500_000
    for notice in (ROOT / "NOTICE", atlas.ART / "NOTICE"):
        text = notice.read_text(encoding="utf-8")
        assert "Copyright (c) Microsoft Corporation" in text and "Permission is hereby granted" in text


def test_cached_pieces_make_a_second_look_cheaper_than_the_first():
    """Speed without a clock: repeating scenes draws no new sprite and no new background."""
    scenes = list(random_scenes(30))
    for scene in scenes:
        compose.render_array(scene)
    counts = [f.cache_info().misses for f in (compose._figure, compose._prop, compose.picture, atlas.scaled)]
    for scene in scenes:
        compose.render_array(scene)
    assert counts == [f.cache_info().misses for f in (compose._figure, compose._prop, compose.picture, atlas.scaled)]
