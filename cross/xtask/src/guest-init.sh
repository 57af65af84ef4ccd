#!/bin/sh
# What the emulated board does, from its first process on. Lines that begin with @@ are read by board.rs; after each that it looks at the
# screen for, it sends a line.
export PATH=/bin HOME=/root
mount -t devtmpfs dev /dev; mount -t proc proc /proc; mount -t sysfs sys /sys
ip link set lo up
modprobe virtio_pci; modprobe virtio-gpu

# Says what is to be seen, and leaves it on the screen until that was looked at.
show() { echo "@@ $1"; read -r _; }

# What udev does on a board.
devices() {
    for device in /dev/video* /dev/dri/card* /dev/fb*; do
        chown root:video $device; chmod 660 $device
    done
}

# A camera and an output joined by an HDMI loop; the output's picture is what the camera sees once both have the same
# timings (index 0: 640 x 480) and format.
feed() {
    v4l2-ctl -d /dev/video0 --set-dv-bt-timings index=0 >/dev/null
    v4l2-ctl -d /dev/video1 --set-dv-bt-timings index=0 >/dev/null
    v4l2-ctl -d /dev/video1 -x width=640,height=480,pixelformat=YUYV
    v4l2-ctl -d /dev/video0 -c loop_video=1 -c osd_text_mode=2
    v4l2-ctl -d /dev/video1 --stream-out-mmap=4 --stream-from=/root/clip.yuyv --stream-loop >/tmp/feeder.log 2>&1 &
    FEEDER=$!
    sleep 1
}

# As its service starts it: a user of its own with the group video, no capabilities, and no way to new ones.
start() {
    STATE_DIRECTORY=/var/lib/mirror setpriv --nnp su -s /bin/sh mirror -c "umask 077; exec mirror run --board virt --display $1" &
    MIRROR=$!
}
stop() { kill -TERM $MIRROR; wait $MIRROR && echo "@@ $1"; }
rights() { grep -E '^(Uid|Groups|CapEff|NoNewPrivs):' /proc/$MIRROR/status | tr -s '\t\n ' ' '; }

page() { wget -q -O - "$@" 2>/dev/null; }
metric() { page http://127.0.0.1:8080/metrics | grep "^mirror_$1 " | cut -d' ' -f2 | cut -d. -f1; }
until_metric() { while [ "$(metric $1)" != "$2" ]; do sleep 1; done; }
camera() {
    page --header 'x-mirror-change: 1' --header 'content-type: application/json' --post-data "{\"on\":$1}" \
        http://127.0.0.1:8080/api/camera >/dev/null || echo "@@ the page refused"
}
# Whether the mirror holds a camera open, as the kernel says.
device() { if ls -l /proc/$MIRROR/fd | grep -q /dev/video; then echo open; else echo closed; fi; }
until_overlays() {
    # More than were there before: the picture on the screen is a new one.
    BEFORE=$(metric overlays_shown_total); BEFORE=${BEFORE:-0}
    while :; do NOW=$(metric overlays_shown_total); [ "${NOW:-0}" -gt $((BEFORE + 3)) ] && break; sleep 1; done
    sleep 1
}

modprobe vivid n_devs=1 node_types=0x101 num_inputs=1 input_types=0x3 num_outputs=1 output_types=0x1 no_error_inj=1
feed; devices
chown mirror:mirror /var/lib/mirror; chmod 700 /var/lib/mirror
ls /dev/video0 /dev/video1 /dev/dri/card0 /dev/fb0 && echo "@@ devices ready"
suite() { NAME=$1; shift; "$@"; echo "@@ $NAME ended $?"; echo "@@ $NAME is over"; }
suite "display-suite drm" display-suite drm --presents 10
suite "display-suite fbdev" display-suite fbdev --presents 10
suite camera-suite camera-suite /dev/video0

start drm
until_overlays; echo "@@ rights: $(rights)"; show "overlay on drm, device $(device)"
camera false; until_metric camera_active 0; show "switched off, device $(device)"
camera true; until_overlays; until_metric camera_active 1; show "switched on, device $(device)"
# The camera is taken away under the running mirror. Its module cannot go while a file is open, its device can.
kill $FEEDER
DEVICE=$(ls /sys/bus/platform/drivers/vivid | grep vivid | head -1)
echo $DEVICE > /sys/bus/platform/drivers/vivid/unbind
until_metric source_delivering 0; show "camera lost"
echo $DEVICE > /sys/bus/platform/drivers/vivid/bind
feed; devices
until_overlays; show "overlay again"
stop "the first stopped cleanly"
start fbdev
until_overlays; show "overlay on fbdev"
stop "stopped cleanly"
sync; poweroff -f
