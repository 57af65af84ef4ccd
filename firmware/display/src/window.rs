//! A window on an X11 desktop (or on Xwayland), for development.

use std::env;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use overlay::Canvas;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use x11rb::connection::{Connection as _, RequestConnection as _};
use x11rb::errors::{ConnectionError, ReplyError, ReplyOrIdError};
use x11rb::properties::WmSizeHints;
use x11rb::protocol::Event;
use x11rb::protocol::shm::{self, ConnectionExt as _};
use x11rb::protocol::xproto::{
    AtomEnum, ConnectionExt as _, CreateGCAux, CreateWindowAux, EventMask, Gcontext, ImageFormat,
    ImageOrder, PropMode, Screen, VisualClass, Window, WindowClass,
};
use x11rb::reexports::x11rb_protocol::parse_display::parse_display;
use x11rb::rust_connection::RustConnection;
use x11rb::wrapper::ConnectionExt as _;

use crate::blit::{PixelLayout, Surface, blit};
use crate::mapping::Mapping;
use crate::stretch::Stretch;
use crate::{Display, DisplayError, DisplayRequest, MAX_SIDE, Rotation};
use crate::{check_canvas, check_panel};

/// Server n listens at port 6000 + n.
const LAST_SERVER: u16 = u16::MAX - 6000;
const TITLE: &str = "Mirror";
/// Keys that close the window.
const KEYSYM_ESCAPE: u32 = 0xFF1B;
const KEYSYM_Q: u32 = 0x71;
/// Longest wait for the server to have read the last picture.
const COPY_TIMEOUT: Duration = Duration::from_secs(1);
/// Bytes of a PutImage request beside the pixels, generously.
const REQUEST_OVERHEAD: usize = 64;
/// Longest PutImage request, so that the server can serve others in between.
const STRIP_BYTES: usize = 1 << 20;

/// A window that shows the panel, scaled to the window's size with its shape kept.
///
/// Escape, `q` and the close button close it: [`Display::closed`] is true from then on, and
/// canvases are accepted and dropped.
pub struct WindowDisplay {
    connection: RustConnection,
    window: Window,
    context: Gcontext,
    depth: u8,
    atoms: Atoms,
    closing_keys: Vec<u8>,
    panel: (u32, u32),
    rotation: Rotation,
    /// The window's size now, and the one the picture is laid out for.
    window_size: (u32, u32),
    laid_out: Option<(u32, u32)>,
    stretch: Stretch,
    image: Image,
    shared_memory_works: bool,
    /// Something that covered the window has gone.
    exposed: bool,
    closed: bool,
}

/// Names that the server gave numbers.
struct Atoms {
    protocols: u32,
    delete_window: u32,
}

/// Where the window's pixels are put together.
enum Image {
    /// Sent through the socket.
    Sent(Vec<u8>),
    /// Memory that the server reads by itself.
    Shared { segment: shm::Seg, mapping: Mapping, reading: bool },
}

impl WindowDisplay {
    /// Uses `window_size`, `x11_display` and `rotation` of `request`.
    ///
    /// # Errors
    /// No desktop, or one whose colours are not 8 bits each in 32 bits.
    pub fn open(request: &DisplayRequest) -> Result<WindowDisplay, DisplayError> {
        check_panel("window size", request.window_size)?;
        let (connection, screen) = connect(request.x11_display.as_deref())?;
        let screen = connection.setup().roots[screen].clone();
        check_colours(&connection, &screen)?;
        let window_size = fit_desktop(request.window_size, &screen);
        let made = make_window(&connection, &screen, window_size);
        let (window, context, atoms) = made.map_err(|error| refused("open", error))?;
        let closing_keys =
            closing_keys(&connection).map_err(|error| refused("read the keyboard", error))?;
        let shared_memory_works = has_shared_memory(&connection);
        Ok(WindowDisplay {
            connection,
            window,
            context,
            depth: screen.root_depth,
            atoms,
            closing_keys,
            panel: request.window_size,
            rotation: request.rotation,
            window_size,
            laid_out: None,
            stretch: Stretch::default(),
            image: Image::Sent(Vec::new()),
            shared_memory_works,
            exposed: false,
            closed: false,
        })
    }

    /// Whether pictures go to the server through shared memory rather than through the socket.
    pub fn shares_memory(&self) -> bool {
        matches!(self.image, Image::Shared { .. })
    }

    /// The server's number of the window.
    pub fn window_id(&self) -> u32 {
        self.window
    }

    fn handle_events(&mut self) -> Result<(), DisplayError> {
        let lost = |error| refused("read its events", error);
        while let Some(event) = self.connection.poll_for_event().map_err(lost)? {
            self.handle(&event);
        }
        Ok(())
    }

