//! `POST /parse`: pictures in, parts out, nothing stored without consent, and every kind of nonsense refused.

mod common;

use std::path::{Path, PathBuf};

use common::{Folder, Running, form, mirror};
use mirror::pictures;

const CHANGE: (&str, &str) = ("x-mirror-change", "1");
const JSON: (&str, &str) = ("accept", "application/json");

fn start(folder: &Folder) -> Running {
    let mut command = mirror(folder);
    command.args(["run", "--source", "demo", "--display", "headless"]);
    let running = Running::start(&mut command);
    running.wait_for("network", |state| state["model"]["state"] == "ready");
    running
}

/// A picture of 48 x 64 pixels, and a mask for it with this class everywhere.
fn picture() -> Vec<u8> {
    let rgb: Vec<u8> = (0..48 * 64 * 3).map(|byte| (byte % 251) as u8).collect();
    pictures::rgb_png((48, 64), &rgb).expect("sides above zero")
}

fn mask(width: u32, height: u32, class: u8) -> Vec<u8> {
    let labels = vec![class; (width * height) as usize];
    pictures::grey_png((width, height), &labels).expect("sides above zero")
}

/// The headers of a picture of 9 megapixels, in a hundred bytes.
fn bomb() -> Vec<u8> {
    let mut file = Vec::new();
    let mut writer = png::Encoder::new(&mut file, 3000, 3000).write_header().expect("valid");
    writer.write_chunk(png::chunk::IDAT, &[0]).expect("in memory");
    drop(writer);
    file
}

fn learning(running: &Running) -> serde_json::Value {
    // The stores are open before there is a network to learn with.
    running.wait_for("learning", |_| running.get("/api/learning").json()["learns"] == true);
    running.get("/api/learning").json()
}

fn agree(running: &Running) {
    let version = &learning(running)["explanation"]["versions"][0];
    let body =
        format!("{{\"purpose\":\"improve_my_mirror\",\"version\":{version},\"agree\":true}}");
    change(running, "/api/learning/consent", &body);
}

fn change(running: &Running, path: &str, body: &str) {
    let host = running.host();
    let headers = [("host", host.as_str()), ("content-type", "application/json"), CHANGE];
    let status = running.request("POST", path, &headers, body).status;
    assert!((200..300).contains(&status), "{path}: {status}");
}

#[test]
fn a_picture_is_answered_with_its_colours_or_with_json_and_kept_nowhere() {
    let folder = Folder::new("parse");
    let running = start(&folder);
    let (width, height) = (48, 64);
    let colours = running.post_form("/parse", &[], &[("image", &picture())]);
    assert_eq!(colours.status, 200, "{}", colours.text());
    assert_eq!(colours.header("content-type"), Some("image/png"));
    let map = pictures::decode_labels(&colours.body, 10_000).expect("a palette PNG");
    assert_eq!((map.width, map.height), (width, height));
    let json = running.post_form("/parse", &[JSON], &[("image", &picture())]).json();
    assert_eq!((&json["width"], &json["height"]), (&width.into(), &height.into()));
    assert!(json["timings"]["infer_ms"].as_f64() > Some(0.0) && json["persons"].is_array());
    let pixels: u64 =
        json["parts"].as_object().expect("parts").values().filter_map(|v| v.as_u64()).sum();
    assert_eq!(pixels, 48 * 64);
    assert!(json["stored"].is_null());
    assert_eq!(learning(&running)["usage"]["corrections"], 0);
}

#[test]
fn training_needs_consent_and_a_request_is_used_once() {
    let folder = Folder::new("parse-train");
    let running = start(&folder);
    let (image, target) = (picture(), mask(48, 64, 3));
    let parts: [(&str, &[u8]); 3] =
        [("image", &image), ("train_on_local", b"true"), ("target_mask", &target)];
    learning(&running);
    assert_eq!(running.post_form("/parse", &[JSON], &parts).status, 403, "nobody agreed");
    assert_eq!(learning(&running)["usage"]["corrections"], 0);
    agree(&running);
    running.post_form_and_leave("/parse", &parts);
    let mut stored = running.post_form("/parse", &[JSON], &parts);
    for _ in 0..100 {
        // That somebody has left is noticed a moment later.
        if stored.status == 409 {
            std::thread::sleep(std::time::Duration::from_millis(50));
            stored = running.post_form("/parse", &[JSON], &parts);
        }
    }
    assert_eq!(stored.status, 200, "what was cut off may be asked for again: {}", stored.text());
    assert_eq!(stored.json()["stored"]["number"], 0);
    assert_eq!(running.post_form("/parse", &[JSON], &parts).status, 409, "replayed");
    change(&running, "/api/corrections/remove", "{\"number\":0}");
    let again = running.post_form("/parse", &[JSON], &parts);
    assert_eq!(again.status, 200, "the correction was removed: {}", again.text());
    let other = mask(48, 64, 4);
    let parts: [(&str, &[u8]); 3] =
        [("image", &image), ("train_on_local", b"true"), ("target_mask", &other)];
    let key = ("idempotency-key", "7");
    assert_eq!(running.post_form("/parse", &[key], &parts).status, 200);
    let third = mask(48, 64, 5);
    let parts: [(&str, &[u8]); 3] =
        [("image", &image), ("train_on_local", b"true"), ("target_mask", &third)];
    assert_eq!(running.post_form("/parse", &[key], &parts).status, 409, "the same key");
    assert_eq!(learning(&running)["usage"]["corrections"], 2);
    // Sealed: no file of the data folder shows the labels that were sent, which are of one class, or a correction's first bytes.
    let files = files_below(folder.path());
    assert!(files.iter().any(|(_, bytes)| bytes.starts_with(b"MHV1")), "something is stored");
    for (path, bytes) in files {
        let holds = |part: &[u8]| bytes.windows(part.len()).any(|window| window == part);
        assert!(!holds(b"MHC1") && !holds(b"IHDR"), "{}", path.display());
        assert!(![3, 4].iter().any(|&class| holds(&[class; 256])), "{}", path.display());
    }
}

