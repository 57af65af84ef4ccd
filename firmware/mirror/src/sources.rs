//! Which source of pictures, and how its pictures become ready for the network.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use camera::{CaptureRequest, Delivery, DemoClip, Source, SourceError, SourceSpec};
use frame::jpeg::JpegDecoder;
use frame::{FrameBuffer, FrameError, Orientation, PixelFormat, Rotation};
use settings::{CameraFormat, CameraSettings, Turn};

use crate::pictures;
use crate::report::Usage;

/// The built-in scene: JPEG files one after the other, ten a second, rendered by the project.
pub const DEMO: &[u8] = include_bytes!("../assets/demo.mjpeg");

/// Buffers that a camera's driver fills in turn.
const DRIVER_BUFFERS: u32 = 4;

/// What to open, and how.
#[derive(Clone, Debug)]
pub struct Sources {
    /// What is wanted; `None` for the first camera there is, otherwise the demo scene.
    spec: Option<SourceSpec>,
    device: PathBuf,
    request: CaptureRequest,
    /// How the camera's pictures must be turned.
    pub orientation: Orientation,
    /// Longest wait for a picture.
    pub timeout: Duration,
}

/// A source that was chosen from what there is.
#[derive(Clone, Debug, PartialEq)]
pub struct Chosen {
    spec: SourceSpec,
    /// The demo scene stands in for a camera that is not there.
    stands_in: bool,
}

impl Chosen {
    /// Device, file, or "demo".
    pub fn name(&self) -> String {
        self.spec.to_string()
    }

    /// Whether opening it opens a camera.
    pub fn is_camera(&self) -> bool {
        matches!(self.spec, SourceSpec::Camera(_))
    }

    fn of(spec: SourceSpec) -> Chosen {
        Chosen { spec, stands_in: false }
    }

    /// The demo scene, for want of a camera.
    pub fn stand_in() -> Chosen {
        Chosen { spec: SourceSpec::Demo, stands_in: true }
    }

    /// Whether it could be opened, as far as a look at the device's name tells.
    fn is_there(&self) -> bool {
        let SourceSpec::Camera(device) = &self.spec else { return true };
        device.exists()
    }

    /// Whether it is the built-in scene.
    pub fn is_demo(&self) -> bool {
        self.spec == SourceSpec::Demo
    }

    /// Whether it is the built-in scene because there is no camera, and not because somebody asked for it.
    pub fn stands_in(&self) -> bool {
        self.stands_in
    }

    /// What a person should know about this choice.
    pub fn notice(&self) -> Option<String> {
        self.stands_in.then(|| "Demo: no camera is connected".to_owned())
    }

    /// The choice in plain words.
    pub fn in_words(&self, device: &Path) -> String {
        match &self.spec {
            SourceSpec::Demo if self.stands_in => {
                format!("the built-in demo scene, since there is no camera at {}", device.display())
            }
            SourceSpec::Demo => "the built-in demo scene".to_owned(),
            SourceSpec::Camera(device) => format!("the camera {}", device.display()),
            other => other.to_string(),
        }
    }
}

impl Sources {
    /// From the settings in effect.
    ///
    /// # Errors
    /// A source that is no word of the list and no path; a file that does not exist.
    pub fn new(settings: &CameraSettings) -> Result<Sources> {
        let spec = match settings.source.as_str() {
            "auto" => None,
            "camera" => Some(SourceSpec::Camera(settings.device.clone())),
            text => Some(
                text.parse::<SourceSpec>()
                    .map_err(|error| Usage(format!("source `{text}`: {error}")))?,
            ),
        };
        if let Some(SourceSpec::Path(path)) = &spec
            && !is_there(path)?
        {
            let path = path.display();
            // No wrong setting for ever: what it names may lie on a disk that comes later, and a supervisor starts the mirror again.
            return Err(anyhow!(
                "there is no source {path}; name a folder of pictures, a .y4m or .mjpeg file, \
                 a device, camera or demo"
            ));
        }
        Ok(Sources {
            spec,
            device: settings.device.clone(),
            request: CaptureRequest {
                formats: settings.formats.iter().copied().map(pixel_format).collect(),
                width: settings.width,
                height: settings.height,
                rate: settings.rate,
                buffers: DRIVER_BUFFERS,
            },
            orientation: orientation(settings),
            timeout: Duration::from_millis(settings.timeout_ms),
        })
    }

