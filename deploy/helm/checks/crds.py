"""Schemas of kinds that are not Kubernetes' own: of what the chart uses of them, closed against anything else.

After the published definitions of the Prometheus operator (monitoring.coreos.com/v1) and the Gateway API v1; smaller, so that a
field that the chart does not use is an error until it is written here.
"""

import jsonschema

TEXT = {"type": "string"}
TEXTS = {"type": "object", "additionalProperties": TEXT}
DURATION = {"type": "string", "pattern": "^([0-9]+(ms|s|m|h|d|w|y))+$"}
GATEWAY_DURATION = {"type": "string", "pattern": "^([0-9]{1,5}(h|m|s|ms)){1,4}$"}


def closed(required, **properties):
    return {"type": "object", "additionalProperties": False, "required": required, "properties": properties}


def listed(items, least=1):
    return {"type": "array", "items": items, "minItems": least}


METADATA = closed(["name", "labels"], name=TEXT, labels=TEXTS, annotations=TEXTS)
EXPRESSION = closed(["key", "operator"], key=TEXT, operator={"enum": ["In", "NotIn", "Exists", "DoesNotExist"]}, values=listed(TEXT))
SELECTOR = closed([], matchLabels=TEXTS, matchExpressions=listed(EXPRESSION))
RULE = closed(
    ["expr"], record={"type": "string", "pattern": "^[a-zA-Z_:][a-zA-Z0-9_:]*$"}, alert=TEXT, expr=TEXT, keep_firing_for=DURATION,
    labels=TEXTS, annotations=TEXTS, **{"for": DURATION},
)  # fmt: skip
KINDS = {
    "PodMonitor": (
        "monitoring.coreos.com/v1",
        closed(
            ["selector", "podMetricsEndpoints"], selector=SELECTOR,
            podMetricsEndpoints=listed(closed(
                ["port"], port=TEXT, path=TEXT, interval=DURATION,
                relabelings=listed(closed(["targetLabel"], sourceLabels=listed(TEXT), targetLabel=TEXT, replacement=TEXT)),
            )),
        ),
    ),
    "PrometheusRule": (
        "monitoring.coreos.com/v1",
        closed(["groups"], groups=listed(closed(["name", "rules"], name=TEXT, interval=DURATION, rules=listed(RULE)))),
    ),
    "HTTPRoute": (
        "gateway.networking.k8s.io/v1",
        closed(
            ["parentRefs", "rules"], hostnames=listed(TEXT),
            parentRefs=listed(closed(["name"], name=TEXT, namespace=TEXT, sectionName=TEXT, port={"type": "integer"})),
            rules=listed(closed(
                ["backendRefs"],
                matches=listed(closed([], path=closed(["type", "value"], type={"enum": ["Exact", "PathPrefix"]}, value={"type": "string", "pattern": "^/"}))),
                timeouts=closed([], request=GATEWAY_DURATION, backendRequest=GATEWAY_DURATION),
                backendRefs=listed(closed(["name", "port"], name=TEXT, port={"type": "integer", "minimum": 1, "maximum": 65535})),
            )),
        ),
    ),
}  # fmt: skip


def validate(one):
    """What is wrong with an object of one of these kinds, or None."""
    version, spec = KINDS[one["kind"]]
    schema = closed(["apiVersion", "kind", "metadata", "spec"], apiVersion={"const": version}, kind={"const": one["kind"]}, metadata=METADATA, spec=spec)
    error = next(iter(jsonschema.Draft202012Validator(schema).iter_errors(one)), None)
    return error and f"{error.json_path}: {error.message}"
