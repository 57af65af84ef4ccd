//! The mirror on a real camera device and real display devices, in an emulated aarch64 board.
//!
//! A picture of the demo clip goes into the virtual camera through its HDMI loop. The mirror runs on `/dev/video0` and
//! `/dev/dri/card0`; a screen dump is compared with the labels that were rendered with the clip. Then the camera is taken
//! away under the running mirror and given back, and the mirror runs once more on `/dev/fb0`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::crossbuild;
use crate::guest::{self, Guest};
use crate::labels::{Area, Picture, compare, read_png};
use crate::tools::{need, root, run, stage, target};

/// The screen of the emulated board, portrait as a mirror's.
const SCREEN: (u32, u32) = (540, 960);
/// The camera's picture, in which the clip's portrait picture stands in the middle.
const CAMERA: (u32, u32) = (640, 480);
/// Which picture of the clip is shown: both people stand upright, arms out.
const CLIP_FRAME: usize = 15;
/// Least share of the labelled people that must be lit, and most of the rest that may be.
const LEAST_COVERED: f64 = 0.9;
const MOST_STRAY: f64 = 0.01;
/// Most of the labelled people that a status screen's icon and letters may light.
const MOST_LEFT: f64 = 0.35;
/// Rows at the top of the screen that belong to the badge.
const BADGE_ROWS: usize = 110;

/// For a stage that takes a minute where nothing else runs; a guest that ends is noticed at once.
const PATIENCE: Duration = Duration::from_secs(1200);

/// Runs everything; logs and screens go to `out`.
pub fn test(out: &Path) -> Result<()> {
    std::fs::create_dir_all(out)?;
    let out = out.canonicalize()?;
    let mirror = stage("aarch64 build", crossbuild::for_board)?.join("mirror");
    let suites = stage("device suites", crossbuild::suites)?;
    let parts = stage("kernel and packages", || guest::fetch(&target().join("board-parts")))?;
    let clip = stage("camera picture", || camera_picture(&out))?;
    let archive = stage("initramfs", || {
        let extra = [
            (mirror.as_path(), "bin/mirror"),
            (suites.camera.as_path(), "bin/camera-suite"),
            (suites.display.as_path(), "bin/display-suite"),
            (clip.as_path(), "root/clip.yuyv"),
        ];
        guest::initramfs(&parts, &out, INIT, &extra)
    })?;
    let mut guest = stage("boot", || {
        let mut guest = guest::boot(&parts, &archive, &out, SCREEN)?;
        guest.wait_for("@@ devices ready", PATIENCE)?;
        Ok(guest)
    })?;
    stage("display suite on /dev/dri/card0", || passed(&mut guest, "display-suite drm"))?;
    stage("camera suite on /dev/video0", || passed(&mut guest, "camera-suite"))?;
    stage("mirror on /dev/video0 and /dev/dri/card0", || {
        seen(&mut guest, "@@ overlay on drm", &out, "drm.png")
    })?;
    stage("camera taken away", || lost(&mut guest, &out))?;
    stage("camera given back", || seen(&mut guest, "@@ overlay again", &out, "again.png"))?;
    stage("stops cleanly", || guest.wait_for("@@ the first stopped cleanly", PATIENCE))?;
    stage("mirror on /dev/fb0", || seen(&mut guest, "@@ overlay on fbdev", &out, "fbdev.png"))?;
    stage("stops cleanly there, too", || guest.wait_for("@@ stopped cleanly", PATIENCE))?;
    println!("screens are in {}", out.display());
    Ok(())
}

fn passed(guest: &mut Guest, name: &str) -> Result<()> {
    guest.wait_for(&format!("@@ {name} is over"), PATIENCE)?;
    let console = guest.console();
    ensure!(console.contains(&format!("@@ {name} ended 0")), "{name} failed:\n{console}");
    Ok(())
}

/// The overlay must lie where the labels say the people are.
fn seen(guest: &mut Guest, event: &str, out: &Path, name: &str) -> Result<()> {
    guest.wait_for(event, PATIENCE)?;
    let path = out.join(name);
    guest.screenshot(&path)?;
    let screen = read_png(&path)?;
    ensure!(
        (screen.width, screen.height) == (SCREEN.0 as usize, SCREEN.1 as usize),
        "the screen is {} x {}",
        screen.width,
        screen.height
    );
    let labels = clip_labels()?;
    let agreement = compare(&screen, &labels, where_the_clip_is(&screen, &labels), BADGE_ROWS);
    println!(
        "   {:.1} % of the people are covered, {:.1} % of the rest is lit",
        100.0 * agreement.covered,
        100.0 * agreement.stray
    );
    ensure!(
        agreement.covered >= LEAST_COVERED && agreement.stray <= MOST_STRAY,
        "the overlay is not where the people are: {agreement:?}, see {}",
        path.display()
    );
    Ok(())
}

/// Where the people of the clip's picture are.
fn clip_labels() -> Result<Picture> {
    read_png(&root().join(format!("firmware/mirror/assets/demo-labels/{CLIP_FRAME:04}.png")))
}

