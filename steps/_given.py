"""What a user gave, looked at before any other step starts, so that no hour is lost to a typo."""

import argparse

from steps._device import check_device
from storage import checkout
from taxi import baselines, schema


def refuse_typos(args: argparse.Namespace) -> None:
    """Look at every value that only a later step would stumble over.

    Raises:
        TripError: one of them is unknown.
    """
    schema.raw_columns(args.taxi)
    baselines.select(args.models)
    check_device(args.device)
    # the defaults are known to be there, and looking takes a second of imports
    defaults = checkout.parameters("main")
    if args.features != defaults["features"]:
        from taxi import features

        features.check_name(args.features)
    if args.search_space != defaults["search_space"]:
        from taxi import search

        search.select(args.search_space)
