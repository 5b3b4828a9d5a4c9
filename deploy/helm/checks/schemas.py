"""Style, and the schemas of Kubernetes."""

import io
import re

import helm_python
import kubernetes_validate
import yaml
import yamllint.config
import yamllint.linter

from checks import crds
from checks.render import CHART, cases, documents

STYLE = yamllint.config.YamlLintConfig(
    "extends: default\nrules:\n  line-length: {max: 300}\n  document-start: disable\n  indentation: {spaces: consistent, indent-sequences: whatever}\n"
    "  comments: {min-spaces-from-content: 1}\n  comments-indentation: disable\n  empty-lines: {max: 2, max-start: 2, max-end: 2}\n  truthy: {check-keys: false}\n  braces: {max-spaces-inside: 1}\n"
)


def versions():
    """The oldest Kubernetes that the chart takes, and the newest that there are schemas of."""
    oldest = re.match(r">=(\d+\.\d+)", yaml.safe_load((CHART / "Chart.yaml").read_text())["kubeVersion"])[1]
    return f"{oldest}.0", kubernetes_validate.latest_version()


def lint(tally):
    for name, values in cases():
        report = helm_python.lint(CHART, values, strict=True)
        worse = [message for message in report["messages"] if message["severity"] >= 2]
        tally.ok(not worse and not report["errors"], f"helm lint of {name}: {worse or report['errors']}")
    for path in [CHART / "Chart.yaml", CHART / "values.yaml", *sorted((CHART / "ci").glob("*.yaml")), *sorted((CHART / "files").rglob("*.yaml"))]:
        style(path.name, path.read_text(), tally)


def style(name, text, tally):
    problems = list(yamllint.linter.run(io.StringIO(text), STYLE))
    tally.ok(not problems, f"yamllint of {name}: {[str(problem) for problem in problems[:5]]}")


def validate(rendering, tally):
    for name, text in rendering.texts.items():
        if text.strip() and not name.endswith(".txt"):
            style(f"{rendering.case}: {name}", text.strip() + "\n", tally)
    for one in rendering.objects:
        said = problem(one)
        tally.ok(said is None, f"{rendering.case}: {one['kind']} {one['metadata']['name']}: {said}")


def problem(one):
    if one["kind"] in crds.KINDS:
        return crds.validate(one)
    for version in versions():
        try:
            kubernetes_validate.validate(one, version, strict=True)
        except (kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError) as error:
            return f"Kubernetes {version}: {str(error).splitlines()[0]}"
    return None


def notice_planted(rendering, tally):
    """Misspelt, mistyped and missing fields, in every kind: each has to be refused."""
    noticed = 0
    for text in ("spec", "data"):
        seen = set()
        for one in rendering.changed().objects:
            if one["kind"] not in seen and isinstance(one.get(text), dict):
                seen.add(one["kind"])
                if text == "spec":
                    one["spec"]["notAField"] = 1
                else:
                    one["data"]["number"] = {"a": 1}
                tally.ok(problem(one) is not None, f"a field that is wrong went unnoticed in a {one['kind']}")
                noticed += 1
    own = type(tally)()
    style("planted", "a: 1 \nb:   {c: 2}\na: 3\n", own)
    tally.ok(own.failed, "yamllint did not notice bad style")
    tally.ok(documents({"a.yaml": "kind: A\n"}) == [{"kind": "A"}], "objects are not found")
    return noticed + 1
