#!/bin/sh
# Installs the mirror on this board, as root, with `mirror` and `mirror.service` beside this file:
#     sh install.sh           the first time; it starts with the board, or by `systemctl start mirror`
#     sh install.sh update    puts the new program in the place of the old one, if that one's settings suit it and it starts
#     sh install.sh back      puts the last program that ran before an update back
# A power cut leaves each place with its old file or with its new one, whole: files are written beside their places, reach
# the disk, and are renamed then. An empty unit would be a masked one, and the glass black for good.
set -eu
# A connection that breaks does not leave the board half updated.
trap '' HUP

# Where its test lets it install.
root=${MIRROR_INSTALL_ROOT:-}
here=$(dirname "$0")
program=$root/usr/local/bin/mirror
unit=$root/etc/systemd/system/mirror.service
notices=$root/usr/local/share/doc/mirror/NOTICES.txt
# Seconds that a program must go on for after it said that it is ready: one that hangs is fed to the watchdog for up to 21 of
# them, ended after the unit's WatchdogSec, and started again.
steady=75

end() {
    echo "$1" >&2
    exit 1
}

# write FILE PLACE MODE: the file, beside its place.
write() {
    mkdir -p "$(dirname "$2")" && install -m "$3" "$1" "$2.new"
}

# What was sent, beside its places.
bring() {
    write "$here/mirror" "$program" 755
    write "$here/mirror.service" "$unit" 644
}

# They go with every copy of the program.
bring_notices() {
    [ -f "$here/NOTICES.txt" ] || return 0
    write "$here/NOTICES.txt" "$notices" 644 && place "$notices"
}

# place PLACE..: renames what was written beside these places.
place() {
    sync || return 1
    for file in "$@"; do mv "$file.new" "$file" || return 1; done
    sync
}

# Asked like this because `is-active` says yes to everything where an image is made in a chroot.
is_active() {
    [ "$(property ActiveState)" = active ]
}

property() {
    systemctl show --property "$1" --value mirror
}

# Whether what was brought is what is there.
is_installed() {
    cmp -s "$program" "$program.new" && cmp -s "$unit" "$unit.new"
}

# Whether the mirror becomes ready, and goes on.
restart() {
    systemctl daemon-reload && systemctl restart mirror || return 1
    process=$(property MainPID)
    sleep "$steady"
    is_active && [ "$process" = "$(property MainPID)" ]
}

first() {
    [ ! -f "$program" ] || end "There is a mirror on this board already: sh install.sh update"
    getent passwd mirror >/dev/null || useradd --system --no-create-home --groups video mirror
    mkdir -p "$root/etc/mirror"
    bring
    place "$program" "$unit"
    bring_notices
    systemctl enable mirror
    sync
    echo "The mirror is installed. It starts with the board, or now: systemctl start mirror"
}

update() {
    [ -f "$program" ] && [ -f "$unit" ] || end "There is no mirror on this board yet: sh install.sh"
    bring
    if ! runuser -u mirror -- "$program.new" config show >/dev/null; then
        rm -f "$program.new" "$unit.new"
        end "The new program does not take this board's settings. Nothing was changed; mend the settings and update again."
    fi
    # With settings of which a part of the mirror makes nothing the rest runs: that is told, and stops no update.
    runuser -u mirror -- "$program.new" config check || echo "The update goes on." >&2
    # Only what runs is worth going back to: a program that never started must not take the last good one's place, nor the same one
    # again.
    if is_active && ! is_installed; then
        write "$program" "$program.old" 755
        write "$unit" "$unit.old" 644
        place "$program.old" "$unit.old"
    fi
    place "$program" "$unit"
    if restart; then
        bring_notices
        echo "The new program runs."
        return
    fi
    [ -f "$program.old" ] || end "The new program does not run, and there is none to go back to: journalctl -u mirror says why."
    back_to_old || end "Neither the new program nor the one before it runs: journalctl -u mirror says why."
    end "The new program does not run: journalctl -u mirror says why. The one before it is back and runs."
}

back() {
    [ -f "$program.old" ] || end "There is no program to go back to."
    back_to_old || end "The program before the update is back, but does not run: journalctl -u mirror says why."
    echo "The program before the update is back and runs."
}

# One by one with &&: where a function's end is asked for, `set -e` does not hold within it.
back_to_old() {
    write "$program.old" "$program" 755 && write "$unit.old" "$unit" 644 && place "$program" "$unit" && restart
}

[ -n "$root" ] || [ "$(id -u)" = 0 ] || end "Only root may: sudo sh install.sh ${1:-}"
case ${1:-first} in
    first) first ;;
    update) update ;;
    back) back ;;
    *) end "usage: sh install.sh [update|back]" ;;
esac
