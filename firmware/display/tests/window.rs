//! The suite in a window on a server of its own. Asked for with `MIRROR_TEST_X11=1`; takes Xvfb.

mod suite;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use display::blit::{PixelLayout, Surface, blit};
use display::{Display, DisplayRequest, Rotation, WindowDisplay};
use overlay::Canvas;
use x11rb::connection::Connection as _;
use x11rb::protocol::xproto::{
    AtomEnum, ClientMessageEvent, ConfigureWindowAux, ConnectionExt as _, EventMask, ImageFormat,
    KEY_PRESS_EVENT, KeyPressEvent,
};
use x11rb::rust_connection::RustConnection;

const PATIENCE: Duration = Duration::from_secs(60);

/// An X11 server without a screen.
struct Server {
    process: Child,
    name: String,
}

impl Server {
    fn start(options: &[&str]) -> Server {
        let mut process = Command::new("Xvfb")
            .args(["-displayfd", "1", "-nolisten", "tcp", "-screen", "0", "1280x1024x24"])
            .args(options)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("Xvfb starts (Debian: apt-get install xvfb)");
        let mut number = String::new();
        let output = process.stdout.take().expect("piped");
        BufReader::new(output).read_line(&mut number).expect("Xvfb says its number");
        Server { process, name: format!(":{}", number.trim()) }
    }

    fn open(&self, size: (u32, u32), rotation: Rotation) -> WindowDisplay {
        let request = DisplayRequest {
            window_size: size,
            rotation,
            x11_display: Some(self.name.clone()),
            ..DisplayRequest::default()
        };
        WindowDisplay::open(&request).expect("window")
    }

