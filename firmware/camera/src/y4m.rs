//! YUV4MPEG2 (`.y4m`): uncompressed video in a file, as `ffmpeg -pix_fmt yuv420p out.y4m` writes it.

use frame::{FrameError, Layout, PixelFormat};

/// What a file's first line says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Header {
    /// Width in pixels, even.
    pub width: u32,
    /// Height in pixels, even for 4:2:0.
    pub height: u32,
    /// Pictures a second; 0 when unknown.
    pub rate: f64,
    /// How colour is stored.
    pub chroma: Chroma,
    /// Whether Y, U and V are of full range.
    pub full_range: bool,
}

/// Planar colour layouts with 8 bits a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chroma {
    /// Half width and height.
    C420,
    /// Half width.
    C422,
    /// Full size.
    C444,
    /// None.
    Mono,
}

/// Longest header line accepted.
pub(crate) const LONGEST_LINE: usize = 512;

impl Header {
    /// Parses the first line, without its newline.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(line: &str) -> Result<Header, String> {
        let mut words = line.split(' ');
        if words.next() != Some("YUV4MPEG2") {
            return Err("not a YUV4MPEG2 file".into());
        }
        let (mut width, mut height, mut rate, mut chroma) = (0, 0, 0.0, Chroma::C420);
        let mut full_range = false;
        for word in words.filter(|w| !w.is_empty()) {
            let (tag, value) = word.split_at(word.chars().next().map_or(0, char::len_utf8));
            match tag {
                "W" => width = value.parse().map_err(|_| format!("width {value:?}"))?,
                "H" => height = value.parse().map_err(|_| format!("height {value:?}"))?,
                "F" => rate = ratio(value).ok_or_else(|| format!("rate {value:?}"))?,
                "C" => chroma = chroma_of(value)?,
                "X" if value == "COLORRANGE=FULL" => full_range = true,
                "I" if value != "p" && value != "?" => {
                    return Err("interlaced; convert it with ffmpeg -vf yadif".into());
                }
                _ => {}
            }
        }
        let header = Header { width, height, rate, chroma, full_range };
        match header.layout() {
            Ok(_) => Ok(header),
            // Its pixels share their colours by pairs: only even sides are whole.
            Err(FrameError::Odd { .. }) => {
                let even = |side: u32| (side & !1).max(2);
                Err(format!(
                    "the film is {width} x {height}; scale it with ffmpeg -vf scale={}:{}",
                    even(width),
                    even(height)
                ))
            }
            Err(error) => Err(error.to_string()),
        }
    }

    /// The layout that its pictures are given in: NV12 for 4:2:0, otherwise YUYV.
    ///
    /// # Errors
    /// A size that [`Layout::new`] refuses.
    pub fn layout(&self) -> Result<Layout, FrameError> {
        let format =
            if self.chroma == Chroma::C420 { PixelFormat::Nv12 } else { PixelFormat::Yuyv };
        let layout = Layout::new(format, self.width, self.height, 0)?;
        Ok(layout.with_full_range(self.full_range))
    }

    /// Bytes of one picture in the file.
    pub fn picture_bytes(&self) -> usize {
        let (w, h) = (self.width as usize, self.height as usize);
        w * h + 2 * self.chroma_size()
    }

    fn chroma_size(&self) -> usize {
        let (w, h) = (self.width as usize, self.height as usize);
        match self.chroma {
            Chroma::C420 => w / 2 * (h / 2),
            Chroma::C422 => w / 2 * h,
            Chroma::C444 => w * h,
            Chroma::Mono => 0,
        }
    }

    /// Rearranges one picture of [`Header::picture_bytes`] bytes into [`Header::layout`].
    ///
    /// # Panics
    /// If `planar` or `out` has another length.
    pub fn interleave(&self, planar: &[u8], out: &mut [u8]) {
        let (w, h) = (self.width as usize, self.height as usize);
        let (luma, colour) = planar.split_at(w * h);
        let (u, v) = colour.split_at(self.chroma_size());
        if self.chroma == Chroma::C420 {
            out[..w * h].copy_from_slice(luma);
            for (pair, (&u, &v)) in out[w * h..].chunks_exact_mut(2).zip(u.iter().zip(v)) {
                pair.copy_from_slice(&[u, v]);
            }
            return;
        }
        for (at, (pair, luma)) in out.chunks_exact_mut(4).zip(luma.chunks_exact(2)).enumerate() {
            let colour = |plane: &[u8]| match self.chroma {
                Chroma::C444 => {
                    (u16::from(plane[2 * at]) + u16::from(plane[2 * at + 1])).div_ceil(2) as u8
                }
                Chroma::Mono => 128,
                _ => plane[at],
            };
            pair.copy_from_slice(&[luma[0], colour(u), luma[1], colour(v)]);
        }
    }
}

