"""Months and files of trips: finding, downloading, reading, splitting."""
