"""What a model costs: multiply-adds (GMACs) of one image, and parameters.

    mobiledet cost ssd_mobilenet_a1 ssdlite_mobilenet_a1 --classes 90 --json costs.json --chart costs.png
    mobiledet cost ssd_mobilenet_a1 --classes 90 -v     # layer by layer
    mobiledet cost --paper                              # the paper's tables beside ours, cell by cell

--csv has a row for each layer.
"""

from __future__ import annotations

import argparse

from mobiledet.cli.common import UsageError, at_least, new_file, recipe


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("configs", nargs="*", type=recipe, metavar="CONFIG", help="recipes by name, or config files")
    parser.add_argument("--classes", type=at_least(1), default=80, help="classes, without background (default: 80)")
    parser.add_argument("--paper", action="store_true", help="the paper's tables beside our figures")
    parser.add_argument("--json", type=new_file, metavar="FILE", help="write the figures here")
    parser.add_argument("--csv", type=new_file, metavar="FILE", help="write a row per layer here")
    parser.add_argument("--chart", type=new_file, metavar="FILE", help="draw a bar per stage: .png, .svg or .pdf")
    parser.add_argument("-v", "--verbose", action="store_true", help="also every stage and every layer")


def run(arguments: argparse.Namespace) -> None:
    """Count and print."""
    if not arguments.configs and not arguments.paper:
        raise UsageError("name recipes, or --paper")
    if not arguments.configs and (arguments.csv or arguments.chart or arguments.verbose):
        raise UsageError("--csv, --chart and --verbose are about recipes: name some")

    from mobiledet.apps.cost.paper import paper_costs, paper_text
    from mobiledet.apps.cost.tables import cost_table, layer_rows, layer_table, plot_costs, stage_table
    from mobiledet.config import load_config
    from mobiledet.models.build import build_detector
    from mobiledet.models.cost import detector_cost
    from mobiledet.utils.files import write_csv, write_json
    from mobiledet.weights.catalogue import with_known_width

    costs = {}
    for path in arguments.configs:
        model = with_known_width(load_config(path).model).model_copy(update={"num_classes": arguments.classes})
        costs[path] = detector_cost(build_detector(model, weights_follow=True))
    if costs:
        print(cost_table(costs))
    if arguments.verbose:
        for name, cost in costs.items():
            print(f"\n{name}\n{stage_table(cost)}\n\n{layer_table(cost)}")
    if arguments.paper:
        print(paper_text())
    if arguments.json is not None:
        figures = {name: cost.to_json_dict() for name, cost in costs.items()}
        write_json(arguments.json, {**figures, **({"paper": paper_costs()} if arguments.paper else {})})
    if arguments.csv is not None:
        write_csv(arguments.csv, layer_rows(costs))
    if arguments.chart is not None:
        plot_costs(costs, arguments.chart)
