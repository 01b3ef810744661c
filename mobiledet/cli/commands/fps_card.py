"""Make one page of the reports of live runs, to look at a board or to compare several.

    mobiledet webcam --report card_pi.json                      # on each board; run five minutes or more
    mobiledet fps-card card_pi.json -o fps.html
    mobiledet fps-card card_pi.json card_laptop.json -o compare.html

The page holds everything: it needs no network and no scripts. Exit status: 0; 1 when something is wrong with the
input.
"""

from __future__ import annotations

import argparse

from mobiledet.cli.common import existing, new_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument(
        "cards", type=existing, nargs="+", metavar="card.json", help="what mobiledet webcam --report wrote"
    )
    parser.add_argument("-o", "--output", type=new_file, required=True, metavar="FILE", help="page, such as fps.html")


def run(arguments: argparse.Namespace) -> None:
    """Read and write."""
    from mobiledet.apps.live.card.fps_card import read_cards
    from mobiledet.apps.live.card.fps_page import cards_page
    from mobiledet.utils.files import write_text

    cards = read_cards(arguments.cards)
    write_text(arguments.output, cards_page(cards))
    for card in cards:
        fps = card.sustained_fps
        print(f"{card.label}: {'FPS unknown' if fps is None else f'{fps:.1f} FPS'}")
    print(arguments.output)
