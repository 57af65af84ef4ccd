//! Which source of pictures, and how its pictures become ready for the network.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use camera::{CaptureRequest, Delivery, DemoClip, Source, SourceError, SourceSpec};
use frame::jpeg::JpegDecoder;
use frame::{FrameBuffer, FrameError, Orientation, PixelFormat, Rotation};
use settings::CameraSettings;

use crate::pictures;
use crate::report::Usage;

/// The built-in scene: JPEG files one after the other, ten a second, rendered by the project.
pub const DEMO: &[u8] = include_bytes!("../assets/demo.mjpeg");

/// Buffers that a camera's driver fills in turn.
const DRIVER_BUFFERS: u32 = 4;

/// What to open, and how.
#[derive(Clone, Debug)]
pub struct Sources {
    spec: SourceSpec,
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
            "camera" => SourceSpec::Camera(settings.device.clone()),
            text => text.parse().map_err(|error| Usage(format!("source `{text}`: {error}")))?,
        };
        if let SourceSpec::Path(path) = &spec
            && !is_there(path)?
        {
            let path = path.display();
            // No wrong setting for ever: what it names may lie on a disk that comes later, and a supervisor starts the mirror again.
            return Err(anyhow!(
                "there is no source {path}; name a folder of pictures, a .y4m or .mjpeg file, \
                 a device, camera or demo"
            ));
        }
        let formats =
            settings.formats.iter().filter_map(|name| fourcc(name)).collect::<Vec<PixelFormat>>();
        Ok(Sources {
            spec,
            device: settings.device.clone(),
            request: CaptureRequest {
                formats,
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
        if self.spec != SourceSpec::Auto {
            return Chosen::of(self.spec.clone());
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
            SourceSpec::Auto | SourceSpec::Path(_) => None,
        }
    }

    /// Makes what this source delivers ready for the network. The demo scene is upright, whichever way the camera is mounted: it
    /// comes as that camera would see it.
    pub fn decoder(&self, chosen: &Chosen) -> Decoder {
        let mounted = chosen.is_demo().then_some(self.orientation);
        let mounted = mounted.filter(|orientation| *orientation != Orientation::default());
        let laid = mounted.map(Orientation::inverse);
        let is_stored = matches!(chosen.spec, SourceSpec::Path(_));
        let (compressed, lying) = (FrameBuffer::new(), FrameBuffer::new());
        Decoder { jpeg: JpegDecoder::new(), compressed, lying, laid, is_stored }
    }

    /// The device of the settings if it may be a camera, else any that can capture.
    fn find_camera(&self) -> Option<PathBuf> {
        if camera::may_be_camera(&self.device) {
            return Some(self.device.clone());
        }
        camera::first_camera()
    }

    /// The same sources without the pace of their files: every picture as soon as it is asked for.
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

fn fourcc(name: &str) -> Option<PixelFormat> {
    PixelFormat::from_fourcc(name.as_bytes().try_into().ok()?)
}

fn orientation(settings: &CameraSettings) -> Orientation {
    Orientation {
        rotation: Rotation::from_degrees(settings.rotation)
            .expect("the settings allow only quarter turns"),
        flip_horizontal: settings.flip,
    }
}

/// Decodes JPEG pictures between the source and the mailbox; others pass through.
pub struct Decoder {
    jpeg: JpegDecoder,
    compressed: FrameBuffer,
    /// A decoded picture that is still to be turned.
    lying: FrameBuffer,
    /// How upright pictures are laid to look as those of the camera that they stand in for.
    laid: Option<Orientation>,
    /// Pictures come from files, which may say how they are to be turned.
    is_stored: bool,
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
        let layout = into.frame().layout();
        if delivery != Delivery::Frame || layout.format() != PixelFormat::Mjpg {
            return Ok(delivery);
        }
        std::mem::swap(into, &mut self.compressed);
        let expected = Some((layout.width(), layout.height()));
        self.decode(expected, into).map_err(|error| match source.file() {
            Some(file) => SourceError::picture(file, error.to_string()),
            None => SourceError::Frame(error),
        })?;
        into.sequence = self.compressed.sequence;
        into.captured_at = self.compressed.captured_at;
        Ok(delivery)
    }

    /// Decodes the compressed picture and lays it as it is wanted.
    fn decode(
        &mut self,
        expected: Option<(u32, u32)>,
        into: &mut FrameBuffer,
    ) -> Result<(), FrameError> {
        let stored = self.compressed.frame().bytes();
        let said = self.is_stored.then(|| pictures::jpeg_orientation(stored)).flatten();
        let Some(orientation) = said.or(self.laid) else {
            return self.jpeg.decode(stored, expected, into);
        };
        self.jpeg.decode(stored, expected, &mut self.lying)?;
        pictures::turn(orientation, &self.lying.frame(), into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use settings::Layers;

    fn sources(source: &str, device: &str) -> Sources {
        let mut settings = Layers::defaults().and_then(Layers::finish).expect("valid").settings;
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
        for (rotation, shape) in [(0, (240, 320)), (90, (320, 240))] {
            let mut settings = Layers::defaults().and_then(Layers::finish).expect("valid").settings;
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

    #[test]
    fn a_telephone_s_picture_in_a_folder_is_turned_as_it_says() {
        // Red on the left, green on the right; the second file says that it was taken with the telephone on its side.
        let rgb: Vec<u8> = (0..32 * 16)
            .flat_map(|at| if at % 32 < 16 { [200, 0, 0] } else { [0, 200, 0] })
            .collect();
        let mut plain = Vec::new();
        let encoder = jpeg_encoder::Encoder::new(&mut plain, 90);
        encoder.encode(&rgb, 32, 16, jpeg_encoder::ColorType::Rgb).expect("encodes");
        let exif = b"\xFF\xE1\0\x22Exif\0\0MM\0*\0\0\0\x08\
            \0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
        let turned = [&plain[..2], exif, &plain[2..]].concat();
        let folder = std::env::temp_dir().join(format!("mirror-turned-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a scratch folder");
        for (name, bytes) in [("1.jpg", &plain), ("2.jpg", &turned)] {
            std::fs::write(folder.join(name), bytes).expect("written");
        }
        let sources = sources(folder.to_str().expect("plain"), "/dev/null").free_running();
        let chosen = sources.choose(None);
        let (mut source, mut decoder) =
            (sources.open(&chosen).expect("opens"), sources.decoder(&chosen));
        let mut next = || {
            let mut picture = FrameBuffer::new();
            decoder.next(source.as_mut(), &mut picture, Duration::ZERO).expect("a picture");
            let (layout, bytes) = (picture.frame().layout(), picture.frame().bytes());
            ((layout.width(), layout.height()), [bytes[0] > 100, bytes[bytes.len() - 3] > 100])
        };
        assert_eq!(next(), ((32, 16), [true, false]), "as it is");
        assert_eq!(next(), ((16, 32), [true, false]), "the left side is now at the top");
        std::fs::remove_dir_all(&folder).expect("ours");
    }

    #[test]
    fn a_picture_of_a_folder_that_is_cut_off_is_named() {
        let mut jpeg = Vec::new();
        let encoder = jpeg_encoder::Encoder::new(&mut jpeg, 90);
        encoder.encode(&[90; 32 * 16 * 3], 32, 16, jpeg_encoder::ColorType::Rgb).expect("encodes");
        let folder = std::env::temp_dir().join(format!("mirror-cut-off-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a scratch folder");
        std::fs::write(folder.join("cut.jpg"), &jpeg[..jpeg.len() - 9]).expect("written");
        let sources = sources(folder.to_str().expect("plain"), "/dev/null").free_running();
        let chosen = sources.choose(None);
        let (mut source, mut decoder) =
            (sources.open(&chosen).expect("opens"), sources.decoder(&chosen));
        let next = decoder.next(source.as_mut(), &mut FrameBuffer::new(), Duration::ZERO);
        let error = next.expect_err("it has no end");
        assert!(error.is_frame_only(), "{error}");
        assert!(error.to_string().contains("cut.jpg") && error.to_string().contains("cut off"));
        std::fs::remove_dir_all(&folder).expect("ours");
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
