"""Several texts from one compiler: each has its own result."""

import pytest

from collector.bpf import compiler
from collector.bpf.compiler import Source, compile_source, compile_sources
from collector.errors import CompileError
from support.policies import BPF

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(300)]  # compiles, maybe emulated

ONE = Source("int one(u64 *ctx) { return 1; }\n", ("one",))
TWO = Source("int two(u64 *ctx) { return ctx[0] == 2; }\n", ("two",))
BAD = Source("int bad(u64 *ctx)\n{\n\treturn none;\n}\n", ("bad",))


async def test_texts_that_are_compiled_together_give_what_each_gives_alone():
    alone = [await compile_source(one, BPF / "shim") for one in (ONE, TWO)]
    assert await compile_sources([ONE, TWO], BPF / "shim") == alone


async def test_a_text_that_is_wrong_leaves_the_others_alone():
    one, bad, two = await compile_sources([ONE, BAD, TWO], BPF / "shim")
    assert set(one) == {"one"}
    assert set(two) == {"two"}
    assert isinstance(bad, CompileError)
    assert "undeclared identifier 'none'" in str(bad)
    assert "none" in bad.log


async def test_a_child_that_ends_early_costs_its_own_text_only(monkeypatch):
    """A text that ends its compiler does not take others with it."""
    run, orders = compiler._run, []

    async def end_early(order):
        orders.append(len(order["sources"]))
        if any("two" in one["text"] for one in order["sources"]):
            raise CompileError("compile: ended early: exit status -9: no output")
        return await run(order)

    monkeypatch.setattr(compiler, "_run", end_early)
    one, two = await compile_sources([ONE, TWO], BPF / "shim")
    assert set(one) == {"one"}
    assert "ended early" in str(two)
    assert orders == [2, 1, 1]