    fn handle(&mut self, event: &Event) {
        match event {
            Event::ConfigureNotify(event) if event.window == self.window => {
                let size = (u32::from(event.width), u32::from(event.height));
                self.window_size = (size.0.clamp(1, MAX_SIDE), size.1.clamp(1, MAX_SIDE));
            }
            Event::Expose(event) => self.exposed |= event.window == self.window,
            Event::ClientMessage(event) if event.type_ == self.atoms.protocols => {
                self.closed |= event.data.as_data32()[0] == self.atoms.delete_window;
            }
            Event::KeyPress(event) => self.closed |= self.closing_keys.contains(&event.detail),
            Event::DestroyNotify(event) => self.closed |= event.window == self.window,
            Event::ShmCompletion(_) => {
                if let Image::Shared { reading, .. } = &mut self.image {
                    *reading = false;
                }
            }
            Event::Error(error) => tracing::debug!("window: the X11 server says {error:?}"),
            _ => {}
        }
    }

    /// The server must have read the last picture before the next one is written over it.
    fn wait_until_read(&mut self) -> Result<(), DisplayError> {
        let deadline = Instant::now() + COPY_TIMEOUT;
        while matches!(self.image, Image::Shared { reading: true, .. }) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let reason = format!("the server did not answer for {COPY_TIMEOUT:?}");
                return Err(DisplayError::Window { action: "show the picture", reason });
            }
            wait_readable(&self.connection, left)
                .map_err(|error| refused("wait for the server", error))?;
            self.handle_events()?;
        }
        Ok(())
    }

    /// New memory for a new window size.
    fn lay_out(&mut self, canvas: &Canvas) -> Result<(), DisplayError> {
        if self.laid_out == Some(self.window_size) {
            return Ok(());
        }
        let size = self.window_size;
        self.stretch.fit((canvas.width(), canvas.height()), self.rotation, size);
        let bytes = size.0 as usize * size.1 as usize * 4;
        self.free_image();
        self.image = Image::Sent(Vec::new());
        if self.shared_memory_works {
            match share_memory(&self.connection, bytes) {
                Ok((segment, mapping)) => {
                    self.image = Image::Shared { segment, mapping, reading: false };
                }
                Err(error) => {
                    // A desktop on another machine, reached through ssh.
                    tracing::info!("window: no shared memory ({error}), pictures are sent");
                    self.shared_memory_works = false;
                }
            }
        }
        if let Image::Sent(pixels) = &mut self.image {
            pixels.resize(bytes, 0);
        }
        self.laid_out = Some(size);
        Ok(())
    }

    fn free_image(&mut self) {
        if let Image::Shared { segment, .. } = self.image
            && let Err(error) = self.connection.shm_detach(segment)
        {
            tracing::debug!("window: cannot give shared memory back: {error}");
        }
    }

    fn draw(&mut self, canvas: &Canvas) {
        let memory = match &mut self.image {
            Image::Sent(pixels) => pixels.as_mut_slice(),
            Image::Shared { mapping, .. } => mapping.bytes(),
        };
        if self.window_size == self.panel {
            let surface = Surface::packed(self.panel, PixelLayout::Bgrx);
            blit(canvas, self.rotation, &surface, memory);
        } else {
            self.stretch.draw(canvas, memory);
        }
    }

    fn put(&mut self) -> Result<(), ConnectionError> {
        // Sides are at most MAX_SIDE, which fits.
        let (width, height) = (self.window_size.0 as u16, self.window_size.1 as u16);
        let (window, context, depth) = (self.window, self.context, self.depth);
        match &mut self.image {
            Image::Shared { segment, reading, .. } => {
                self.connection.shm_put_image(
                    window,
                    context,
                    width,
                    height,
                    0,
                    0,
                    width,
                    height,
                    0,
                    0,
                    depth,
                    ImageFormat::Z_PIXMAP.into(),
                    true,
                    *segment,
                    0,
                )?;
                *reading = true;
            }
            Image::Sent(pixels) => {
                let most = self.connection.maximum_request_bytes().min(STRIP_BYTES);
                let stride = usize::from(width) * 4;
                // A row always fits: MAX_SIDE pixels are 64 KiB, the least limit is 256 KiB.
                let rows = ((most - REQUEST_OVERHEAD) / stride).clamp(1, usize::from(height));
                for (strip, bytes) in pixels.chunks(rows * stride).enumerate() {
                    let (top, tall) = ((strip * rows) as i16, (bytes.len() / stride) as u16);
                    let format = ImageFormat::Z_PIXMAP;
                    self.connection
                        .put_image(format, window, context, width, tall, 0, top, 0, depth, bytes)?;
                }
            }
        }
        self.connection.flush()
    }
}

