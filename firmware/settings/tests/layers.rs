//! Layers, messages and every profile in the repository.

use settings::{
    Alignment, Board, CameraFormat, DisplayKind, Effective, Layers, Parameters, SettingsError,
    Turn, boards,
};

fn finish(text: &str) -> Result<Effective, SettingsError> {
    Layers::defaults()?.file("mirror.toml", text)?.finish()
}

fn message(text: &str) -> String {
    finish(text).expect_err("must be refused").to_string()
}

#[test]
fn defaults_are_valid_and_private() {
    let settings = finish("").expect("valid").settings;
    assert!(settings.page.listen.ip().is_loopback());
    assert_eq!(settings.overlay.alignment, Alignment::Picture);
    assert_eq!(settings.data_dir, None);
    assert_eq!(settings.fleet, None);
    let fleet =
        finish("[fleet]\nenabled = true\nhost = \"fleet.example\"").expect("valid").settings.fleet;
    assert_eq!(fleet.expect("switched on").min_cohort, 100);
}

#[test]
fn every_board_profile_in_the_folder_is_built_in_and_valid() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../board");
    let built_in: Vec<String> =
        boards().expect("valid").into_iter().map(|board| board.name).collect();
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).expect("board folder") {
        let path = entry.expect("entry").path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("readable");
        let board = Board::parse(&path.display().to_string(), &text).expect("valid profile");
        assert!(built_in.contains(&board.name), "{} is not built in", board.name);
        Layers::defaults().and_then(|l| l.board(&board)).and_then(Layers::finish).expect("usable");
        seen += 1;
    }
    assert_eq!(seen, built_in.len());
}

#[test]
fn half_a_login_at_the_home_s_broker_is_refused() {
    let with =
        |more: &str| format!("[home_assistant]\nenabled = true\nhost = \"home.example\"\n{more}");
    let half = message(&with("password_file = \"/etc/mirror/home\""));
    assert!(half.contains("home_assistant.user"), "{half}");
    let half = message(&with("user = \"mirror\""));
    assert!(half.contains("home_assistant.password_file"), "{half}");
    assert!(finish(&with("user = \"mirror\"\npassword_file = \"/etc/mirror/home\"")).is_ok());
    assert!(finish(&with("")).is_ok());
}

#[test]
fn the_device_tree_tells_the_board() {
    let name = |model| Board::detect(model).expect("found").name;
    assert_eq!(name(Some("Raspberry Pi 5 Model B Rev 1.0")), "rpi5");
    assert_eq!(name(Some("Raspberry Pi 4 Model B Rev 1.4")), "rpi4");
    assert_eq!(name(Some("Raspberry Pi Compute Module 4 Rev 1.0")), "rpi4");
    assert_eq!(name(Some("Radxa ROCK 5B")), "rk3588");
    assert_eq!(name(Some("linux,dummy-virt")), "pc", "any virtual machine");
    assert_eq!(name(None), "pc");
    let error = Board::named("rpi9").expect_err("unknown").to_string();
    assert_eq!(
        error,
        "there is no board profile `rpi9`; choose one of pc, rpi5, rpi4, rk3588, virt"
    );
}

#[test]
fn stronger_layers_win_key_by_key_and_are_named() {
    let effective = Layers::defaults()
        .and_then(|l| l.board(&Board::named("rk3588")?))
        .and_then(|l| l.file("/etc/mirror/mirror.toml", "[camera]\nheight = 1080"))
        .and_then(|l| {
            l.environment(|name| match name {
                "MIRROR_CAMERA_RATE" => Some("25".into()),
                "MIRROR_CAMERA_FORMATS" => Some("MJPG, YUYV".into()),
                _ => None,
            })
        })
        .and_then(|l| l.set("--source", "camera.source", "demo"))
        .and_then(Layers::finish)
        .expect("valid");
    let camera = &effective.settings.camera;
    assert_eq!((camera.width, camera.height, camera.rate), (1280, 1080, 25));
    assert_eq!(camera.formats, [CameraFormat::Mjpg, CameraFormat::Yuyv]);
    assert_eq!(camera.source, "demo");
    let origin = |key: &str| {
        effective.entries().into_iter().find(|entry| entry.key == key).expect("key").origin
    };
    assert_eq!(origin("camera.width"), "board profile rk3588");
    assert_eq!(origin("camera.height"), "/etc/mirror/mirror.toml");
    assert_eq!(origin("camera.rate"), "environment variable MIRROR_CAMERA_RATE");
    assert_eq!(origin("camera.source"), "--source");
    assert_eq!(origin("camera.timeout_ms"), "built-in defaults");
    assert!(effective.is_set("camera.rate") && effective.is_set("thermal.limit_celsius"));
    assert!(!effective.is_set("camera.timeout_ms") && !effective.is_set("thermal.sensor"));
}

