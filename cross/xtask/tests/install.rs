//! `board/install.sh` in a folder instead of a board, with stand-ins for what only root and systemd can do; and the unit that it installs.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../board/install.sh");
const UNIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../board/mirror.service");

/// What runs in place of the commands. Each is noted with what it was given; those that write files are the real ones.
const STAND_INS: [(&str, &str); 9] = [
    ("useradd", ""),
    ("getent", "exit 1"),
    ("sleep", ""),
    ("runuser", "shift 3; \"$@\""),
    ("systemctl", SYSTEMCTL),
    ("sync", "/bin/sync -d \"$MIRROR_INSTALL_ROOT\""),
    ("mv", "/bin/mv \"$@\""),
    ("cp", "/bin/cp \"$@\""),
    ("install", "/usr/bin/install \"$@\""),
];

/// After a restart a service is active if its program runs, and started again and again if not. Else it is what `stop` or a test has written
/// down, or failed.
const SYSTEMCTL: &str = r#"
state=$MIRROR_INSTALL_ROOT/active
case $1 in
    enable) : >"$MIRROR_INSTALL_ROOT/enabled" ;;
    is-enabled) [ -f "$MIRROR_INSTALL_ROOT/enabled" ] ;;
    restart)
        rm -f "$state"
        echo activating >"$MIRROR_INSTALL_ROOT/ended"
        "$MIRROR_INSTALL_ROOT/usr/local/bin/mirror" run && echo $$ >"$state" ;;
    stop) rm -f "$state"; echo inactive >"$MIRROR_INSTALL_ROOT/ended" ;;
    show) case $3 in
        ActiveState) if [ -f "$state" ]; then echo active; else cat "$MIRROR_INSTALL_ROOT/ended" 2>/dev/null || echo failed; fi ;;
        MainPID) cat "$state" 2>/dev/null || echo 0 ;;
    esac ;;
esac"#;

/// A board's files, and beside them what is to be installed.
struct Board {
    folder: PathBuf,
}

impl Board {
    fn new(name: &str) -> Board {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = std::fs::remove_dir_all(&folder);
        for inside in ["bin", "root", "sent"] {
            std::fs::create_dir_all(folder.join(inside)).expect("a folder");
        }
        std::fs::copy(SCRIPT, folder.join("sent/install.sh")).expect("the script");
        let board = Board { folder };
        for (name, _) in STAND_INS {
            board.stand_in(name, "");
        }
        board
    }

    /// Has a command do something else first, such as `case "$*" in WORDS) exit 1 ;; esac`; or nothing else.
    fn stand_in(&self, name: &str, first: &str) {
        let known = STAND_INS.into_iter().find(|(known, _)| *known == name);
        let (log, (_, does)) = (self.folder.join("log"), known.expect("a stand-in"));
        let text = format!("echo {name} \"$@\" >>'{}'\n{first}\n{does}", log.display());
        write_program(&self.folder.join("bin").join(name), &text);
    }

    /// Has a command fail whose last word ends so.
    fn fail(&self, name: &str, end: &str) {
        self.stand_in(name, &format!("case \"$*\" in *'{end}') exit 1 ;; esac"));
    }

    /// A board on which the version runs.
    fn with(name: &str, version: &str) -> Board {
        let board = Board::new(name);
        board.send(version, "exit 0", "exit 0");
        board.ask("first");
        board.systemctl("restart");
        board
    }

    /// Brings a program that does so when it is asked to check the settings, and to run.
    fn send(&self, version: &str, check: &str, run: &str) {
        let text = format!(
            "# {version}\ncase $1 in config) {check} ;; run) {run} ;; --version) echo mirror {version} ;; esac"
        );
        write_program(&self.folder.join("sent/mirror"), &text);
        std::fs::write(self.folder.join("sent/mirror.service"), format!("# {version}\n"))
            .expect("a unit");
    }

    fn ask(&self, word: &str) -> Output {
        self.command("sh").arg(self.folder.join("sent/install.sh")).arg(word).output().expect("sh")
    }

    fn systemctl(&self, word: &str) {
        assert!(self.command("systemctl").arg(word).status().expect("sh").success());
    }

