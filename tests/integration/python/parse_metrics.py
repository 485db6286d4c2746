"""Reads metrics on standard input as Prometheus's own client library does, and says what it found, as JSON."""

import json
import sys

from prometheus_client.parser import text_string_to_metric_families

families = {}
for family in text_string_to_metric_families(sys.stdin.read()):
    # A counter's name is without its `_total` here: it must be nobody else's.
    assert family.name not in families, family.name
    samples = [[sample.name, sample.labels, sample.value] for sample in family.samples]
    families[family.name] = {"type": family.type, "help": family.documentation, "samples": samples}
print(json.dumps(families))
