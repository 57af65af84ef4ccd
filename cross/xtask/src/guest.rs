//! An emulated aarch64 board: Debian's kernel, a small initramfs, a virtual camera and screen, and a way to look at it.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::crossbuild::{know_arm64, unpack_all};
use crate::tools::{need, output, run};

/// Modules that the guest loads, with all they depend on.
const MODULES: [&str; 4] = ["virtio_pci", "virtio-gpu", "vivid", "drm_kms_helper"];
/// Libraries of the cross compiler that our programs need.
const LIBRARIES: [&str; 4] = ["ld-linux-aarch64.so.1", "libc.so.6", "libm.so.6", "libgcc_s.so.1"];
/// Packages for the guest, unpacked and never installed. v4l2-ctl and what it links to feed the camera.
const PACKAGES: [&str; 8] = [
    "busybox-static",
    "v4l-utils",
    "libv4l-0",
    "libv4l2rds0",
    "libv4lconvert0",
    "libjpeg62-turbo",
    "libudev1",
    "libstdc++6",
];
/// What the guest's script calls.
const APPLETS: [&str; 19] = [
    "sh", "mount", "modprobe", "ls", "echo", "sleep", "head", "grep", "kill", "poweroff", "sync",
    "cut", "wget", "ip", "tr", "chown", "chmod", "su", "setpriv",
];
/// The mirror's user and group of its own, and the group of cameras and screens, in the guest.
pub const MIRROR_USER: u32 = 998;
pub const VIDEO_GROUP: u32 = 44;

/// Downloaded and unpacked parts.
pub struct Parts {
    kernel: PathBuf,
    modules: PathBuf,
    packages: PathBuf,
}

/// Downloads kernel and packages once, below `target/`.
pub fn fetch(folder: &Path) -> Result<Parts> {
    need("dpkg-deb", "dpkg")?;
    need("depmod", "kmod")?;
    let (debs, unpacked) = (folder.join("debs"), folder.join("unpacked"));
    if !unpacked.join("complete").is_file() {
        std::fs::create_dir_all(&debs)?;
        know_arm64()?;
        let depends =
            output(Command::new("apt-cache").args(["depends", "linux-image-arm64:arm64"]))?;
        let kernel = depends
            .lines()
            .find_map(|l| {
                l.trim().strip_prefix("Depends: ").filter(|n| n.starts_with("linux-image-6.1"))
            })
            .context("Debian's linux-image-arm64 names no 6.1 kernel; apt-get update")?;
        let mut wanted: Vec<String> = PACKAGES.iter().map(|p| format!("{p}:arm64")).collect();
        wanted.push(kernel.to_owned());
        run(Command::new("apt-get").arg("download").arg("-q").args(&wanted).current_dir(&debs))?;
        unpack_all(&debs, &unpacked)?;
        std::fs::write(unpacked.join("complete"), "")?;
    }
    let find = |inside: &str, begins: &str| -> Result<PathBuf> {
        let entries = std::fs::read_dir(unpacked.join(inside))?;
        let mut names: Vec<PathBuf> = entries.filter_map(|e| Some(e.ok()?.path())).collect();
        names.retain(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with(begins)));
        names.sort();
        names.pop().with_context(|| format!("{inside} has no {begins}*"))
    };
    Ok(Parts {
        kernel: find("boot", "vmlinuz-")?,
        modules: find("lib/modules", "6.1")?,
        packages: unpacked,
    })
}

/// Files of ours that go into the guest: where they are, and where they go.
pub type Extra<'a> = (&'a Path, &'a str);

