"""``tetra tracingpolicy check``: mistakes with positions, from documents alone and here."""

import json
from pathlib import Path

import pytest

from cli.main import main
from cli.policies import local_check

GOOD = """\
apiVersion: cilium.io/v1alpha1
kind: TracingPolicy
metadata:
  name: files
spec:
  kprobes:
  - call: sys_openat
    args:
    - index: 1
      type: string
"""
BAD = GOOD.replace("type: string", "type: strung").replace("name: files", "name: Fi les")
HAS_BTF = Path("/sys/kernel/btf/vmlinux").exists()


@pytest.fixture
def check(tetra):
    def run(*arguments, **options):
        return tetra("tracingpolicy", "check", *arguments, **options)

    return run


@pytest.mark.skipif(not HAS_BTF, reason="the collector's check is not run without BTF")
def test_a_document_that_is_not_utf_8_is_named(check, tmp_path):
    (tmp_path / "latin.yaml").write_bytes(GOOD.replace("files", "fil\xe9s").encode("latin-1"))
    done = check(tmp_path / "latin.yaml")
    assert done.returncode == 1
    assert done.stderr == f"tetra: error: read: {tmp_path}/latin.yaml: not UTF-8 at byte 72\n"


def test_every_mistake_has_its_file_line_and_column(check, tmp_path):
    (tmp_path / "bad.yaml").write_text(BAD)
    done = check("--document-only", tmp_path / "bad.yaml")
    assert done.returncode == 1
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert [line.split(": ")[0] for line in lines] == [
        f"{tmp_path}/bad.yaml:4:9",
        f"{tmp_path}/bad.yaml:10:13",
    ]
    assert '"strung" is not a type; did you mean "string"? (allowed: int, ' in lines[1]


def test_mistakes_as_json_lines(check, tmp_path):
    (tmp_path / "bad.yaml").write_text(BAD)
    done = check("--document-only", tmp_path / "bad.yaml", "-o", "json")
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(one["line"], one["column"]) for one in found] == [(4, 9), (10, 13)]
    assert found[1]["message"].startswith('spec.kprobes[0].args[0].type: "strung" is not a type')
    assert found[1]["allowed"].startswith("int, ")


def test_a_folder_stands_for_its_documents(check, tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "b.yaml").write_text(BAD)
    (tmp_path / "inner" / "a.yml").write_text(GOOD)
    (tmp_path / ".hidden.yaml").write_text("]")
    (tmp_path / "notes.txt").write_text("]")
    done = check("--document-only", tmp_path)
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == f"{tmp_path}/inner/a.yml: policy files"
    assert "hidden" not in done.stdout
    assert "notes" not in done.stdout


def test_a_document_from_standard_input(check):
    done = check("--document-only", "-", input=GOOD)
    assert (done.returncode, done.stdout) == (0, "stdin: policy files\n")


def test_a_file_that_cannot_be_read_is_one_line(check, tmp_path):
    done = check(tmp_path / "none.yaml")
    assert done.returncode == 1
    assert done.stderr == f"tetra: error: read: {tmp_path}/none.yaml: no such file or directory\n"
    done = check(tmp_path)
    assert done.returncode == 2
    assert "the folder has no .yaml file" in done.stderr


def test_without_a_kernel_it_reports_what_was_not_checked(tmp_path, monkeypatch, capsys):
    (tmp_path / "good.yaml").write_text(GOOD.replace("sys_openat", "sys_openit"))
    monkeypatch.setattr(local_check, "BTF", tmp_path / "none")
    code = main(["tp", "check", str(tmp_path / "good.yaml")])
    shown = capsys.readouterr()
    assert (code, shown.out) == (0, f"{tmp_path}/good.yaml: policy files\n")
    assert shown.err.startswith("tetra: only the documents were checked; functions, types and ")
    assert shown.err.count("\n") == 1


@pytest.mark.skipif(not HAS_BTF, reason="this kernel has no BTF")
def test_where_the_collector_is_installed_its_kernel_is_checked(check, tmp_path):
    (tmp_path / "good.yaml").write_text(GOOD)
    (tmp_path / "call.yaml").write_text(BAD.replace("sys_openat", "sys_openit"))
    done = check(tmp_path / "good.yaml", tmp_path / "call.yaml")
    good, name, call, kind = done.stdout.splitlines()
    assert good.startswith(f"{tmp_path}/good.yaml: policy files: ")
    assert "sys_openat by " in good
    assert name.startswith(f"{tmp_path}/call.yaml:4:9: ")
    assert f'{tmp_path}/call.yaml:7:11: spec.kprobes[0].call: there is no system call "sys_' in call
    assert kind.startswith(f"{tmp_path}/call.yaml:10:13: ")
    assert done.stderr == ""


@pytest.mark.skipif(not HAS_BTF, reason="this kernel has no BTF")
def test_one_collector_checks_a_folder(tmp_path, monkeypatch, capsys):
    program = local_check.checker()
    calls = tmp_path / "calls"
    counted = tmp_path / "tetra-collector"
    counted.write_text(f'#!/bin/sh\necho call >> {calls}\nexec {program} "$@"\n')
    counted.chmod(0o755)
    monkeypatch.setattr(local_check, "checker", lambda: counted)
    folder = tmp_path / "policies"
    folder.mkdir()
    doubtful = GOOD.replace("sys_openat", "sys_close").replace("type: string", "type: int")
    for name, text in (("a", GOOD), ("b", BAD), ("c", doubtful), ("d", GOOD + "  x: 1\n")):
        (folder / f"{name}.yaml").write_text(text)
    assert main(["tp", "check", str(folder)]) == 1
    shown = capsys.readouterr()
    assert calls.read_text() == "call\n"
    a, *b, c, d = shown.out.splitlines()
    assert a.startswith(f"{folder}/a.yaml: policy files: __")
    assert [line.split(": ")[0] for line in b] == [
        f"{folder}/b.yaml:4:9",
        f"{folder}/b.yaml:10:13",
    ]
    assert c.startswith(f"{folder}/c.yaml: policy files: __")
    assert d.startswith(f'{folder}/d.yaml:11:3: spec: unknown key "x"')
    assert shown.err == (
        f"tetra: {folder}/c.yaml: policy files: spec.kprobes[0].args[0]: sys_close has no "
        "argument 1: its register is read, whatever it holds\n"
    )


def test_ineffective_option_gives_a_warning(check, tmp_path):
    text = f"{GOOD}  options: [{{name: sensor-cache, value: on-demand}}]\n"
    (tmp_path / "files.yaml").write_text(text)
    done = check("--document-only", tmp_path / "files.yaml")
    assert done.returncode == 0
    assert done.stderr == (
        f"tetra: {tmp_path}/files.yaml: policy files: "
        'option "sensor-cache" is unknown and has no effect\n'
    )
