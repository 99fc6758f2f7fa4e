"""ONNX Runtime's telemetry stays off: no file, no socket, no thread; and without us it would be on.

Left alone, onnxruntime 1.31 on Linux makes a device id and a SQLite database in the user's cache folder, a file in the
folder for temporary files and one thread as soon as it is imported, and about nine seconds later looks up and connects
to its collector. The positive controls show just that, inside a network namespace that reaches nothing.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.nas.small_models import conv, saved
from tests.source_tree import ROOT, WHEEL_PACKAGES, source_files

OPENED_BY_US = "from nas.runtime import open_session; session = open_session(sys.argv[1])"
OPENED_BARE = (
    "import onnxruntime; session = onnxruntime.InferenceSession(sys.argv[1], providers=['CPUExecutionProvider'])"
)

PROBE = """
import json, os, sys, time
import numpy

class Watch:
    seen = "never imported"
    def find_spec(self, name, path=None, target=None):
        if name == "onnxruntime":
            Watch.seen = os.environ.get("ORT_DISABLE_TELEMETRY")

def open_files():
    paths = ((name, "/proc/self/fd/" + name) for name in os.listdir("/proc/self/fd"))
    return {os.readlink(path) for name, path in paths if os.path.exists(path) or os.path.islink(path)}

sys.meta_path.insert(0, Watch())
files, threads = open_files(), len(os.listdir("/proc/self/task"))
OPEN
session.run(None, {"x": numpy.zeros((1, 3, 8, 8), "float32")})
time.sleep(float(sys.argv[2]))
print(json.dumps({
    "variable_at_import": Watch.seen,
    "opened": sorted(open_files() - files),
    "threads": len(os.listdir("/proc/self/task")) - threads,
}))
"""

LISTEN = """
import os, socket, subprocess, sys
seconds = float(sys.argv.pop())
with socket.create_server(("127.0.0.1", 0)) as server:
    server.settimeout(seconds)
    proxy = "http://127.0.0.1:%d" % server.getsockname()[1]
    child = subprocess.Popen([sys.executable, *sys.argv[1:], str(seconds)], env={**os.environ, "https_proxy": proxy})
    try:
        connection, _ = server.accept()
        print(connection.recv(100).decode().split("\\r\\n")[0])
    except TimeoutError:
        print("silence")
    child.kill()
    child.wait()
"""

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="no /proc: open files cannot be listed")


def without_network() -> list[str]:
    """Return the command prefix that cuts a process off from every network; skips where this is not allowed."""
    prefix = ["unshare", "--map-root-user", "--net"]
    allowed = (
        shutil.which("unshare") and subprocess.run([*prefix, "true"], check=False, capture_output=True).returncode == 0
    )
    if not allowed:
        pytest.skip("network namespaces are not allowed here, and the control must not reach a network")
    return prefix


def home_environment(home: Path) -> dict[str, str]:
    """Return an environment in which everything a library stores lands in one folder.

    It holds nothing else: a variable such as CI would switch telemetry off by itself.
    """
    folders = (
        "HOME",
        "TMPDIR",
        "XDG_CACHE_HOME",
        "XDG_CONFIG_HOME",
        "XDG_DATA_HOME",
        "XDG_STATE_HOME",
        "XDG_RUNTIME_DIR",
    )
    for name in folders:
        (home / name).mkdir()
    variables = {name: str(home / name) for name in folders}
    return {
        **variables,
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def probe(tmp_path: Path, statement: str, *, prefix: list[str]) -> tuple[dict[str, Any], list[Path]]:
    """Open and run a session in a new process; return what it saw, and the files that it left."""
    path = saved(tmp_path / "conv.onnx", conv()).path
    home = tmp_path / "home"
    home.mkdir()
    command = [*prefix, sys.executable, "-c", PROBE.replace("OPEN", statement), str(path), "0"]
    environment = home_environment(home)
    done = subprocess.run(command, env=environment, cwd=home, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), [each for each in home.rglob("*") if each.is_file()]


def test_a_session_makes_no_file_no_socket_and_no_thread(tmp_path: Path) -> None:
    seen, files = probe(tmp_path, OPENED_BY_US, prefix=[])
    assert seen == {"variable_at_import": "1", "opened": [], "threads": 0}
    assert files == []


def test_without_us_a_session_would_make_files_and_a_thread(tmp_path: Path) -> None:
    seen, files = probe(tmp_path, OPENED_BARE, prefix=without_network())
    assert seen["variable_at_import"] is None
    assert any("onnxruntime.db" in path for path in seen["opened"])
    assert seen["threads"] > 0
    assert {path.name for path in files} >= {"deviceid", "onnxruntime.db"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("statement", "heard"), [(OPENED_BY_US, "silence"), (OPENED_BARE, "CONNECT")], ids=["by us", "bare"]
)
def test_who_calls_home_within_fifteen_seconds(tmp_path: Path, statement: str, heard: str) -> None:
    path = saved(tmp_path / "conv.onnx", conv()).path
    program = ["-c", PROBE.replace("OPEN", statement), str(path), "15"]
    home = tmp_path / "home"
    home.mkdir()
    lo_up = ["sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    done = subprocess.run(
        [*without_network(), *lo_up, sys.executable, "-c", LISTEN, *program],
        env=home_environment(home),
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stdout.startswith(heard), done.stderr


def test_one_module_sets_the_variable() -> None:
    setting = [file.path for file in source_files(*WHEEL_PACKAGES) if "ORT_DISABLE_TELEMETRY" in file.text]
    assert setting == ["nas/runtime.py"]
