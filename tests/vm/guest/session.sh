# The fixed workload: processes one after the other, so that their order is the same everywhere.
# Every Debian has the programs; the test compares names, arguments, directories and exit codes.
cd /tmp/tetra-session
t=/usr/bin/true
$t one 'two words' '' "quo\"te" 'naïve ☃' 'back\slash'
/usr/bin/false
sh -c 'exit 42'
sh -c 'kill -9 $$'
sh -c 'kill -TERM $$'
sh -c 'exec sh -c "exec true third image"'
sh -c '(exit 5); (exit 6)'
(cd / && $t from-the-root)
sh ./script.sh argument
./script.sh with-interpreter
env -i true no-environment
nice -n 1 true nicer
xargs -a long $t
xargs -a medium $t
deep=/tmp/tetra-session
for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do deep=$deep/d/d/d/d/d/d/d/d/d/d; done
mkdir -p "$deep"
(cd "$deep" && $t in-the-deep)
mkdir gone
(cd gone && rmdir ../gone && $t in-a-deleted-directory)
timeout --signal=INT 0.2 sleep 60
missing-command
