# The RPM on a machine with systemd: sh rpm.sh VERSION, with /packages/deltapush.rpm. The machine is a Debian, whose rpm knows none of its
# packages: --nodeps, and the names of the dependencies are not tested.
set -eu
expect() { "$@" || { echo "not so: $*" >&2; exit 1; }; }
main_process() { systemctl show --property MainPID --value deltapush; }
rpm --install --nodeps /packages/deltapush.rpm >/tmp/said 2>&1 || { cat /tmp/said; exit 1; }
expect grep -q "deltapush init you@example.org" /tmp/said
expect rpm --verify --nodeps deltapush
expect getent passwd deltapush
expect test "$(deltapush --version)" = "deltapush $1"
systemctl start deltapush
expect test "$(systemctl is-active deltapush)" = inactive

mkdir /etc/deltapush
cp /packages/config.yaml /etc/deltapush/
systemctl enable --quiet --now deltapush@993.socket deltapush
expect systemctl --quiet is-active deltapush
before=$(main_process)
# A later package has the same files: of the same version it is installed by force.
rpm --upgrade --nodeps --force /packages/deltapush.rpm >/tmp/said 2>&1 || { cat /tmp/said; exit 1; }
expect test ! -s /tmp/said
expect systemctl --quiet is-active deltapush deltapush@993.socket
expect test "$before" != "$(main_process)"
deltapush status --config /etc/deltapush/config.yaml

rpm --erase deltapush >/tmp/said 2>&1 || { cat /tmp/said; exit 1; }
expect grep -q "rm -r /etc/deltapush /var/lib/deltapush" /tmp/said
expect test "$(systemctl is-active deltapush deltapush@993.socket | sort -u)" = inactive
expect test ! -e /usr/bin/deltapush
expect test -s /var/lib/deltapush/state/state.sqlite