/// Every file of a folder and the folders in it, with its bytes.
fn files_below(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("ours") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            found.extend(files_below(&path));
        } else if let Ok(bytes) = std::fs::read(&path) {
            found.push((path, bytes));
        }
    }
    found
}

#[test]
fn a_wide_picture_is_learned_from_by_an_upright_mirror() {
    let folder = Folder::new("parse-wide");
    let running = start(&folder);
    learning(&running);
    agree(&running);
    let rgb: Vec<u8> = (0..64 * 48 * 3).map(|byte| (byte % 251) as u8).collect();
    let image = pictures::rgb_png((64, 48), &rgb).expect("sides above zero");
    let target = mask(64, 48, 3);
    let parts: [(&str, &[u8]); 3] =
        [("image", &image), ("train_on_local", b"true"), ("target_mask", &target)];
    let answer = running.post_form("/parse", &[JSON], &parts);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!((&answer.json()["width"], &answer.json()["height"]), (&64.into(), &48.into()));
    // The demo scene is upright, and so is what learning at home trains on.
    let stored = running.get("/api/corrections/0/mask.png");
    let map = pictures::decode_labels(&stored.body, 100_000).expect("a grey PNG");
    assert_eq!((map.width, map.height), (192, 256));
    let said = map.labels.iter().filter(|&&label| label == 3).count();
    assert_eq!(said, 192 * 144, "all of the picture, in the middle");
}

#[test]
fn nonsense_is_refused_and_the_camera_goes_on() {
    let folder = Folder::new("parse-bad");
    let running = start(&folder);
    learning(&running);
    agree(&running);
    let image = picture();
    let bomb = bomb();
    let refused_for = |status: u16, says: &str, parts: &[(&str, &[u8])]| {
        let answer = running.post_form("/parse", &[JSON], parts);
        assert_eq!(answer.status, status, "{}", answer.text());
        let text = answer.json()["error"].as_str().unwrap_or_default().to_owned();
        assert!(!text.is_empty() && text.contains(says), "{text}");
    };
    let refused = |status, parts: &[(&str, &[u8])]| refused_for(status, "", parts);
    refused(400, &[]);
    refused(400, &[("photo", &image)]);
    refused(400, &[("image", &image), ("image", &image)]);
    refused(422, &[("image", b"hello")]);
    refused(422, &[("image", &image[..60])]);
    let too_many = "3000 x 3000 pixels are too many";
    refused_for(422, too_many, &[("image", &bomb)]);
    refused(400, &[("image", &image), ("train_on_local", b"yes")]);
    refused(400, &[("image", &image), ("train_on_local", b"true")]);
    refused(400, &[("image", &image), ("target_mask", &mask(48, 64, 1))]);
    let train: (&str, &[u8]) = ("train_on_local", b"true");
    refused(422, &[("image", &image), train, ("target_mask", &mask(48, 63, 1))]);
    refused(422, &[("image", &image), train, ("target_mask", &mask(48, 64, 16))]);
    refused_for(422, too_many, &[("image", &image), train, ("target_mask", &bomb)]);
    refused(422, &[("image", &image), train, ("target_mask", &image)]);

    let (body, kind) = form(&[("image", &image)]);
    let host = running.host();
    let headers = [("host", host.as_str()), ("content-type", kind.as_str())];
    for cut in [body.len() - 20, 30] {
        let answer = running.post_bytes("/parse", &headers, cut, &body[..cut]);
        assert_eq!(answer.status, 400, "{}", answer.text());
    }
    let length = (6 << 20) + 1;
    let large = running.post_bytes("/parse", &headers, length, &vec![0; length]);
    assert!(large.status == 413 || large.status == 400, "{}", large.status);
    let foreign = [("origin", "http://evil.example"), CHANGE];
    assert_eq!(running.post_form("/parse", &foreign, &[("image", &image)]).status, 403);
    let browser = [("sec-fetch-site", "same-origin")];
    assert_eq!(running.post_form("/parse", &browser, &[("image", &image)]).status, 403);

    assert_eq!(learning(&running)["usage"]["corrections"], 0, "nothing was stored");
    let before = running.state()["counters"]["parsed"].as_u64();
    running.wait_for("further pictures", |state| state["counters"]["parsed"].as_u64() > before);
    assert_eq!(running.get("/healthz").text(), "ok\n");
}

#[test]
fn a_data_folder_that_cannot_be_used_is_told_and_the_mirror_goes_on() {
    let folder = Folder::new("parse-broken");
    let file = folder.file("no-folder", "");
    let mut command = mirror(&folder);
    command.args(["run", "--source", "demo", "--display", "headless"]);
    command.env("MIRROR_DATA_DIR", &file);
    let running = Running::start(&mut command);
    running.wait_for("overlay", |state| state["counters"]["overlays"].as_u64() > Some(0));
    running.wait_for("trouble", |_| running.get("/api/learning").json()["state"] == "broken");
    let told = running.get("/api/learning").json();
    assert!(told["reason"].as_str().is_some_and(|text| text.contains("no-folder")), "{told}");
    assert_eq!(running.post_form("/parse", &[], &[("image", &picture())]).status, 200);
}