/// The camera's picture is fitted into the screen, and the clip into the camera's picture.
fn where_the_clip_is(screen: &Picture, labels: &Picture) -> Area {
    let whole = Area { x: 0.0, y: 0.0, width: screen.width as f64, height: screen.height as f64 };
    whole
        .fit(f64::from(CAMERA.0), f64::from(CAMERA.1))
        .fit(labels.width as f64, labels.height as f64)
}

/// A status screen must say that the camera is gone, and nobody may stay on the screen.
fn lost(guest: &mut Guest, out: &Path) -> Result<()> {
    guest.wait_for("@@ camera lost", PATIENCE)?;
    let path = out.join("lost.png");
    guest.screenshot(&path)?;
    let screen = read_png(&path)?;
    let lit =
        screen.bytes.chunks_exact(screen.samples).filter(|p| p.iter().any(|&v| v > 24)).count();
    let share = lit as f64 / (screen.width * screen.height) as f64;
    println!("   {:.1} % of the screen is lit", 100.0 * share);
    ensure!(share > 0.002, "the status screen is empty: see {}", path.display());
    let labels = clip_labels()?;
    let left = compare(&screen, &labels, where_the_clip_is(&screen, &labels), BADGE_ROWS).covered;
    println!("   {:.1} % of where the people were is lit", 100.0 * left);
    ensure!(
        left < MOST_LEFT,
        "the people of the last picture stay on the screen: see {}",
        path.display()
    );
    Ok(())
}

/// One picture of the clip as YUYV of the camera's size, in the middle of grey.
fn camera_picture(out: &Path) -> Result<PathBuf> {
    need("ffmpeg", "ffmpeg")?;
    let path = out.join("clip.yuyv");
    let (width, height) = CAMERA;
    let filter = format!(
        "select=eq(n\\,{CLIP_FRAME}),scale=-2:{height}:flags=area:out_range=limited:out_color_matrix=bt601,pad={width}:{height}:(ow-iw)/2:0:gray,loop=3:1:0"
    );
    run(Command::new("ffmpeg")
        .args(["-loglevel", "error", "-y", "-f", "mjpeg", "-i"])
        .arg(root().join("firmware/mirror/assets/demo.mjpeg"))
        .args(["-vf", &filter, "-frames:v", "4", "-pix_fmt", "yuyv422", "-f", "rawvideo"])
        .arg(&path))?;
    let length = std::fs::metadata(&path)?.len();
    let frame = u64::from(2 * width * height);
    ensure!(length >= frame, "ffmpeg wrote {length} bytes, a picture has {frame}");
    Ok(path)
}

/// What the guest does. Lines that begin with @@ are read above.
const INIT: &str = r#"#!/bin/sh
export PATH=/bin HOME=/root
mount -t devtmpfs dev /dev; mount -t proc proc /proc; mount -t sysfs sys /sys
ip link set lo up
modprobe virtio_pci; modprobe virtio-gpu
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
overlays() { wget -q -O - http://127.0.0.1:8080/metrics 2>/dev/null | grep '^mirror_overlays' | grep -v '^#' | head -1 | cut -d' ' -f2; }
wait_for_overlays() {
    # More than were there before: the picture on the screen is a new one.
    BEFORE=$(overlays); BEFORE=${BEFORE:-0}
    while :; do NOW=$(overlays); [ "${NOW:-0}" -gt $((BEFORE + 3)) ] && break; sleep 1; done
    sleep 1
}
modprobe vivid n_devs=1 node_types=0x101 num_inputs=1 input_types=0x3 num_outputs=1 output_types=0x1 no_error_inj=1
feed
ls /dev/video0 /dev/video1 /dev/dri/card0 /dev/fb0 && echo "@@ devices ready"
suite() { NAME=$1; shift; "$@"; echo "@@ $NAME ended $?"; echo "@@ $NAME is over"; }
suite "display-suite drm" display-suite drm --presents 10
suite camera-suite camera-suite /dev/video0
mirror run --board virt --display drm & MIRROR=$!
wait_for_overlays; echo "@@ overlay on drm"; sleep 10
# The camera is taken away under the running mirror. Its module cannot go while a file is open, its device can.
kill $FEEDER
DEVICE=$(ls /sys/bus/platform/drivers/vivid | grep vivid | head -1)
echo $DEVICE > /sys/bus/platform/drivers/vivid/unbind
sleep 20; echo "@@ camera lost"; sleep 10
echo $DEVICE > /sys/bus/platform/drivers/vivid/bind
feed
wait_for_overlays; echo "@@ overlay again"; sleep 10
kill -TERM $MIRROR; wait $MIRROR && echo "@@ the first stopped cleanly"
mirror run --board virt --display fbdev & MIRROR=$!
wait_for_overlays; echo "@@ overlay on fbdev"; sleep 10
kill -TERM $MIRROR; wait $MIRROR && echo "@@ stopped cleanly"
sync; poweroff -f
"#;
