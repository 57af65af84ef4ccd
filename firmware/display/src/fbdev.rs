//! The frame buffer device, `/dev/fb0`: for boards whose driver has no DRM.

use std::ffi::{c_char, c_ulong};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use overlay::Canvas;
use rustix::ioctl::{Getter, IntegerSetter, Opcode, Updater, ioctl};
use tracing::debug;

use crate::blit::{PixelLayout, Surface, blit};
use crate::console::Console;
use crate::mapping::Mapping;
use crate::{Display, DisplayError, Rotation, check_canvas, check_panel};

// linux/fb.h
const FBIOGET_VSCREENINFO: Opcode = 0x4600;
const FBIOGET_FSCREENINFO: Opcode = 0x4602;
const FBIOPAN_DISPLAY: Opcode = 0x4606;
const FBIOBLANK: Opcode = 0x4611;
const FB_BLANK_UNBLANK: usize = 0;
const FB_TYPE_PACKED_PIXELS: u32 = 0;
const FB_ACTIVATE_VBL: u32 = 16;

/// Between two looks at whether the device is still there.
const LOOK: Duration = Duration::from_secs(1);

/// `struct fb_bitfield`: where a colour lies in a pixel.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct BitField {
    offset: u32,
    length: u32,
    msb_right: u32,
}

/// `struct fb_var_screeninfo`: what may be changed.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct VariableInfo {
    xres: u32,
    yres: u32,
    xres_virtual: u32,
    yres_virtual: u32,
    xoffset: u32,
    yoffset: u32,
    bits_per_pixel: u32,
    grayscale: u32,
    red: BitField,
    green: BitField,
    blue: BitField,
    transparency: BitField,
    nonstd: u32,
    activate: u32,
    height_mm: u32,
    width_mm: u32,
    accel_flags: u32,
    timing: [u32; 10],
    colorspace: u32,
    reserved: [u32; 4],
}

/// `struct fb_fix_screeninfo`: what may not.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct FixedInfo {
    id: [c_char; 16],
    smem_start: c_ulong,
    smem_len: u32,
    kind: u32,
    type_aux: u32,
    visual: u32,
    xpanstep: u16,
    ypanstep: u16,
    ywrapstep: u16,
    line_length: u32,
    mmio_start: c_ulong,
    mmio_len: u32,
    accel: u32,
    capabilities: u16,
    reserved: [u16; 2],
}

// The kernel writes structures of these sizes.
const _: () = assert!(size_of::<VariableInfo>() == 160);
#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<FixedInfo>() == 80);

/// A frame buffer device.
///
/// With room for two pictures in the device's memory, and a driver that pans, the finished one is
/// panned to; otherwise it is copied onto the visible one, and may tear. On drop the screen is made
/// black and the text console is given back.
#[derive(Debug)]
pub struct FbdevDisplay {
    device: PathBuf,
    file: File,
    name: String,
    rotation: Rotation,
    surface: Surface,
    variable: VariableInfo,
    /// The row that was at the top before.
    original_row: u32,
    pages: Pages,
    mapping: Mapping,
    /// When the device was last there.
    looked_at: Instant,
    _console: Option<Console>,
}

/// Which part of the device's memory is visible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pages {
    /// Only this picture, which starts at the given byte.
    One { start: usize },
    /// Two pictures, one above the other; the visible one is 0 or 1.
    Two { visible: usize },
}

impl FbdevDisplay {
    /// Opens `device` in the mode it is in.
    ///
    /// # Errors
    /// A device that is missing, forbidden, or of a pixel format other than 32 bits (either order
    /// of red and blue) or RGB565.
    pub fn open(device: &Path, rotation: Rotation) -> Result<FbdevDisplay, DisplayError> {
        let file = open_device(device)?;
        let failed = |action| move |source| device_error(device, action, source);
        let mut variable = variable_info(&file).map_err(failed("read its mode"))?;
        let fixed = fixed_info(&file).map_err(failed("read its memory's shape"))?;
        let surface = surface(device, &variable, &fixed)?;
        let original_row = variable.yoffset;
        variable.activate = FB_ACTIVATE_VBL;
        let pages = pages(device, &variable, &fixed, &surface, || pans(&file, variable))?;
        let skip = before_the_picture(fixed.smem_start, rustix::param::page_size());
        let mapping =
            Mapping::new(&file, skip, fixed.smem_len as usize).map_err(failed("map its memory"))?;
        unblank(&file);
        let name = name(device, &variable, &fixed, pages);
        let console = Console::silence();
        Ok(FbdevDisplay {
            device: device.into(),
            file,
            name,
            rotation,
            surface,
            variable,
            original_row,
            pages,
            mapping,
            looked_at: Instant::now(),
            _console: console,
        })
    }

