"""Ready-made policies: complete documents, checked parameters, valid policies."""

import pytest
import yaml

from readymade import NAMES, ReadyError, given_in, load, render, selection
from readymade.parameters import shown
from tracingpolicy import parse


@pytest.mark.parametrize("name", NAMES)
def test_document_is_complete_and_its_policy_valid(name):
    ready = load(name)
    assert ready.name == name
    assert ready.path.name == f"{name}.yaml"
    for text in (
        ready.title,
        ready.reports,
        ready.cost,
        ready.kernels,
        ready.cost_brief,
        *ready.misses,
    ):
        assert len(text) > 10
    assert all(one.help for one in ready.parameters.values())
    policy = parse(render(ready), name)
    assert policy.name == name
    hooks = [hook for variant in policy.variants or (policy,) for hook in variant.hooks()]
    assert {hook.tags for hook in hooks} == {(f"ready/{name}".encode(),)}


def loaded(text):
    return yaml.load(text, yaml.CSafeLoader)  # in Python it takes ten times as long


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_changes_the_policy(name):
    ready = load(name)
    plain = loaded(render(ready))["spec"]
    for key, one in ready.parameters.items():
        other = {"flag": "false" if one.default else "true", "interval": "7s",
                 "paths": "/opt/x", "networks": "192.0.2.0/24"}[one.type]  # fmt: skip
        changed = render(ready, {key: other})
        parse(changed, name)
        document = loaded(changed)
        assert document["spec"] != plain, key
        assert document["metadata"]["annotations"][f"tetra.io/{key}"] == other


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"path": "/etc"}, 'files has no parameter "path" (allowed: paths, secrets, except)'),
        ({"paths": "etc"}, 'paths: "etc" is not an absolute path'),
        ({"paths": "/etc/../srv"}, 'paths: "/etc/../srv" has an empty component, "." or ".."'),
        ({"paths": "/" + "a" * 300}, "is longer than 254 bytes"),
        ({"paths": ",".join(f"/{n}" for n in range(65))}, "65 values are too many (allowed: 64)"),
    ],
)
def test_bad_value_is_refused(given, message):
    with pytest.raises(ReadyError) as caught:
        render(load("files"), given)
    assert message in str(caught.value)


def test_values_of_other_types_are_checked():
    network = load("network")
    for name, value in (("except", "10.0.0.0/33"), ("udp", "maybe"), ("udp_interval", "1d")):
        with pytest.raises(ReadyError, match=f"^{name}: "):
            render(network, {name: value})
    assert network.parameters["except"].read("10.1.2.3/8,::1") == ("10.0.0.0/8", "::1/128")
    assert shown(network.parameters["udp"].read("off")) == "false"


def test_excepted_networks_are_meant_on_ipv6_sockets_too():
    text = render(load("network"), {"except": "10.0.0.0/8,2001:db8::/32", "loopback": "false"})
    assert "::ffff:10.0.0.0/104" in text
    assert "::ffff:127.0.0.0/104" in text
    assert "::ffff:2001" not in text
    parse(text, "network")


def test_empty_values_never_widen_a_policy():
    policy = parse(render(load("files"), {"paths": "none", "secrets": "none"}), "files")
    assert all(not list(variant.hooks()) for variant in policy.variants)


def test_an_empty_value_is_refused_where_it_would_switch_something_off():
    with pytest.raises(ReadyError, match=r"^paths: the value is empty \(allowed: .*, or none\)$"):
        render(load("files"), {"paths": ""})
    render(load("files"), {"except": ""})  # its default


@pytest.mark.parametrize("name", NAMES)
def test_a_parameter_can_be_given_its_default_again(name):
    ready = load(name)
    assert render(ready, dict.fromkeys(ready.parameters, "default")) == render(ready)


def test_what_was_given_is_read_from_the_document():
    ready, given = load("files"), {"paths": "none", "except": "/opt/x,/opt/y"}
    assert given_in(ready, render(ready, given)) == given
    assert given_in(ready, render(ready, {"except": ""})) == {}
    other = render(load("network"), {"except": "10.0.0.0/8"})
    assert given_in(ready, other) == {}


def test_values_cannot_become_keys_of_the_document():
    evil = '/x"}]}\n- call: sys_kill'
    spec = yaml.safe_load(render(load("files"), {"paths": evil}))["spec"]
    assert "sys_kill" not in {hook["call"] for hook in spec["kprobes"]}
    parse(render(load("files"), {"paths": evil}), "files")


def test_short_form_of_settings():
    assert [one.name for one in selection("files, network")] == ["files", "network"]
    assert selection("") == ()
    first, second = selection("files paths=/etc,/srv secrets=/k; network")
    assert (first.name, dict(first.given)) == ("files", {"paths": "/etc,/srv", "secrets": "/k"})
    assert second.given == {}
    assert "/srv" in first.document()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("filez", 'there is no ready-made policy "filez" (allowed: files, network, '),
        ("files paths", '"paths" is not a setting (allowed: NAME=VALUE)'),
        ("files,files", "files is named twice"),
    ],
)
def test_bad_short_form_is_refused(text, message):
    with pytest.raises(ReadyError) as caught:
        selection(text if "=" in text or "paths" not in text else text + ";")
    assert message in str(caught.value)
