"""What is drawn: sizes, places and colours, on pictures made by hand."""

import numpy as np
import pytest

from fevertools import EMOTIONS
from fevertools._canvas import Places, length, write
from fevertools.drawing import COLORS, draw_expressions, draw_faces, draw_labels, draw_maps
from fevertools.types import Explanation, Expression, Face, FaceResult


def face(x1, y1, x2, y2):
    return Face(np.array([x1, y1, x2, y2], np.float32), 0.987, np.full((5, 2), (x1, y1), np.float32))


def result(box, label="happiness", probability=0.75):
    others = (1 - probability) / (len(EMOTIONS) - 1)
    probabilities = {name: probability if name == label else others for name in EMOTIONS}
    return FaceResult(face(*box), np.zeros(4, np.float32), Expression(label, probabilities, 1.0))


def explanation(box, heat, label="happiness"):
    found = result(box, label)
    maps = {name: np.zeros((48, 48), np.float32) for name in EMOTIONS} | {label: heat}
    return Explanation(found.face, found.expression, np.full((48, 48), 128, np.uint8), maps)


def area(drawn, color):
    """Rows and columns of the smallest rectangle around every pixel of just this colour."""
    rows, columns = np.nonzero((drawn == color).all(2))
    return rows.min(), rows.max() + 1, columns.min(), columns.max() + 1


# -------------------------------------------------------------------------------------------------------------- faces