#[test]
fn what_is_shown_can_be_loaded_again() {
    let first = finish("[camera]\nwidth = 320\n[overlay]\nalignment = \"reflection\"").expect("ok");
    let shown =
        first.entries().into_iter().map(|entry| format!("{} = {}\n", entry.key, entry.value));
    let second = finish(&shown.collect::<String>()).expect("shown settings load");
    assert_eq!(first.settings, second.settings);
}

#[test]
fn every_key_has_its_own_environment_variable() {
    let effective = finish("").expect("valid");
    let mut names: Vec<String> = effective
        .entries()
        .into_iter()
        .map(|entry| entry.key.replace('.', "_").to_uppercase())
        .collect();
    let before = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), before);
}

#[test]
fn messages_name_the_file_the_key_and_the_next_step() {
    let check = |text: &str, expect: &str| assert_eq!(message(text), expect);
    check(
        "[camera]\nwidht = 640",
        "mirror.toml: there is no setting `camera.widht` (did you mean `width`?); \
         `mirror config show` lists them all",
    );
    check(
        "[camera]\nwidth = \"640\"",
        "mirror.toml: `camera.width` must be a whole number, not a text in quotes",
    );
    check(
        "[camera]\nwidth = 8",
        "mirror.toml: `camera.width` = 8 cannot be used: it must be 32 to 8192",
    );
    check(
        "[camera]\nrate = 1\ntimeout_ms = 1500",
        "mirror.toml: `camera.timeout_ms` = 1500 cannot be used: at camera.rate = 1 it must be at least 2000, \
         the time of two pictures",
    );
    check(
        "[camera]\ntimeout_ms = 150",
        "mirror.toml: `camera.timeout_ms` = 150 cannot be used: it must be 1000 to 60000",
    );
    check(
        "[camera]\nrotation = 45",
        "mirror.toml: `camera.rotation` = 45 cannot be used: it must be 0, 90, 180 or 270",
    );
    check(
        "[camera]\nformats = [\"H264\"]",
        "mirror.toml: `camera.formats` = [\"H264\"] cannot be used: choose from YUYV, NV12, MJPG, RGB3",
    );
    check(
        "[camera]\nformats = [\"YUYV\", 1]",
        "mirror.toml: `camera.formats[1]` must be a text in quotes, not a whole number",
    );
    check(
        "[page]\nlisten = \"localhost\"",
        "mirror.toml: `page.listen` = \"localhost\" cannot be used: it must be an address and a \
         port, such as 127.0.0.1:8080",
    );
    check(
        "[camera]\nformats = []",
        "mirror.toml: `camera.formats` = [] cannot be used: name at least one",
    );
    check(
        "[overlay]\nalignment = \"sideways\"",
        "mirror.toml: `overlay.alignment` = \"sideways\" cannot be used: choose reflection or picture",
    );
    check(
        "[learning]\nparameters = \"all\"",
        "mirror.toml: `learning.parameters` = \"all\" cannot be used: choose auto, sparse or full",
    );
    assert!(message("[display]\nkind = \"hologram\"").contains("headless:FOLDER"));
    assert!(message("[display]\nkind = \"headless:\"").contains("headless:FOLDER"));
    assert!(message("[camera]\ndevice = \"\"").contains("camera.device"));
    assert!(message("camera = 3").contains("`camera` must be a table"));
    assert!(message("[camera").starts_with("mirror.toml: not valid TOML"));
    assert!(message("[vision]\nperson_score = nan").contains("it must be 0 to 1"));
}

