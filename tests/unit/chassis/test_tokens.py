"""The file of bearer tokens."""

import pytest

from chassis.errors import TokenFileError
from chassis.tokens import TokenLine, read_tokens


def test_a_line_has_token_rights_nodes_and_comment(tmp_path):
    path = tmp_path / "tokens"
    path.write_text("# all of them\n\nabc read,control  # carol\n  def policies n1,n2\n")
    assert read_tokens(path) == [
        TokenLine("abc", frozenset(("read", "control")), frozenset(), "carol"),
        TokenLine("def", frozenset(("policies",)), frozenset(("n1", "n2")), ""),
    ]


@pytest.mark.parametrize("line", ["abc", "abc reed", "abc read,", "abc read n1 n2"])
def test_a_malformed_line_is_reported_with_its_number(tmp_path, line):
    path = tmp_path / "tokens"
    path.write_text(f"good read\n{line}\n")
    with pytest.raises(TokenFileError, match=r"tokens: .*/tokens: line 2: expected TOKEN RIGHT"):
        read_tokens(path)


def test_a_file_that_cannot_be_read_is_reported(tmp_path):
    with pytest.raises(TokenFileError, match=r"tokens: .*: No such file"):
        read_tokens(tmp_path / "tokens")
    (tmp_path / "tokens").write_bytes(b"\xff read\n")
    with pytest.raises(TokenFileError, match=r"tokens: .*: 'utf-8' codec"):
        read_tokens(tmp_path / "tokens")
