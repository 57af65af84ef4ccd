#!/bin/sh
# Installs the mirror on this board, as root, with `mirror` and `mirror.service` beside this file:
#     sh install.sh           the first time; it starts at boot, or at once with `systemctl start mirror`
#     sh install.sh update    puts the new program in the place of the old one, if that one's settings suit it and it starts
#     sh install.sh back      puts the last program that ran before an update back, and keeps the one that ran till then: once more, and it is here again
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
# Lies there while a program is tried, so also after a try that was cut short; with words in it after one that failed.
trial=$program.trial
# Seconds that a program must go on for after it said that it is ready: one that hangs is fed to the watchdog for up to 21 of
# them, ended after the unit's WatchdogSec, and started again.
steady=75
# The sleep of a watch, while there is one.
watch=

end() {
    echo "$1" >&2
    exit 1
}

# write FILE PLACE MODE: the file, beside its place.
write() {
    mkdir -p "$(dirname "$2")" && install -m "$3" "$1" "$2.new"
}

# bring PROGRAM UNIT: both, beside their places. One by one with &&: where a function's end is asked for, `set -e` does not hold
# within it.
bring() {
    write "$1" "$program" 755 && write "$2" "$unit" 644
}

# Whether what is in its place is worth going back to: one that was never seen to run must not take the last good one's place. A good one
# does not run either while it is stopped, waits for its camera, or has wrong settings.
is_good() {
    [ -f "$unit" ] && { is_active || [ ! -f "$trial" ]; }
}

# Whether somebody stopped the mirror before it was known whether its program runs.
is_unseen() {
    [ -f "$trial" ] && [ ! -s "$trial" ] && [ "$(property ActiveState)" = inactive ]
}

# Marks what is in its place. `true`, since a failed redirection of `:` ends the shell.
mark_tried() {
    true >"$trial"
}

# Without it the program would only count as one that nobody has seen.
mark_failed() {
    echo "does not run" >"$trial" || :
}

# keep: what is in its place, beside the places of the way back.
keep() {
    write "$program" "$program.old" 755 && write "$unit" "$unit.old" 644
}

# They go with every copy of the program.
bring_notices() {
    [ -f "$here/NOTICES.txt" ] || return 0
    write "$here/NOTICES.txt" "$notices" 644 && place "$notices" ||
        end "The program is in its place, but not the notices that go with it. Look at the disk (df -h, mount), and do the same again."
}

# place PLACE..: renames what was written beside these places.
place() {
    sync || return 1
    for file in "$@"; do mv "$file.new" "$file" || return 1; done
    sync
}

# What was written beside the places may be what fills the disk.
drop() {
    # In this order: a cut between them must not look like a swap.
    rm -f "$program.old.new" "$unit.old.new" "$program.new" "$unit.new" || :
}

# not_written WHAT: ends where nothing is in its place yet.
not_written() {
    drop
    end "$1 could not be written; nothing was changed. Look at the disk (df -h, mount), and do the same again."
}

# not_placed WHAT: ends where a rename failed, of which there may be more than one.
not_placed() {
    end "$1 could not be put in its place, or only in part. Look at the disk (df -h, mount), and do the same again before a restart."
}

# takes_settings PROGRAM: whether it can load this board's.
takes_settings() {
    runuser -u mirror -- "$1" config show >/dev/null
}

# Asked like this because `is-active` says yes to everything where an image is made in a chroot.
is_active() {
    [ "$(property ActiveState)" = active ]
}

property() {
    systemctl show --property "$1" --value mirror
}

# A mirror whose first installation was cut short may lack that alone. It is no reason to end half way through an update.
start_at_boot() {
    systemctl is-enabled --quiet mirror && return
    if systemctl enable mirror && sync; then
        echo "The mirror did not start at boot; it does from now on (systemctl disable mirror undoes that)." >&2
    else
        echo "The mirror does not start at boot; make it so with: systemctl enable mirror" >&2
    fi
}

# Whether what was brought is there: installed, or placed by a try before, whose unit may not have been.
is_placed() {
    cmp -s "$program" "$program.new"
}

# Ends a swap that was cut short, if there is one. Only `back` renames to the program while another waits beside the way back, and it
# does so when all of them have reached the disk.
end_swap() {
    [ -f "$program.old.new" ] && [ ! -f "$program.new" ] || return 1
    for file in "$unit" "$unit.old" "$program.old"; do
        [ ! -f "$file.new" ] || place "$file" || not_placed "The program before the update"
    done
}

# Whether the mirror becomes ready, and goes on.
restart() {
    echo "The mirror starts and is then watched for $steady seconds. Do not interrupt this: nobody would know whether it runs." >&2
    systemctl daemon-reload && systemctl restart mirror || return 1
    process=$(property MainPID)
    # Beside this shell, which hears a signal only while it waits; without the lock, which ends with the shell.
    sleep "$steady" 9>&- &
    watch=$!
    wait "$watch" || return 1
    watch=
    is_active && [ "$process" = "$(property MainPID)" ]
}

