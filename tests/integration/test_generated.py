"""The committed generated code is what the protos say."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def generated_files(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in folder.rglob("*_pb2*.py*")
        if "__pycache__" not in path.parts
    }


def test_committed_code_is_what_the_protos_generate(tmp_path):
    subprocess.run([ROOT / "scripts/proto", tmp_path], check=True, timeout=60)
    committed, fresh = generated_files(ROOT / "proto/src"), generated_files(tmp_path)
    stale = {name for name in committed | fresh if committed.get(name) != fresh.get(name)}
    assert not stale, "run make proto"