/// Builds the initramfs: busybox, modules, libraries, our files, and `init`.
pub fn initramfs(parts: &Parts, folder: &Path, init: &str, extra: &[Extra<'_>]) -> Result<PathBuf> {
    need("cpio", "cpio")?;
    let tree = folder.join("tree");
    if tree.exists() {
        std::fs::remove_dir_all(&tree)?;
    }
    for name in ["bin", "dev", "proc", "sys", "tmp", "root", "lib", "etc", "var/lib/mirror"] {
        std::fs::create_dir_all(tree.join(name))?;
    }
    copy(&parts.packages.join("bin/busybox"), &tree.join("bin/busybox"))?;
    for applet in APPLETS {
        std::os::unix::fs::symlink("busybox", tree.join("bin").join(applet))?;
    }
    modules(parts, &tree)?;
    libraries(parts, &tree)?;
    copy(&parts.packages.join("usr/bin/v4l2-ctl"), &tree.join("bin/v4l2-ctl"))?;
    for (from, to) in extra {
        copy(from, &tree.join(to))?;
    }
    accounts(&tree)?;
    std::fs::write(tree.join("init"), init)?;
    run(Command::new("chmod").arg("+x").arg(tree.join("init")))?;
    let archive = folder.join("initramfs.cpio");
    let pack = "find . | cpio -o -H newc --quiet --owner=0:0 > ../initramfs.cpio";
    run(Command::new("sh").args(["-c", pack]).current_dir(&tree))?;
    Ok(archive)
}

/// The users and groups that `install.sh` and Debian make on a board.
fn accounts(tree: &Path) -> Result<()> {
    let (user, video) = (MIRROR_USER, VIDEO_GROUP);
    let users =
        format!("root:x:0:0::/root:/bin/sh\nmirror:x:{user}:{user}::/nonexistent:/bin/sh\n");
    let groups = format!("root:x:0:\nvideo:x:{video}:mirror\nmirror:x:{user}:\n");
    std::fs::write(tree.join("etc/passwd"), users)?;
    std::fs::write(tree.join("etc/group"), groups)?;
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    if let Some(parent) = to.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::copy(from, to).with_context(|| format!("copying {}", from.display()))?;
    Ok(())
}

fn modules(parts: &Parts, tree: &Path) -> Result<()> {
    let version =
        parts.modules.file_name().context("a kernel version")?.to_string_lossy().into_owned();
    if !parts.modules.join("modules.dep").is_file() {
        run(Command::new("/sbin/depmod").arg("-b").arg(&parts.packages).arg(&version))?;
    }
    for module in MODULES {
        let shown = output(Command::new("/sbin/modprobe").arg("-d").arg(&parts.packages).args([
            "-S",
            &version,
            "--show-depends",
            module,
        ]))?;
        for path in shown.lines().filter_map(|l| l.strip_prefix("insmod ")) {
            let path = Path::new(path.trim());
            let inside = path.strip_prefix(&parts.packages).unwrap_or(path);
            copy(path, &tree.join(inside.strip_prefix("/").unwrap_or(inside)))?;
        }
    }
    for name in ["modules.order", "modules.builtin", "modules.builtin.modinfo"] {
        copy(&parts.modules.join(name), &tree.join("lib/modules").join(&version).join(name))?;
    }
    run(Command::new("/sbin/depmod").arg("-b").arg(tree).arg(&version))
}

fn libraries(parts: &Parts, tree: &Path) -> Result<()> {
    for name in LIBRARIES {
        copy(&Path::new("/usr/aarch64-linux-gnu/lib").join(name), &tree.join("lib").join(name))?;
    }
    for folder in ["usr/lib/aarch64-linux-gnu", "lib/aarch64-linux-gnu"] {
        let Ok(entries) = std::fs::read_dir(parts.packages.join(folder)) else { continue };
        for entry in entries {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let wanted =
                ["libv4l", "libjpeg", "libudev", "libstdc++"].iter().any(|p| name.starts_with(p))
                    && name.contains(".so.");
            if wanted && path.is_file() {
                copy(&path, &tree.join("lib").join(&name))?;
            }
        }
    }
    Ok(())
}

/// A running guest. Dropping it ends it.
pub struct Guest {
    child: Child,
    log: PathBuf,
    monitor: PathBuf,
}

impl Drop for Guest {
    fn drop(&mut self) {
        // It may have powered itself off already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts the board with a screen of the given size.
pub fn boot(parts: &Parts, archive: &Path, folder: &Path, screen: (u32, u32)) -> Result<Guest> {
    need("qemu-system-aarch64", "-t bookworm-backports qemu-system-arm")?;
    let (log, monitor) = (folder.join("console.log"), folder.join("monitor.sock"));
    let _ = std::fs::remove_file(&monitor);
    let child = Command::new("qemu-system-aarch64")
        .args([
            "-M",
            "virt",
            "-accel",
            "tcg,thread=multi",
            "-cpu",
            "cortex-a72",
            "-smp",
            "2",
            "-m",
            "1024",
        ])
        .args(["-display", "none", "-no-reboot", "-nodefaults", "-serial", "stdio", "-kernel"])
        .arg(&parts.kernel)
        .arg("-initrd")
        .arg(archive)
        .args(["-append", "console=ttyAMA0 loglevel=3 panic=-1"])
        .args(["-device", &format!("virtio-gpu-pci,xres={},yres={}", screen.0, screen.1)])
        .arg("-qmp")
        .arg(format!("unix:{},server,nowait", monitor.display()))
        .stdin(Stdio::piped())
        .stdout(File::create(&log)?)
        .stderr(File::create(folder.join("qemu.log"))?)
        .spawn()
        .context("cannot start qemu-system-aarch64")?;
    Ok(Guest { child, log, monitor })
}

impl Guest {
    /// Everything the guest has printed.
    pub fn console(&self) -> String {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).replace('\r', "")
    }

    /// Waits until the console shows `text`.
    pub fn wait_for(&mut self, text: &str, patience: Duration) -> Result<()> {
        self.wait_until(text, patience, |console| console.contains(text).then_some(()))
    }

    /// Waits for a whole line that begins with `text`.
    pub fn line(&mut self, text: &str, patience: Duration) -> Result<String> {
        self.wait_until(text, patience, |console| {
            let (whole, _) = console.rsplit_once('\n')?;
            Some(whole.lines().find(|line| line.starts_with(text))?.to_owned())
        })
    }

    fn wait_until<T>(
        &mut self,
        text: &str,
        patience: Duration,
        find: impl Fn(&str) -> Option<T>,
    ) -> Result<T> {
        let until = Instant::now() + patience;
        loop {
            // Before the console is read: what it printed last may still be on its way.
            let ended = self.child.try_wait()?;
            let console = self.console();
            if let Some(found) = find(&console) {
                return Ok(found);
            }
            if let Some(status) = ended {
                bail!("the guest ended ({status}) before it said {text:?}:\n{}", tail(&console));
            }
            if Instant::now() > until {
                let seconds = patience.as_secs();
                bail!("the guest did not say {text:?} in {seconds} s:\n{}", tail(&console));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Lets the guest go on from where it shows something.
    pub fn go_on(&mut self) -> Result<()> {
        let serial = self.child.stdin.as_mut().context("the guest has no serial line")?;
        writeln!(serial)?;
        serial.flush().context("the guest's serial line")
    }

    /// Saves what the screen shows as a PNG file.
    pub fn screenshot(&self, path: &Path) -> Result<()> {
        let stream = UnixStream::connect(&self.monitor).context("qemu's monitor")?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut greeting = String::new();
        reader.read_line(&mut greeting)?;
        let mut writer = stream;
        ask(&mut writer, &mut reader, &json!({"execute": "qmp_capabilities"}))?;
        let command =
            json!({"execute": "screendump", "arguments": {"filename": path, "format": "png"}});
        ask(&mut writer, &mut reader, &command)
    }
}

fn ask(writer: &mut UnixStream, reader: &mut impl BufRead, command: &Value) -> Result<()> {
    writeln!(writer, "{command}")?;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let answer: Value =
            serde_json::from_str(&line).with_context(|| format!("qemu said {line:?}"))?;
        if answer.get("error").is_some() {
            bail!("qemu refused {command}: {answer}");
        }
        if answer.get("return").is_some() {
            return Ok(());
        }
    }
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}