impl Display for WindowDisplay {
    fn name(&self) -> String {
        let (width, height) = self.panel;
        format!("X11 window, {width} x {height}")
    }

    fn size(&self) -> (u32, u32) {
        self.rotation.turn(self.panel)
    }

    fn present(&mut self, canvas: &Canvas) -> Result<(), DisplayError> {
        check_canvas(canvas, self.size())?;
        self.handle_events()?;
        self.wait_until_read()?;
        if self.closed {
            return Ok(());
        }
        self.lay_out(canvas)?;
        self.exposed = false;
        self.draw(canvas);
        self.put().map_err(|error| refused("show the picture", error))
    }

    fn is_spoiled(&mut self) -> bool {
        // Of a desktop that went away `present` tells.
        let is_gone = self.handle_events().is_err();
        is_gone || (!self.closed && (self.exposed || self.laid_out != Some(self.window_size)))
    }

    fn closed(&mut self) -> bool {
        // A desktop that went away closed the window too.
        self.closed |= self.handle_events().is_err();
        self.closed
    }

    fn is_window(&self) -> bool {
        true
    }
}

impl Drop for WindowDisplay {
    fn drop(&mut self) {
        self.free_image();
        let destroyed = self.connection.destroy_window(self.window).map(|_| ());
        if let Err(error) = destroyed.and_then(|()| self.connection.flush()) {
            tracing::debug!("window: cannot close: {error}");
        }
    }
}

fn refused(action: &'static str, error: impl std::fmt::Display) -> DisplayError {
    DisplayError::Window { action, reason: error.to_string() }
}

fn connect(name: Option<&str>) -> Result<(RustConnection, usize), DisplayError> {
    let named = name.map(str::to_string).or_else(|| env::var("DISPLAY").ok());
    let Some(named) = named.filter(|named| !named.is_empty()) else {
        return Err(DisplayError::NoDesktop { reason: "DISPLAY is not set".into() });
    };
    let no_desktop = |error: String| DisplayError::NoDesktop {
        reason: format!("the X11 server at DISPLAY={named} does not answer ({error})"),
    };
    // The library adds the number to a port number without looking.
    let number = parse_display(Some(&named)).map_err(|error| no_desktop(error.to_string()))?;
    if number.display > LAST_SERVER {
        return Err(no_desktop(format!("server numbers end at {LAST_SERVER}")));
    }
    RustConnection::connect(Some(&named)).map_err(|error| no_desktop(error.to_string()))
}

fn check_colours(connection: &RustConnection, screen: &Screen) -> Result<(), DisplayError> {
    let setup = connection.setup();
    let bits = setup.pixmap_formats.iter().find(|format| format.depth == screen.root_depth);
    let bits = bits.map(|format| format.bits_per_pixel);
    let visuals = screen.allowed_depths.iter().flat_map(|depth| &depth.visuals);
    let plain = visuals.filter(|visual| visual.visual_id == screen.root_visual).any(|visual| {
        let masks = (visual.red_mask, visual.green_mask, visual.blue_mask);
        let direct = matches!(visual.class, VisualClass::TRUE_COLOR | VisualClass::DIRECT_COLOR);
        direct && masks == (0xFF_0000, 0xFF00, 0xFF)
    });
    let depth = screen.root_depth;
    let deep = matches!(depth, 24 | 32) && bits == Some(32);
    if deep && plain && setup.image_byte_order == ImageOrder::LSB_FIRST {
        return Ok(());
    }
    let reason = format!("the desktop has {depth} bit colours, 24 or 32 are needed");
    Err(DisplayError::NoDesktop { reason })
}

/// The largest size of the panel's shape that leaves room for the desktop's own bars.
fn fit_desktop(panel: (u32, u32), screen: &Screen) -> (u32, u32) {
    let room_x = u32::from(screen.width_in_pixels) * 9 / 10;
    let room_y = u32::from(screen.height_in_pixels) * 9 / 10;
    if panel.0 <= room_x && panel.1 <= room_y {
        return panel;
    }
    let tall = room_y.min(room_x * panel.1 / panel.0).max(1);
    ((tall * panel.0 / panel.1).max(1), tall)
}

