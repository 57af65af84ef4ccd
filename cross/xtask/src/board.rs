//! The mirror on a real camera device and real display devices, in an emulated aarch64 board.
//!
//! A picture of the demo clip goes into the virtual camera through its HDMI loop. The mirror runs on `/dev/video0` and
//! `/dev/dri/card0`, with the rights that its service gives it; a screen dump is compared with the labels that were rendered with the
//! clip. The camera is switched off and on. Then it is taken away under the running mirror and given back, and the mirror runs
//! once more on `/dev/fb0`.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

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
/// Rows between the badge and the page's address, which is shown for the first minutes.
const PEOPLE_ROWS: Range<usize> = BADGE_ROWS..870;

/// The badge's colour, and the fewest pixels of it while a camera is open. `overlay` has it as `CAMERA_ACTIVE`.
const BADGE_COLOUR: [u8; 3] = [0x3B, 0xF0, 0x7A];
const LEAST_BADGE: usize = 50;

/// Time in which the screen must follow what the mirror already knows.
const DRAWN: Duration = Duration::from_secs(120);
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
    stage("display suite on /dev/fb0", || passed(&mut guest, "display-suite fbdev"))?;
    stage("camera suite on /dev/video0", || passed(&mut guest, "camera-suite"))?;
    stage("mirror on /dev/video0 and /dev/dri/card0", || {
        seen(&mut guest, "@@ overlay on drm, device open", &out.join("drm.png"))
    })?;
    unprivileged(&guest.console())?;
    stage("camera switched off", || {
        nobody(&mut guest, "@@ switched off, device closed", &out.join("off.png"))
    })?;
    stage("camera switched on", || {
        seen(&mut guest, "@@ switched on, device open", &out.join("on.png"))
    })?;
    stage("camera taken away", || nobody(&mut guest, "@@ camera lost", &out.join("lost.png")))?;
    stage("camera given back", || seen(&mut guest, "@@ overlay again", &out.join("again.png")))?;
    stage("stops cleanly", || guest.wait_for("@@ the first stopped cleanly", PATIENCE))?;
    stage("mirror on /dev/fb0", || {
        seen(&mut guest, "@@ overlay on fbdev", &out.join("fbdev.png"))
    })?;
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

/// The device nodes alone give the mirror what it needs; it has a user of its own, in no group but its own and video.
fn unprivileged(console: &str) -> Result<()> {
    let said = console.lines().find_map(|line| line.strip_prefix("@@ rights: "));
    let rights = said.unwrap_or_default().trim();
    let (user, video) = (guest::MIRROR_USER, guest::VIDEO_GROUP);
    let expected = format!(
        "Uid: {user} {user} {user} {user} Groups: {video} {user} CapEff: 0000000000000000 NoNewPrivs: 1"
    );
    ensure!(rights == expected, "the mirror runs with {rights:?}");
    Ok(())
}

/// The overlay must lie where the labels say the people are, and the badge be lit.
fn seen(guest: &mut Guest, event: &str, path: &Path) -> Result<()> {
    let screen = shown(guest, event, path)?;
    let labels = clip_labels()?;
    let agreement = compare(&screen, &labels, where_the_clip_is(&screen, &labels), PEOPLE_ROWS);
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
    ensure!(badge(&screen) >= LEAST_BADGE, "the camera's badge is not lit: see {}", path.display());
    guest.go_on()
}

/// A status screen must say why the mirror sees nobody; nobody may stay on the screen, nor the badge.
fn nobody(guest: &mut Guest, event: &str, path: &Path) -> Result<()> {
    let labels = clip_labels()?;
    let until = Instant::now() + DRAWN;
    loop {
        let screen = shown(guest, event, path)?;
        let lit =
            screen.bytes.chunks_exact(screen.samples).filter(|p| p.iter().any(|&v| v > 24)).count();
        let share = lit as f64 / (screen.width * screen.height) as f64;
        let left =
            compare(&screen, &labels, where_the_clip_is(&screen, &labels), PEOPLE_ROWS).covered;
        let badge = badge(&screen);
        if share > 0.002 && left < MOST_LEFT && badge == 0 {
            println!(
                "   {:.1} % of the screen is lit, {:.1} % of where the people were",
                100.0 * share,
                100.0 * left
            );
            return guest.go_on();
        }
        ensure!(
            Instant::now() < until,
            "{share:.4} of the screen is lit, {left:.2} of where the people were, and {badge} pixels of the badge: see {}",
            path.display()
        );
    }
}

/// What the screen shows once the guest has said `event`, also kept at `path`. After a comma stands what must be so, too.
fn shown(guest: &mut Guest, event: &str, path: &Path) -> Result<Picture> {
    let said = guest.line(event.split(',').next().unwrap_or(event), PATIENCE)?;
    ensure!(said == event, "the guest said {said:?} instead of {event:?}");
    guest.screenshot(path)?;
    let screen = read_png(path)?;
    ensure!(
        (screen.width, screen.height) == (SCREEN.0 as usize, SCREEN.1 as usize),
        "the screen is {} x {}",
        screen.width,
        screen.height
    );
    Ok(screen)
}

/// Pixels of the badge's colour among its rows.
fn badge(screen: &Picture) -> usize {
    let rows = &screen.bytes[..BADGE_ROWS * screen.width * screen.samples];
    rows.chunks_exact(screen.samples).filter(|pixel| **pixel == BADGE_COLOUR).count()
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

/// What the guest does.
const INIT: &str = include_str!("guest-init.sh");
