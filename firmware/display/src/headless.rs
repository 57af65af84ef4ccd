//! A display without a screen: PNG files in a folder, or nothing at all.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use overlay::Canvas;

use crate::blit::{PixelLayout, Surface, blit};
use crate::{Display, DisplayError, DisplayRequest, Rotation, check_canvas, check_panel};

/// Writes what a panel would show as `frame-NNNNNN.png` (counted from 0) and `latest.png`, or, without a
/// folder, counts canvases and writes nothing.
///
/// A reader never sees half a file: each is written beside its place and renamed into it. They show people's outlines and codes, so that
/// they are for their owner alone.
#[derive(Debug)]
pub struct HeadlessDisplay {
    rotation: Rotation,
    surface: Surface,
    presented: u64,
    writer: Option<Writer>,
}

#[derive(Debug)]
struct Writer {
    folder: PathBuf,
    every: u64,
    panel: Vec<u8>,
    rgb: Vec<u8>,
    file: Vec<u8>,
}

impl HeadlessDisplay {
    /// Uses `headless_size`, `headless_every` and `rotation` of `request`. A missing folder is
    /// made.
    ///
    /// # Errors
    /// A size or step of 0; a folder in which no file can be written.
    pub fn open(
        folder: Option<&Path>,
        request: &DisplayRequest,
    ) -> Result<HeadlessDisplay, DisplayError> {
        check_panel("headless size", request.headless_size)?;
        if request.headless_every == 0 {
            let reason = "0; it must be 1 (every picture) or more".to_string();
            return Err(DisplayError::Request { what: "headless_every", reason });
        }
        let surface = Surface::packed(request.headless_size, PixelLayout::Rgbx);
        let writer = match folder {
            Some(folder) => Some(Writer::open(folder, request.headless_every, &surface)?),
            None => None,
        };
        Ok(HeadlessDisplay { rotation: request.rotation, surface, presented: 0, writer })
    }

    /// How many canvases were presented.
    pub fn presented(&self) -> u64 {
        self.presented
    }
}

impl Display for HeadlessDisplay {
    fn name(&self) -> String {
        let (width, height) = self.surface.size;
        match &self.writer {
            None => format!("headless, {width} x {height}, writing nothing"),
            Some(Writer { folder, every: 1, .. }) => {
                format!("headless, {width} x {height}, PNG files in {}", folder.display())
            }
            Some(Writer { folder, every, .. }) => {
                let folder = folder.display();
                format!("headless, {width} x {height}, one PNG file of {every} in {folder}")
            }
        }
    }

    fn size(&self) -> (u32, u32) {
        self.rotation.turn(self.surface.size)
    }

    fn present(&mut self, canvas: &Canvas) -> Result<(), DisplayError> {
        check_canvas(canvas, self.size())?;
        if let Some(writer) = &mut self.writer
            && self.presented.is_multiple_of(writer.every)
        {
            blit(canvas, self.rotation, &self.surface, &mut writer.panel);
            writer.write(self.presented, self.surface.size)?;
        }
        self.presented += 1;
        Ok(())
    }
}

impl Writer {
    fn open(folder: &Path, every: u32, surface: &Surface) -> Result<Writer, DisplayError> {
        let probe = folder.join(".writable");
        let tried = fs::create_dir_all(folder)
            .and_then(|()| fs::write(&probe, b""))
            .and_then(|()| fs::remove_file(&probe));
        tried.map_err(|source| DisplayError::Write { path: folder.into(), source })?;
        Ok(Writer {
            folder: folder.into(),
            every: u64::from(every),
            panel: vec![0; surface.bytes()],
            rgb: vec![0; surface.bytes() / 4 * 3],
            file: Vec::new(),
        })
    }

    fn write(&mut self, number: u64, size: (u32, u32)) -> Result<(), DisplayError> {
        for (rgb, rgbx) in self.rgb.chunks_exact_mut(3).zip(self.panel.chunks_exact(4)) {
            rgb.copy_from_slice(&rgbx[..3]);
        }
        self.file.clear();
        encode(&self.rgb, size, &mut self.file)
            .map_err(|source| DisplayError::Write { path: self.folder.clone(), source })?;
        self.place(&format!("frame-{number:06}.png"))?;
        self.place("latest.png")
    }

    fn place(&self, name: &str) -> Result<(), DisplayError> {
        let (path, beside) = (self.folder.join(name), self.folder.join(format!(".{name}.part")));
        write_private(&beside, &self.file)
            .and_then(|()| fs::rename(&beside, &path))
            .map_err(|source| DisplayError::Write { path, source })
    }
}

/// A new file, so that it has these rights; one that was left half-written goes.
fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    fs::File::options().write(true).create_new(true).mode(0o600).open(path)?.write_all(bytes)
}

fn encode(rgb: &[u8], (width, height): (u32, u32), file: &mut Vec<u8>) -> io::Result<()> {
    let mut encoder = png::Encoder::new(file, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::Fast);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(rgb)?;
    writer.finish()?;
    Ok(())
}