    /// Whether the device is still the one that was opened. A mapping outlives its device: a native driver that takes the
    /// firmware's place leaves memory that can be drawn into and that nobody sees.
    fn look_again(&mut self) -> Result<(), DisplayError> {
        if self.looked_at.elapsed() < LOOK {
            return Ok(());
        }
        let failed = |source| device_error(&self.device, "find it again", source);
        let now = variable_info(&self.file).map_err(failed)?;
        let shape = |info: &VariableInfo| (info.xres, info.yres, info.bits_per_pixel);
        if shape(&now) != shape(&self.variable) {
            return Err(failed(io::Error::other("its mode has changed")));
        }
        self.looked_at = Instant::now();
        Ok(())
    }

    fn pan(&mut self, row: u32) -> io::Result<()> {
        self.variable.yoffset = row;
        pan(&self.file, &mut self.variable)
    }
}

impl Display for FbdevDisplay {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn size(&self) -> (u32, u32) {
        self.rotation.turn(self.surface.size)
    }

    fn present(&mut self, canvas: &Canvas) -> Result<(), DisplayError> {
        check_canvas(canvas, self.size())?;
        self.look_again()?;
        let (rotation, surface) = (self.rotation, self.surface);
        match self.pages {
            Pages::One { start } => {
                blit(canvas, rotation, &surface, &mut self.mapping.bytes()[start..]);
            }
            Pages::Two { visible } => {
                let hidden = 1 - visible;
                let height = surface.size.1;
                let start = hidden * height as usize * surface.stride;
                blit(canvas, rotation, &surface, &mut self.mapping.bytes()[start..]);
                self.pan(hidden as u32 * height)
                    .map_err(|source| device_error(&self.device, "pan to the picture", source))?;
                self.pages = Pages::Two { visible: hidden };
            }
        }
        Ok(())
    }
}

impl Drop for FbdevDisplay {
    fn drop(&mut self) {
        // Leave no picture of the last person standing there.
        self.mapping.bytes().fill(0);
        if matches!(self.pages, Pages::Two { .. })
            && let Err(error) = self.pan(self.original_row)
        {
            debug!("{}: cannot pan back: {error}", self.device.display());
        }
    }
}

fn open_device(device: &Path) -> Result<File, DisplayError> {
    File::options().read(true).write(true).open(device).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => DisplayError::Missing {
            device: device.into(),
            next: "load the screen's driver, or name another device in display.fbdev_device".into(),
        },
        io::ErrorKind::PermissionDenied => DisplayError::Permission { device: device.into() },
        _ => device_error(device, "open it", source),
    })
}

fn device_error(device: &Path, action: &'static str, source: io::Error) -> DisplayError {
    if source.raw_os_error() == Some(rustix::io::Errno::NOTTY.raw_os_error()) {
        return unsuitable(device, "it is no frame buffer device".into());
    }
    DisplayError::Device { device: device.into(), action, source }
}

fn unsuitable(device: &Path, reason: String) -> DisplayError {
    let next = "set the kernel to 32 bits per pixel (video=...-32), or name another device in \
                display.fbdev_device";
    DisplayError::Unsuitable { device: device.into(), reason, next: next.into() }
}

fn variable_info(file: &File) -> io::Result<VariableInfo> {
    // SAFETY: FBIOGET_VSCREENINFO fills in one fb_var_screeninfo.
    Ok(unsafe { ioctl(file, Getter::<FBIOGET_VSCREENINFO, VariableInfo>::new())? })
}

fn fixed_info(file: &File) -> io::Result<FixedInfo> {
    // SAFETY: FBIOGET_FSCREENINFO fills in one fb_fix_screeninfo.
    Ok(unsafe { ioctl(file, Getter::<FBIOGET_FSCREENINFO, FixedInfo>::new())? })
}

/// Makes the row `yoffset` the first one that is seen.
fn pan(file: &File, variable: &mut VariableInfo) -> io::Result<()> {
    // SAFETY: FBIOPAN_DISPLAY reads and writes one fb_var_screeninfo.
    let request = unsafe { Updater::<FBIOPAN_DISPLAY, _>::new(variable) };
    // SAFETY: as above.
    unsafe { ioctl(file, request)? };
    Ok(())
}