    fn connect(&self) -> RustConnection {
        RustConnection::connect(Some(&self.name)).expect("connection").0
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn asked_for() -> bool {
    let asked = std::env::var_os("MIRROR_TEST_X11").is_some_and(|value| value == "1");
    if !asked {
        println!("not asked for: set MIRROR_TEST_X11=1 to open windows on an Xvfb server");
    }
    asked
}

fn card(size: (u32, u32)) -> Canvas {
    let mut canvas = Canvas::new(size.0, size.1);
    suite::draw_card(&mut canvas, suite::LAST_STEP);
    canvas
}

/// The window's pixels as the server holds them: blue, green, red of each.
fn grab(connection: &RustConnection, window: u32, size: (u32, u32)) -> Vec<[u8; 3]> {
    let (width, height) = (size.0 as u16, size.1 as u16);
    let asked = connection.get_image(ImageFormat::Z_PIXMAP, window, 0, 0, width, height, !0);
    let image = asked.expect("request").reply().expect("image");
    image.data.chunks_exact(4).map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect()
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn panel(canvas: &Canvas, rotation: Rotation) -> Vec<[u8; 3]> {
    let size = rotation.turn((canvas.width(), canvas.height()));
    let surface = Surface::packed(size, PixelLayout::Bgrx);
    let mut memory = vec![0; surface.bytes()];
    blit(canvas, rotation, &surface, &mut memory);
    memory.chunks_exact(4).map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect()
}

fn suite_shows_the_card(server: &Server, shares_memory: bool) {
    let eye = server.connect();
    for rotation in Rotation::ALL {
        let size = (360, 640);
        let mut display = server.open(size, rotation);
        let report = suite::run(&mut display, 30).expect("suite");
        println!("{} {rotation:?} {report:?}", display.name());
        assert_eq!(display.shares_memory(), shares_memory);
        let wanted = panel(&card(display.size()), rotation);
        let window = display.window_id();
        eventually("the card in the window", || grab(&eye, window, size) == wanted);
    }
}

#[test]
fn suite_through_shared_memory() {
    if asked_for() {
        suite_shows_the_card(&Server::start(&[]), true);
    }
}

#[test]
fn suite_through_the_socket() {
    if asked_for() {
        suite_shows_the_card(&Server::start(&["-extension", "MIT-SHM"]), false);
    }
}

#[test]
fn another_window_size_scales_and_pads() {
    if !asked_for() {
        return;
    }
    let server = Server::start(&[]);
    let eye = server.connect();
    let mut display = server.open((100, 200), Rotation::None);
    let canvas = card((100, 200));
    display.present(&canvas).expect("present");
    let resized = ConfigureWindowAux::new().width(600).height(400);
    eye.configure_window(display.window_id(), &resized).expect("request").check().expect("resize");
    let small = panel(&canvas, Rotation::None);
    let wanted: Vec<[u8; 3]> = (0..400usize)
        .flat_map(|y| (0..600usize).map(move |x| (x, y)))
        .map(|(x, y)| match x {
            200..400 => small[y / 2 * 100 + (x - 200) / 2],
            _ => [0; 3],
        })
        .collect();
    eventually("the scaled card", || {
        display.present(&canvas).expect("present");
        assert_eq!(display.size(), (100, 200));
        grab(&eye, display.window_id(), (600, 400)) == wanted
    });
}

#[test]
fn what_was_covered_or_has_another_size_is_to_be_presented_again() {
    if !asked_for() {
        return;
    }
    let server = Server::start(&[]);
    let other = server.connect();
    let mut display = server.open((90, 160), Rotation::None);
    let canvas = card((90, 160));
    let present = |display: &mut WindowDisplay| {
        eventually("presented", || {
            display.present(&canvas).expect("present");
            !display.is_spoiled()
        });
    };
    present(&mut display);
    let window = display.window_id();
    other.clear_area(true, window, 0, 0, 0, 0).expect("request").check().expect("cleared");
    eventually("covered for a moment", || display.is_spoiled());
    present(&mut display);
    let resized = ConfigureWindowAux::new().width(180).height(320);
    other.configure_window(window, &resized).expect("request").check().expect("resize");
    eventually("another size", || display.is_spoiled());
    present(&mut display);
}

#[test]
fn a_panel_larger_than_the_desktop_gets_a_smaller_window() {
    if !asked_for() {
        return;
    }
    let server = Server::start(&[]);
    let mut display = server.open((1080, 1920), Rotation::None);
    suite::run(&mut display, 3).expect("suite");
    assert_eq!(display.size(), (1080, 1920));
    let eye = server.connect();
    let asked = eye.get_geometry(display.window_id()).expect("request");
    let geometry = asked.reply().expect("geometry");
    assert_eq!((geometry.width, geometry.height), (518, 921));
}

#[test]
fn close_button_escape_and_q_close() {
    if !asked_for() {
        return;
    }
    let server = Server::start(&[]);
    let other = server.connect();
    type Act = fn(&RustConnection, u32);
    let acts: [Act; 3] =
        [press_close, |c, w| press_key(c, w, 0xFF1B), |c, w| press_key(c, w, 0x71)];
    for act in acts {
        let mut display = server.open((90, 160), Rotation::None);
        let canvas = card((90, 160));
        display.present(&canvas).expect("present");
        assert!(!display.closed());
        act(&other, display.window_id());
        eventually("closed", || display.closed());
        display.present(&canvas).expect("a canvas after closing is dropped");
        assert!(display.closed());
    }
}

#[test]
fn another_key_does_not_close_and_a_dead_server_does() {
    if !asked_for() {
        return;
    }
    let server = Server::start(&[]);
    let mut display = server.open((90, 160), Rotation::None);
    let canvas = card((90, 160));
    press_key(&server.connect(), display.window_id(), 0x61);
    for _ in 0..20 {
        display.present(&canvas).expect("present");
        assert!(!display.closed());
    }
    drop(server);
    eventually("an error", || display.present(&canvas).is_err());
    assert!(display.is_spoiled(), "for `present` tells of it");
    assert!(display.closed());
}

fn press_close(connection: &RustConnection, window: u32) {
    let atom = |name: &[u8]| {
        connection.intern_atom(false, name).expect("request").reply().expect("atom").atom
    };
    let data = [atom(b"WM_DELETE_WINDOW"), 0, 0, 0, 0];
    let event = ClientMessageEvent::new(32, window, atom(b"WM_PROTOCOLS"), data);
    connection.send_event(false, window, EventMask::NO_EVENT, event).expect("request");
    connection.flush().expect("flush");
}

fn press_key(connection: &RustConnection, window: u32, keysym: u32) {
    let setup = connection.setup();
    let (first, last) = (setup.min_keycode, setup.max_keycode);
    let asked = connection.get_keyboard_mapping(first, last - first + 1).expect("request");
    let mapping = asked.reply().expect("mapping");
    let per_key = usize::from(mapping.keysyms_per_keycode);
    let key = mapping.keysyms.chunks(per_key).position(|symbols| symbols[0] == keysym);
    let event = KeyPressEvent {
        response_type: KEY_PRESS_EVENT,
        detail: first + key.expect("the keyboard has this key") as u8,
        sequence: 0,
        time: 0,
        root: setup.roots[0].root,
        event: window,
        child: 0,
        root_x: 0,
        root_y: 0,
        event_x: 0,
        event_y: 0,
        state: Default::default(),
        same_screen: true,
    };
    connection.send_event(false, window, EventMask::KEY_PRESS, event).expect("request");
    connection.flush().expect("flush");
}

#[test]
fn title_and_class_are_set() {
    if !asked_for() {
        return;
    }
    let server = Server::start(&[]);
    let display = server.open((90, 160), Rotation::None);
    let other = server.connect();
    let read = |property: AtomEnum| {
        let window = display.window_id();
        let asked = other.get_property(false, window, property, AtomEnum::STRING, 0, 64);
        asked.expect("request").reply().expect("property").value
    };
    assert_eq!(read(AtomEnum::WM_NAME), b"Mirror");
    assert_eq!(read(AtomEnum::WM_CLASS), b"mirror\0Mirror\0");
}