    /// The camera's device file, whether it is used or not.
    pub fn device(&self) -> &Path {
        &self.device
    }

    /// Decides what `auto` means now. A camera that was chosen once is never replaced by the demo: when it is unplugged, the mirror
    /// says so and waits for it.
    pub fn choose(&self, before: Option<&Chosen>) -> Chosen {
        if let Some(spec) = &self.spec {
            return Chosen::of(spec.clone());
        }
        match before.filter(|chosen| !chosen.stands_in) {
            Some(before) => self.choose_again(before, camera::usb_camera),
            None => match self.find_camera() {
                Some(device) => Chosen::of(SourceSpec::Camera(device)),
                None => Chosen::stand_in(),
            },
        }
    }

    /// After a camera was chosen. One on USB may come back under another name; nothing else takes the place of one that is lost: a
    /// bridge that nobody feeds would hold it for good. The device of the settings is preferred as at the start.
    fn choose_again(&self, before: &Chosen, usb: impl FnOnce() -> Option<PathBuf>) -> Chosen {
        let own = Chosen::of(SourceSpec::Camera(self.device.clone()));
        if *before != own && camera::may_be_camera(&self.device) {
            return own;
        }
        if before.is_there() {
            return before.clone();
        }
        usb().map_or_else(|| before.clone(), |device| Chosen::of(SourceSpec::Camera(device)))
    }

    /// Width and height of the upright pictures that can be expected: of the demo scene, or what a camera is asked for.
    /// Nothing is known about files.
    pub fn size(&self) -> Option<(u32, u32)> {
        match self.choose(None).spec {
            SourceSpec::Demo => demo_size(),
            SourceSpec::Camera(_) => {
                Some(self.orientation.upright_size(self.request.width, self.request.height))
            }
            SourceSpec::Path(_) => None,
        }
    }

    /// Makes what this source delivers ready for the network. The demo scene is upright, and so is a folder's picture as its file shows it,
    /// whichever way the camera is mounted: they come as that camera would see them. A film is a recording of that camera, and lies as it does.
    pub fn decoder(&self, chosen: &Chosen) -> Decoder {
        let is_folder = matches!(&chosen.spec, SourceSpec::Path(path) if path.is_dir());
        let is_upright = is_folder || chosen.is_demo();
        let laid = if is_upright { self.orientation.inverse() } else { Orientation::default() };
        let (compressed, lying) = (FrameBuffer::new(), FrameBuffer::new());
        Decoder { jpeg: JpegDecoder::new(), compressed, lying, laid }
    }

    /// The device of the settings if it may be a camera, else any that can capture.
    fn find_camera(&self) -> Option<PathBuf> {
        if camera::may_be_camera(&self.device) {
            return Some(self.device.clone());
        }
        camera::first_camera()
    }

    /// These sources without the pace of their files: every picture as soon as it is asked for.
    pub fn free_running(mut self) -> Sources {
        self.request.rate = 0;
        self
    }

    /// Opens what was chosen.
    ///
    /// # Errors
    /// Why it cannot be opened, and the next step.
    pub fn open(&self, chosen: &Chosen) -> Result<Box<dyn Source>, SourceError> {
        camera::open(&chosen.spec, &self.request, DemoClip::new(DEMO))
    }
}

fn is_there(path: &Path) -> Result<bool> {
    path.try_exists().with_context(|| {
        format!(
            "the source {} may not be looked at; a service sees neither /home nor /tmp: put it under /var/lib/mirror",
            path.display()
        )
    })
}

fn demo_size() -> Option<(u32, u32)> {
    let mut picture = FrameBuffer::new();
    let first = camera::mjpeg::next_picture(DEMO)?;
    JpegDecoder::new().decode(&DEMO[first], None, &mut picture).ok()?;
    let layout = picture.frame().layout();
    Some((layout.width(), layout.height()))
}

fn pixel_format(format: CameraFormat) -> PixelFormat {
    match format {
        CameraFormat::Yuyv => PixelFormat::Yuyv,
        CameraFormat::Nv12 => PixelFormat::Nv12,
        CameraFormat::Mjpg => PixelFormat::Mjpg,
        CameraFormat::Rgb3 => PixelFormat::Rgb3,
    }
}

fn orientation(settings: &CameraSettings) -> Orientation {
    let rotation = match settings.rotation {
        Turn::None => Rotation::None,
        Turn::Quarter => Rotation::Clockwise90,
        Turn::Half => Rotation::Half,
        Turn::ThreeQuarters => Rotation::Clockwise270,
    };
    Orientation { rotation, flip_horizontal: settings.flip }
}

