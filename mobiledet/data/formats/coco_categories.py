"""The classes of one or several COCO files: heads without boxes left out, ids kept where the files agree."""

from __future__ import annotations

from typing import Any

from mobiledet.data.formats.base import Account, clean_name
from mobiledet.data.json_numbers import whole_numbers
from mobiledet.errors import DataError


def read_categories(raw: list[dict[str, Any]], file: str, account: Account) -> tuple[dict[int, str], frozenset[str]]:
    """Id -> name of one file's categories, and which names head other categories.

    Raises:
        DataError: two categories have the same id, so that boxes can't be told apart.
    """
    ids, good, _ = whole_numbers([entry.get("id") for entry in raw])
    categories: dict[int, str] = {}
    for row, entry in enumerate(raw):
        where = f"{file}, categories[{row}]"
        given, id_ = entry.get("name"), int(ids[row])
        name = clean_name(str(given)) if isinstance(given, str) or type(given) is int else ""
        if not good[row]:
            account.add("category ids missing, doubled or not whole numbers", where, f"{given!r:.40}: no id")
            continue
        if id_ in categories:
            if categories[id_] == name:
                continue
            raise DataError(f"{where}: id {id_} is both {categories[id_]!r} and {name!r}; give each its own id")
        if not name:
            name = f"class_{id_}"
            account.add("class names missing, made up", where, name)
        elif type(given) is int:
            account.add("category names read as text", where, repr(given))
        elif name != given:
            account.add("class names with stray spaces", where, f"{given!r} is {name!r}")
        if name in categories.values():
            account.add("classes of the same name merged", where, f"{name!r}, id {id_}")
        categories[id_] = name
    heads = set()
    for entry in raw:
        head = entry.get("supercategory")
        if isinstance(head, str) and head != entry.get("name"):
            heads.add(clean_name(head))
    return categories, frozenset(heads)


def unify(
    files: list[tuple[str, dict[int, str], frozenset[str]]], used: list[set[int]], account: Account
) -> dict[str, int]:
    """One list of classes for all files, by name: name -> id in the order of the ids.

    Args:
        files: for each its name, its categories by id, and the names that head others.
        used: for each the category ids that have boxes.
        account: takes what is left out or renumbered.

    Raises:
        DataError: there is no category.
    """
    with_boxes = {
        categories[id_] for (_, categories, _), ids in zip(files, used, strict=True) for id_ in ids if id_ in categories
    }
    heads = {head for _, _, heads in files for head in heads} - with_boxes
    named: dict[str, list[int]] = {}
    for file, categories, _ in files:
        for id_, name in sorted(categories.items()):
            if name in heads:
                if name not in named:
                    account.add("categories that only head the others, left out", file, f"{name!r}, id {id_}")
                continue
            ids = named.setdefault(name, [])
            if id_ not in ids:
                ids.append(id_)
    if not named:
        raise DataError(f"{', '.join(file for file, _, _ in files)}: no category; a data set needs at least one class")
    conflict = len(files) > 1 and (
        any(len(ids) > 1 for ids in named.values()) or len({ids[0] for ids in named.values()}) < len(named)
    )
    if not conflict:
        return {name: ids[0] for name, ids in sorted(named.items(), key=lambda item: item[1][0])}
    for name, ids in named.items():
        if len(ids) > 1:
            account.add("categories of several files unified by name", repr(name), f"ids {', '.join(map(str, ids))}")
    first = [name for file, categories, _ in files[:1] for _, name in sorted(categories.items()) if name in named]
    names = list(dict.fromkeys([*first, *named]))
    account.add("category ids renumbered", ", ".join(file for file, _, _ in files), f"1..{len(names)}")
    return {name: number for number, name in enumerate(names, 1)}
