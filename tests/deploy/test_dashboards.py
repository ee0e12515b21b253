"""Dashboards ask for what a running server offers, all of it, in PromQL that Prometheus understands."""

import json
import re
import shutil
import subprocess

import pytest
import yaml
from deployment import DEPLOY, read_yaml
from promql import labels, parse, problems

DASHBOARDS = {file.name: json.loads(file.read_text()) for file in (DEPLOY / "grafana" / "dashboards").glob("*.json")}
TARGETS = [
    pytest.param(target, id=f"{name}: {panel['title']} {target['refId']}")
    for name, dashboard in DASHBOARDS.items()
    for panel in dashboard["panels"]
    for target in panel.get("targets", ())
]
VARIABLES = [variable for dashboard in DASHBOARDS.values() for variable in dashboard["templating"]["list"]]


@pytest.mark.parametrize("target", TARGETS)
def test_what_a_panel_asks_for_exists(target, series):
    assert problems(target["expr"], series) == []


@pytest.mark.parametrize("target", TARGETS)
def test_what_a_legend_names_is_in_the_result(target, series):
    query = parse(target["expr"])
    named = set(re.findall(r"{{\s*(\w+)\s*}}", target.get("legendFormat", "")))
    assert named <= (query.grouping or labels(query, series))


def test_what_the_variables_list_exists(series):
    assert [variable["name"] for variable in VARIABLES] == ["model"]
    for variable in VARIABLES:
        metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"]).groups()
        assert series[metric][label]


def test_every_metric_of_the_server_is_shown(series):
    shown = {metric for target in TARGETS for metric, _ in parse(target.values[0]["expr"]).selectors}
    families = {re.sub(r"_(bucket|sum|count)$", "", metric) for metric in shown}
    assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in series if name.startswith("innerloop_")} <= families


@pytest.mark.parametrize(
    ("expression", "problem"),
    [
        ("sum(rate(innerloop_request_total[1m]))", "no metric innerloop_request_total"),
        ('innerloop_queue_depth{rpc=~".*"}', "innerloop_queue_depth has no label rpc"),
        ('innerloop_model_info{state="fine"}', "innerloop_model_info never has state=fine"),
        ("sum by (method) (innerloop_queue_depth)", "no label method to group by"),
        ("vector(0)", "selects nothing"),
    ],
)
def test_a_query_for_what_does_not_exist_is_found(expression, problem, series):
    assert problems(expression, series) == [problem]


@pytest.mark.parametrize("name", DASHBOARDS)
def test_panels_read_from_the_provisioned_datasource(name):
    (datasource,) = read_yaml("grafana/provisioning/datasources/prometheus.yaml")["datasources"]
    used = [panel["datasource"] for panel in DASHBOARDS[name]["panels"] if panel["type"] != "row"]
    used += [variable["datasource"] for variable in DASHBOARDS[name]["templating"]["list"]]
    assert {(source["type"], source["uid"]) for source in used} == {(datasource["type"], datasource["uid"])}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_prometheus_understands_every_query(tmp_path):
    expressions = [target.values[0]["expr"].replace("$__rate_interval", "1m") for target in TARGETS]
    rules = [{"record": f"query_{index}", "expr": expression} for index, expression in enumerate(expressions)]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboards", "rules": rules}]}))
    checked = subprocess.run(["promtool", "check", "rules", file], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    assert f"{len(rules)} rules found" in checked.stdout


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_prometheus_understands_its_configuration():
    file = DEPLOY / "prometheus" / "prometheus.yml"
    checked = subprocess.run(["promtool", "check", "config", file], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
