# The Debian package in a clean Debian in which no systemd runs: sh deb.sh VERSION, with /packages/deltapush.deb.
# Installation, manual pages, units and AppArmor profile offline, the program as the service's user, removal, purge.
set -eu
expect() { "$@" || { echo "not so: $*" >&2; exit 1; }; }
units=/usr/lib/systemd/system
apt-get --quiet=2 install --yes /packages/deltapush.deb >/tmp/said 2>&1 || { cat /tmp/said; exit 1; }
expect grep -q "deltapush init you@example.org" /tmp/said
expect getent passwd deltapush
expect test ! -e /etc/deltapush
expect test -z "$(find /etc/systemd -name 'deltapush*')"
expect test "$(deltapush --version)" = "deltapush $1"
for page in /usr/share/man/man1/deltapush*.1.gz; do
    MANWIDTH=100 man --warnings -l "$page" >/tmp/page 2>/tmp/warnings
    expect test -s /tmp/page
    expect test ! -s /tmp/warnings
done
expect sh -c 'man deltapush | grep -q "deltapush-push-test"'

systemd-analyze verify "$units/deltapush.service" deltapush@993.socket >/tmp/verified 2>&1 || { cat /tmp/verified; exit 1; }
expect sh -c '! grep -i deltapush /tmp/verified'
systemd-analyze security --offline=yes --threshold=15 --no-pager "$units/deltapush.service" >/tmp/exposure ||
    { cat /tmp/exposure; exit 1; }
grep -i overall /tmp/exposure

# The parser of this Debian, without a kernel; an administrator's rule is read too, and a wrong one is found.
expect test -f /etc/apparmor.d/local/deltapush
parse() { apparmor_parser --skip-kernel-load --skip-cache --quiet /etc/apparmor.d/deltapush; }
expect parse
echo '/srv/certificates/** r,' >/etc/apparmor.d/local/deltapush
expect parse
echo 'no rule' >/etc/apparmor.d/local/deltapush
if parse 2>/dev/null; then expect false; fi

mkdir /etc/deltapush
cp /packages/config.yaml /etc/deltapush/
install -d -o deltapush -g deltapush -m 700 /var/lib/deltapush
as_service() { setpriv --reuid deltapush --regid deltapush --clear-groups --ambient-caps +net_bind_service --inh-caps +net_bind_service "$@"; }
cd /
as_service deltapush check --config /etc/deltapush/config.yaml
as_service timeout --preserve-status 3 deltapush --config /etc/deltapush/config.yaml 2>/tmp/log || { cat /tmp/log; exit 1; }
expect test -s /var/lib/deltapush/state/state.sqlite
as_service deltapush state check --config /etc/deltapush/config.yaml

apt-get --quiet=2 remove --yes deltapush >/tmp/said 2>&1 || { cat /tmp/said; exit 1; }
expect grep -q "apt purge deltapush" /tmp/said
expect test ! -e /usr/bin/deltapush
expect test -s /var/lib/deltapush/state/state.sqlite
apt-get --quiet=2 purge --yes deltapush >/tmp/said 2>&1 || { cat /tmp/said; exit 1; }
expect grep -q "Erasing /etc/deltapush and /var/lib/deltapush" /tmp/said
expect test -z "$(find /etc /var/lib -path /var/lib/dpkg -prune -o -name 'deltapush*' -print)"