fn ratio(text: &str) -> Option<f64> {
    let (a, b) = text.split_once(':')?;
    let (a, b) = (a.parse::<u32>().ok()?, b.parse::<u32>().ok()?);
    Some(if b == 0 { 0.0 } else { f64::from(a) / f64::from(b) })
}

fn chroma_of(text: &str) -> Result<Chroma, String> {
    match text {
        "420" | "420jpeg" | "420mpeg2" | "420paldv" => Ok(Chroma::C420),
        "422" => Ok(Chroma::C422),
        "444" => Ok(Chroma::C444),
        "mono" => Ok(Chroma::Mono),
        other => Err(format!("colour {other:?}; convert it with ffmpeg -pix_fmt yuv420p")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers() {
        let header = Header::parse("YUV4MPEG2 W640 H480 F30:1 Ip A1:1 C420jpeg XYSCSS=420JPEG")
            .expect("valid");
        let chroma = Chroma::C420;
        let given = Header { width: 640, height: 480, rate: 30.0, chroma, full_range: false };
        assert_eq!(header, given);
        for (line, part) in [
            ("RIFF", "not a YUV4MPEG2"),
            ("YUV4MPEG2 W640", "sides must be"),
            ("YUV4MPEG2 W33 H17", "is 33 x 17; scale it with ffmpeg -vf scale=32:16"),
            ("YUV4MPEG2 W1 H1 C444", "is 1 x 1; scale it with ffmpeg -vf scale=2:2"),
            ("YUV4MPEG2 W99999 H480", "sides must be"),
            ("YUV4MPEG2 W-1 H480", "width"),
            ("YUV4MPEG2 W640 H480 C420p10", "420p10"),
            ("YUV4MPEG2 W640 H480 It", "interlaced"),
            ("YUV4MPEG2 W640 H480 F30", "rate"),
        ] {
            let error = Header::parse(line).expect_err(line);
            assert!(error.contains(part), "{line}: {error}");
        }
    }

    #[test]
    fn the_range_is_the_files() {
        for (tags, full_range) in [
            ("C420jpeg", false),
            ("C420 XCOLORRANGE=LIMITED", false),
            ("C420 XCOLORRANGE=FULL", true),
            ("C444 XYSCSS=444 XCOLORRANGE=FULL", true),
        ] {
            let header = Header::parse(&format!("YUV4MPEG2 W16 H8 F25:1 {tags}")).expect(tags);
            assert_eq!(header.layout().expect("valid").full_range(), full_range, "{tags}");
        }
    }

    #[test]
    fn planes_are_interleaved() {
        let header = |chroma| Header { width: 2, height: 2, rate: 0.0, chroma, full_range: false };
        let check = |chroma, planar: &[u8], want: &[u8]| {
            let header = header(chroma);
            assert_eq!(planar.len(), header.picture_bytes());
            let mut out = vec![0; header.layout().expect("valid").byte_len()];
            header.interleave(planar, &mut out);
            assert_eq!(out, want, "{chroma:?}");
        };
        check(Chroma::C420, &[1, 2, 3, 4, 5, 6], &[1, 2, 3, 4, 5, 6]);
        check(Chroma::C422, &[1, 2, 3, 4, 5, 6, 7, 8], &[1, 5, 2, 7, 3, 6, 4, 8]);
        check(Chroma::C444, &[1, 2, 3, 4, 10, 20, 30, 50, 1, 3, 5, 6], &[1, 15, 2, 2, 3, 40, 4, 6]);
        check(Chroma::Mono, &[1, 2, 3, 4], &[1, 128, 2, 128, 3, 128, 4, 128]);
    }
}
