"""What a model costs: multiply-adds (GMACs) of one picture, and parameters.

python tools/cost.py configs/*.py --classes 90 --json costs.json
python tools/cost.py configs/ssd_mobilenet_a1.py --classes 90 -v        # layer by layer
python tools/cost.py --classifiers                                      # the paper's tables 6 and 7
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mobiledet.cli import refuse_existing, run_tool


def main() -> None:
    """Parse arguments, count, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="*", help="config files")
    parser.add_argument("--classes", type=int, default=80, help="object classes without background (default: 80)")
    parser.add_argument("--classifiers", action="store_true", help="the paper's ImageNet classifiers beside ours")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    parser.add_argument("-v", "--verbose", action="store_true", help="also every layer")
    arguments = parser.parse_args()
    if not arguments.configs and not arguments.classifiers:
        parser.error("name config files, or --classifiers")
    if arguments.classes < 1:
        parser.error("--classes must be at least 1")
    refuse_existing(arguments.json)

    from mobiledet.config import load_config
    from mobiledet.cost import classifier_costs, cost_table, detector_cost, layer_table
    from mobiledet.models.build import build_detector
    from mobiledet.pretrained.sources import with_known_width
    from mobiledet.runs import write_json

    costs = {}
    for path in arguments.configs:
        model = with_known_width(load_config(path).model).model_copy(update={"num_classes": arguments.classes})
        costs[path] = detector_cost(build_detector(model))
    if costs:
        print(cost_table(costs))
    if arguments.classifiers:
        classifiers = classifier_costs()
        print(
            cost_table(
                {name: cost for name, (cost, _) in classifiers.items()}, {n: p for n, (_, p) in classifiers.items()}
            )
        )
        costs |= {name: cost for name, (cost, _) in classifiers.items()}
    if arguments.verbose:
        for name, cost in costs.items():
            print(f"\n{name}\n{layer_table(cost)}")
    if arguments.json is not None:
        write_json(arguments.json, {name: cost.to_json_dict() for name, cost in costs.items()})


if __name__ == "__main__":
    run_tool(main)