/// Decodes JPEG pictures between the source and the mailbox, and lays those that are upright; others pass through.
pub struct Decoder {
    jpeg: JpegDecoder,
    compressed: FrameBuffer,
    /// A decoded picture that is still to be turned.
    lying: FrameBuffer,
    /// How upright pictures are laid to look as those of the camera that they stand in for.
    laid: Orientation,
}

impl Decoder {
    /// The source's next picture, never a compressed one.
    ///
    /// # Errors
    /// Those of the source; a picture that cannot be decoded, after which the source can be kept.
    pub fn next(
        &mut self,
        source: &mut dyn Source,
        into: &mut FrameBuffer,
        timeout: Duration,
    ) -> Result<Delivery, SourceError> {
        let delivery = source.next(into, timeout)?;
        if delivery == Delivery::Frame {
            self.make_ready(into, source.orientation()).map_err(|error| match source.file() {
                Some(file) => SourceError::picture(file, error.to_string()),
                None => SourceError::Frame(error),
            })?;
        }
        Ok(delivery)
    }

    /// Decodes a picture where it is compressed, turns it as its file says, and lays it as it is wanted.
    fn make_ready(
        &mut self,
        picture: &mut FrameBuffer,
        said: Orientation,
    ) -> Result<(), FrameError> {
        let orientation = said.then(self.laid);
        let (sequence, captured_at) = (picture.sequence, picture.captured_at);
        match picture.frame().layout().format() {
            PixelFormat::Mjpg => {
                std::mem::swap(picture, &mut self.compressed);
                self.decode(picture, orientation)?;
            }
            // Of a PNG file; a camera's pictures are turned on their way into the network.
            PixelFormat::Rgb3 if orientation != Orientation::default() => {
                std::mem::swap(picture, &mut self.lying);
                pictures::turn(orientation, &self.lying.frame(), picture)?;
            }
            _ => {}
        }
        (picture.sequence, picture.captured_at) = (sequence, captured_at);
        Ok(())
    }