    fn command(&self, program: &str) -> Command {
        let paths = format!("{}:/usr/bin:/bin", self.folder.join("bin").display());
        // Programs are looked for in the path of this process, not in the one that they are given.
        let mut command = Command::new("/usr/bin/env");
        command.env("PATH", paths).env("MIRROR_INSTALL_ROOT", self.root()).arg(program);
        command
    }

    /// It does not run, and systemd starts it again and again.
    fn restarts_over_and_over(&self) {
        self.ends("activating");
    }

    /// It does not run, and is this to systemd.
    fn ends(&self, state: &str) {
        std::fs::remove_file(self.root().join("active")).expect("it ran");
        std::fs::write(self.root().join("ended"), format!("{state}\n")).expect("writable");
    }

    /// The power goes while a program is watched.
    fn is_cut_short(&self, word: &str) {
        self.stand_in("sleep", "kill -9 $PPID; exit");
        assert_eq!(self.ask(word).status.signal(), Some(9));
        self.stand_in("sleep", "");
    }

    /// What is in its place, and what is kept.
    fn versions(&self) -> (Option<String>, Option<String>) {
        (self.version(""), self.version(".old"))
    }

    fn root(&self) -> PathBuf {
        self.folder.join("root")
    }

    fn place(&self, name: &str) -> PathBuf {
        let folder = if name.contains(".service") { "etc/systemd/system" } else { "usr/local/bin" };
        self.root().join(folder).join(name)
    }

    /// The version whose program and unit are in their places, or kept beside them.
    fn version(&self, end: &str) -> Option<String> {
        let read = |name: &str| {
            let text = std::fs::read_to_string(self.place(&format!("{name}{end}"))).ok()?;
            text.lines().find_map(|line| Some(line.strip_prefix("# ")?.to_owned()))
        };
        let version = read("mirror");
        assert_eq!(version, read("mirror.service"), "program and unit of one version{end}");
        version
    }

    fn runs(&self) -> bool {
        self.root().join("active").exists()
    }

    fn is_enabled(&self) -> bool {
        self.root().join("enabled").exists()
    }

    /// Whether anything lies beside its place.
    fn has_leftovers(&self) -> bool {
        ["mirror", "mirror.service", "mirror.old", "mirror.service.old"]
            .iter()
            .any(|name| self.place(&format!("{name}.new")).exists())
    }

    fn log(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.folder.join("log")).expect("a log");
        text.lines().map(str::to_owned).collect()
    }

    /// Nothing but a rename touches a place, what it brings has reached the disk before, and the rename has at the end.
    fn assert_places_are_only_renamed_to(&self) {
        let places = ["mirror", "mirror.service", "mirror.old", "mirror.service.old"]
            .map(|name| self.place(name).display().to_string());
        let mut written: Vec<String> = Vec::new();
        let mut to_sync = false;
        for line in self.log() {
            let words: Vec<&str> = line.split(' ').collect();
            let last = words.last().copied().unwrap_or_default();
            match words[0] {
                "sync" => {
                    written.clear();
                    to_sync = false;
                }
                "cp" | "install" => {
                    assert!(!places.iter().any(|place| place == last), "written in place: {line}");
                    written.push(last.to_owned());
                }
                "mv" => {
                    assert!(places.iter().any(|place| place == last), "{line}");
                    assert!(!written.iter().any(|new| line.contains(new)), "not synced: {line}");
                    to_sync = true;
                }
                "systemctl" => assert!(!to_sync, "not synced before: {line}"),
                _ => {}
            }
        }
        assert!(!to_sync, "the last rename is not synced");
    }
}

