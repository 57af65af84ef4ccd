//! Single pictures, which nobody waits for: they are looked at a second time where the people are.
//!
//! The network sees some hundred pixels in height, of which somebody far away fills a few dozen. What a first look at the whole
//! picture finds is cut out with room around it and looked at again, larger, and by its mirror image, too. What lies outside is
//! nobody: the first look saw nothing there. A camera's pictures get one look each; the next one is there before a second would end.

use anyhow::Result;
use frame::{Frame, FrameError, Layout, Orientation, PixelFormat, wipe};
use vision::{Parser, Rect};

use crate::found::{self, FoundPerson};
use crate::model::Parsers;

/// The second look is at the whole picture unless this many times as many pixels of the network, along a side, show the people.
const LEAST_GAIN: f64 = 1.15;

/// What was found in a picture, in its own pixels.
pub struct Seen {
    /// Part of every pixel, row by row.
    pub labels: Vec<u8>,
    /// The people, best first.
    pub persons: Vec<FoundPerson>,
}

/// How a picture is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Care {
    /// Once, as a camera's picture is.
    Once,
    /// Once more where the people are.
    Twice,
}

impl Care {
    /// By the option `--once`.
    pub fn of(once: bool) -> Care {
        if once { Care::Once } else { Care::Twice }
    }
}

/// Parses an upright picture of packed RGB.
///
/// # Errors
/// A network that cannot be loaded or that fails.
pub fn look(parsers: &mut Parsers, picture: &Frame<'_>, care: Care) -> Result<Seen> {
    let size = (picture.layout().width(), picture.layout().height());
    let parser = parsers.fresh(size)?;
    parser.parse(picture)?;
    if care == Care::Once {
        return seen(parser, picture);
    }
    let first = parser.parsing();
    let Some(people) = first.around_people() else {
        let nobody = vec![0; size.0 as usize * size.1 as usize];
        return Ok(Seen { labels: nobody, persons: Vec::new() });
    };
    let scale = first.letterbox.scale();
    let view = if parsers.scale((people.width, people.height)) >= LEAST_GAIN * scale {
        people
    } else {
        Rect { x: 0, y: 0, width: size.0, height: size.1 }
    };
    let part = cut(picture, view)?;
    let parser = parsers.fresh((view.width, view.height))?;
    parser.parse_both_ways(&part)?;
    let mut again = seen(parser, &part)?;
    let labels = placed(&again.labels, view, size);
    wipe(&mut std::mem::replace(&mut again.labels, labels));
    for person in &mut again.persons {
        person.bounds[0] += view.x;
        person.bounds[1] += view.y;
    }
    Ok(again)
}

/// What the parser saw in its last picture, which was this one.
fn seen(parser: &mut Parser, picture: &Frame<'_>) -> Result<Seen> {
    let mut rgb = Vec::new();
    frame::rgb::upright(picture, Orientation::default(), &mut rgb)?;
    let mut labels = Vec::new();
    parser.part_map(&rgb, &mut labels);
    wipe(&mut rgb);
    let persons = found::persons(parser, &labels);
    Ok(Seen { labels, persons })
}

/// A part of a picture of packed RGB; nothing is copied.
fn cut<'a>(picture: &Frame<'a>, view: Rect) -> Result<Frame<'a>, FrameError> {
    let stride = picture.layout().stride();
    let layout = Layout::new(PixelFormat::Rgb3, view.width, view.height, stride as u32)?;
    Frame::new(layout, &picture.bytes()[view.y as usize * stride + 3 * view.x as usize..])
}

