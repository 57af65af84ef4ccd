//! Wrong usage and wrong settings: exit code 2, and a message that says what to do.

mod common;

use std::path::PathBuf;

use common::{Folder, mirror, output, stderr, stdout};

#[test]
fn an_unknown_key_is_named_with_its_file_and_a_suggestion() {
    let folder = Folder::new("key");
    let file = folder.file("my.toml", "[camera]\nwidht = 640\n");
    for command in ["run", "bench"] {
        let result = output(mirror(&folder).arg(command).arg("--config").arg(&file));
        let text = stderr(&result);
        assert_eq!(result.status.code(), Some(2), "{text}");
        for part in ["my.toml", "camera.widht", "did you mean `width`?"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}

#[test]
fn a_missing_settings_file_is_named() {
    let folder = Folder::new("file");
    let result = output(mirror(&folder).args(["run", "--config", "/nowhere/mirror.toml"]));
    let text = stderr(&result);
    assert_eq!(result.status.code(), Some(2), "{text}");
    assert!(
        text.contains("/nowhere/mirror.toml") && text.contains("name an existing file"),
        "{text}"
    );
}

#[test]
fn a_variable_that_is_no_text_is_named() {
    use std::os::unix::ffi::OsStrExt;
    let folder = Folder::new("bytes");
    let bytes = std::ffi::OsStr::from_bytes(b"/data/\xff");
    let result = output(mirror(&folder).args(["config", "show"]).env("MIRROR_DATA_DIR", bytes));
    let text = stderr(&result);
    assert_eq!(result.status.code(), Some(2), "{text}");
    assert!(text.contains("MIRROR_DATA_DIR is not UTF-8"), "{text}");
}

#[test]
fn a_misspelt_variable_is_told_of_and_stops_nothing() {
    let folder = Folder::new("misspelt");
    let mut command = mirror(&folder);
    command.args(["config", "check"]).env("MIRROR_CAMERA_WIDHT", "640");
    let result = output(command.env("MIRROR_TEST_X11", "1"));
    let text = stderr(&result);
    assert!(result.status.success(), "{text}");
    assert!(text.contains("MIRROR_CAMERA_WIDHT (did you mean `MIRROR_CAMERA_WIDTH`?)"), "{text}");
    assert!(!text.contains("MIRROR_TEST_X11") && !text.contains("MIRROR_SYSTEM_FILE"), "{text}");
}

#[test]
fn a_standard_error_that_takes_nothing_ends_nothing() {
    let folder = Folder::new("full");
    let full = || std::fs::File::options().write(true).open("/dev/full").expect("a Linux");
    let mut command = mirror(&folder);
    command.args(["config", "check"]).env("MIRROR_CAMERA_WIDHT", "640").stderr(full());
    assert_eq!(output(&mut command).status.code(), Some(0), "a line of the log");
    let mut command = mirror(&folder);
    command.args(["config", "show", "--config", "/nowhere/mirror.toml"]).stderr(full());
    assert_eq!(output(&mut command).status.code(), Some(2), "what stops it");
    let set = folder.path().join("set");
    std::fs::create_dir_all(set.join("images")).expect("writable");
    std::fs::write(set.join("images/film.webp"), "no picture").expect("writable");
    let classes = "[[class]]\nindex = 1\nname = \"head\"\nmaps = [\"head\"]\n";
    std::fs::write(set.join("classes.toml"), classes).expect("writable");
    let mut command = mirror(&folder);
    command.arg("eval").arg(set).stderr(full());
    assert_eq!(output(&mut command).status.code(), Some(1), "a warning before it");
}

#[test]
fn values_out_of_range_are_refused_wherever_they_come_from() {
    let folder = Folder::new("range");
    for (name, value, parts) in [
        ("MIRROR_CAMERA_WIDTH", "7", ["camera.width", "32 to 8192"]),
        ("MIRROR_DISPLAY_KIND", "hologram", ["display.kind", "headless:FOLDER"]),
        ("MIRROR_PAGE_LISTEN", "0.0.0.0:8080", ["page.listen", "loopback"]),
        ("MIRROR_PAGE_LISTEN", "[::]:8080", ["page.listen", "loopback"]),
        ("MIRROR_PAGE_LISTEN", "127.0.0.2:8080", ["page.listen", "127.0.0.1 or [::1]"]),
        ("MIRROR_BOARD", "toaster", ["toaster", "rpi5"]),
    ] {
        let result = output(mirror(&folder).env(name, value));
        let text = stderr(&result);
        assert_eq!(result.status.code(), Some(2), "{name}={value}: {text}");
        assert!(parts.iter().all(|part| text.contains(part)), "{text}");
    }
}

#[test]
fn what_only_a_part_of_the_mirror_could_refuse_is_refused_by_the_check() {
    let folder = Folder::new("parts");
    for (name, text, parts) in [
        (
            "epsilon",
            "epsilon = 3",
            ["`learning.epsilon` = 3.0", "noise_multiplier to at least 1.", "larger"],
        ),
        (
            "noise",
            "noise_multiplier = 0.5",
            ["`learning.noise_multiplier` = 0.5", "at least 0.6", "epsilon"],
        ),
        (
            "decimals",
            "noise_multiplier = 1.2345678",
            ["`learning.noise_multiplier`", "six decimals", "toml"],
        ),
        (
            "sampler",
            "noise_multiplier = 40.000001",
            ["`learning.noise_multiplier`", "fewer", "toml"],
        ),
        (
            "plan",
            "epsilon = 0.001\nlifetime_releases = 1000",
            ["`learning.lifetime_releases`", "fewer releases", "toml"],
        ),
    ] {
        let file = folder.file(&format!("{name}.toml"), format!("[learning]\n{text}\n"));
        for arguments in [["check"].as_slice(), &["check", "--config"]] {
            let result = output(mirror(&folder).arg("config").args(arguments).arg(&file));
            let text = stderr(&result);
            assert_eq!(result.status.code(), Some(2), "{name}: {text}");
            assert!(parts.iter().all(|part| text.contains(part)), "{name}: {text}");
            assert!(text.contains(&format!("{name}.toml")), "{name}: {text}");
        }
        let ledger = output(mirror(&folder).args(["privacy", "ledger", "--config"]).arg(&file));
        assert!(stdout(&ledger).contains("of at most 0"), "{name}: {}", stderr(&ledger));
    }
    let name = "[home_assistant]\nenabled = true\nhost = \"home\"\nname = \"fleet\"\n";
    let result =
        output(mirror(&folder).args(["config", "check"]).arg(folder.file("name.toml", name)));
    assert_eq!(result.status.code(), Some(2));
    assert!(stderr(&result).contains("`home_assistant.name` = \"fleet\""), "{}", stderr(&result));
}

fn pem_of(certificate: &rcgen::Certificate) -> String {
    pem::encode(&pem::Pem::new("CERTIFICATE", certificate.der().to_vec()))
}

#[test]
fn what_names_a_file_that_is_not_there_is_refused_by_the_check_of_the_settings_in_effect() {
    let folder = Folder::new("files");
    let key = rcgen::KeyPair::generate().expect("a key");
    let authority = rcgen::CertificateParams::new(Vec::new()).expect("no names");
    let there = folder.file("there", pem_of(&authority.self_signed(&key).expect("signed")));
    let home = "[home_assistant]\nenabled = true\nhost = \"home\"\n";
    for (key, text) in [
        ("camera.source", "[camera]\nsource = \"PATH\"\n".to_owned()),
        ("fleet.folder", "[fleet]\nenabled = true\nhost = \"a\"\nfolder = \"PATH\"\n".to_owned()),
        (
            "home_assistant.password_file",
            format!("{home}user = \"me\"\npassword_file = \"PATH\"\n"),
        ),
        ("home_assistant.authority", format!("{home}authority = \"PATH\"\n")),
        ("camera.device", "[camera]\ndevice = \"PATH\"\n".to_owned()),
        ("display.drm_device", "[display]\ndrm_device = \"PATH\"\n".to_owned()),
        ("display.fbdev_device", "[display]\nfbdev_device = \"PATH\"\n".to_owned()),
        ("thermal.sensor", "[thermal]\nsensor = \"PATH\"\n".to_owned()),
    ] {
        let check = |path: &str| {
            let file = folder.file("my.toml", text.replace("PATH", path));
            output(mirror(&folder).args(["config", "check", "--config"]).arg(file))
        };
        let result = check("/nowhere/it");
        let told = stderr(&result);
        assert_eq!(result.status.code(), Some(2), "{key}: {told}");
        for part in [&format!("`{key}` = \"/nowhere/it\""), "my.toml"] {
            assert!(told.contains(part), "{key}: {told}");
        }
        let result = check(there.to_str().expect("text"));
        assert!(result.status.success(), "{key}: {}", stderr(&result));
        // A file for another machine is checked by itself.
        let file = folder.file("my.toml", text.replace("PATH", "/nowhere/it"));
        assert!(output(mirror(&folder).args(["config", "check"]).arg(file)).status.success());
    }
}

#[test]
fn a_mirror_s_certificate_that_has_ended_is_refused_by_the_check_of_the_settings_in_effect() {
    let folder = Folder::new("ended");
    let key = rcgen::KeyPair::generate().expect("a key");
    let text = "[fleet]\nenabled = true\nhost = \"a\"\nfolder = \"PATH\"\n";
    let file = folder.file("my.toml", text.replace("PATH", folder.path().to_str().expect("text")));
    let check = |end: i32| {
        let mut wanted = rcgen::CertificateParams::new(Vec::new()).expect("no names");
        wanted.not_after = rcgen::date_time_ymd(end, 11, 1);
        folder.file("device.pem", pem_of(&wanted.self_signed(&key).expect("signed")));
        output(mirror(&folder).args(["config", "check", "--config"]).arg(&file))
    };
    let result = check(3000);
    assert!(result.status.success(), "{}", stderr(&result));
    let result = check(2021);
    let told = stderr(&result);
    assert_eq!(result.status.code(), Some(2), "{told}");
    for part in ["`fleet.folder`", "device.pem ended on 2021-11-01", "enrol the mirror anew"] {
        assert!(told.contains(part), "{told}");
    }
}

#[test]
fn a_device_that_nothing_uses_or_that_a_profile_names_need_not_be_there() {
    let folder = Folder::new("unused");
    for text in [
        "[camera]\nsource = \"demo\"\ndevice = \"/nowhere/it\"\n",
        "[display]\nkind = \"fbdev\"\ndrm_device = \"/nowhere/it\"\n",
        "[display]\nkind = \"headless\"\nfbdev_device = \"/nowhere/it\"\n",
        "[thermal]\nsensor = \"\"\n",
    ] {
        let file = folder.file("my.toml", text);
        let result = output(mirror(&folder).args(["config", "check", "--config"]).arg(file));
        assert!(result.status.success(), "{text}: {}", stderr(&result));
    }
    // Its screen is a card that a machine of the tests may lack.
    let result = output(mirror(&folder).args(["config", "check", "--board", "rpi5"]));
    assert!(result.status.success(), "{}", stderr(&result));
}

#[test]
fn an_authority_of_the_home_s_broker_that_is_none_is_refused_by_the_check_and_no_matter_of_a_fleet()
{
    let folder = Folder::new("authority");
    let text = "[home_assistant]\nenabled = true\nhost = \"home\"\nauthority = \"PATH\"\n";
    for path in [folder.file("empty.pem", ""), folder.path().to_owned()] {
        let text = text.replace("PATH", path.to_str().expect("text"));
        let file = folder.file("my.toml", text);
        let result = output(mirror(&folder).args(["config", "check", "--config"]).arg(file));
        let told = stderr(&result);
        assert_eq!(result.status.code(), Some(2), "{told}");
        assert!(told.contains("give home_assistant.authority the PEM file"), "{told}");
        assert!(!told.contains("enrol"), "{told}");
    }
}

#[test]
fn what_the_service_does_not_see_is_refused_by_the_check_of_its_settings() {
    let folder = Folder::new("hidden");
    for (key, text) in [
        ("camera.source", "[camera]\nsource = \"/tmp\"\n"),
        ("fleet.folder", "[fleet]\nenabled = true\nhost = \"a\"\nfolder = \"/tmp\"\n"),
        // The mirror makes these, where it may.
        ("data_dir", "data_dir = \"/home/it/is/not/there\"\n"),
        ("display.kind", "[display]\nkind = \"headless:/tmp/it-is-not-there\"\n"),
    ] {
        let file = folder.file("system.toml", text);
        let mut command = mirror(&folder);
        let result = output(command.args(["config", "check"]).env("MIRROR_SYSTEM_FILE", &file));
        let told = stderr(&result);
        assert_eq!(result.status.code(), Some(2), "{told}");
        for part in [key, "system.toml", "the service sees nothing under"] {
            assert!(told.contains(part), "{told}");
        }
        let result = output(mirror(&folder).args(["config", "check", "--config"]).arg(&file));
        assert!(result.status.success(), "not the service's file: {}", stderr(&result));
    }
}

#[test]
fn settings_that_the_disk_does_not_give_are_asked_for_again() {
    let folder = Folder::new("disk");
    // Nothing is mapped at its beginning, so that reading it is an I/O error.
    let broken = "/proc/self/mem";
    let result = output(mirror(&folder).args(["run"]).env("MIRROR_SYSTEM_FILE", broken));
    let text = stderr(&result);
    assert_eq!(result.status.code(), Some(1), "2 would keep the service from starting: {text}");
    assert!(text.contains(broken) && text.contains("look at the disk"), "{text}");
    for file in [folder.path(), &folder.file("bytes", b"\xff")] {
        let result = output(mirror(&folder).args(["run"]).env("MIRROR_SYSTEM_FILE", file));
        assert_eq!(result.status.code(), Some(2), "{}", stderr(&result));
        assert!(stderr(&result).contains("a text file"), "{}", stderr(&result));
    }
}

#[test]
fn wrong_options_are_explained() {
    let folder = Folder::new("usage");
    for arguments in [
        vec!["run", "--frames", "none"],
        vec!["run", "--frames", "0"],
        vec!["dance"],
        vec!["parse", "--out", "x"],
        vec!["--frames", "1", "bench"],
    ] {
        let result = output(mirror(&folder).args(&arguments));
        assert_eq!(result.status.code(), Some(2), "{arguments:?}: {}", stderr(&result));
    }
    let result = output(mirror(&folder).args(["run", "--display", "hologram"]));
    assert_eq!(result.status.code(), Some(2), "{}", stderr(&result));
    let version = stdout(&output(mirror(&folder).arg("--version")));
    assert_eq!(version, format!("mirror {}\n", mirror::VERSION));
    let help = output(mirror(&folder).arg("--help"));
    assert!(help.status.success());
    for command in ["run", "parse", "bench", "eval", "config"] {
        assert!(stdout(&help).contains(&format!("\n  {command} ")), "{}", stdout(&help));
    }
}

#[test]
fn show_tells_every_value_and_where_it_comes_from() {
    let folder = Folder::new("show");
    let file = folder.file("my.toml", "[overlay]\nopacity = 0.5\n");
    let mut command = mirror(&folder);
    command.args(["config", "show", "--config"]).arg(&file).env("MIRROR_CAMERA_RATE", "12");
    let text = stdout(&output(&mut command));
    let line = |key: &str| text.lines().find(|line| line.starts_with(key)).unwrap_or_default();
    assert!(line("overlay.opacity = 0.5").contains("my.toml"), "{text}");
    assert!(line("camera.rate = 12").contains("MIRROR_CAMERA_RATE"), "{text}");
    assert!(line("overlay.show_fps = true").contains("board profile pc"), "{text}");
    assert!(line("camera.timeout_ms = 3000").contains("built-in defaults"), "{text}");
    let copy = folder.file("copy.toml", &text);
    let checked = output(mirror(&folder).args(["config", "check"]).arg(&copy));
    assert!(checked.status.success(), "what is shown can be read: {}", stderr(&checked));
    let json = output(mirror(&folder).args(["config", "show", "--json"]));
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).expect("JSON");
    let settings = text.lines().filter(|line| !line.starts_with('#')).count();
    assert_eq!(json.as_array().map(Vec::len), Some(settings));
}

#[test]
fn the_board_that_was_taken_is_told_with_the_reason() {
    let folder = Folder::new("board");
    let mut asked = mirror(&folder);
    asked.args(["config", "check"]).env("MIRROR_BOARD", "rk3588");
    let told = stdout(&output(&mut asked));
    let words = "valid on board rk3588: asked for by --board or MIRROR_BOARD";
    assert!(told.contains(words), "{told}");
    let mut found = mirror(&folder);
    let shown = stdout(&output(found.args(["config", "show"]).env_remove("MIRROR_BOARD")));
    let first = shown.lines().next().unwrap_or_default();
    // Where the tests run on a board of its own it is told by its device tree.
    let reasons = ["no device tree", "no profile names this board", "this board is a "];
    assert!(first.starts_with("# board "), "{first}");
    assert!(reasons.iter().any(|reason| first.contains(reason)), "{first}");
}

#[test]
fn a_network_s_folder_without_a_network_is_refused_by_the_check() {
    let folder = Folder::new("network");
    let [empty, broken] = ["empty", "broken"].map(|name| folder.path().join(name));
    for made in [&empty, &broken] {
        std::fs::create_dir(made).expect("writable");
    }
    std::fs::write(broken.join("manifest.toml"), "version = 1\n").expect("writable");
    let nowhere = PathBuf::from("/nowhere/it");
    let cases =
        [(&nowhere, "there is no such file"), (&empty, "manifest.toml"), (&broken, "manifest")];
    for (path, part) in cases {
        let file = folder.file("my.toml", format!("[vision]\nmodel = \"{}\"\n", path.display()));
        let result = output(mirror(&folder).args(["config", "check", "--config"]).arg(file));
        let told = stderr(&result);
        assert_eq!(result.status.code(), Some(2), "{told}");
        assert!(told.contains("`vision.model`") && told.contains(part), "{told}");
    }
}

#[test]
fn the_system_file_can_be_another() {
    let folder = Folder::new("system");
    let file = folder.file("system.toml", "[overlay]\nopacity = 0.25\n");
    let mut command = mirror(&folder);
    let text = stdout(&output(command.args(["config", "show"]).env("MIRROR_SYSTEM_FILE", &file)));
    let line = text.lines().find(|line| line.starts_with("overlay.opacity")).unwrap_or_default();
    assert!(line.contains("0.25") && line.contains("system.toml"), "{text}");
}

#[test]
fn check_tells_every_broken_file() {
    let folder = Folder::new("check");
    let good = folder.file("good.toml", "[camera]\nwidth = 320\n");
    let first = folder.file("first.toml", "[camera]\nwidth = \"wide\"\n");
    let second = folder.file("second.toml", "[camera\n");
    let result = output(mirror(&folder).args(["config", "check"]).args([&good, &first, &second]));
    let text = stderr(&result);
    assert_eq!(result.status.code(), Some(2), "{text}");
    assert!(text.contains("first.toml") && text.contains("second.toml"), "{text}");
    assert!(stdout(&result).contains("good.toml: valid"));
    assert!(output(mirror(&folder).args(["config", "check"])).status.success());
}