fn write_program(path: &Path, text: &str) {
    // In another process: one that is started meanwhile by another test would hold it open for writing ("text file busy").
    let script = format!("#!/bin/sh\n{text}\n");
    let mut child = Command::new("tee")
        .arg(path)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("tee");
    let mut input = child.stdin.take().expect("its input");
    std::io::Write::write_all(&mut input, script.as_bytes()).expect("written");
    drop(input);
    assert!(child.wait().expect("tee").success());
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("a mode");
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn the_first_time_everything_is_there_and_nothing_was_started() {
    let board = Board::new("first");
    board.send("A", "exit 1", "exit 0");
    let output = board.ask("first");
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(board.version(""), Some("A".into()));
    let mode = |name| board.place(name).metadata().expect("it is there").mode() & 0o777;
    assert_eq!((mode("mirror"), mode("mirror.service")), (0o755, 0o644));
    assert!(board.root().join("etc/mirror").is_dir());
    let log = board.log();
    assert!(log.contains(&"useradd --system --no-create-home --groups video mirror".into()));
    assert!(log.contains(&"systemctl enable mirror".into()));
    assert!(!board.runs());
    assert_eq!(log.last().map(String::as_str), Some("sync"), "what useradd and enable wrote, too");
    board.assert_places_are_only_renamed_to();
    board.systemctl("restart");
    board.send("B", "exit 0", "exit 0");
    assert!(!board.ask("first").status.success(), "that would be an update");
    assert_eq!(board.version(""), Some("A".into()));
}

#[test]
fn a_first_time_that_the_power_cut_short_is_done_again_and_starts_at_boot() {
    for (name, end) in
        [("mv", "mirror.service"), ("systemctl", "enable mirror"), ("mv", "bin/mirror")]
    {
        let board = Board::new("cut");
        board.send("A", "exit 0", "exit 0");
        board.stand_in(name, &format!("case \"$*\" in *'{end}') kill -9 $PPID; exit 1 ;; esac"));
        assert_eq!(board.ask("first").status.signal(), Some(9), "cut at {name} {end}");
        board.stand_in(name, "");
        let output = board.ask("update");
        assert!(said(&output).contains("no mirror on this board yet"), "{}", said(&output));
        let output = board.ask("first");
        assert!(output.status.success(), "{}", said(&output));
        assert_eq!(board.version(""), Some("A".into()));
        assert!(board.is_enabled());
    }
}

#[test]
fn an_update_mends_a_mirror_that_does_not_start_at_boot_or_lacks_its_unit() {
    let board = Board::with("not-enabled", "A");
    std::fs::remove_file(board.root().join("enabled")).expect("it was");
    std::fs::remove_file(board.place("mirror.service")).expect("it was there");
    board.send("B", "exit 0", "exit 0");
    let output = board.ask("update");
    assert!(output.status.success(), "{}", said(&output));
    assert!(board.is_enabled() && said(&output).contains("did not start at boot"));
    assert_eq!(board.version(""), Some("B".into()));
    assert!(!said(&board.ask("update")).contains("did not start"));
}

#[test]
fn what_cannot_be_made_to_start_at_boot_is_told_with_what_to_do() {
    let board = Board::with("cannot-enable", "A");
    std::fs::remove_file(board.root().join("enabled")).expect("it was");
    board.stand_in("systemctl", "case $1 in enable) exit 1 ;; esac");
    board.send("B", "exit 0", "exit 0");
    let output = board.ask("update");
    let told = said(&output);
    assert!(output.status.success() && told.contains("does not start at boot"), "{told}");
    assert!(told.contains("systemctl enable mirror") && !told.contains("from now on"), "{told}");
    assert_eq!(board.version(""), Some("B".into()));
}

/// What the shipped unit sets, each with why a mirror needs it.
const KEPT_IN: [(&str, &str); 11] = [
    ("User=mirror", "whatever is sent to the page or comes from a broker does not act as root"),
    ("NoNewPrivileges=yes", "nor does it become root by another program"),
    ("CapabilityBoundingSet=", "nor do what root may, without being root"),
    ("LimitCORE=0", "a core that the watchdog leaves has pictures and keys in it"),
    ("MemorySwapMax=0", "swap would put pictures and keys on the disk, where nothing erases them"),
    ("UMask=0077", "no other user reads a file of the mirror's"),
    (
        "StateDirectoryMode=0700",
        "nor its names, which tell how often the household corrects and when",
    ),
    (
        "ProtectSystem=strict",
        "what breaks into the mirror changes no program, and leaves nothing outside the data folder",
    ),
    ("ProtectHome=yes", "and reads nobody's files"),
    ("PrivateTmp=yes", "a picture in a temporary file is for no other program"),
    (
        "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK",
        "nothing reaches Bluetooth or raw packets",
    ),
];

#[test]
fn the_shipped_unit_keeps_pictures_in_and_others_out() {
    let text = std::fs::read_to_string(UNIT).expect("the unit");
    let (_, service) = text.split_once("[Service]\n").expect("a service");
    let (service, _) = service.split_once("\n[Install]").expect("what follows it");
    for (line, why) in KEPT_IN {
        let (key, _) = line.split_once('=').expect("a setting");
        let of_key = |line: &&str| line.split_once('=').is_some_and(|(name, _)| name == key);
        // A later line of the same key would count instead, or beside.
        let lines: Vec<&str> = service.lines().filter(of_key).collect();
        assert_eq!(lines, [line], "{why}");
    }
}

#[test]
fn an_update_keeps_what_ran_before() {
    let board = Board::with("update", "A");
    let old = std::fs::File::open(board.place("mirror")).expect("the old program");
    board.send("B", "exit 0", "exit 0");
    let output = board.ask("update");
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(board.version(""), Some("B".into()));
    assert_eq!(board.version(".old"), Some("A".into()));
    assert!(board.runs());
    board.assert_places_are_only_renamed_to();
    let text = std::io::read_to_string(old).expect("it can still be read");
    assert!(text.contains("# A"), "the old file was left as it was, and only lost its name");
    assert!(board.ask("update").status.success(), "the same once more");
    assert_eq!(board.version(".old"), Some("A".into()));
    // Where it turns out later that the new one is not wanted.
    for (back, kept) in [("A", "B"), ("B", "A")] {
        let output = board.ask("back");
        assert!(output.status.success(), "{}", said(&output));
        assert_eq!(
            (board.version(""), board.version(".old")),
            (Some(back.into()), Some(kept.into()))
        );
    }
    board.assert_places_are_only_renamed_to();
}

#[test]
fn going_back_from_what_does_not_run_keeps_the_one_that_does() {
    let board = Board::with("back", "A");
    board.send("B", "exit 0", "exit 0");
    board.is_cut_short("update");
    board.restarts_over_and_over();
    assert!(board.ask("back").status.success());
    assert_eq!(board.versions(), both("A", "A"));
}

#[test]
fn going_back_to_what_does_not_run_loses_no_program_that_does() {
    let ends: [(&str, fn(&Board)); 2] =
        [("starts-over", |_| ()), ("ended", |board| board.systemctl("stop"))];
    for (name, end) in ends {
        let board = Board::new(name);
        board.send("A", "exit 0", "[ ! -f \"$MIRROR_INSTALL_ROOT/no-camera\" ]");
        board.ask("first");
        board.systemctl("restart");
        board.send("B", "exit 0", "exit 0");
        assert!(board.ask("update").status.success());
        std::fs::write(board.root().join("no-camera"), "").expect("writable");
        let output = board.ask("back");
        let told = said(&output);
        assert!(!output.status.success());
        assert!(told.contains("(mirror A) is back, but does not run"), "{name}: {told}");
        assert_eq!(board.versions(), both("A", "B"), "{name}");
        end(&board);
        check_way_back(&board, name);
    }
}

/// An update to a bad program ends with B, which was good.
fn check_way_back(board: &Board, name: &str) {
    board.send("C", "exit 0", "exit 1");
    let told = said(&board.ask("update"));
    assert!(told.contains("(mirror B) is back and runs"), "{name}: {told}");
    assert_eq!(board.versions(), both("B", "B"), "{name}");
    assert!(board.runs());
}

#[test]
fn settings_that_the_old_program_refuses_change_nothing() {
    let board = Board::new("back-refused");
    board.send("A", "[ ! -f \"$MIRROR_INSTALL_ROOT/new-key\" ]", "exit 0");
    board.ask("first");
    board.systemctl("restart");
    board.send("B", "exit 0", "exit 0");
    assert!(board.ask("update").status.success());
    std::fs::write(board.root().join("new-key"), "").expect("a setting of the new program");
    let output = board.ask("back");
    assert!(!output.status.success());
    assert!(said(&output).contains("Nothing was changed"), "{}", said(&output));
    assert_eq!((board.version(""), board.version(".old")), (Some("B".into()), Some("A".into())));
    assert!(board.runs() && !board.has_leftovers());
}

#[test]
fn a_program_that_does_not_run_gives_its_place_back_however_often_it_is_tried() {
    let board = Board::with("broken", "A");
    for _ in 0..2 {
        board.send("B", "exit 0", "exit 1");
        let output = board.ask("update");
        assert!(!output.status.success());
        assert!(said(&output).contains("is back and runs"), "{}", said(&output));
        assert_eq!(board.version(""), Some("A".into()));
        assert_eq!(board.version(".old"), Some("A".into()));
        assert!(board.runs());
    }
    board.assert_places_are_only_renamed_to();
}

#[test]
fn what_was_not_seen_to_run_is_not_kept() {
    let board = Board::with("not-kept", "A");
    board.send("B", "exit 0", "exit 0");
    board.is_cut_short("update");
    board.restarts_over_and_over();
    board.send("C", "exit 0", "exit 1");
    assert!(!board.ask("update").status.success());
    assert_eq!(board.version(""), Some("A".into()), "the last one that ran before an update");
}

#[test]
fn what_does_not_run_and_has_none_before_it_stops_no_later_update() {
    let board = Board::with("none-before", "A");
    // Without it the program is not kept.
    std::fs::remove_file(board.place("mirror.service")).expect("it was there");
    board.send("B", "exit 0", "exit 1");
    let told = said(&board.ask("update"));
    assert!(told.contains("there is none to go back to"), "{told}");
    board.systemctl("stop");
    board.send("C", "exit 0", "exit 0");
    let output = board.ask("update");
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(board.versions(), (Some("C".into()), None));
    // The mark of a program that is tried says nothing of the one before.
    board.send("B", "exit 0", "exit 1");
    std::fs::remove_file(board.place("mirror.service")).expect("it was there");
    board.ask("update");
    board.send("C", "exit 0", "exit 0");
    board.is_cut_short("update");
    board.systemctl("stop");
    board.send("D", "exit 0", "exit 0");
    let told = said(&board.ask("update"));
    assert!(told.contains("systemctl start mirror"), "nobody knows whether C runs: {told}");
    assert_eq!(board.version(""), Some("C".into()));
}

#[test]
fn whoever_interrupts_the_way_back_from_a_bad_program_is_told_how_to_end_it() {
    let board = Board::with("back-interrupted", "A");
    board.send("B", "exit 0", "exit 1");
    // While the old program is written beside its place.
    board.stand_in("install", "case \"$*\" in *'/mirror.old '*) kill -TERM $PPID ;; esac");
    let output = board.ask("update");
    assert_eq!(output.status.code(), Some(1));
    let told = said(&output);
    assert!(
        told.contains("the new program does not run") && told.contains("install.sh back"),
        "{told}"
    );
    assert!(!told.contains("nobody has seen"), "{told}");
    board.stand_in("install", "");
    assert!(board.ask("back").status.success());
    assert_eq!(board.versions(), both("A", "A"));
    assert!(board.runs() && !board.has_leftovers());
}

#[test]
fn a_mark_that_cannot_be_written_is_not_told_as_if_nothing_was_changed() {
    let board = Board::with("no-mark", "A");
    std::fs::create_dir(board.place("mirror.trial")).expect("writable");
    board.send("B", "exit 0", "exit 0");
    let output = board.ask("update");
    assert!(!output.status.success());
    let told = said(&output);
    assert!(told.contains("could not be put in its place") && told.contains("df -h"), "{told}");
    assert!(!told.contains("nothing was changed"), "{told}");
    assert_eq!(board.versions(), both("A", "A"), "the way back was there first");
    assert!(board.runs());
}

fn both(now: &str, old: &str) -> (Option<String>, Option<String>) {
    (Some(now.into()), Some(old.into()))
}

#[test]
fn a_good_program_that_does_not_run_just_then_is_what_a_bad_update_goes_back_to() {
    let ends: [(&str, fn(&Board)); 3] = [
        ("stopped", |board| board.systemctl("stop")),
        ("waits-for-its-camera", Board::restarts_over_and_over),
        ("has-wrong-settings", |board| board.ends("failed")),
    ];
    for (name, end) in ends {
        let board = Board::with(name, "A");
        end(&board);
        board.send("B", "exit 0", "exit 1");
        let output = board.ask("update");
        assert!(!output.status.success());
        let told = said(&output);
        assert!(told.contains("The one before it (mirror A) is back and runs"), "{name}: {told}");
        assert_eq!(board.versions(), both("A", "A"), "{name}");
        board.send("B", "exit 0", "exit 0");
        assert!(board.ask("update").status.success());
        end(&board);
        check_way_back(&board, name);
    }
}

#[test]
fn going_back_from_a_good_program_that_was_stopped_keeps_it() {
    let board = Board::with("back-stopped", "A");
    board.send("B", "exit 0", "exit 0");
    assert!(board.ask("update").status.success());
    for (now, old) in [("A", "B"), ("B", "A")] {
        board.systemctl("stop");
        let output = board.ask("back");
        assert!(output.status.success(), "{}", said(&output));
        assert!(said(&output).contains(&format!("(mirror {now}) is back and runs")));
        assert_eq!(board.versions(), both(now, old));
    }
}

#[test]
fn a_second_call_at_the_same_time_is_refused() {
    let board = Board::with("twice", "A");
    // While the first one watches the new program.
    let (script, second) = (board.folder.join("sent/install.sh"), board.folder.join("second"));
    let [script, second] = [script, second].map(|path| path.display().to_string());
    for word in ["update", "back", "first"] {
        let call = format!("sh '{script}' {word} >'{second}' 2>&1 && echo succeeded >>'{second}'");
        board.stand_in("sleep", &format!("[ -f '{second}' ] || {{ {call}; }}; true"));
        board.send("B", "exit 0", "exit 0");
        let output = board.ask("update");
        assert!(output.status.success(), "{word}: {}", said(&output));
        let told = std::fs::read_to_string(&second).expect("called");
        assert!(told.contains("Another install.sh works on this board"), "{word}: {told}");
        assert!(!told.contains("succeeded"), "{word}: {told}");
        assert_eq!(board.versions(), both("B", "A"), "{word}");
        std::fs::remove_file(&second).expect("ours");
    }
}

#[test]
fn whoever_interrupts_a_watch_is_told_how_to_go_on_and_what_was_not_seen_to_run_is_not_kept() {
    let board = Board::with("interrupted", "A");
    let interrupt = |word: &str| {
        board.stand_in("sleep", "kill -TERM $PPID; exec /bin/sleep 10");
        let output = board.ask(word);
        board.stand_in("sleep", "");
        assert_eq!(output.status.code(), Some(1));
        said(&output)
    };
    let interrupt_update = || {
        let told = interrupt("update");
        assert!(told.contains("75 seconds") && told.contains("Interrupted"), "{told}");
        assert!(told.contains("sh install.sh update") && told.contains("sh install.sh back"));
        assert_eq!(board.versions(), both("B", "A"));
    };
    board.send("B", "exit 0", "exit 0");
    interrupt_update();
    board.systemctl("stop");
    board.send("C", "exit 0", "exit 1");
    let told = said(&board.ask("update"));
    assert!(told.contains("systemctl start mirror"), "nobody knows whether B runs: {told}");
    assert_eq!(board.versions(), both("B", "A"));
    assert!(!board.has_leftovers());
    board.systemctl("restart");
    board.restarts_over_and_over();
    assert!(said(&board.ask("update")).contains("(mirror A) is back and runs"));
    assert_eq!(board.versions(), both("A", "A"), "the last one that was seen to run");
    // The same again is seen to run then, and kept.
    board.send("B", "exit 0", "exit 0");
    interrupt_update();
    assert!(board.ask("update").status.success());
    board.systemctl("stop");
    board.send("C", "exit 0", "exit 0");
    assert!(board.ask("update").status.success());
    assert_eq!(board.versions(), both("C", "B"));
    let told = interrupt("back");
    assert!(told.contains("which is back") && told.contains("systemctl status mirror"), "{told}");
    assert_eq!(board.versions(), both("B", "C"));
    board.systemctl("stop");
    board.send("D", "exit 0", "exit 1");
    let told = said(&board.ask("update"));
    assert!(told.contains("systemctl start mirror"), "nobody knows whether B runs: {told}");
    assert_eq!(board.versions(), both("B", "C"), "the last one that was seen to run");
}

#[test]
fn a_way_back_that_the_power_cut_short_keeps_the_way_forth() {
    // After the first rename, and before the last one.
    for end in ["bin/mirror", "system/mirror.service.old"] {
        for word in ["back", "update"] {
            let board = Board::with("back-cut", "A");
            board.send("B", "exit 0", "exit 0");
            assert!(board.ask("update").status.success());
            let cut =
                format!("case \"$*\" in *'{end}') /bin/mv \"$@\"; kill -9 $PPID; exit ;; esac");
            board.stand_in("mv", &cut);
            assert_eq!(board.ask("back").status.signal(), Some(9), "cut at {end}");
            board.stand_in("mv", "");
            board.send("C", "exit 0", "exit 0");
            let output = board.ask(word);
            assert!(output.status.success(), "{}", said(&output));
            let expected = if word == "back" { both("A", "B") } else { both("C", "A") };
            assert_eq!(board.versions(), expected, "{word} after {end}");
            assert!(board.runs() && !board.has_leftovers());
        }
    }
}

#[test]
fn settings_that_the_new_program_refuses_change_nothing() {
    let board = Board::with("refused", "A");
    board.send("B", "exit 2", "exit 0");
    let output = board.ask("update");
    assert!(!output.status.success());
    assert!(said(&output).contains("Nothing was changed"), "{}", said(&output));
    assert_eq!(board.version(""), Some("A".into()));
    assert_eq!(board.version(".old"), None);
    assert!(board.runs() && !board.has_leftovers());
}

#[test]
fn settings_of_no_use_to_a_part_of_the_mirror_stop_no_update() {
    let board = Board::with("of-no-use", "A");
    board.send("B", "[ $2 = show ]", "exit 0");
    let output = board.ask("update");
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("The update goes on"), "{}", said(&output));
    assert_eq!(board.version(""), Some("B".into()));
}