@pytest.mark.parametrize(("height", "width"), [(300, 300), (3000, 4000)])
def test_lines_grow_with_the_picture(height, width):
    picture = np.zeros((height, width, 3), np.uint8)
    drawn = draw_faces(picture, [face(0.25 * width, 0.25 * height, 0.75 * width, 0.75 * height)])
    assert not picture.any()
    # Across the right edge, half-way down: as many pixels as the line is wide.
    stroke = (drawn[height // 2, round(0.7 * width) :].max(1) > 0).sum()
    assert stroke == pytest.approx(max(width, height) / 300, abs=2)
    digits = drawn[: round(0.24 * height), : width // 2].max(2).any(1).sum()
    assert digits >= max(9, max(width, height) / 50)


def test_small_faces_in_a_crowd_do_not_hide_each_other():
    picture = np.zeros((1200, 1600, 3), np.uint8)
    faces = [face(x, 500, x + 48, 560) for x in (400, 500)]
    one, both = draw_faces(picture, faces[:1]), draw_faces(picture, faces)
    inside = (slice(440, 561), slice(390, 480))  # the first face, its score and a margin
    np.testing.assert_array_equal(one[inside], both[inside])


def test_faces_beyond_the_border_can_be_drawn():
    beyond = (-20, -15, 900, 700)
    assert draw_faces(np.zeros((40, 30, 3), np.uint8), [face(*beyond)]).shape == (40, 30, 3)
    assert draw_labels(np.zeros((40, 30, 3), np.uint8), [result(beyond)], ["7"]).shape == (40, 30, 3)
    assert draw_expressions(np.zeros((40, 30, 3), np.uint8), [result(beyond)]).shape[0] == 40 * 8


def test_nobody_there_changes_nothing():
    picture = np.random.default_rng(0).integers(0, 256, (400, 330, 3), np.uint8)
    for drawn in (draw_faces(picture, []), draw_expressions(picture, []), draw_maps(picture, [])):
        np.testing.assert_array_equal(drawn, picture)


# -------------------------------------------------------------------------------------------------------- expressions


@pytest.mark.parametrize("ground", [0, 255])
def test_box_and_bar_are_there_on_any_ground(ground):
    picture = np.full((400, 600, 3), ground, np.uint8)
    drawn = draw_expressions(picture, [result((100, 150, 200, 270))])
    assert drawn.shape == picture.shape
    line = drawn[210, 80:120]  # across the left side of the box
    assert (line == COLORS["happiness"]).all(1).any()
    dark = (line == 0).all(1)
    # The coloured line lies between two dark ones; on black ground they are one with it.
    assert dark.sum() >= 2
    assert dark[: np.argmax((line == COLORS["happiness"]).all(1))].any()
    beside = drawn[152:300, 206:]  # below the tag
    top, bottom, left, right = area(beside, COLORS["happiness"])
    # 75 % against 25 % / 7 each, to a pixel; neutral is grey as the edges of letters are.
    for name in EMOTIONS[2:]:
        *_, start, end = area(beside, COLORS[name])
        assert (start, end - start) == (left, pytest.approx((right - left) / 21, abs=1))
    assert bottom - top >= 9


def test_bars_are_as_long_as_the_probabilities():
    drawn = draw_expressions(np.zeros((2000, 2000, 3), np.uint8), [result((300, 300, 900, 1000), "anger", 0.5)])
    beside = drawn[:, 920:]
    _, _, start, end = area(beside, COLORS["anger"])
    *_, other_start, other_end = area(beside, COLORS["fear"])
    assert (other_end - other_start) / (end - start) == pytest.approx(1 / 7, abs=0.01)
    assert start == other_start


def test_letters_grow_with_the_face():
    heights = []
    for side in (60, 400):
        drawn = draw_expressions(np.zeros((1500, 1500, 3), np.uint8), [result((200, 200, 200 + side, 200 + side))])
        top, bottom, *_ = area(drawn[200:, 210 + side :], COLORS["happiness"])
        heights.append(bottom - top)
    assert heights[0] == 9
    assert heights[1] > 25


def test_no_card_covers_a_face_or_another_card():
    rng = np.random.default_rng(1)
    picture = np.full((900, 1200, 3), 255, np.uint8)
    boxes = [(x, y, x + 70, y + 90) for y in (60, 250, 440, 630) for x in range(40, 1100, 130)]
    faces = [result(box, rng.choice(EMOTIONS), 0.6) for box in boxes]
    drawn = draw_expressions(picture, faces)
    assert drawn.shape[0] == 900
    assert drawn.shape[1] > 1200  # not all cards have a place in the picture
    for x1, y1, x2, y2 in boxes:
        assert (drawn[y1 + 6 : y2 - 6, x1 + 6 : x2 - 6] == 255).all()
    # Each face has one card, and no two of them run into each other: the dark ground of the bars is as large as 36 of
    # those that stand alone.
    alone = [(draw_expressions(picture, [found])[:, :1200] == 56).all(2).sum() for found in faces[:1]]
    assert (drawn == 56).all(2).sum() >= 0.95 * len(faces) * alone[0]


def test_several_faces_have_their_numbers():
    picture = np.zeros((600, 800, 3), np.uint8)
    one, two = result((50, 100, 150, 220)), result((450, 100, 550, 220), "fear")
    alone, both = draw_expressions(picture, [one]), draw_expressions(picture, [one, two])
    assert (alone[60:100, :300] != both[60:100, :300]).any()
    numbered = draw_labels(picture, [one, two], ["0", "1"])
    np.testing.assert_array_equal(numbered[60:100, :300], both[60:100, :300])


def test_a_face_that_fills_the_picture_has_its_card_beside_it():
    picture = np.full((480, 400, 3), 200, np.uint8)
    drawn = draw_expressions(picture, [result((5, 5, 395, 475))])
    assert drawn.shape[0] == 480
    assert drawn.shape[1] > 400
    assert area(drawn[:, 400:], COLORS["happiness"])


def test_small_pictures_are_enlarged_by_a_whole_number():
    picture = np.random.default_rng(0).integers(0, 200, (48, 48, 3), np.uint8)
    drawn = draw_expressions(picture, [result((0, 0, 48, 48))])
    assert drawn.shape[0] == 48 * 7
    np.testing.assert_array_equal(drawn[150:300:7, 10:300:7], picture[150 // 7 : 43, 1:43][: len(range(150, 300, 7))])


def test_a_label_of_any_script_can_be_drawn():
    found = result((100, 150, 200, 270))
    probabilities = {"Freude ü": 0.5, "怒り": 0.5}
    other = FaceResult(found.face, found.embedding, Expression("怒り", probabilities, 0.7))
    drawn = draw_expressions(np.zeros((400, 600, 3), np.uint8), [other])
    assert (drawn == 255).all(2).any()  # labels that are none of ours are white


def test_text_is_cut_at_the_border_and_as_high_as_asked_for():
    drawn = np.zeros((60, 60, 3), np.uint8)
    write(drawn, "HHHHHHHHH", -10, 20, 20)
    rows = np.nonzero(drawn.max(2).any(1))[0]
    assert abs((rows.max() + 1 - rows.min()) - 20) <= 1
    assert abs(int(rows.min()) - 20) <= 1
    before = drawn.copy()
    write(drawn, "H", 200, 200, 20)
    write(drawn, "", 5, 5, 20)
    np.testing.assert_array_equal(drawn, before)
    assert length("HH", 20) > length("H", 20)


def test_places():
    places = Places(100, 200, [(50, 50, 100, 100)])
    assert places.take([(60, 60, 70, 70), (100, 50, 201, 60), (-1, 0, 5, 5), (100, 50, 120, 60)]) == (100, 50, 120, 60)
    assert places.take([(100, 50, 120, 60), (119, 59, 130, 70)]) is None
    assert places.take([(120, 50, 130, 60)]) == (120, 50, 130, 60)


# --------------------------------------------------------------------------------------------------------------- maps


def test_a_map_is_bright_where_the_network_looked():
    heat = np.zeros((48, 48), np.float32)
    heat[:24] = 1
    drawn = draw_maps(np.zeros((400, 600, 3), np.uint8), [explanation((100, 150, 200, 260), heat)])
    top, bottom, left, right = area(drawn[149:, 206:], COLORS["happiness"])  # the frame of the tile, below the tag
    tile = drawn[149 + top : 149 + bottom, 206 + left : 206 + right].astype(int)
    side = len(tile)
    assert side == pytest.approx(112, abs=4)  # about as high as the face
    warm = tile[..., 0] + tile[..., 1] - 2 * tile[..., 2]  # yellow against blue
    assert warm[side // 6 : side // 3].mean() > warm[2 * side // 3 : 5 * side // 6].mean() + 100


def test_maps_without_a_place_stand_at_the_right():
    heat = np.eye(48, dtype=np.float32)
    drawn = draw_maps(np.zeros((400, 400, 3), np.uint8), [explanation((0, 0, 400, 400), heat)])
    assert drawn.shape[0] == 400
    assert drawn.shape[1] > 500