/// Whether the driver pans as it says, tried with the row that is seen already.
fn pans(file: &File, mut variable: VariableInfo) -> bool {
    let panned = pan(file, &mut variable);
    if let Err(error) = &panned {
        debug!("the frame buffer cannot be panned: {error}");
    }
    panned.is_ok()
}

/// A console that fell asleep has switched the backlight off. Some drivers cannot blank at all,
/// which is fine.
fn unblank(file: &File) {
    // SAFETY: FBIOBLANK takes the level as a plain integer.
    let request = unsafe { IntegerSetter::<FBIOBLANK>::new_usize(FB_BLANK_UNBLANK) };
    // SAFETY: as above; the kernel touches no memory of ours.
    if let Err(error) = unsafe { ioctl(file, request) } {
        debug!("the frame buffer cannot be unblanked: {error}");
    }
}

/// Bytes of a mapping before the device's memory: the kernel maps whole pages, from the one on in which the memory starts. An
/// address that the kernel keeps to itself is 0; such memory starts with its page.
fn before_the_picture(smem_start: c_ulong, page: usize) -> usize {
    smem_start as usize % page
}

fn surface(
    device: &Path,
    variable: &VariableInfo,
    fixed: &FixedInfo,
) -> Result<Surface, DisplayError> {
    let size = (variable.xres, variable.yres);
    check_panel("the frame buffer's size", size)?;
    if fixed.kind != FB_TYPE_PACKED_PIXELS {
        return Err(unsuitable(device, format!("memory type {} is not packed", fixed.kind)));
    }
    let layout = layout(variable).ok_or_else(|| {
        let VariableInfo { bits_per_pixel, red, green, blue, .. } = variable;
        let bits = |field: &BitField| format!("{}+{}", field.offset, field.length);
        let (red, green, blue) = (bits(red), bits(green), bits(blue));
        let reason =
            format!("{bits_per_pixel} bits per pixel (red {red}, green {green}, blue {blue})");
        unsuitable(device, reason)
    })?;
    let surface = Surface { size, stride: fixed.line_length as usize, layout };
    if surface.stride < surface.row_bytes() {
        let reason = format!("rows of {} bytes hold no {} pixels", surface.stride, size.0);
        return Err(unsuitable(device, reason));
    }
    Ok(surface)
}

fn layout(variable: &VariableInfo) -> Option<PixelLayout> {
    let fields = [variable.red, variable.green, variable.blue];
    let bits = fields.map(|field| (field.offset, field.length));
    match (variable.bits_per_pixel, bits) {
        (32, [(16, 8), (8, 8), (0, 8)]) => Some(PixelLayout::Bgrx),
        (32, [(0, 8), (8, 8), (16, 8)]) => Some(PixelLayout::Rgbx),
        (16, [(11, 5), (5, 6), (0, 5)]) => Some(PixelLayout::Rgb565),
        _ => None,
    }
}

fn pages(
    device: &Path,
    variable: &VariableInfo,
    fixed: &FixedInfo,
    surface: &Surface,
    pans: impl FnOnce() -> bool,
) -> Result<Pages, DisplayError> {
    let memory = fixed.smem_len as usize;
    let picture = surface.size.1 as usize * surface.stride;
    let steps = fixed.ypanstep > 0 && variable.yres.is_multiple_of(u32::from(fixed.ypanstep));
    let room = variable.yres_virtual >= 2 * variable.yres && memory >= 2 * picture;
    if steps && room && pans() {
        return Ok(Pages::Two { visible: usize::from(variable.yoffset == variable.yres) });
    }
    let start = variable.yoffset as usize * surface.stride
        + variable.xoffset as usize * surface.layout.bytes();
    if memory < start + surface.bytes() {
        let reason = format!("{memory} bytes of memory hold no picture");
        return Err(unsuitable(device, reason));
    }
    Ok(Pages::One { start })
}