    fn decode(
        &mut self,
        into: &mut FrameBuffer,
        orientation: Orientation,
    ) -> Result<(), FrameError> {
        let (layout, jpeg) = (self.compressed.frame().layout(), self.compressed.frame().bytes());
        let is_turned = orientation != Orientation::default();
        let decoded = if is_turned { &mut self.lying } else { &mut *into };
        self.jpeg.decode(jpeg, Some((layout.width(), layout.height())), decoded)?;
        if is_turned { pictures::turn(orientation, &self.lying.frame(), into) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Folder, settings};

    fn sources(source: &str, device: &str) -> Sources {
        let mut settings = settings();
        settings.camera.source = source.into();
        settings.camera.device = device.into();
        Sources::new(&settings.camera).expect("a source")
    }

    #[test]
    fn a_camera_that_was_there_is_waited_for_and_not_replaced_by_the_demo() {
        let camera = |device: &str| Chosen::of(SourceSpec::Camera(device.into()));
        let auto = sources("auto", "/dev/gone");
        let gone = camera("/dev/gone");
        assert_eq!(auto.choose_again(&gone, || None), gone);
        // Plugged in again while somebody still holds its old name open, it gets another one.
        let back = auto.choose_again(&gone, || Some("/dev/video2".into()));
        assert_eq!(back, camera("/dev/video2"));
        let there = camera("/dev/null");
        let stays = auto.choose_again(&there, || panic!("nothing to look for"));
        assert_eq!(stays, there, "while it is there no other one is taken");
        // The device of the settings is there once more.
        let mended = sources("auto", "/dev/null");
        let own = mended.choose_again(&camera("/dev/zero"), || panic!("nothing to look for"));
        assert_eq!(own, camera("/dev/null"));
        let named = sources("camera", "/dev/gone");
        assert_eq!(named.choose(Some(&camera("/dev/null"))), gone);
    }

    #[test]
    fn the_demo_is_upright_whichever_way_the_camera_is_mounted() {
        for (rotation, shape) in [(Turn::None, (240, 320)), (Turn::Quarter, (320, 240))] {
            let mut settings = settings();
            (settings.camera.source, settings.camera.rotation) = ("demo".into(), rotation);
            let sources = Sources::new(&settings.camera).expect("a source").free_running();
            let chosen = sources.choose(None);
            let (mut source, mut decoder) =
                (sources.open(&chosen).expect("opens"), sources.decoder(&chosen));
            let mut picture = FrameBuffer::new();
            decoder.next(source.as_mut(), &mut picture, Duration::ZERO).expect("a picture");
            let layout = picture.frame().layout();
            assert_eq!((layout.width(), layout.height()), shape, "as such a camera sees it");
            assert_eq!(sources.size(), Some((240, 320)), "turned by the settings it is upright");
        }
    }

    /// 32 x 16 pixels, red on the left, green on the right.
    fn red_and_green() -> Vec<u8> {
        (0..32 * 16).flat_map(|at| if at % 32 < 16 { [200, 0, 0] } else { [0, 200, 0] }).collect()
    }

    fn jpeg_of(rgb: &[u8]) -> Vec<u8> {
        let mut file = Vec::new();
        let encoder = jpeg_encoder::Encoder::new(&mut file, 90);
        encoder.encode(rgb, 32, 16, jpeg_encoder::ColorType::Rgb).expect("encodes");
        file
    }

    fn turned_png(exif: &'static [u8]) -> Vec<u8> {
        let mut info = png::Info::with_size(32, 16);
        (info.color_type, info.bit_depth) = (png::ColorType::Rgb, png::BitDepth::Eight);
        info.exif_metadata = Some(exif.into());
        let mut file = Vec::new();
        let encoder = png::Encoder::with_info(&mut file, info).expect("valid");
        let mut writer = encoder.write_header().expect("in memory");
        writer.write_image_data(&red_and_green()).expect("all pixels");
        writer.finish().expect("in memory");
        file
    }

    /// Size of the next picture once it was turned as the camera's are, and whether its first and its last pixel are red.
    fn upright(
        decoder: &mut Decoder,
        source: &mut dyn Source,
        orientation: Orientation,
    ) -> ((u32, u32), [bool; 2]) {
        let (mut picture, mut rgb) = (FrameBuffer::new(), Vec::new());
        decoder.next(source, &mut picture, Duration::ZERO).expect("a picture");
        let size = frame::rgb::upright(&picture.frame(), orientation, &mut rgb).expect("raw");
        (size, [rgb[0] > 100, rgb[rgb.len() - 3] > 100])
    }

    #[test]
    fn a_folder_s_pictures_are_upright_as_their_files_show_them_whichever_way_the_camera_is_mounted()
     {
        let plain = jpeg_of(&red_and_green());
        let png = pictures::rgb_png((32, 16), &red_and_green()).expect("encodes");
        // Two files say that they were taken with the telephone on its side.
        let exif = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
        let turned = [&plain[..2], b"\xFF\xE1\0\x22Exif\0\0", exif, &plain[2..]].concat();
        let turned_png = turned_png(exif);
        let folder = Folder::new("turned");
        let files =
            [("1.jpg", &plain), ("2.jpg", &turned), ("3.png", &png), ("4.png", &turned_png)];
        for (name, bytes) in files {
            std::fs::write(folder.path().join(name), bytes).expect("written");
        }
        for rotation in [0, 90, 180, 270] {
            for flip_horizontal in [false, true] {
                let mut sources =
                    sources(folder.path().to_str().expect("plain"), "/dev/null").free_running();
                let rotation = Rotation::from_degrees(rotation).expect("a quarter");
                sources.orientation = Orientation { rotation, flip_horizontal };
                let chosen = sources.choose(None);
                let (mut source, mut decoder) =
                    (sources.open(&chosen).expect("opens"), sources.decoder(&chosen));
                let mut next = || upright(&mut decoder, source.as_mut(), sources.orientation);
                let mounted = sources.orientation;
                assert_eq!(next(), ((32, 16), [true, false]), "as it is, {mounted:?}");
                assert_eq!(next(), ((16, 32), [true, false]), "its left is its top, {mounted:?}");
                assert_eq!(next(), ((32, 16), [true, false]), "a PNG, {mounted:?}");
                assert_eq!(next(), ((16, 32), [true, false]), "a turned PNG, {mounted:?}");
            }
        }
    }

    /// A camera whose every picture is this one.
    struct Camera(Vec<u8>);

    impl Source for Camera {
        fn next(&mut self, into: &mut FrameBuffer, _: Duration) -> Result<Delivery, SourceError> {
            let layout = frame::Layout::new(PixelFormat::Mjpg, 32, 16, 0)?;
            into.copy_from(frame::Frame::new(layout, &self.0)?);
            Ok(Delivery::Frame)
        }

        fn describe(&self) -> String {
            "a camera".into()
        }

        fn is_live(&self) -> bool {
            true
        }
    }

    #[test]
    fn a_camera_that_leaves_out_the_end_marker_works() {
        let sources = sources("camera", "/dev/null");
        let mut decoder = sources.decoder(&sources.choose(None));
        let mut seen = |jpeg: &[u8]| {
            let mut picture = FrameBuffer::new();
            decoder.next(&mut Camera(jpeg.to_vec()), &mut picture, Duration::ZERO)?;
            Ok::<Vec<u8>, SourceError>(picture.frame().bytes().to_vec())
        };
        let jpeg = jpeg_of(&red_and_green());
        let whole = seen(&jpeg).expect("whole");
        assert_eq!(seen(&jpeg[..jpeg.len() - 2]).expect("all data are there"), whole);
        let broken = seen(&jpeg[..jpeg.len() - 9]).expect_err("data are missing");
        assert!(broken.is_frame_only(), "{broken}");
    }

    #[test]
    fn a_film_lies_as_the_camera_that_recorded_it() {
        let folder = Folder::new("film");
        let path = folder.path().join("film.mjpeg");
        std::fs::write(&path, jpeg_of(&red_and_green())).expect("writable");
        let mut sources = sources(path.to_str().expect("plain"), "/dev/null").free_running();
        sources.orientation.rotation = Rotation::Clockwise90;
        let chosen = sources.choose(None);
        let (mut source, mut decoder) =
            (sources.open(&chosen).expect("opens"), sources.decoder(&chosen));
        let seen = upright(&mut decoder, source.as_mut(), sources.orientation);
        assert_eq!(seen, ((16, 32), [true, false]), "turned by the settings");
    }

    #[test]
    fn a_picture_of_a_folder_that_is_cut_off_is_named() {
        let mut jpeg = Vec::new();
        let encoder = jpeg_encoder::Encoder::new(&mut jpeg, 90);
        encoder.encode(&[90; 32 * 16 * 3], 32, 16, jpeg_encoder::ColorType::Rgb).expect("encodes");
        let folder = Folder::new("cut-off");
        std::fs::write(folder.path().join("cut.jpg"), &jpeg[..jpeg.len() - 9]).expect("written");
        let sources = sources(folder.path().to_str().expect("plain"), "/dev/null").free_running();
        let chosen = sources.choose(None);
        let (mut source, mut decoder) =
            (sources.open(&chosen).expect("opens"), sources.decoder(&chosen));
        let next = decoder.next(source.as_mut(), &mut FrameBuffer::new(), Duration::ZERO);
        let error = next.expect_err("it has no end");
        assert!(error.is_frame_only(), "{error}");
        assert!(error.to_string().contains("cut.jpg") && error.to_string().contains("cut off"));
    }

    #[test]
    fn the_demo_gives_way_to_a_camera() {
        let demo = Chosen::stand_in();
        let chosen = sources("auto", "/dev/null").choose(Some(&demo));
        assert_eq!(chosen.name(), "/dev/null");
        assert!(demo.notice().is_some() && chosen.notice().is_none());
        let wanted = sources("demo", "/dev/null").choose(None);
        assert_eq!((wanted.name().as_str(), wanted.notice()), ("demo", None));
        assert!(wanted.is_demo() && !wanted.stands_in(), "somebody asked for it");
    }

    #[test]
    fn the_shape_of_the_pictures_is_known_before_the_first_one() {
        let mut camera = sources("camera", "/dev/video7");
        assert_eq!(camera.size(), Some((640, 480)));
        camera.orientation.rotation = Rotation::Clockwise90;
        assert_eq!(camera.size(), Some((480, 640)));
        assert_eq!(sources("demo", "/dev/video7").size(), Some((240, 320)));
        assert_eq!(sources("/dev", "/dev/video7").size(), None, "a folder of anything");
    }

    #[test]
    fn the_word_camera_means_the_device_of_the_settings() {
        assert_eq!(sources("camera", "/dev/video7").choose(None).name(), "/dev/video7");
        assert_eq!(sources("/dev/video3", "/dev/video7").choose(None).name(), "/dev/video3");
    }
}
