"""Renders the chart with the Helm engine, and finds things in what comes out."""

import copy
import dataclasses
import pathlib
import tempfile

import helm_python
import yaml

CHART = pathlib.Path(__file__).resolve().parent.parent / "tidegate"
ROOT = CHART.parent.parent.parent
ROLES = ("gateway", "router", "registry")


class Failures(Exception):
    """Everything that is wrong, a line each."""


class Tally:
    """Counts assertions, and keeps what failed; or ends at the first that does, where one is enough."""

    def __init__(self, first=False):
        self.count, self.failed, self.first = 0, [], first

    def ok(self, condition, text):
        self.count += 1
        if not condition:
            self.failed.append(text)
            if self.first:
                raise Failures(text)


@dataclasses.dataclass
class Rendering:
    """One rendering: what was said, and what came out."""

    case: str
    name: str
    namespace: str
    values: dict
    texts: dict
    objects: list

    def of(self, *kinds):
        return [one for one in self.objects if one["kind"] in kinds]

    def one(self, kind, name):
        found = [one for one in self.of(kind) if one["metadata"]["name"] == name]
        return found[0] if len(found) == 1 else None

    def workloads(self):
        """(object, pod template), the Job among them."""
        return [(one, one["spec"]["template"]) for one in self.of("Deployment", "StatefulSet", "Job")]

    def workload(self, role):
        return next((one for one, _ in self.workloads() if one["metadata"]["labels"]["app.kubernetes.io/component"] == role), None)

    def roles(self):
        return [role for role in ROLES if self.workload(role)]

    def changed(self):
        """A copy to do harm to."""
        return dataclasses.replace(self, objects=copy.deepcopy(self.objects), values=copy.deepcopy(self.values))


def documents(texts):
    found = []
    for name, text in texts.items():
        if name.endswith(".txt"):
            continue
        for one in yaml.safe_load_all(text):
            if one:
                if not isinstance(one, dict) or "kind" not in one:
                    raise Failures(f"{name} renders something that is no object: {str(one)[:80]}")
                found.append(one)
    return found


class Chart:
    """The chart, loaded once."""

    def __init__(self, path=CHART):
        self.chart = helm_python.Chart.load(path)
        self.renders = 0

    def render(self, values, case="", name="demo", namespace="prod"):
        texts = self.chart.render(values, name=name, namespace=namespace)
        self.renders += 1
        merged = self.chart.merge_values(values)
        return Rendering(case, name, namespace, merged, texts, documents(texts))

    def refusal(self, values):
        """What the engine says, or None if it renders."""
        try:
            self.render(values)
        except helm_python.HelmError as error:
            return str(error)
        return None


def with_version(version):
    """The same chart under another version: what a release of the chart alone would be."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="tidegate-chart-"))
    for path in CHART.rglob("*"):
        target = folder / "tidegate" / path.relative_to(CHART)
        if path.is_dir():
            target.mkdir(parents=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    file = folder / "tidegate" / "Chart.yaml"
    text = file.read_text()
    assert "\nversion: " in text
    file.write_text("\n".join(f"version: {version}" if line.startswith("version: ") else line for line in text.splitlines()))
    return folder


def cases():
    """The values files of ci/: (name, values)."""
    return [(path.stem, yaml.safe_load(path.read_text())) for path in sorted((CHART / "ci").glob("*.yaml"))]


def merged(values, **changes):
    """A copy of values with dotted keys changed: `gateway__replicas=2`."""
    made = copy.deepcopy(values)
    for dotted, value in changes.items():
        *path, last = dotted.split("__")
        inner = made
        for key in path:
            inner = inner.setdefault(key, {})
        inner[last] = value
    return made