fn name(device: &Path, variable: &VariableInfo, fixed: &FixedInfo, pages: Pages) -> String {
    let id: String =
        fixed.id.iter().map(|&c| c as u8).take_while(|&c| c != 0).map(char::from).collect();
    let buffers = if matches!(pages, Pages::Two { .. }) { "two buffers" } else { "one buffer" };
    let VariableInfo { xres, yres, bits_per_pixel, .. } = variable;
    format!("{} ({id}), {xres} x {yres}, {bits_per_pixel} bits, {buffers}", device.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(offset: u32, length: u32) -> BitField {
        BitField { offset, length, msb_right: 0 }
    }

    fn xrgb(width: u32, height: u32) -> (VariableInfo, FixedInfo) {
        let variable = VariableInfo {
            xres: width,
            yres: height,
            xres_virtual: width,
            yres_virtual: height,
            bits_per_pixel: 32,
            red: field(16, 8),
            green: field(8, 8),
            blue: field(0, 8),
            ..VariableInfo::default()
        };
        let fixed = FixedInfo {
            id: [0; 16],
            smem_start: 0,
            smem_len: width * height * 4,
            kind: FB_TYPE_PACKED_PIXELS,
            type_aux: 0,
            visual: 2,
            xpanstep: 1,
            ypanstep: 1,
            ywrapstep: 0,
            line_length: width * 4,
            mmio_start: 0,
            mmio_len: 0,
            accel: 0,
            capabilities: 0,
            reserved: [0; 2],
        };
        (variable, fixed)
    }

    fn shape(variable: &VariableInfo, fixed: &FixedInfo) -> Result<(Surface, Pages), DisplayError> {
        shape_where(variable, fixed, true)
    }

    fn shape_where(
        variable: &VariableInfo,
        fixed: &FixedInfo,
        pans: bool,
    ) -> Result<(Surface, Pages), DisplayError> {
        let device = Path::new("/dev/fb0");
        let surface = surface(device, variable, fixed)?;
        Ok((surface, pages(device, variable, fixed, &surface, || pans)?))
    }

    #[test]
    fn formats_by_their_bit_fields() {
        let (mut variable, fixed) = xrgb(8, 4);
        assert_eq!(layout(&variable), Some(PixelLayout::Bgrx));
        std::mem::swap(&mut variable.red, &mut variable.blue);
        assert_eq!(layout(&variable), Some(PixelLayout::Rgbx));
        variable.bits_per_pixel = 16;
        (variable.red, variable.green, variable.blue) = (field(11, 5), field(5, 6), field(0, 5));
        assert_eq!(layout(&variable), Some(PixelLayout::Rgb565));
        variable.green = field(5, 5);
        let message = shape(&variable, &fixed).expect_err("555").to_string();
        assert!(message.contains("green 5+5") && message.contains("-32"), "{message}");
    }

    #[test]
    fn memory_may_start_within_a_page() {
        assert_eq!(before_the_picture(0x3E40_3000, 4096), 0);
        assert_eq!(before_the_picture(0x3E40_3000, 16384), 0x3000, "pages of 16 KiB");
        assert_eq!(before_the_picture(0, 16384), 0);
    }

    #[test]
    fn one_picture_starts_at_the_offset_and_must_fit() {
        let (mut variable, mut fixed) = xrgb(8, 4);
        assert_eq!(shape(&variable, &fixed).expect("fits").1, Pages::One { start: 0 });
        variable.yoffset = 1;
        shape(&variable, &fixed).expect_err("beyond the memory");
        fixed.smem_len = 5 * 32;
        assert_eq!(shape(&variable, &fixed).expect("fits").1, Pages::One { start: 32 });
        fixed.line_length = 31;
        shape(&variable, &fixed).expect_err("short rows");
    }

    #[test]
    fn two_pictures_need_memory_virtual_rows_and_panning() {
        let (mut variable, mut fixed) = xrgb(8, 4);
        (variable.yres_virtual, fixed.smem_len) = (8, 8 * 32);
        assert_eq!(shape(&variable, &fixed).expect("fits").1, Pages::Two { visible: 0 });
        variable.yoffset = 4;
        assert_eq!(shape(&variable, &fixed).expect("fits").1, Pages::Two { visible: 1 });
        let refused = shape_where(&variable, &fixed, false).expect("fits").1;
        assert_eq!(refused, Pages::One { start: 4 * 32 }, "the driver refuses to pan");
        fixed.ypanstep = 0;
        assert_eq!(shape(&variable, &fixed).expect("fits").1, Pages::One { start: 4 * 32 });
        (fixed.ypanstep, fixed.smem_len, variable.yoffset) = (1, 7 * 32, 0);
        assert_eq!(shape(&variable, &fixed).expect("fits").1, Pages::One { start: 0 });
    }

    #[test]
    fn a_file_that_is_no_device_says_so() {
        let error = FbdevDisplay::open(Path::new("/dev/null"), Rotation::None).expect_err("null");
        assert!(error.to_string().contains("no frame buffer device"), "{error}");
        let error = FbdevDisplay::open(Path::new("/dev/fb-none"), Rotation::None).expect_err("-");
        assert!(matches!(error, DisplayError::Missing { .. }), "{error}");
    }
}
