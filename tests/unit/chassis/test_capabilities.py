"""Which capabilities are missing, from the mask in /proc."""

from chassis import capabilities

FOUR = 1 << 39 | 1 << 38 | 1 << 19 | 1 << 2
SYS_ADMIN = 1 << 21


def test_each_of_the_four_is_needed():
    assert capabilities.missing(FOUR) == []
    assert capabilities.missing(0) == list(capabilities.NEEDED)
    assert capabilities.missing(FOUR & ~(1 << 39)) == ["CAP_BPF"]
    assert capabilities.missing(FOUR & ~(1 << 2)) == ["CAP_DAC_READ_SEARCH"]


def test_sys_admin_replaces_only_bpf_and_perfmon():
    assert capabilities.missing(SYS_ADMIN | 1 << 19 | 1 << 2) == []
    assert capabilities.missing(SYS_ADMIN) == ["CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH"]


def test_mask_is_read_from_proc(tmp_path):
    status = tmp_path / "status"
    status.write_text("CapInh:\t0\nCapPrm:\tff\nCapEff:\t000000c000080004\n")
    assert capabilities.effective(status) == FOUR
    status.write_text("Name:\tx\n")
    assert capabilities.effective(status) == 0
