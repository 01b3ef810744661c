"""Make one page of the reports of live runs, to look at a board or to compare several.

    python demo/webcam.py --report card_pi.json                      # on each board; run five minutes or more
    python tools/fps_card.py card_pi.json card_laptop.json -o compare.html

The page holds everything: it needs no network and no scripts. Exit status: 0; 1 when something is wrong with the
input.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mobiledet.utils.files import refuse_existing


def main() -> None:
    """Parse arguments, read, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cards", type=Path, nargs="+", metavar="card.json", help="what demo/webcam.py --report wrote")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="the page, such as fps.html")
    arguments = parser.parse_args()
    refuse_existing(arguments.output)

    from mobiledet.apps.live.card.fps_card import read_cards
    from mobiledet.apps.live.card.fps_page import cards_page
    from mobiledet.utils.files import write_text

    cards = read_cards(arguments.cards)
    write_text(arguments.output, cards_page(cards))
    for card in cards:
        fps = card.sustained_fps
        print(f"{card.label}: {'FPS unknown' if fps is None else f'{fps:.1f} FPS'}")
    print(arguments.output)
