"""Kernels and root file systems from Debian's archive, kept under ``.cache/kernels``.

TETRA_KERNEL_IMAGES is another folder for them, which checkouts can share, one after the other.

Packages are unpacked, not installed: no maintainer script runs, so a root file system of another
architecture is made like one of ours, in seconds and without emulation. apt keeps what it has
fetched, also the half of a file, so a broken download resumes where it stopped.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from vm.kernels import Machine

ROOT = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("TETRA_KERNEL_IMAGES") or ROOT / ".cache" / "kernels").absolute()
GUEST = Path(__file__).resolve().parent / "guest"

# User space: what `make setup` would install on Debian, and what an init script needs.
PACKAGES = (
    "base-passwd", "bash", "bpftool", "busybox-static", "ca-certificates", "coreutils", "dash",
    "findutils", "gcc", "grep", "iproute2", "kmod", "libc6-dev", "libc-bin", "libcap2-bin",
    "login", "make", "mawk", "mount", "passwd", "procps", "python3", "python3-bpfcc", "sed",
    "strace", "tar", "util-linux",
)  # fmt: skip
# And of a container host, where the suite's engine knows the capabilities that we need.
ENGINE = ("apparmor", "containerd", "docker-cli", "docker.io", "runc")
# Modules that find the disks and the compiler's port, and overlay for the engine, by the order in
# which they load; each brings what it depends on.
MODULES = ("virtio_pci", "virtio_blk", "virtio_console", "ext4", "overlay")
SPARE = ("dummy",)  # that tests load
_MEMBERS = tuple(
    str(found.parent.relative_to(ROOT))
    for pattern in ("proto", "libs/*", "services/*", "embedded")
    for found in sorted(ROOT.glob(f"{pattern}/pyproject.toml"))
)
_WHEELS = {"amd64": "x86_64-manylinux_2_36", "arm64": "aarch64-manylinux_2_36"}
# Development tools in the pinned set that no test in a guest needs.
_UNUSED = (
    "build", "grpcio-tools", "hatchling", "mypy", "mypy-extensions", "pip", "pip-audit", "ruff",
    "uv",
)  # fmt: skip
_UV = (ROOT / ".venv" / "bin" / "uv", "pip", "install", "--quiet")
_DISK_BYTES = 16 << 30  # sparse
OTHER_BTF = Path("/sys/kernel/btf/vmlinux")  # this host's: wrong for every guest
SITE = "opt/tetra"  # the environment inside the root, shaped like .venv


class ImageError(Exception):
    """A step failed; the text has the output of the tool."""


def run(step: str, *command: str | Path, env: dict[str, str] | None = None) -> str:
    """Return the command's output; raise `ImageError` with its last lines."""
    done = subprocess.run(
        [str(word) for word in command],
        env=os.environ | (env or {}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        last = "\n    ".join(done.stdout.splitlines()[-8:])
        raise ImageError(f"{step}: {command[0]} failed:\n    {last}")
    return done.stdout


class Archive:
    """One suite of Debian for one architecture, with an apt of its own."""

    def __init__(self, suite: str, arch: str) -> None:
        self._folder = CACHE / "apt" / f"{suite}-{arch}"
        self._name = f"{suite} {arch}"
        config = self._folder / "apt.conf"
        self._env = {"APT_CONFIG": str(config), "LC_ALL": "C.UTF-8"}
        for name in ("lists/partial", "archives/partial", "sources"):
            (self._folder / name).mkdir(parents=True, exist_ok=True)
        (self._folder / "status").touch()
        sources = run("apt sources", ROOT / ".ci" / "apt-suite", suite)
        (self._folder / "sources" / f"{suite}.sources").write_text(sources)
        config.write_text(
            f"""Dir::State "{self._folder}";
Dir::State::Lists "{self._folder}/lists";
Dir::State::status "{self._folder}/status";
Dir::Cache "{self._folder}";
Dir::Etc::SourceList "/dev/null";
Dir::Etc::SourceParts "{self._folder}/sources";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
APT::Architecture "{arch}";
APT::Architectures {{"{arch}";}};
APT::Sandbox::User "root";
APT::Install-Recommends "false";
Acquire::Languages "none";
Acquire::Retries "5";
Acquire::Check-Valid-Until "false";
Debug::NoLocking "true";
"""
        )

    def update(self) -> None:
        """Fetch the package lists; without a network those of the last time serve."""
        try:
            run(f"package lists of {self._name}", "apt-get", "-q", "update", env=self._env)
        except ImageError:
            if not any((self._folder / "lists").glob("*_Packages*")):
                raise

    def kernel_package(self, arch: str) -> str:
        """Return the name of the newest kernel's package, of the small kind made for guests."""
        depends = self._depends(f"linux-image-cloud-{arch}")
        return next(word for word in depends if word.startswith("linux-image-"))

    def kernel_packages(self, image: str) -> list[str]:
        """Return the packages with the kernel's image and modules: since 7.3 they are three."""
        parts = [image.replace("-image-", f"-{part}-") for part in ("binary", "modules")]
        return [image, *(word for word in self._depends(image) if word in parts)]

    def _depends(self, package: str) -> list[str]:
        shown = run(
            f"{package} of {self._name}",
            "apt-cache",
            "show",
            "--no-all-versions",
            package,
            env=self._env,
        )
        match = re.search(r"^Depends: (.*)", shown, re.MULTILINE)
        return re.findall(r"[a-z][a-z0-9.+-]+", match[1]) if match else []

    def fetch(self, package: str) -> Path:
        """Return the file of one package, without what it depends on."""
        step = f"{package} of {self._name}"
        uri = run(step, "apt-get", "--print-uris", "download", package, env=self._env)
        file = self._folder / "archives" / uri.split("' ")[1].split()[0]
        if not file.exists():
            script = 'cd "$1" && exec apt-get -q download "$2"'
            run(step, "sh", "-c", script, "sh", file.parent, package, env=self._env)
        return file

    def fetch_all(self, packages: Sequence[str]) -> list[Path]:
        """Return the files of the packages and of all that they depend on."""
        step = f"packages of {self._name}"
        install = ("apt-get", "-q", "-y", "install", *packages)
        run(step, *install, "--download-only", env=self._env)
        plan = run(step, *install, "--simulate", env=self._env)
        # Inst gcc (4:12.2.0-3 Debian:12.11/oldstable [amd64])
        found = re.findall(r"^Inst (\S+) \((\S+) .*\[(\w+)\]\)", plan, re.MULTILINE)
        archives = self._folder / "archives"
        return [
            archives / f"{name}_{version.replace(':', '%3a')}_{arch}.deb"
            for name, version, arch in found
        ]


def unpack(packages: Iterable[Path], folder: Path) -> None:
    """Lay the packages' files into ``folder``; /bin, /lib and /sbin lead into /usr."""
    for name in ("bin", "lib", "lib64", "sbin"):
        (folder / "usr" / name).mkdir(parents=True, exist_ok=True)
        if not (folder / name).exists():
            (folder / name).symlink_to(f"usr/{name}")
    for package in packages:
        script = 'dpkg-deb --fsys-tarfile "$1" | tar -x --keep-directory-symlink -C "$2"'
        run(f"unpack {package.name}", "bash", "-o", "pipefail", "-c", script, "sh", package, folder)


class Kernel(NamedTuple):
    """What QEMU boots."""

    image: Path
    initramfs: Path
    release: str


def kernel(machine: Machine) -> Kernel:
    """Return the machine's kernel and the little initramfs that finds its disks."""
    archive = Archive(machine.suite, machine.arch)
    archive.update()
    package = archive.kernel_package(machine.arch)
    release = package.removeprefix("linux-image-")
    folder = CACHE / "boot" / f"{release}-{digest(Path(__file__), GUEST / 'initramfs-init')}"
    made = Kernel(folder / "vmlinuz", folder / "initramfs", release)
    if made.initramfs.exists():
        return made
    files = [archive.fetch(name) for name in archive.kernel_packages(package)]
    busybox = Archive(machine.root, machine.arch)
    busybox.update()
    with TemporaryDirectory(dir=CACHE) as name:
        unpacked, tree = Path(name) / "kernel", Path(name) / "initramfs"
        unpack([*files, busybox.fetch("busybox-static")], unpacked)
        _lay_out_initramfs(unpacked, tree, release)
        folder.mkdir(parents=True, exist_ok=True)
        places = (f"boot/vmlinuz-{release}", f"lib/modules/{release}/vmlinuz")  # until 7.2; since
        [image] = (unpacked / place for place in places if (unpacked / place).exists())
        shutil.copy(image, made.image)
        script = 'cd "$1" && find . | cpio --quiet --create --format=newc > "$2"'
        run("initramfs", "sh", "-c", script, "sh", tree, folder / "partial")
        (folder / "partial").rename(made.initramfs)
    return made


def _lay_out_initramfs(unpacked: Path, tree: Path, release: str) -> None:
    run("modules.dep", "/sbin/depmod", "-b", unpacked, release)
    home = unpacked / "lib" / "modules" / release
    needs = {}
    for line in (home / "modules.dep").read_text().splitlines():
        path, _, rest = line.partition(":")
        needs[Path(path).name.split(".")[0].replace("-", "_")] = [path, *rest.split()]
    order: list[str] = []
    for name in MODULES:  # one that is missing is built in
        order += [path for path in reversed(needs.get(name, ())) if path not in order]
    for folder in ("bin", "dev", "modules", "proc", "root", "spare-modules", "sys"):
        (tree / folder).mkdir(parents=True)
    for path in order:
        shutil.copy(_unpacked(home / path), tree / "modules")
    for name in SPARE:
        for path in needs.get(name, ()):
            shutil.copy(_unpacked(home / path), tree / "spare-modules")
    names = [Path(path).name.removesuffix(".xz") for path in order]
    (tree / "modules" / "order").write_text("\n".join(names) + "\n")
    shutil.copy(unpacked / "usr" / "bin" / "busybox", tree / "bin")
    shutil.copy(GUEST / "initramfs-init", tree / "init")
    (tree / "init").chmod(0o755)


def _unpacked(module: Path) -> Path:
    if module.suffix != ".xz":
        return module
    if not module.with_suffix("").exists():
        run("module", "xz", "--decompress", "--keep", module)
    return module.with_suffix("")


def root(machine: Machine) -> Path:
    """Return the disk with the machine's user space: packages and Python packages."""
    pins = _pins()
    wanted = [*PACKAGES, *(ENGINE if machine.engine else ())]
    key = digest(Path(__file__), extra=(pins, *wanted))
    disk = CACHE / "roots" / f"{machine.root}-{machine.arch}-{key}.ext4"
    if disk.exists():
        return disk
    disk.parent.mkdir(parents=True, exist_ok=True)
    archive = Archive(machine.root, machine.arch)
    archive.update()
    packages = archive.fetch_all(wanted)
    with TemporaryDirectory(dir=CACHE) as name:
        folder = Path(name)
        folder.chmod(0o755)
        unpack(packages, folder)
        _python_packages(machine, folder, pins)
        _accounts(folder)
        _precompile(machine, folder)
        for useless in ("usr/share/doc", "usr/share/locale", "usr/share/man"):
            shutil.rmtree(folder / useless, ignore_errors=True)
        partial = disk.with_suffix(".partial")
        partial.unlink(missing_ok=True)
        with partial.open("wb") as file:
            file.truncate(_DISK_BYTES)
        run("disk", "/sbin/mke2fs", "-q", "-t", "ext4", "-d", folder, partial)
        partial.rename(disk)
    for old in disk.parent.glob(f"{machine.root}-{machine.arch}-*.ext4"):
        if old != disk:
            old.unlink()
    return disk


def _pins() -> str:
    """Return the pinned requirements without the tools that no test needs."""
    text = (ROOT / "requirements" / "dev.txt").read_text()
    unused = "|".join(_UNUSED)
    return re.sub(rf"^(?:{unused})==(?:.*\\\n)*.*\n", "", text, flags=re.MULTILINE)


def _python_packages(machine: Machine, folder: Path, pins: str) -> None:
    home = folder / SITE
    site = home / "lib" / f"python{machine.python}" / "site-packages"
    site.mkdir(parents=True)
    (home / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = true\n")
    (folder / "pins.txt").write_text(pins)
    run(
        "python packages", *_UV, "--target", site, "--no-deps", "--require-hashes",
        "--only-binary", ":all:", "--python-version", machine.python,
        "--python-platform", _WHEELS[machine.arch], "-r", folder / "pins.txt",
    )  # fmt: skip
    (home / "bin").mkdir()
    (home / "bin" / "python").symlink_to("/usr/bin/python3")
    (home / "bin" / "bpftool").symlink_to("/usr/sbin/bpftool")
    _move_commands(site / "bin", home / "bin")


def _move_commands(source: Path, target: Path) -> None:
    """Move console scripts; the interpreter they name becomes the guest's."""
    target.mkdir(parents=True, exist_ok=True)
    for command in source.iterdir():
        data = command.read_bytes()
        if data.startswith(b"#!"):
            data = b"#!/%s/bin/python\n" % SITE.encode() + data.partition(b"\n")[2]
        (target / command.name).write_bytes(data)
        (target / command.name).chmod(0o755)
    shutil.rmtree(source)


def _accounts(folder: Path) -> None:
    etc, masters = folder / "etc", folder / "usr" / "share" / "base-passwd"
    for name in ("passwd", "group"):
        text = (masters / f"{name}.master").read_text().replace(":*:", ":x:")
        line = {"passwd": "tester:x:1000:1000::/:/bin/sh", "group": "tester:x:1000:"}[name]
        (etc / name).write_text(f"{text}{line}\n")
    (etc / "hosts").write_text("127.0.0.1 localhost\n")


def _precompile(machine: Machine, folder: Path) -> None:
    """Compile Python ahead with an interpreter of this host: it is slow under emulation."""
    paths = ["usr/lib/python3", f"usr/lib/python{machine.python}", SITE]
    options = ("-m", "compileall", "-q", "-j", "0", "-s", str(folder), "-p", "/")
    if sys.version.startswith(f"{machine.python}."):
        command = [sys.executable, *options, *(str(folder / path) for path in paths)]
    elif machine.arch == host_arch():
        command = ["chroot", str(folder), "python3", *options[:3], "-j", "0"]
        command += [f"/{path}" for path in paths]
    else:
        return
    # Files that are not Python of this version (tests, templates) fail, and are never imported.
    subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        check=False,
    )  # fmt: skip


def host_arch() -> str:
    """Return Debian's word for this host's architecture."""
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


def checkout(machine: Machine, target: Path) -> None:
    """Write a tar with this checkout and its own packages, as they are now, for the guest."""
    listed = run("checkout", "git", "-C", ROOT, "ls-files", "-z", "-co", "--exclude-standard")
    with TemporaryDirectory(dir=CACHE) as name:
        site = Path(name) / SITE / "lib" / f"python{machine.python}" / "site-packages"
        run(
            "the workspace's packages", *_UV, "--target", site, "--no-deps",
            "--no-build-isolation", "--python", sys.executable,
            *(ROOT / member for member in _MEMBERS),
        )  # fmt: skip
        _move_commands(site / "bin", Path(name) / SITE / "bin")
        if sys.version.startswith(f"{machine.python}."):
            _precompile(machine, Path(name))
        with tarfile.open(target, "w") as tar:
            tar.add(Path(name) / SITE, SITE)
            for path in filter(None, listed.split("\0")):
                if (ROOT / path).is_file():
                    tar.add(ROOT / path, f"src/{path}")
            if OTHER_BTF.exists():
                tar.add(OTHER_BTF, "other-kernel.btf")
            link = tarfile.TarInfo("src/.venv")
            link.type, link.linkname = tarfile.SYMTYPE, f"/{SITE}"
            tar.addfile(link)


def digest(*files: Path, extra: Iterable[str] = ()) -> str:
    """Return what distinguishes files and texts from others."""
    state = hashlib.sha256()
    for file in files:
        state.update(file.read_bytes())
    for text in extra:
        state.update(text.encode())
    return state.hexdigest()[:12]
