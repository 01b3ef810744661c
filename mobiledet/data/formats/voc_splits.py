"""Which split a labelled picture of a VOC data set belongs to: by lists, by csv files, or by its folder."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace

from mobiledet.data.formats.base import Account, SourcePicture
from mobiledet.data.formats.tree import Tree, parent, path_parts, split_name, split_of, stem, suffix
from mobiledet.data.formats.voc_csv import read_csv

_LIST = re.compile(r"(train|training|trainval|val|valid|validation|dev|test|testing)[-_]?(\d{4})?", re.IGNORECASE)


def assign_splits(tree: Tree, by_xml: dict[str, SourcePicture], account: Account) -> list[SourcePicture]:
    """Give every picture its split; a picture in several lists comes once for each.

    Args:
        tree: the folder.
        by_xml: xml file -> its picture.
        account: takes what the lists leave out, and what they name in vain.
    """
    entries = [*_from_lists(tree, account)] or [*_from_csv(tree)]
    by_stem: dict[str, list[str]] = defaultdict(list)
    for xml, picture in by_xml.items():
        for name in {stem(xml), picture.path.name, picture.path.stem}:
            by_stem[name].append(xml)
    meant = [_resolve(name, base, by_stem) for _, _, name, base in entries]
    if not any(meant):
        for file in sorted({where.partition(",")[0] for _, where, _, _ in entries}):
            account.add("lists and files left aside", file, "it names none of the labelled pictures")
        named = {xml: split_of(xml) or split_of(_inside(tree, picture)) for xml, picture in by_xml.items()}
        return _by_folder(named, by_xml, account)
    chosen: dict[str, list[tuple[str, SourcePicture]]] = defaultdict(list)
    listed = set()
    for (split, where, name, _), found in zip(entries, meant, strict=True):
        if found is None:
            account.add("names in split lists without a labelled picture", where, repr(name)[:100])
        elif (split, found) not in listed:
            chosen[split].append((found, replace(by_xml[found], split=split)))
            listed.add((split, found))
    for xml in sorted(by_xml.keys() - {xml for _, xml in listed}):
        account.add("pictures in no split list, not used", by_xml[xml].path.name, xml)
    return [picture for pictures in chosen.values() for _, picture in sorted(pictures, key=lambda pair: pair[0])]


def _inside(tree: Tree, picture: SourcePicture) -> str:
    return picture.path.relative_to(tree.root).as_posix()


def _by_folder(named: dict[str, str | None], by_xml: dict[str, SourcePicture], account: Account) -> list[SourcePicture]:
    if not any(named.values()):
        return [replace(picture, split="train") for picture in by_xml.values()]
    pictures = []
    for xml, picture in by_xml.items():
        if folder_split := named[xml]:
            pictures.append(replace(picture, split=folder_split))
        else:
            account.add("pictures outside of the folders of the splits, not used", picture.path.name, xml)
    return pictures


def _from_lists(tree: Tree, account: Account) -> Iterable[tuple[str, str, str, str]]:
    """``(split, place, name, folder the list is about)`` of every line of train.txt, val.txt and so on.

    Those of ImageSets/Main count; other folders have lists for other tasks, and dog_train.txt is about one class.
    """
    lists = [file for file in tree.with_suffix(".txt") if _LIST.fullmatch(stem(file))]
    main = [file for file in lists if parent(file).rpartition("/")[2].casefold() == "main"]
    sets = [file for file in lists if parent(file).rpartition("/")[2].casefold() == "imagesets"]
    depth = min((file.count("/") for file in lists), default=0)
    used = main or sets or [file for file in lists if file.count("/") == depth]
    for file in used:
        split = split_name(stem(file)) or ""
        folder = parent(file)
        base = re.sub(r"(^|/)(ImageSets/)?Main$|(^|/)ImageSets$", "", folder, flags=re.IGNORECASE)
        try:
            text = (tree.root / file).read_bytes().decode("utf-8-sig", "replace")
        except OSError as error:
            account.add("lists and files left aside", file, str(error.strerror))
            continue
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip():
                yield split, f"{file}, line {number}", line.strip(), base


def _from_csv(tree: Tree) -> Iterable[tuple[str, str, str, str]]:
    """As `_from_lists`, of csv files that have a column for the split or are named after one."""
    tables = [table for file in tree.with_suffix(".csv") if "file" in (table := read_csv(tree, file)).columns]
    with_column = [table for table in tables if "split" in table.columns]
    for table in with_column or tables:
        of_file = split_name(stem(table.file), loose=True)
        for line, row in table.rows:
            split = split_name(table.cell(row, "split")) if with_column else of_file
            if split is not None:
                yield split, f"{table.file}, line {line}", table.cell(row, "file"), parent(table.file)


def _resolve(name: str, base: str, by_stem: dict[str, list[str]]) -> str | None:
    """The xml that a line means: a stem, a file name or a path, perhaps followed by 1 or -1."""
    for text in (name, *re.findall(r"^(.+?)\s+-?[0-9]+$", name)):
        parts = path_parts(text)
        if not parts:
            continue
        last = parts[-1]
        tries = [last, stem(last)] if suffix(last) else [last]
        found = next((by_stem[key] for key in tries if key in by_stem), [])
        if len(found) > 1:
            # The same name in several folders: what lies below the list's own folder, then what fits the whole path.
            found = [xml for xml in found if not base or xml.startswith(f"{base}/")] or found
            found = [xml for xml in found if parts[:-1] and parts[-2] in xml.split("/")] or found
        if found:
            return found[0]
    return None