#[test]
fn every_word_of_a_list_is_read() {
    let learning = |word: &str| finish(&format!("[learning]\nparameters = \"{word}\""));
    let parameters = ["auto", "sparse", "full"]
        .map(|word| learning(word).expect("valid").settings.learning.parameters);
    assert_eq!(parameters, [Parameters::Auto, Parameters::Sparse, Parameters::Full]);
    let turned = |degrees: u32| finish(&format!("[display]\nrotation = {degrees}"));
    let turns = [0, 90, 180, 270].map(|by| turned(by).expect("valid").settings.display.rotation);
    assert_eq!(turns, [Turn::None, Turn::Quarter, Turn::Half, Turn::ThreeQuarters]);
    let kind = |word: &str| {
        let settings = finish(&format!("[display]\nkind = \"{word}\"")).expect("valid").settings;
        settings.display.kind
    };
    let kinds = ["auto", "drm", "fbdev", "window", "headless", "headless:a:b c"].map(kind);
    let folder = |name: Option<&str>| DisplayKind::Headless(name.map(Into::into));
    let expected = [DisplayKind::Auto, DisplayKind::Drm, DisplayKind::Fbdev, DisplayKind::Window];
    assert_eq!(kinds[..4], expected);
    assert_eq!(kinds[4..], [folder(None), folder(Some("a:b c"))]);
}

#[test]
fn the_page_is_not_opened_to_the_network() {
    for address in ["0.0.0.0:8080", "192.168.1.20:8080", "[::]:80", "127.0.0.2:8080"] {
        let text = format!("[page]\nlisten = \"{address}\"");
        assert!(message(&text).contains("only a loopback address"), "{address}");
    }
    finish("[page]\nlisten = \"[::1]:8080\"").expect("loopback is allowed");
}

#[test]
fn the_home_network_gets_a_door_of_its_own_only_when_asked_for() {
    assert_eq!(finish("").expect("valid").settings.page.network, None);
    let paired = "[page]\naccess = \"paired\"\nnetwork_listen = \"192.168.1.20:8443\"";
    let page = finish(paired).expect("valid").settings.page;
    assert_eq!(page.network, "192.168.1.20:8443".parse().ok());
    assert!(page.listen.ip().is_loopback(), "the device's own door stays where it was");
    assert!(message("[page]\naccess = \"everybody\"").contains("choose device or paired"));
    assert!(message("[page]\nnetwork_listen = \"8443\"").contains("page.network_listen"));
    let same = "[page]\naccess = \"paired\"\nnetwork_listen = \"0.0.0.0:8080\"";
    assert!(message(same).contains("another port"));
}

#[test]
fn a_budget_that_promises_nothing_is_refused() {
    for (key, value) in [("epsilon", "0"), ("epsilon", "nan"), ("delta", "0.5"), ("delta", "0")] {
        let text = message(&format!("[learning]\n{key} = {value}"));
        assert!(text.contains(&format!("learning.{key}")), "{text}");
    }
}

#[test]
fn a_bad_environment_variable_is_named_with_its_text() {
    let told = |text: &str| {
        Layers::defaults()
            .and_then(|l| l.environment(|n| (n == "MIRROR_CAMERA_RATE").then(|| text.into())))
            .expect_err("not a number of pictures")
            .to_string()
    };
    for text in ["fast", "64O", ""] {
        assert_eq!(
            told(text),
            format!(
                "environment variable MIRROR_CAMERA_RATE: `camera.rate` must be a whole number, not \"{text}\""
            )
        );
    }
    for text in ["99999999999999999999", "-99999999999999999999"] {
        assert_eq!(
            told(text),
            format!(
                "environment variable MIRROR_CAMERA_RATE: `camera.rate` = {text} cannot be used: it is beyond \
                 every setting's range"
            )
        );
    }
}

#[test]
fn a_misspelt_environment_variable_is_told_of() {
    let misnamed = |name: &str| Layers::defaults().expect("valid").misnamed([name.to_owned()]);
    assert_eq!(
        misnamed("MIRROR_CAMERA_WIDHT"),
        ["MIRROR_CAMERA_WIDHT (did you mean `MIRROR_CAMERA_WIDTH`?)"]
    );
    assert_eq!(misnamed("MIRROR_URL_OF_ANOTHER_PROGRAM"), ["MIRROR_URL_OF_ANOTHER_PROGRAM"]);
    assert!(misnamed("MIRROR_CAMERA_WIDTH").is_empty() && misnamed("PATH").is_empty());
}

#[test]
fn a_file_with_a_key_of_an_earlier_version_is_valid() {
    let with = |text| Layers::defaults().expect("valid").file("old.toml", text);
    assert!(with("[vision]\nflush_denormals = true\nthreads = 2").is_ok());
    assert!(with("[vision]\nflush_denormal = true").is_err());
}
