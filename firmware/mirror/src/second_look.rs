//! Single pictures, which nobody waits for: they are looked at again where the people are.
//!
//! The network sees some hundred pixels in height, of which somebody far away fills a few dozen. What a first look at the whole
//! picture finds is cut out with room around it and looked at again, larger, and by its mirror image, too. What lies outside is
//! nobody: the first look saw nothing there. Whoever is small beside others is looked at once more alone. A camera's pictures get
//! one look each: the next one is there before a second would end.

use anyhow::Result;
use frame::{Frame, FrameError, Layout, Orientation, PixelFormat, wipe};
use vision::{Parser, Rect};

use crate::found::{FoundPerson, Maps, Outline};
use crate::model::Parsers;

/// The second look is at the whole picture unless people get this many times as many pixels of the network along a side.
const LEAST_GAIN: f64 = 1.15;
/// The same for a look at one of several people.
const LEAST_GAIN_ALONE: f64 = 1.3;

/// What was found in a picture, in its own pixels.
pub struct Seen {
    /// Part of every pixel, row by row.
    pub labels: Vec<u8>,
    /// The people, best first.
    pub persons: Vec<FoundPerson>,
}

impl Seen {
    fn of(maps: Maps) -> Seen {
        let (labels, persons) = maps.counted();
        Seen { labels, persons }
    }
}

/// How a picture is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Care {
    /// Once, as a camera's picture is.
    Once,
    /// Again where the people are.
    Again,
}

impl Care {
    /// By the option `--once`.
    pub fn of(once: bool) -> Care {
        if once { Care::Once } else { Care::Again }
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
        return Ok(Seen::of(maps(parser, picture)?));
    }
    let first = parser.parsing();
    let Some(people) = first.around_people() else {
        let nobody = vec![0; size.0 as usize * size.1 as usize];
        return Ok(Seen { labels: nobody, persons: Vec::new() });
    };
    let scale = first.letterbox.scale();
    let is_larger = parsers.scale((people.width, people.height)) >= LEAST_GAIN * scale;
    let whole = Rect { x: 0, y: 0, width: size.0, height: size.1 };
    let view = if is_larger { people } else { whole };
    let part = cut(picture, view)?;
    let mut maps = look_both_ways(parsers, &part)?;
    look_at_each(parsers, &part, &mut maps)?;
    let mut seen = Seen::of(maps);
    let labels = placed(&seen.labels, view, size);
    wipe(&mut std::mem::replace(&mut seen.labels, labels));
    for person in &mut seen.persons {
        person.bounds[0] += view.x;
        person.bounds[1] += view.y;
    }
    Ok(seen)
}

/// Looks alone at everybody who is small in a picture, and takes from that what is theirs.
fn look_at_each(parsers: &mut Parsers, picture: &Frame<'_>, maps: &mut Maps) -> Result<()> {
    let size = (picture.layout().width(), picture.layout().height());
    let least = LEAST_GAIN_ALONE * parsers.scale(size);
    for Outline { slot, bounds, .. } in maps.people.clone() {
        let view = bounds.with_room(size);
        // In a picture of a few pixels somebody may have none.
        if view.area() == 0 || parsers.scale((view.width, view.height)) < least {
            continue;
        }
        let mut alone = look_both_ways(parsers, &cut(picture, view)?)?;
        take_own(maps, slot, &alone.parts, view, size.0 as usize);
        [&mut alone.parts, &mut alone.slots].into_iter().for_each(wipe);
    }
    Ok(())
}

/// What the parser saw in its last picture, which was this one.
fn maps(parser: &mut Parser, picture: &Frame<'_>) -> Result<Maps, FrameError> {
    let mut rgb = Vec::new();
    frame::rgb::upright(picture, Orientation::default(), &mut rgb)?;
    let maps = Maps::of(parser, &rgb);
    wipe(&mut rgb);
    Ok(maps)
}

/// What there is in a picture that is looked at both ways.
fn look_both_ways(parsers: &mut Parsers, picture: &Frame<'_>) -> Result<Maps> {
    let parser = parsers.fresh((picture.layout().width(), picture.layout().height()))?;
    parser.parse_both_ways(picture)?;
    Ok(maps(parser, picture)?)
}

/// Takes over the parts of a look at one person where nobody else is. `width` is the picture's, `view` lies in it.
fn take_own(maps: &mut Maps, slot: u8, parts: &[u8], view: Rect, width: usize) {
    let (left, across) = (view.x as usize, view.width as usize);
    let lines = maps.parts.chunks_exact_mut(width).zip(maps.slots.chunks_exact_mut(width));
    let lines = lines.skip(view.y as usize).zip(parts.chunks_exact(across));
    for ((line, slots), seen) in lines {
        let pixels = line[left..].iter_mut().zip(&mut slots[left..]).zip(seen);
        for ((part, owner), &seen) in pixels.filter(|((_, owner), _)| [0, slot].contains(owner)) {
            *part = seen;
            *owner = if seen == 0 { 0 } else { slot };
        }
    }
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

    /// The demo scene's first picture in the right lower corner of a grey one three times as wide and high, and its place there.
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
        let [once, again] = [Care::Once, Care::Again]
            .map(|care| look(&mut parsers, &picture, care).expect("parses"));
        let (less, more) = (agreement(&once.labels), agreement(&again.labels));
        assert!(more > less + 0.1 && more > 0.8, "{less} once, {more} again");
        let [left, top, width, height] = again.persons.first().expect("somebody").bounds;
        assert!(left + 2 >= place.x && top + 2 >= place.y, "the box lies in the whole picture");
        assert!(left + width <= layout.width() && top + height <= layout.height());
    }

    #[test]
    fn nobody_is_seen_in_an_empty_picture_and_it_is_not_looked_at_again() {
        let layout = Layout::new(PixelFormat::Rgb3, 320, 200, 0).expect("small");
        let grey = vec![114; layout.byte_len()];
        let picture = Frame::new(layout, &grey).expect("whole");
        let seen = look(&mut parsers(), &picture, Care::Again).expect("parses");
        assert!(seen.persons.is_empty());
        assert_eq!(seen.labels, vec![0; 320 * 200]);
    }

    #[test]
    fn a_look_at_one_person_changes_nothing_of_others() {
        let people = vec![Outline { slot: 2, score: 0.9, bounds: Rect::default() }];
        let mut maps = Maps {
            parts: vec![0, 3, 3, 5, 0, 3, 0, 5],
            slots: vec![0, 2, 2, 1, 0, 2, 0, 1],
            people,
        };
        let view = Rect { x: 1, y: 0, width: 3, height: 2 };
        take_own(&mut maps, 2, &[4, 0, 4, 4, 6, 4], view, 4);
        assert_eq!(maps.parts, [0, 4, 0, 5, 0, 4, 6, 5]);
        assert_eq!(maps.slots, [0, 2, 0, 1, 0, 2, 2, 1]);
        let seen = Seen::of(maps);
        assert_eq!(seen.persons[0].pixels.values().sum::<u64>(), 3);
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