/// Labels of a part of a picture as those of the whole; around it is nobody.
fn placed(labels: &[u8], view: Rect, (width, height): (u32, u32)) -> Vec<u8> {
    let (width, left, across) = (width as usize, view.x as usize, view.width as usize);
    let mut whole = vec![0; width * height as usize];
    let lines = whole.chunks_exact_mut(width).skip(view.y as usize);
    for (line, part) in lines.zip(labels.chunks_exact(across)) {
        line[left..left + across].copy_from_slice(part);
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ModelSource;
    use crate::testing::settings;

    /// The demo scene's first picture at half its size, in the right lower corner of a grey one three times as wide and high.
    fn far_away() -> (Layout, Vec<u8>, Rect) {
        let mut picture = frame::FrameBuffer::new();
        let demo = crate::sources::DEMO;
        let first = camera::mjpeg::next_picture(demo).expect("a clip");
        crate::pictures::decode_upright(&demo[first], u64::MAX, &mut picture).expect("a picture");
        let frame = picture.frame();
        let (w, h) = (frame.layout().width() as usize, frame.layout().height() as usize);
        let mut rgb = vec![114; 3 * (3 * w) * (3 * h)];
        for (y, line) in frame.bytes().chunks_exact(3 * w).enumerate() {
            rgb[3 * ((2 * h + y) * 3 * w + 2 * w)..][..3 * w].copy_from_slice(line);
        }
        let place = [2 * w, 2 * h, w, h].map(|side| side as u32);
        let layout = Layout::new(PixelFormat::Rgb3, 3 * w as u32, 3 * h as u32, 0).expect("small");
        (layout, rgb, Rect { x: place[0], y: place[1], width: place[2], height: place[3] })
    }

    fn parsers() -> Parsers {
        Parsers::new(ModelSource::new(&settings().vision).without_smoothing()).expect("built in")
    }

    #[test]
    fn somebody_far_away_is_seen_better_at_a_second_look() {
        let (layout, rgb, place) = far_away();
        let picture = Frame::new(layout, &rgb).expect("whole");
        let mut parsers = parsers();
        let near = cut(&picture, place).expect("inside");
        let truth = look(&mut parsers, &near, Care::Once).expect("parses");
        let truth = placed(&truth.labels, place, (layout.width(), layout.height()));
        let agreement = |labels: &[u8]| {
            let of_somebody = truth.iter().zip(labels).filter(|(a, b)| (**a, **b) != (0, 0));
            let (same, all) =
                of_somebody.fold((0, 0), |(same, all), (a, b)| (same + u32::from(a == b), all + 1));
            f64::from(same) / f64::from(all)
        };
        let [once, twice] = [Care::Once, Care::Twice]
            .map(|care| look(&mut parsers, &picture, care).expect("parses"));
        let (less, more) = (agreement(&once.labels), agreement(&twice.labels));
        assert!(more > less + 0.1 && more > 0.8, "{less} once, {more} twice");
        let [left, top, width, height] = twice.persons.first().expect("somebody").bounds;
        assert!(left + 2 >= place.x && top + 2 >= place.y, "the box lies in the whole picture");
        assert!(left + width <= layout.width() && top + height <= layout.height());
    }

    #[test]
    fn nobody_is_seen_in_an_empty_picture_and_it_is_not_looked_at_again() {
        let layout = Layout::new(PixelFormat::Rgb3, 320, 200, 0).expect("small");
        let grey = vec![114; layout.byte_len()];
        let picture = Frame::new(layout, &grey).expect("whole");
        let seen = look(&mut parsers(), &picture, Care::Twice).expect("parses");
        assert!(seen.persons.is_empty());
        assert_eq!(seen.labels, vec![0; 320 * 200]);
    }

    #[test]
    fn a_part_of_a_picture_goes_back_to_where_it_was_cut() {
        let layout = Layout::new(PixelFormat::Rgb3, 4, 3, 0).expect("small");
        let bytes: Vec<u8> = (0..36).collect();
        let picture = Frame::new(layout, &bytes).expect("whole");
        let view = Rect { x: 1, y: 1, width: 2, height: 2 };
        let part = cut(&picture, view).expect("inside");
        let mut rgb = Vec::new();
        frame::rgb::upright(&part, Orientation::default(), &mut rgb).expect("RGB");
        assert_eq!(rgb, [15, 16, 17, 18, 19, 20, 27, 28, 29, 30, 31, 32]);
        let whole = placed(&[1, 2, 3, 4], view, (4, 3));
        assert_eq!(whole, [0, 0, 0, 0, 0, 1, 2, 0, 0, 3, 4, 0]);
    }
}
