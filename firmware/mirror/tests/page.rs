//! The local page over HTTP: what it serves, and to whom it does not.

mod common;

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use common::{Answer, Folder, Running, mirror};

fn start(folder: &Folder) -> Running {
    Running::start(mirror(folder).args(["run", "--source", "demo", "--display", "headless"]))
}

#[test]
fn every_address_answers() {
    let folder = Folder::new("page");
    let mirror = start(&folder);
    for (path, kind) in [
        ("/", "text/html"),
        ("/page.css", "text/css"),
        ("/call.js", "text/javascript"),
        ("/page.js", "text/javascript"),
        ("/icon.svg", "image/svg+xml"),
        ("/api/state", "application/json"),
        ("/api/settings", "application/json"),
        ("/metrics", "application/openmetrics-text"),
    ] {
        let answer = mirror.get(path);
        assert_eq!(answer.status, 200, "{path}");
        assert!(answer.header("content-type").is_some_and(|is| is.starts_with(kind)), "{path}");
        assert_eq!(answer.header("cross-origin-resource-policy"), Some("same-origin"), "{path}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{path}");
        let policy = answer.header("content-security-policy").expect(path);
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    }
    assert_eq!(mirror.get("/../Cargo.toml").status, 404);

    mirror.wait_for("overlay", |state| state["counters"]["overlays"].as_u64() > Some(0));
    let state = mirror.state();
    for stage in ["capture", "convert", "infer", "parse", "draw", "flip"] {
        assert!(state["stages"][stage]["median_ms"].is_number(), "{stage}");
    }
    assert_eq!(state["camera_active"], false, "the demo opens no camera");
    assert!(state["first_overlay_ms"].as_f64() > Some(0.0));
    assert_eq!(mirror.get("/healthz").text(), "ok\n");
    let metrics = mirror.get("/metrics").text();
    assert!(
        metrics.contains("mirror_stage_duration_seconds_bucket{le=\"0.0001\",stage=\"infer\"}"),
        "{metrics}"
    );
    assert!(metrics.ends_with("# EOF\n"));
    let settings = mirror.get("/api/settings").json();
    let width = settings["settings"]
        .as_array()
        .and_then(|list| list.iter().find(|setting| setting["key"] == "camera.width"))
        .expect("every setting");
    assert_eq!(width["value"], "640");
    assert_eq!(settings["parts"].as_array().map(Vec::len), Some(15));
}

#[test]
fn the_preview_is_a_stream_of_pictures() {
    let folder = Folder::new("preview");
    let mirror = start(&folder);
    mirror.wait_for("overlay", |state| state["counters"]["overlays"].as_u64() > Some(0));
    let mut stream = mirror.connect("GET", "/preview.mjpg", &[("host", &mirror.host())], "");
    let (mut bytes, mut chunk) = (Vec::new(), [0; 4096]);
    let pictures = |bytes: &[u8]| {
        bytes.windows(4).filter(|four| four.starts_with(&[0xFF, 0xD8, 0xFF])).count()
    };
    while pictures(&bytes) < 3 {
        let count = stream.read(&mut chunk).expect("a picture in time");
        assert_ne!(count, 0, "the stream ended");
        bytes.extend_from_slice(&chunk[..count]);
    }
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.contains("multipart/x-mixed-replace; boundary=picture"));
    assert!(text.contains("\r\n--picture\r\nContent-Type: image/jpeg\r\n"));

    mirror.switch_camera(false);
    stream.set_nonblocking(true).expect("a socket");
    // What was under way comes first; then half a second without any must come, and soon.
    let (mut quiet, mut rounds) = (0, 0);
    while quiet < 5 {
        assert!(rounds < 100, "pictures still come ten seconds after the camera went off");
        std::thread::sleep(std::time::Duration::from_millis(100));
        let came = std::iter::from_fn(|| stream.read(&mut chunk).ok().filter(|&count| count > 0));
        quiet = if came.count() > 0 { 0 } else { quiet + 1 };
        rounds += 1;
    }
}

#[test]
fn other_sites_are_kept_out() {
    let folder = Folder::new("guard");
    let mirror = start(&folder);
    let host = mirror.host();
    let forged = format!("evil.example:{}", mirror.port());
    for path in ["/", "/api/state", "/preview.mjpg", "/metrics", "/healthz"] {
        let answer = mirror.request("GET", path, &[("host", &forged)], "");
        assert_eq!(answer.status, 403, "{path}");
        assert!(!answer.text().contains("camera"), "{path}");
        assert!(answer.json()["error"].is_string(), "{path}: {}", answer.text());
    }
    let embedded = [("host", host.as_str()), ("sec-fetch-site", "cross-site")];
    assert_eq!(mirror.request("GET", "/preview.mjpg", &embedded, "").status, 403);

    let off = "{\"on\": false}";
    let post = |headers: &[(&str, &str)]| -> Answer {
        let mut all = vec![("host", host.as_str()), ("content-type", "application/json")];
        all.extend_from_slice(headers);
        mirror.request("POST", "/api/camera", &all, off)
    };
    let change = ("x-mirror-change", "1");
    assert_eq!(post(&[]).status, 403, "a plain form");
    assert_eq!(post(&[change, ("sec-fetch-site", "cross-site")]).status, 403);
    assert_eq!(post(&[change, ("origin", "http://evil.example")]).status, 403);
    assert_eq!(mirror.state()["camera_wanted"], true, "nothing was changed");
    assert_eq!(mirror.request("OPTIONS", "/api/camera", &embedded, "").status, 403);
    assert_eq!(post(&[change]).status, 200);
    assert_eq!(mirror.state()["camera_wanted"], false);
}

#[test]
fn nonsense_changes_nothing() {
    let folder = Folder::new("nonsense");
    let mirror = start(&folder);
    let host = mirror.host();
    let headers =
        [("host", host.as_str()), ("content-type", "application/json"), ("x-mirror-change", "1")];
    for body in ["{}", "{\"on\": 1}", "{\"on\": false, \"by\": \"me\"}", "[]", "{\"on\""] {
        let status = mirror.request("POST", "/api/camera", &headers, body).status;
        assert!((400..500).contains(&status), "{body}: {status}");
    }
    assert_eq!(mirror.state()["camera_wanted"], true);
    assert_eq!(mirror.get("/api/camera").status, 405);
    assert_eq!(mirror.get("/nowhere").status, 404);
}

#[test]
fn idle_connections_take_few_of_the_mirror_s_file_handles() {
    let folder = Folder::new("idle");
    let mirror = start(&folder);
    let connect = |_| {
        let stream = TcpStream::connect(("127.0.0.1", mirror.port())).expect("the page listens");
        stream.set_nonblocking(true).expect("a socket");
        stream
    };
    let mut idle: Vec<TcpStream> = (0..100).map(connect).collect();
    assert_eq!(mirror.get("/api/state").status, 200);
    let is_open = |mut stream: &TcpStream| {
        stream.read(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    };
    let deadline = Instant::now() + Duration::from_secs(60);
    while idle.len() > 64 {
        assert!(Instant::now() < deadline, "{} connections are open", idle.len());
        std::thread::sleep(Duration::from_millis(20));
        idle.retain(is_open);
    }
    assert_eq!(mirror.get("/api/state").status, 200);
}
