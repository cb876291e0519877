"""Written profiles: names that the profiled process chose are data in every form."""

import shlex
from types import SimpleNamespace

import pytest

from cli.commands.profile import write
from cli.profiles.forms import seccomp, systemd, tracing_policy
from cli.profiles.model import Profile
from cli.profiles.notices import notices
from cli.profiles.subject import Subject
from tracingpolicy import parse

HOSTILE = "/tmp/a\nExecStartPost=+/tmp/evil"


def writer(*paths):
    return Profile(Subject("/x"), policies={"files"}, written=dict.fromkeys(paths, 1))


def entries(drop_in, setting):
    """Return the paths of a setting as systemd reads them: unquoted, then specifiers expanded."""
    lines = [line for line in drop_in.splitlines() if line.startswith(f"{setting}=")]
    words = [word for line in lines for word in shlex.split(line.partition("=")[2])]
    assert all(word.startswith("-/") for word in words)
    return [word[1:].replace("%%", "%") for word in words]


@pytest.mark.parametrize(
    "name", [HOSTILE, "/tmp/a\rb", "/tmp/a\x85b", "/tmp/a\u2028b", "/tmp/\udcff", "/tmp/\ufffdx"]
)
def test_directory_with_a_name_that_is_not_printable_is_left_out(name):
    profile = writer(name, "/tmp/b")
    assert entries(systemd([profile]), "ReadWritePaths") == ["/tmp/b"]
    assert "ExecStart" not in systemd([profile])
    (line,) = notices("systemd", [profile], 1)
    assert line.startswith("left out: 1 written path, of names that are not printable")


def test_directory_with_any_printable_name_is_one_entry():
    names = ['/tmp/a b "c" d', r"/tmp/a\nb", "/tmp/end\\", "/tmp/%n%%", "/tmp/it's", "/tmp/é😀"]
    drop_in = systemd([writer(*names)])
    assert r'ReadWritePaths="-/tmp/a b \"c\" d"' in drop_in
    assert 'ReadWritePaths="-/tmp/%%n%%%%"' in drop_in
    assert entries(drop_in, "ReadWritePaths") == sorted(names)
    assert not list(notices("systemd", [writer(*names)], 1))


def test_names_of_calls_and_capabilities_are_never_lines():
    profile = Profile(
        Subject("/x"), policies={"capabilities"}, syscalls={"read", "x\nExecStartPost=+/tmp/evil"},
        capabilities={"CAP_KILL", "41", "CAP_X\nExecStartPost=+/tmp/evil", "a b"},
    )  # fmt: skip
    drop_in = systemd([profile])
    assert "\nCapabilityBoundingSet=41 CAP_KILL\n" in drop_in
    assert not any("evil" in form([profile]) for form in (systemd, seccomp, tracing_policy))


def test_written_folder_is_not_read_only():
    """Of equal paths systemd keeps the more restrictive entry."""
    drop_in = systemd([writer("/etc", "/etc/x", "/usr/local")])
    assert entries(drop_in, "ReadOnlyPaths") == ["/boot", "/efi", "/usr"]
    assert entries(drop_in, "ReadWritePaths") == ["/etc", "/usr/local"]
    assert "ReadOnlyPaths" not in systemd([writer("/etc", "/usr", "/boot", "/efi")])


def test_directories_below_a_read_only_folder_are_named_beside_the_root():
    drop_in = systemd([writer("/", "/etc/x", "/etc/x/y", "/etc/z", "/usr", "/var/log")])
    assert entries(drop_in, "ReadWritePaths") == ["/", "/etc/x", "/etc/z", "/usr"]
    assert entries(systemd([writer("//a/b", "/a")]), "ReadWritePaths") == ["//a/b", "/a"]


def test_cut_list_of_directories_is_noticed():
    profile = writer(*(f"/var/{number:03}" for number in range(53)))
    assert len(entries(systemd([profile]), "ReadWritePaths")) == 50
    (line,) = notices("systemd", [profile], 1)
    assert line.startswith("left out: 3 written paths, behind the first 50")


@pytest.mark.parametrize(
    "path", ["/tmp/😀", "/tmp/é", '/tmp/"a"\\b', HOSTILE, "/tmp/\x7f\x9b\u2028\xa0\u202e\U000e0041"]
)
def test_tracing_policy_matches_executables_of_any_name(path):
    policy = parse(tracing_policy([Profile(Subject(path), syscalls={"read"})]), "p")
    (selector,) = policy.tracepoints[0].selectors
    assert selector.binaries[0].values == (path.encode(),)


def test_name_of_the_policy_never_ends_with_a_dash():
    name = "/opt/" + "a" * 54 + ".b"  # the 63rd character is the point
    policy = parse(tracing_policy([Profile(Subject(name), syscalls={"read"})]), "p")
    assert policy.name == "outside-" + "a" * 54


def test_interpreters_of_the_policy_are_named():
    unit = Profile(Subject("a.service"), commands={"/usr/bin/python3.11", "/usr/sbin/nginx"})
    shell = Profile(Subject("/bin/sh"))
    (line,) = notices("tracingpolicy", [unit, shell], 2)
    assert line.endswith(": /bin/sh, /usr/bin/python3.11")
    assert not list(notices("tracingpolicy", [Profile(Subject("/usr/sbin/sshd")), shell], 1))
    assert not list(notices("seccomp", [unit, shell], 2))


@pytest.mark.parametrize(
    "name", ["dash", "busybox", "perl5.36.0", "java", "node", "ruby3.1", "php8.2", "bash"]
)
def test_interpreters_are_known_by_name(name):
    assert list(notices("tracingpolicy", [Profile(Subject(f"/usr/bin/{name}"))], 1))


class NoGateway:
    def __init__(self, _options):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def test_write_prints_notices_on_stderr(monkeypatch, capfdbinary):
    profile = writer(HOSTILE, "/tmp/é")
    profile.processes, profile.syscalls = {"a"}, {"read"}
    monkeypatch.setattr("cli.client.Client", NoGateway)
    monkeypatch.setattr(write, "server_options", lambda _args: None)
    monkeypatch.setattr("cli.profiles.collect.beginning_ns", lambda *_: 0)
    monkeypatch.setattr("cli.profiles.collect.collect", lambda *_, **_window: [profile])
    monkeypatch.setattr("cli.profiles.collect.with_started", lambda *_, **_window: [profile])
    args = SimpleNamespace(subject=["/x"], since=None, node=[])
    setattr(args, "as", "systemd")
    assert write.run(args) == 0
    out, err = capfdbinary.readouterr()
    assert 'ReadWritePaths="-/tmp/é"\n' in out.decode()
    assert b"tetra: left out: 1 written path, " in err
