//! A mirror as a person starts it: its own process, its own folder, talked to over HTTP.
#![allow(dead_code)] // every test file uses a part of this

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Longest wait for anything; an unoptimised network on a busy machine is slow.
const PATIENCE: Duration = Duration::from_secs(180);

/// A folder that is removed at the end.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(name: &str) -> Folder {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("mirror-test-{name}-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).expect("a temporary folder");
        Folder(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, content).expect("writable");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The program with nothing of this user's settings, storing its state in `folder`.
pub fn mirror(folder: &Folder) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mirror"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("MIRROR_")) {
        command.env_remove(name);
    }
    command
        .env_remove("RUST_LOG")
        .env_remove("DISPLAY")
        .env_remove("STATE_DIRECTORY")
        .env("XDG_STATE_HOME", folder.path())
        .env("MIRROR_BOARD", "pc")
        .env("MIRROR_SYSTEM_FILE", "/dev/null")
        .env("MIRROR_PAGE_LISTEN", "127.0.0.1:0");
    command
}

/// Runs to the end.
pub fn output(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().expect("the program starts")
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A mirror that is running.
pub struct Running {
    child: Child,
    port: u16,
    errors: Receiver<String>,
}

/// An answer to a request.
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// An answer taken apart.
pub fn answer(bytes: &[u8]) -> Answer {
    let split = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a whole head");
    let head = String::from_utf8_lossy(&bytes[..split]).into_owned();
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    Answer { status, head, body: bytes[split + 4..].to_vec() }
}

/// A multipart form and its content type.
pub fn form(parts: &[(&str, &[u8])]) -> (Vec<u8>, String) {
    let mut body = Vec::new();
    for (name, content) in parts {
        let head = format!("--edge\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n");
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--edge--\r\n");
    (body, "multipart/form-data; boundary=edge".to_owned())
}

impl Running {
    /// Starts `mirror run` and waits for its page.
    pub fn start(command: &mut Command) -> Running {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let (sender, errors) = channel();
        let stderr = BufReader::new(child.stderr.take().expect("piped"));
        std::thread::spawn(move || {
            stderr.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        let port = stdout
            .lines()
            .map_while(Result::ok)
            .find_map(|line| {
                line.split_once("http://127.0.0.1:")?.1.split('/').next()?.parse().ok()
            })
            .expect("the start text names the page's address");
        Running { child, port, errors }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn get(&self, path: &str) -> Answer {
        self.request("GET", path, &[("host", &self.host())], "")
    }

    pub fn state(&self) -> serde_json::Value {
        self.get("/api/state").json()
    }

    pub fn switch_camera(&self, on: bool) -> Answer {
        let host = self.host();
        let headers = [
            ("host", host.as_str()),
            ("content-type", "application/json"),
            ("x-mirror-change", "1"),
        ];
        self.request("POST", "/api/camera", &headers, &format!("{{\"on\": {on}}}"))
    }

    /// One request on a connection of its own.
    pub fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let mut stream = self.connect(method, path, headers, body);
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).expect("an answer");
        answer(&bytes)
    }

    /// One POST of a form with files, on a connection of its own.
    pub fn post_form(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        parts: &[(&str, &[u8])],
    ) -> Answer {
        let (body, kind) = form(parts);
        let host = self.host();
        let mut all = vec![("host", host.as_str()), ("content-type", kind.as_str())];
        all.extend_from_slice(headers);
        self.post_bytes(path, &all, body.len(), &body)
    }

    /// One POST of a form by somebody who leaves without the answer.
    pub fn post_form_and_leave(&self, path: &str, parts: &[(&str, &[u8])]) {
        let (body, kind) = form(parts);
        let headers = [("host", &*self.host()), ("content-type", &*kind)];
        drop(self.send_bytes(path, &headers, body.len(), &body));
    }

    /// One POST whose head promises `length` bytes.
    pub fn post_bytes(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        length: usize,
        body: &[u8],
    ) -> Answer {
        let mut stream = self.send_bytes(path, headers, length, body);
        if body.len() < length {
            stream.shutdown(std::net::Shutdown::Write).expect("a socket");
        }
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        answer(&bytes)
    }

    fn send_bytes(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        length: usize,
        body: &[u8],
    ) -> TcpStream {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("the page listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a valid time");
        let mut text =
            format!("POST {path} HTTP/1.1\r\nconnection: close\r\ncontent-length: {length}\r\n");
        for (name, value) in headers {
            text += &format!("{name}: {value}\r\n");
        }
        stream.write_all((text + "\r\n").as_bytes()).expect("the page reads");
        // A refusal may come before everything was read.
        let _ = stream.write_all(body);
        stream
    }

    /// Sends a request and leaves the answer to the caller.
    pub fn connect(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> TcpStream {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("the page listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a valid time");
        let mut text = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\n");
        for (name, value) in headers {
            text += &format!("{name}: {value}\r\n");
        }
        if !body.is_empty() {
            text += &format!("content-length: {}\r\n", body.len());
        }
        text += &format!("\r\n{body}");
        stream.write_all(text.as_bytes()).expect("the page reads");
        stream
    }

    /// Asks for the state until it is as wanted.
    pub fn wait_for(&self, what: &str, wanted: impl Fn(&serde_json::Value) -> bool) {
        let started = Instant::now();
        loop {
            let state = self.state();
            if wanted(&state) {
                return;
            }
            assert!(started.elapsed() < PATIENCE, "no {what}: {state:#}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits for a line on standard error.
    pub fn wait_for_error(&self, part: &str) -> String {
        let started = Instant::now();
        while let Ok(line) = self.errors.recv_timeout(PATIENCE) {
            if line.contains(part) {
                return line;
            }
            assert!(started.elapsed() < PATIENCE, "no line with `{part}`");
        }
        panic!("standard error ended without `{part}`");
    }

    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().expect("our child").is_none()
    }

    /// SIGTERM; the exit status, and how long the stop took.
    pub fn stop(self) -> (ExitStatus, Duration) {
        let (status, time, _) = self.stop_and_listen();
        (status, time)
    }

    /// The same, with the lines on standard error that nobody has read yet.
    pub fn stop_and_listen(mut self) -> (ExitStatus, Duration, Vec<String>) {
        let started = Instant::now();
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM).expect("our child");
        let status = self.child.wait().expect("our child");
        let time = started.elapsed();
        (status, time, self.errors.iter().collect())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
