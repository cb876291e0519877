"""Programs at work: each a script for a shell that the witness follows."""

from __future__ import annotations

import shutil
from typing import NamedTuple

# At most 30 s for a server to be there.
HEAD = """
export no_proxy='*'
within() {
  for _ in $(seq 300); do if "$@" > /dev/null 2>&1; then return; fi; sleep 0.1; done
  exit 1
}
"""
GIT = """
export HOME=$PWD GIT_CONFIG_GLOBAL=/dev/null GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@example.org
export GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@example.org
git init -q origin
cd origin
for n in 1 2 3; do echo $n > file$n; git add file$n; git commit -q -m $n; done
cd ..
git clone -q "file://$PWD/origin" copy
cd copy
git checkout -q -b topic
git mv file1 moved
echo more >> file2
git commit -q -a -m more
git rebase -q HEAD~1 > /dev/null
git push -q origin topic
git gc -q
git rm -q file3
git stash -q
"""

NGINX = """
mkdir -p logs html tmp
chmod 755 . logs html tmp
head -c 200000 /dev/zero > html/page
cat > nginx.conf <<END
daemon off; pid $PWD/nginx.pid; error_log $PWD/logs/error; user nobody nogroup; worker_processes 2;
events {}
http {
  access_log $PWD/logs/access; client_body_temp_path $PWD/tmp/body;
  proxy_temp_path $PWD/tmp/proxy; fastcgi_temp_path $PWD/tmp/fastcgi;
  uwsgi_temp_path $PWD/tmp/uwsgi; scgi_temp_path $PWD/tmp/scgi;
  server {
    listen 127.0.0.1:PORT;
    location / { root $PWD/html; client_body_in_file_only on; }
    location /proxied { proxy_pass http://127.0.0.1:PORT/page; }
  }
}
END
nginx -e $PWD/logs/error -c $PWD/nginx.conf &
within test -s nginx.pid
python3 - <<'END'
import urllib.request
for n in range(20):
    for path in ("page", "proxied"):
        with urllib.request.urlopen(f"http://127.0.0.1:PORT/{path}", timeout=30) as answer:
            assert len(answer.read()) == 200000
END
kill -HUP $(cat nginx.pid)
kill -QUIT $(cat nginx.pid)
wait
"""

REDIS = """
redis-server --bind 127.0.0.1 --port PORT --dir $PWD --appendonly yes --logfile $PWD/log &
within redis-cli -p PORT ping
redis-benchmark -p PORT -n 500 -c 10 -t set,get,lpush -q > /dev/null
redis-cli -p PORT bgrewriteaof > /dev/null
redis-cli -p PORT save > /dev/null
redis-cli -p PORT shutdown
wait
"""

APT = """
mkdir -p package/DEBIAN package/opt/witness state/lists/partial cache/archives/partial log
mkdir -p root/var/lib/dpkg/updates root/var/lib/dpkg/info etc/{sources.list,preferences,apt.conf}.d
touch etc/sources.list root/var/lib/dpkg/status
echo content > package/opt/witness/file
ln -s file package/opt/witness/link
printf 'Package: witness\\nVersion: 1\\nArchitecture: all\\nMaintainer: a <a@example.org>\\n' \\
  > package/DEBIAN/control
printf 'Description: nothing\\n' >> package/DEBIAN/control
dpkg-deb --root-owner-group -b package witness.deb > /dev/null
# Nothing of the host's: not its state, and not its hooks.
export APT_CONFIG=$PWD/apt.conf
cat > apt.conf <<END
Dir::State "$PWD/state"; Dir::State::status "$PWD/root/var/lib/dpkg/status";
Dir::Cache "$PWD/cache"; Dir::Etc "$PWD/etc"; Dir::Log "$PWD/log";
DPkg::Options:: "--root=$PWD/root"; Debug::NoLocking "true";
END
apt-get -q -q -y install $PWD/witness.deb > /dev/null
cat root/opt/witness/link > /dev/null
apt-get -q -q -y remove witness > /dev/null
"""

POSTGRES = """
bin=$(ls -d /usr/lib/postgresql/*/bin | tail -1)
as() { setpriv --reuid=nobody --regid=nogroup --clear-groups "$@"; }
mkdir data run
chown nobody data run
as $bin/initdb -D $PWD/data -A trust -U nobody > /dev/null
as $bin/pg_ctl -D $PWD/data -w -l $PWD/run/log \\
  -o "-p PORT -k $PWD/run -c listen_addresses=127.0.0.1" start > /dev/null
as $bin/pgbench -h 127.0.0.1 -p PORT -U nobody -i -s 1 -q postgres > /dev/null 2>&1
as $bin/pgbench -h 127.0.0.1 -p PORT -U nobody -c 2 -t 20 postgres > /dev/null 2>&1
as $bin/pg_ctl -D $PWD/data -w -m fast stop > /dev/null
"""


class Program(NamedTuple):
    """A script, and what has to be installed for it."""

    name: str
    script: str
    needs: str  # a command
    optional: bool = False  # tried where it is installed; there is no test elsewhere

    @property
    def is_there(self) -> bool:
        """Return whether the program is installed."""
        path = "/usr/sbin:/usr/bin:/sbin:/bin"
        return shutil.which(self.needs, path=path) is not None


_ALL = (
    Program("git", GIT, "git"),
    Program("nginx", NGINX, "nginx"),
    Program("apt", APT, "apt-get"),
    Program("redis", REDIS, "redis-benchmark", optional=True),
    Program("postgres", POSTGRES, "pg_createcluster", optional=True),
)
PROGRAMS = tuple(one for one in _ALL if one.is_there or not one.optional)