fn make_window(
    connection: &RustConnection,
    screen: &Screen,
    size: (u32, u32),
) -> Result<(Window, Gcontext, Atoms), ReplyOrIdError> {
    let (window, context) = (connection.generate_id()?, connection.generate_id()?);
    let events = EventMask::STRUCTURE_NOTIFY | EventMask::EXPOSURE | EventMask::KEY_PRESS;
    let look = CreateWindowAux::new().background_pixel(screen.black_pixel).event_mask(events);
    // Sizes were limited to the screen's, which is a u16.
    let (width, height) = (size.0 as u16, size.1 as u16);
    let (root, visual) = (screen.root, screen.root_visual);
    let class = WindowClass::INPUT_OUTPUT;
    connection
        .create_window(
            screen.root_depth,
            window,
            root,
            0,
            0,
            width,
            height,
            0,
            class,
            visual,
            &look,
        )?
        .check()?;
    connection.create_gc(context, window, &CreateGCAux::new().graphics_exposures(0))?;
    let atoms = describe(connection, window)?;
    connection.map_window(window)?;
    connection.flush()?;
    Ok((window, context, atoms))
}

/// Tells the window manager about the window.
fn describe(connection: &RustConnection, window: Window) -> Result<Atoms, ReplyError> {
    let ask = |name: &str| connection.intern_atom(false, name.as_bytes());
    let asked = (ask("WM_PROTOCOLS")?, ask("WM_DELETE_WINDOW")?);
    let asked_name = (ask("_NET_WM_NAME")?, ask("UTF8_STRING")?);
    let atoms = Atoms { protocols: asked.0.reply()?.atom, delete_window: asked.1.reply()?.atom };
    let (net_name, utf8) = (asked_name.0.reply()?.atom, asked_name.1.reply()?.atom);
    let (replace, name) = (PropMode::REPLACE, TITLE.as_bytes());
    connection.change_property8(replace, window, AtomEnum::WM_NAME, AtomEnum::STRING, name)?;
    connection.change_property8(replace, window, net_name, utf8, name)?;
    let protocols = [atoms.delete_window];
    connection.change_property32(replace, window, atoms.protocols, AtomEnum::ATOM, &protocols)?;
    let hints = WmSizeHints { min_size: Some((64, 64)), ..WmSizeHints::new() };
    hints.set_normal_hints(connection, window)?;
    let (property, class) = (AtomEnum::WM_CLASS, b"mirror\0Mirror\0");
    connection.change_property8(replace, window, property, AtomEnum::STRING, class)?;
    Ok(atoms)
}

fn closing_keys(connection: &RustConnection) -> Result<Vec<u8>, ReplyError> {
    let setup = connection.setup();
    let (first, last) = (setup.min_keycode, setup.max_keycode);
    let mapping = connection.get_keyboard_mapping(first, last - first + 1)?.reply()?;
    let per_key = usize::from(mapping.keysyms_per_keycode).max(1);
    let closes = |symbols: &[u32]| {
        symbols.first().is_some_and(|&symbol| symbol == KEYSYM_ESCAPE || symbol == KEYSYM_Q)
    };
    let keys = (first..=last).zip(mapping.keysyms.chunks(per_key));
    Ok(keys.filter(|(_, symbols)| closes(symbols)).map(|(key, _)| key).collect())
}

/// Version 1.2 passes memory as a file descriptor, which ends with its last user.
fn has_shared_memory(connection: &RustConnection) -> bool {
    let known = connection.extension_information(shm::X11_EXTENSION_NAME);
    if !matches!(known, Ok(Some(_))) {
        return false;
    }
    let version = connection.shm_query_version().map(|asked| asked.reply());
    matches!(version, Ok(Ok(version)) if (version.major_version, version.minor_version) >= (1, 2))
}

#[derive(Debug, thiserror::Error)]
enum ShareError {
    #[error("{0}")]
    Memory(#[from] io::Error),
    #[error("{0}")]
    Server(#[from] ReplyOrIdError),
}

fn share_memory(
    connection: &RustConnection,
    bytes: usize,
) -> Result<(shm::Seg, Mapping), ShareError> {
    let file = memory_file(bytes)?;
    let mapping = Mapping::new(&file, 0, bytes)?;
    let attach = || -> Result<shm::Seg, ReplyOrIdError> {
        let segment = connection.generate_id()?;
        connection.shm_attach_fd(segment, file, true)?.check()?;
        Ok(segment)
    };
    Ok((attach()?, mapping))
}

fn memory_file(bytes: usize) -> io::Result<OwnedFd> {
    let file = memfd_create("mirror-window", MemfdFlags::CLOEXEC)?;
    ftruncate(&file, bytes as u64)?;
    Ok(file)
}

fn wait_readable(connection: &RustConnection, timeout: Duration) -> io::Result<()> {
    let timeout = Timespec::try_from(timeout).map_err(io::Error::other)?;
    let mut wanted = [PollFd::from_borrowed_fd(connection.stream().as_fd(), PollFlags::IN)];
    match poll(&mut wanted, Some(&timeout)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
