#!/bin/bash

dovecot_conf=/etc/dovecot/yunohost.d/post-ext.d/deltapush.conf
drop_in=/etc/systemd/system/deltapush.service.d
state=/var/lib/deltapush

# The release, which is in the app's folder: deltapush has no address yet from which YunoHost could download it.
unpack_release() {
    local release
    release=$(find "$YNH_APP_BASEDIR/sources" -maxdepth 1 -name 'deltapush-*-linux.tar.xz' | head -1)
    [ -n "$release" ] || ynh_die "sources/ lacks the archive of the release, deltapush-VERSION-MACHINE-linux.tar.xz"
    ynh_safe_rm "$install_dir"
    mkdir "$install_dir"
    tar --extract --xz --file "$release" --directory "$install_dir" --strip-components=1 --no-same-owner
    "$install_dir/deltapush" --version || ynh_die "$release is for another machine"
}

add_units() {
    install -D -m 644 "$install_dir/contrib/systemd/deltapush.service" "/etc/systemd/system/$app.service"
    mkdir -p "$drop_in"
    ynh_config_add --template="service.conf" --destination="$drop_in/yunohost.conf"
    systemctl daemon-reload
}

add_to_dovecot() {
    ynh_config_add --template="dovecot.conf" --destination="$dovecot_conf"
    chmod 644 "$dovecot_conf"
    ynh_systemctl --service=dovecot --action=reload
}
