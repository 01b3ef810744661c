import pytest

from mobiledet.errors import CheckpointError
from mobiledet.weights.class_lists import coco_categories, output_categories, parse_class_list, read_class_list


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("cat\ndog\n", ("cat", "dog")),
        ("???\n cat \n\ndog\tred\n", ("???", "cat", "dog red")),
        ("0  person\n1  bicycle\n3  car\n", {1: "person", 2: "bicycle", 4: "car"}),
        ("0: person\n1: bicycle\n", {1: "person", 2: "bicycle"}),
        ("0 ???\n1 person\n2 bicycle\n", {1: "person", 2: "bicycle"}),
        ("0 Background\n1 person\n", {1: "person"}),
        ("1: person\n2: bicycle\n90: toothbrush\n", {1: "person", 2: "bicycle", 90: "toothbrush"}),
        ("0 traffic light\n1 n/a\n2 n/a\n", {1: "traffic light", 2: "n/a", 3: "n/a"}),
        ("1 cent\n2 cent\n1 euro\n", ("1 cent", "2 cent", "1 euro")),
        ("2 euro\n1 euro cent\n", ("2 euro", "1 euro cent")),
        ("1 cent\n2 cent\n", ("1 cent", "2 cent")),
        ("1 one\ntwo\n", ("1 one", "two")),
        (
            'item {\n  id: 1\n  name: \'red car\'\n}\nitem { name: "/m/1" display_name: "Bus" id: 3 }',
            {1: "red car", 3: "Bus"},
        ),
        ("", ()),
    ],
)
def test_lists_as_people_write_them(text, names):
    assert parse_class_list(text) == names


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_files_in_any_encoding(tmp_path, encoding):
    (tmp_path / "labels.txt").write_bytes("großer Hund\r\nÖl\r\n".encode(encoding))
    assert read_class_list(tmp_path / "labels.txt") == ("großer Hund", "Öl")
    assert read_class_list(str(tmp_path / "labels.txt")) == ("großer Hund", "Öl")


def test_names_themselves_are_taken_as_they_are():
    assert read_class_list(["1 cat", " dog\n"]) == ("1 cat", "dog")


@pytest.mark.parametrize("content", [None, b"", b" \n\t\n"])
def test_files_without_names(tmp_path, content):
    if content is not None:
        (tmp_path / "labels.txt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"labels\.txt"):
        read_class_list(tmp_path / "labels.txt")


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (("a", "b", "c"), {1: "a", 2: "b", 3: "c"}),
        (("background", "a", "b", "c"), {1: "a", 2: "b", 3: "c"}),
        (("???", "a", "???", "c"), {1: "a", 3: "c"}),
        (("a", "N/A", "-"), {1: "a"}),
        ({1: "a", 3: "c"}, {1: "a", 3: "c"}),
        ({2: "b", 3: "n/a"}, {2: "b"}),
        (None, {1: "class_1", 2: "class_2", 3: "class_3"}),
    ],
)
def test_the_class_of_each_output(names, found):
    assert {category["id"]: category["name"] for category in output_categories(3, names)} == found


@pytest.mark.parametrize(
    "names",
    [
        ("a", "b"),
        ("a", "b", "c", "d"),
        ("a", "a", "c"),
        ("?", "???", "a", "b", "c"),
        ("-", "-", "-"),
        {4: "d"},
        {0: "z"},
    ],
)
def test_names_that_dont_fit(names):
    with pytest.raises(CheckpointError):
        output_categories(3, names)


def test_cocos_names_for_ninety_outputs_in_every_form():
    coco = coco_categories()
    by_id = {category["id"]: category["name"] for category in coco}
    every = tuple(by_id.get(slot, "n/a") for slot in range(1, 91))
    forms = [None, every, ("???", *every), tuple(by_id.values()), by_id]
    assert [output_categories(90, names) for names in forms] == [coco] * len(forms)
    assert (len(coco), coco[11]) == (80, {"id": 13, "name": "stop sign"})
