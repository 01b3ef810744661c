"""What COCO 2017 consists of: addresses, sizes, checksums, counts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from mobiledet.download.remote import Remote

_HOST = "http://images.cocodataset.org"  # https has a certificate for another name; the checksums below stand in


@dataclass(frozen=True)
class CocoSplit:
    """One split of a release.

    Attributes:
        name: "train" or "val".
        folder: name of its folder, in the archive and in the data set.
        pictures: the archive of pictures.
        count: how many there are.
        annotations_size: bytes of its json, if known.
    """

    name: str
    folder: str
    pictures: Remote
    count: int
    annotations_size: int | None = None

    @property
    def annotations(self) -> str:
        """Where its json lies, in the archive and in the data set."""
        return f"annotations/instances_{self.folder}.json"


@dataclass(frozen=True)
class CocoRelease:
    """What is to be fetched: one archive of annotations for all splits, one of pictures for each.

    Attributes:
        name: what to call it in messages.
        annotations: the archive of annotations.
        splits: its splits, in the order they are fetched.
    """

    name: str
    annotations: Remote
    splits: tuple[CocoSplit, ...]

    def at(self, base_url: str) -> CocoRelease:
        """The same files, with the same checksums, on another server that has them under the same paths."""

        def moved(remote: Remote) -> Remote:
            return replace(remote, url=base_url.rstrip("/") + urlsplit(remote.url).path)

        splits = tuple(replace(split, pictures=moved(split.pictures)) for split in self.splits)
        return replace(self, annotations=moved(self.annotations), splits=splits)


COCO_2017 = CocoRelease(
    name="COCO 2017",
    annotations=Remote(
        f"{_HOST}/annotations/annotations_trainval2017.zip", 252_907_541, md5="f4bbac642086de4f52a3fdda2de5fa2c"
    ),
    splits=(
        CocoSplit(
            name="val",
            folder="val2017",
            pictures=Remote(f"{_HOST}/zips/val2017.zip", 815_585_330, md5="442b8da7639aecaf257c1dceb8ba8c80"),
            count=5_000,
            annotations_size=19_987_840,
        ),
        CocoSplit(
            name="train",
            folder="train2017",
            pictures=Remote(f"{_HOST}/zips/train2017.zip", 19_336_861_798, md5="cced6f7f71b7629ddf16f17bbcfab6b2"),
            count=118_287,
            annotations_size=469_785_474,
        ),
    ),
)
