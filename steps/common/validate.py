"""What a user gave, looked at before any other step starts, so that no hour is lost to a typo."""

import argparse

from steps.common.device import check_device
from storage.repro import checkout
from taxi import baselines, schema, spaces


def refuse_typos(args: argparse.Namespace) -> None:
    """Look at every value that only a later step would stumble over.

    Raises:
        TripError: one of them is unknown.
    """
    schema.raw_columns(args.taxi)
    baselines.select(args.models)
    spaces.select(args.search_space)
    check_device(args.device, args.scheduler)
    if args.features != checkout.parameters("main")["features"]:
        # the default is known to be there, and looking takes half a second of imports
        from taxi import features

        features.check_name(args.features)