#[test]
fn a_program_that_ends_soon_after_it_was_ready_does_not_run() {
    let board = Board::with("unsteady", "A");
    // Systemd starts it anew meanwhile, as another process.
    write_program(
        &board.folder.join("bin/sleep"),
        "grep -q B \"$MIRROR_INSTALL_ROOT/usr/local/bin/mirror\" && echo 1 >\"$MIRROR_INSTALL_ROOT/active\"; exit 0",
    );
    board.send("B", "exit 0", "exit 0");
    assert!(!board.ask("update").status.success());
    assert_eq!(board.version(""), Some("A".into()));
    assert!(board.runs());
}

#[test]
fn a_disk_without_room_for_the_way_back_keeps_what_is_there() {
    let board = Board::with("full", "A");
    board.fail("install", ".old.new");
    board.send("B", "exit 0", "exit 0");
    let output = board.ask("update");
    assert!(!output.status.success());
    let told = said(&output);
    assert!(told.contains("nothing was changed") && told.contains("df -h"), "{told}");
    assert_eq!(board.version(""), Some("A".into()));
    assert!(board.runs() && !board.has_leftovers());
}

#[test]
fn what_a_full_disk_has_kept_from_happening_is_told() {
    let board = Board::with("unwritten", "A");
    board.send("B", "exit 0", "exit 0");
    assert!(board.ask("update").status.success());
    board.send("C", "exit 0", "exit 0");
    for (name, end, words) in [
        ("install", "mirror.new", "nothing was changed"),
        ("install", "mirror.service.new", "nothing was changed"),
        ("mv", "bin/mirror", "could not be put in its place"),
    ] {
        board.fail(name, end);
        for word in ["update", "back"] {
            let output = board.ask(word);
            assert!(!output.status.success());
            let told = said(&output);
            assert!(told.contains(words) && told.contains("df -h"), "{word}, {end}: {told}");
            assert_eq!(board.version(""), Some("B".into()), "{word}, {end}");
            assert!(board.runs());
        }
        board.stand_in(name, "");
    }
    // Whatever was placed of a program that does not run, the one that ran is what a second try goes back to.
    board.send("C", "exit 0", "exit 1");
    for name in ["bin/mirror", "system/mirror.service"] {
        board.fail("mv", name);
        assert!(!board.ask("update").status.success());
        board.stand_in("mv", "");
        assert!(!board.ask("update").status.success());
        assert_eq!(board.version(""), Some("B".into()), "{name}");
        assert!(board.runs(), "{name}");
    }
    // The new program does not run, and there is no room for the old one beside it.
    board.stand_in("install", "grep -q B \"$MIRROR_INSTALL_ROOT/usr/local/bin/mirror\" || exit 1");
    let told = said(&board.ask("update"));
    assert!(told.contains("could not be put back") && told.contains("install.sh back"), "{told}");
    board.stand_in("install", "");
    assert!(board.ask("back").status.success());
    assert_eq!(board.version(""), Some("B".into()));
}
