"""Every way in which a file can be wrong, with everything that its author is then told."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.catalog.vocabulary import problems_of

INVALID = Path(__file__).parents[2] / "testdata" / "remediations" / "invalid"

EXPECTED = {
    "alias-bomb": """
5:45  aliases repeat more than 100000 values
""",
    "alias-of-itself": """
2:9  nothing before this is named "&a"
""",
    "deep": """
1:79  nested deeper than 64 levels
""",
    "destructive": """
9:26  flush-it.escalate[0].steps[0].action  redis.flush is destructive: use mode: approve, or say allow_destructive: true
""",
    "duplicates": """
6:5  "mode" is given twice; first in line 5, column 5
7:60  "url" is given twice; first in line 7, column 43
8:11  twice.name  "twice" is already the name of duplicates.yaml:2:11
""",
    "matchers": """
6:9  syntax.match[0]  bad matcher: expected =, !=, =~ or !~ after 'alertname' (character 10 of "alertname")
7:9  syntax.match[1]  bad matcher: the closing quote is missing (character 11 of 'alertname="A')
8:9  syntax.match[2]  bad matcher: several matchers in one; write each as a list item of its own (character 14 of 'alertname="A", job="b"')
9:9  syntax.match[3]  bad matcher: write one matcher per list item, without braces (character 1 of '{alertname="A"}')
10:9  syntax.match[4]  bad matcher: expected a value in double quotes after =; the text ends here (character 11 of "alertname=")
11:9  syntax.match[5]  bad matcher: expected a label name; found '=' (character 1 of '="A"')
12:9  syntax.match[6]  bad matcher: the label name is empty (character 1 of '""="A"')
13:9  syntax.match[7]  bad matcher: unexpected 'j'; put the whole value in double quotes (character 8 of "job=my job")
14:9  syntax.match[8]  bad matcher: unexpected 'j'; put the whole value in double quotes (character 10 of 'job="my" job')
15:9  syntax.match[9]  bad matcher: expected a value in double quotes after =; found "'" (character 5 of "job='x'")
16:9  syntax.match[10]  bad matcher: unexpected '{'; put the whole value in double quotes (character 10 of "job=~10.0{2}")
23:9  expressions.match[1]  bad matcher: not a regular expression: RE2, which Alertmanager uses too, has no lookahead (character 6 of 'job=~"a(?=b)"')
24:9  expressions.match[2]  bad matcher: not a regular expression: RE2, which Alertmanager uses too, has no lookbehind (character 6 of 'job=~"(?<!a)b"')
25:9  expressions.match[3]  bad matcher: not a regular expression: RE2, which Alertmanager uses too, has no backreferences (character 6 of 'job!~"(a)\\\\1"')
26:9  expressions.match[4]  bad matcher: not a regular expression: missing ): a(b (character 6 of 'job=~"a(b"')
31:5  everything.match  would match every alert; add a matcher that a missing label does not meet, such as alertname="..."
""",
    "missing-fields": """
2:5  no-steps  missing "steps"
4:12  no-steps.match  must have at least 1 entry
5:5  remediations[1]  missing "name"
7:12  remediations[1].steps  must have at least 1 entry
13:9  no-arguments.steps[0].with  missing "url"
14:9  no-arguments.steps[1]  missing "action"
16:9  no-arguments.escalate[0]  missing "steps"
16:18  no-arguments.escalate[0].verify[0].with  missing "url"
""",
    "not-a-list": """
2:3  remediations  must be a list, not a mapping
""",
    "not-a-mapping": """
1:1  must be a mapping with the list "remediations", not a list
""",
    "not-utf8": """
2:14  not UTF-8; save the file as UTF-8
""",
    "open-quote": """
4:1  not YAML: found unexpected end of stream while scanning a quoted scalar that begins in line 2, column 11
""",
    "tab": """
3:1  a tab cannot indent YAML; use spaces
""",
    "tags": """
2:5  a  missing "match"
2:5  a  missing "steps"
2:11  the tag "tag:yaml.org,2002:python/object:os.system" is not supported
3:14  the tag "!secret" is not supported
4:5  merge keys ("<<") are not supported; an alias can only stand for a whole value
""",
    "targets": """
6:22  none-given.steps[0].action  kubernetes.rollout_restart needs a kubernetes target; this remediation has no target
13:22  wrong-backend.steps[0].action  redis.flush needs a redis target; the target of this remediation is kubernetes
14:22  wrong-backend.verify[0].check  redis.memory needs a redis target; the target of this remediation is kubernetes
20:7  two-backends.target  exactly one of kubernetes, postgres, redis must be given, not kubernetes and redis
27:13  no-backend.target  exactly one of kubernetes, postgres, redis must be given
34:49  empty-values.target.kubernetes.namespace  must not be empty
34:59  empty-values.target.kubernetes.name  must not be empty
41:28  ambiguous.target.postgres.instance  "main/orders" cannot be the name of a connection
41:51  ambiguous.target.postgres.database  "a/b" cannot be the name of a database
""",
    "templates": """
9:20  templates.target.kubernetes.namespace  bad template: unknown name "label"; did you mean "labels"?
10:15  templates.target.kubernetes.name  bad template: there is no "target" here
14:16  templates.steps[0].with.url  bad template: unexpected end of template, expected 'end of print statement'.
18:13  templates.steps[0].with.headers  a template can stand in a value, not in a key
20:21  templates.steps[0].with.json[0].text  bad template: unknown filter "json"; did you mean "tojson"? (line 2 of the template)
23:15  templates.steps[0].with.json[1]  bad template: "{% include %}" is not available
24:15  templates.steps[0].with.json[2]  bad template: alert has no "startsAt"; did you mean "starts_at"?
25:15  templates.steps[0].with.json[3]  bad template: unknown name "range"; there are labels, annotations, alert, target
27:45  templates.steps[1].with.too  unknown field "too" for kubernetes.scale; did you mean "to"?
29:15  templates.steps[2].with  exactly one of to and by must be given
32:21  templates.verify[0].with.url  bad template: target has no "namespce"; did you mean "namespace"?
39:21  without-target.steps[0].with.url  bad template: there is no "target" here
""",
    "two-documents": """
2:1  a second document begins; one file holds one list "remediations"
""",
    "unknown-fields": """
3:5  cache-full.sumary  unknown field "sumary" for a remediation; did you mean "summary"?
8:32  cache-full.target.redis.databse  unknown field "databse" for "redis"; did you mean "database"?
9:14  cache-full.limits.cooldwn  unknown field "cooldwn" for "limits"; did you mean "cooldown"?
12:15  cache-full.steps[0].with  missing "url"
12:16  cache-full.steps[0].with.ur  unknown field "ur" for http.request; did you mean "url"?
13:9  cache-full.steps[0].timout  unknown field "timout" for "steps"; did you mean "timeout"?
15:16  cache-full.steps[1].with.hard  unknown field "hard" for redis.flush; there are none
16:1  version  unknown field "version"; a file holds "remediations" and nothing else
""",
    "unknown-names": """
7:26  restart-it.target.kubernetes.kind  "deployment" is not one of Deployment, StatefulSet, DaemonSet, Pod; did you mean "Deployment"?
7:49  restart-it.target.kubernetes.namespace  "Shop" cannot be a namespace
7:61  restart-it.target.kubernetes.name  "api server" cannot be a name
9:17  restart-it.steps[0].action  unknown action "kubernetes.rolloutrestart"; did you mean "kubernetes.rollout_restart"?
10:17  restart-it.steps[1].action  unknown action "{{ labels.action }}"; there are kubernetes.rollout_restart, kubernetes.scale, redis.flush, http.request
12:16  restart-it.verify[0].check  unknown check "http.okay"; did you mean "http.ok"?
13:16  restart-it.verify[1].check  unknown check "nothing.like.it"; there are http.ok, redis.memory
""",
    "wrong-key": """
1:1  missing "remediations"
1:1  remediation  unknown field "remediation"; did you mean "remediations"?
""",
    "wrong-types": """
2:11  Not_A_Name.name  'Not_A_Name' cannot be a name; use a-z, 0-9 and - (at most 63, not at the ends)
3:14  Not_A_Name.summary  must be a text, not 5
4:14  Not_A_Name.runbook  'docs/restart.md' is not an http or https URL
5:12  Not_A_Name.match  must be a list, not 'alertname="A"'
6:11  Not_A_Name.mode  must be one of observe, approve, auto, not "automatic"; did you mean "auto"?
7:24  Not_A_Name.allow_destructive  must be true or false, not "perhaps"
8:14  Not_A_Name.expires  '1 day' is not a duration; write it as Prometheus does, for example 90s, 5m or 1h30m
10:42  Not_A_Name.target.redis.database  must be a text or a whole number, not a list
11:24  Not_A_Name.limits.cooldown  '10 minutes' is not a duration; write it as Prometheus does, for example 90s, 5m or 1h30m
11:42  Not_A_Name.limits.rate  '3 per hour' is not a rate; write it as count/duration, for example 3/1h
11:66  Not_A_Name.limits.attempts  must be at least 1, not 0
11:82  Not_A_Name.limits.max_targets  must be a whole number, not "many"
12:11  Not_A_Name.when  must be a list, not a mapping
16:16  Not_A_Name.steps[0].with.url  must be a text, not a list
17:19  Not_A_Name.steps[0].with.method  must be one of GET, POST, not "get"; did you mean "GET"?
18:20  Not_A_Name.steps[0].with.headers  must be a mapping, not "none"
19:18  Not_A_Name.steps[0].with.pause  'soon' is not a duration; write it as Prometheus does, for example 90s, 5m or 1h30m
22:14  Not_A_Name.steps[1].with  must be a mapping, not empty
23:17  Not_A_Name.steps[2].action  must be a text, not 5
24:13  Not_A_Name.settle  5 is not a duration; write it as Prometheus does, for example 90s, 5m or 1h30m
26:14  second.summary  must not be empty
27:28  second.match[1]  must be a text, not a mapping
29:13  second.steps[0]  must be a mapping, not "restart"
30:5  remediations[2]  must be a mapping, not "third"
""",
}


@pytest.mark.parametrize("topic", EXPECTED)
def test_every_problem_of_an_invalid_file_is_told_with_its_position(topic: str) -> None:
    """Each file of the folder is refused with exactly these lines, sorted by position."""
    expected = [f"{topic}.yaml:{line}" for line in EXPECTED[topic].strip().splitlines()]
    assert expected == problems_of(INVALID / f"{topic}.yaml")


def test_every_invalid_file_is_expected_to_be_so() -> None:
    """A file that nobody looks at proves nothing."""
    assert sorted(EXPECTED) == sorted(file.stem for file in INVALID.iterdir())