# interrupted WHAT NEXT: ends where somebody interrupts a watch.
interrupted() {
    [ -z "$watch" ] || kill "$watch" || :
    end "Interrupted: nobody has seen whether $1 goes on running. $2"
}

trap_for_new() {
    trap 'interrupted "the new program" "Try it again with sh install.sh update, or go back with sh install.sh back."' INT TERM
}

trap_for_old() {
    trap 'interrupted "the program before the update, which is back," "See with systemctl status mirror."' INT TERM
}

# version PROGRAM: what it calls itself, in brackets, if it can.
version() {
    name=$(runuser -u mirror -- "$1" --version 2>/dev/null) || return 0
    echo "${name:+ ($name)}"
}

# The program comes last: where it is, all the rest is, whenever the power went.
first() {
    [ ! -f "$program" ] || end "There is a mirror on this board already: sh install.sh update"
    getent passwd mirror >/dev/null || useradd --system --no-create-home --groups video mirror
    mkdir -p "$root/etc/mirror"
    bring "$here/mirror" "$here/mirror.service" || not_written "The mirror"
    place "$unit" || not_placed "The mirror"
    systemctl enable mirror
    place "$program" || not_placed "The mirror"
    bring_notices
    sync
    echo "The mirror is installed. It starts at boot, or now with: systemctl start mirror"
}

update() {
    [ -f "$program" ] || end "There is no mirror on this board yet: sh install.sh"
    end_swap || drop
    bring "$here/mirror" "$here/mirror.service" || not_written "The new program"
    if ! takes_settings "$program.new"; then
        drop
        end "The new program does not take this board's settings. Nothing was changed; mend the settings and update again."
    fi
    # With settings of which a part of the mirror makes nothing the rest runs: that is told, and stops no update.
    runuser -u mirror -- "$program.new" config check || echo "The update goes on." >&2
    if ! is_placed; then
        if is_unseen; then
            drop
            end "Nobody has seen whether the program in its place goes on running, and the mirror was stopped. Start it first: systemctl start mirror"
        fi
        if is_good; then
            keep || not_written "The way back"
            # The unit first: where there is a program to go back to, there is its unit.
            place "$unit.old" "$program.old" || not_placed "The way back"
        fi
        mark_tried || not_placed "The new program"
    fi
    trap_for_new
    place "$program" "$unit" || not_placed "The new program"
    start_at_boot
    if restart; then
        trap - INT TERM
        rm -f "$trial" && sync
        bring_notices
        echo "The new program$(version "$program") runs."
        return
    fi
    mark_failed
    [ -f "$program.old" ] || end "The new program does not run, and there is none to go back to: journalctl -u mirror says why."
    trap 'end "Interrupted: the new program does not run, and the one before it is not back yet. Go back with sh install.sh back."' INT TERM
    bring "$program.old" "$unit.old" && place "$program" "$unit" ||
        end "The new program does not run, and the one before it could not be put back. Look at the disk (df -h, mount), then: sh install.sh back"
    trap_for_old
    rm -f "$trial"
    restart || end "Neither the new program nor the one before it$(version "$program") runs: journalctl -u mirror says why."
    end "The new program does not run: journalctl -u mirror says why. The one before it$(version "$program") is back and runs."
}

back() {
    end_swap || swap
    trap_for_old
    # A mark that cannot be written keeps nobody from going back.
    mark_tried || :
    if ! restart; then
        mark_failed
        end "The program before the update$(version "$program") is back, but does not run: journalctl -u mirror says why."
    fi
    trap - INT TERM
    rm -f "$trial" && sync
    echo "The program before the update$(version "$program") is back and runs."
}

# The program before the update to its place, and the one that goes to its own, as far as it is worth coming back to.
swap() {
    [ -f "$program.old" ] || end "There is no program to go back to."
    drop
    if ! takes_settings "$program.old"; then
        end "The program before the update does not take this board's settings. Nothing was changed; take out of them what it names and go back again."
    fi
    bring "$program.old" "$unit.old" || not_written "The program before the update"
    if ! is_placed && is_good; then
        keep || not_written "The way forth"
        place "$program" "$unit" "$unit.old" "$program.old" || not_placed "The program before the update"
    else
        place "$program" "$unit" || not_placed "The program before the update"
    fi
}

# Two at once would take each other's programs for the ones before.
lock() {
    mkdir -p "$root/run"
    exec 9>"$root/run/mirror-install.lock"
    flock -n 9 || end "Another install.sh works on this board; wait until it is done."
}

[ -n "$root" ] || [ "$(id -u)" = 0 ] || end "Only root may: sudo sh install.sh ${1:-}"
lock
case ${1:-first} in
    first) first ;;
    update) update ;;
    back) back ;;
    *) end "usage: sh install.sh [update|back]" ;;
esac
