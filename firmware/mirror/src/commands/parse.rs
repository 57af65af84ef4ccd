//! `mirror parse`: pictures to label maps, colour pictures, and lists of people.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use frame::FrameBuffer;
use proto::taxonomy::{Part, PppClass};
use serde::Serialize;

use crate::cli::{Classes, ParseArgs};
use crate::config;
use crate::found::{self, FoundPerson};
use crate::model::{ModelSource, Parsers};
use crate::parsed::palette;
use crate::pictures::{self, LabelMap};
use crate::progress::Progress;
use crate::report::{self, Usage};
use crate::second_look::{self, Care, Seen};

/// What was found in one picture; the shape of NAME.json and of the entries of `--json`. Sizes and boxes are in pixels of the
/// file, like the label map: the network sees the picture turned as it says, and what it found is turned back.
#[derive(Serialize)]
struct Found {
    image: String,
    width: u32,
    height: u32,
    labels: String,
    /// Pixels of every class that there is.
    pixels: BTreeMap<&'static str, u64>,
    persons: Vec<FoundPerson>,
}

/// Parses every picture. One that cannot be read does not keep the others from being parsed.
///
/// # Errors
/// Two pictures that would share their files, a picture that would be overwritten, a folder that cannot be made or
/// written to, a network that cannot be loaded; and at the end, if a picture failed.
pub fn parse(args: &ParseArgs) -> Result<()> {
    let results = results(&args.images, &args.out)?;
    let effective = config::load(&args.settings, &[])?;
    make_folder(&args.out)?;
    let source = ModelSource::new(&effective.settings.vision).without_smoothing();
    let mut work = Work {
        parsers: Parsers::new(source)?,
        picture: FrameBuffer::new(),
        classes: args.classes,
        care: Care::of(args.once),
    };
    let mut progress = Progress::new("pictures", args.images.len() as u64);
    let (mut all, mut failed) = (Vec::new(), 0);
    for (image, results) in args.images.iter().zip(&results) {
        match work.parse(image, results) {
            Ok(found) => all.push(found),
            Err(error) => {
                failed += 1;
                report::tell(&error);
            }
        }
        progress.advance();
    }
    drop(progress);
    let text = if args.json { serde_json::to_string_pretty(&all)? + "\n" } else { summary(&all) };
    report::print(&text)?;
    if failed > 0 {
        bail!("{failed} of {} pictures could not be parsed", results.len());
    }
    Ok(())
}

/// Makes the folder of the results and tries to write there, before any picture is parsed in vain.
fn make_folder(out: &Path) -> Result<()> {
    fs::create_dir_all(out).with_context(|| {
        format!("cannot make the folder {}; choose another with --out", out.display())
    })?;
    let trial = out.join(".mirror-parse");
    let written = fs::File::create(&trial).and_then(|_| fs::remove_file(&trial));
    written.with_context(|| {
        format!("cannot write into {}; choose another folder with --out", out.display())
    })
}

/// The files that one picture becomes.
struct Results {
    labels: PathBuf,
    coloured: PathBuf,
    json: PathBuf,
}

impl Results {
    /// `None` for a path that names no file.
    fn of(image: &Path, out: &Path) -> Option<Results> {
        let name = image.file_stem()?;
        let file = |ending: &str| {
            let mut file = name.to_owned();
            file.push(ending);
            out.join(file)
        };
        Some(Results { labels: file(".png"), coloured: file(".colour.png"), json: file(".json") })
    }

    fn files(&self) -> [&Path; 3] {
        [&self.labels, &self.coloured, &self.json]
    }
}

/// What every picture becomes: no file twice, and none of the pictures themselves.
fn results(images: &[PathBuf], out: &Path) -> Result<Vec<Results>> {
    let of = |image: &PathBuf| {
        Results::of(image, out)
            .ok_or_else(|| Usage(format!("{} names no picture", image.display())))
    };
    let results = images.iter().map(of).collect::<Result<Vec<_>, _>>()?;
    check_written_once(images, &results)?;
    check_kept(images, &results)?;
    Ok(results)
}

fn check_written_once(images: &[PathBuf], results: &[Results]) -> Result<(), Usage> {
    let mut seen = HashMap::new();
    for (image, results) in images.iter().zip(results) {
        for file in results.files() {
            if let Some(other) = seen.insert(file, image) {
                return Err(Usage(format!(
                    "{} and {} would both be written as {}; parse them into different folders",
                    other.display(),
                    image.display(),
                    file.display()
                )));
            }
        }
    }
    Ok(())
}

fn check_kept(images: &[PathBuf], results: &[Results]) -> Result<(), Usage> {
    let sources: HashMap<_, _> =
        images.iter().filter_map(|image| Some((identity(image)?, image))).collect();
    for file in results.iter().flat_map(Results::files) {
        if let Some(image) = identity(file).and_then(|id| sources.get(&id)) {
            return Err(Usage(format!(
                "{} would be overwritten by a result; choose another folder with --out",
                image.display()
            )));
        }
    }
    Ok(())
}

/// Device and inode: the same for every path and link to a file; `None` where there is no file.
fn identity(path: &Path) -> Option<(u64, u64)> {
    let file = fs::metadata(path).ok()?;
    Some((file.dev(), file.ino()))
}

struct Work {
    parsers: Parsers,
    picture: FrameBuffer,
    classes: Classes,
    care: Care,
}

impl Work {
    fn parse(&mut self, image: &Path, results: &Results) -> Result<Found> {
        let orientation = pictures::read_upright(image, &mut self.picture)?;
        let frame = self.picture.frame();
        let upright = (frame.layout().width(), frame.layout().height());
        let seen = second_look::look(&mut self.parsers, &frame, self.care);
        let Seen { labels, mut persons } = seen.with_context(|| image.display().to_string())?;
        // Turning by quarters is its own way back for a size.
        let (width, height) = orientation.upright_size(upright.0, upright.1);
        let labels = pictures::turn_back(orientation, labels, (width, height));
        for person in &mut persons {
            person.bounds = orientation.box_to_camera(person.bounds, width, height);
        }
        let mut map = LabelMap { width, height, labels };
        let palette = match self.classes {
            Classes::Full => palette(),
            Classes::Ppp => {
                map.labels.iter_mut().for_each(|label| *label = ppp_index(*label));
                ppp_palette()
            }
        };
        pictures::write_labels(&results.labels, &map)?;
        pictures::write_coloured(&results.coloured, &map, palette)?;
        let found = Found {
            image: image.display().to_string(),
            width,
            height,
            labels: results.labels.display().to_string(),
            pixels: self.count(&map.labels),
            persons,
        };
        let text = serde_json::to_string_pretty(&found)? + "\n";
        pictures::write_whole(&results.json, text.as_bytes())?;
        Ok(found)
    }

    /// Pixels by class name, in the classes that were asked for.
    fn count(&self, labels: &[u8]) -> BTreeMap<&'static str, u64> {
        let name = |label| match self.classes {
            Classes::Full => Part::from_index(label).map(Part::name),
            Classes::Ppp => PppClass::ALL.get(usize::from(label)).map(|class| class.name()),
        };
        found::tally(labels.iter().copied(), name)
    }
}

fn ppp_index(label: u8) -> u8 {
    Part::from_index(label).unwrap_or(Part::Background).ppp().index()
}

/// A class of PASCAL-Person-Part has the colour of the first part of ours that counts as it.
fn ppp_palette() -> Vec<u8> {
    let colour = |class: PppClass| {
        let part = Part::ALL.into_iter().find(|part| part.ppp() == class);
        overlay::part_rgb(part.unwrap_or(Part::Background))
    };
    PppClass::ALL.into_iter().flat_map(colour).collect()
}

fn summary(all: &[Found]) -> String {
    let line = |found: &Found| {
        let people = match found.persons.len() {
            0 => "nobody".to_owned(),
            1 => "1 person".to_owned(),
            count => format!("{count} people"),
        };
        format!("{}: {people}, labels in {}\n", found.image, found.labels)
    };
    all.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Folder;
    use proto::taxonomy::PART_COUNT;

    fn refusal(images: &[&Path], out: &Path) -> Option<String> {
        let images: Vec<PathBuf> = images.iter().map(PathBuf::from).collect();
        let error = results(&images, out).err()?;
        assert_eq!(report::exit_code(&error), 2, "{error}");
        Some(error.to_string())
    }

    #[test]
    fn results_that_would_overwrite_each_other_are_refused() {
        let refused = |images: &[&str]| {
            refusal(&images.iter().map(Path::new).collect::<Vec<_>>(), Path::new("/nowhere"))
        };
        assert_eq!(refused(&["a/x.jpg", "a/y.jpg"]), None);
        for (one, other) in [("a/x.jpg", "b/x.png"), ("a.png", "a.colour.png")] {
            let text = refused(&[one, other]).expect("one file for two pictures");
            assert!(text.contains(one) && text.contains(other), "{text}");
        }
        assert!(refused(&[".."]).is_some_and(|text| text.contains("names no picture")));
    }

    #[test]
    fn no_picture_is_overwritten_by_a_result() {
        let folder = Folder::new("kept");
        let out = folder.path().join("out");
        fs::create_dir_all(&out).expect("writable");
        let (photo, other) = (folder.path().join("photo.png"), folder.path().join("other.jpg"));
        fs::write(&photo, "a photograph").expect("writable");
        fs::write(&other, "another one").expect("writable");
        fs::hard_link(&other, out.join("photo.json")).expect("the same disk");
        let overwritten = |images: &[&Path], out: &Path| {
            refusal(images, out).is_some_and(|text| text.contains("--out"))
        };
        assert!(overwritten(&[&photo], folder.path()), "in its own folder");
        assert!(overwritten(&[&photo], &folder.path().join("out/..")), "by another path");
        assert!(overwritten(&[&photo, &other], &out), "by a link to it");
        assert!(!overwritten(&[&photo], &out), "what lies there is no input");
        assert!(!overwritten(&[&other], folder.path()), "other.png is another file");
    }

    #[test]
    fn a_folder_that_takes_no_file_is_refused_with_the_next_step() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        for (out, said) in
            [(file.join("below"), "cannot make"), ("/proc/self".into(), "write into")]
        {
            let text = make_folder(&out).expect_err("no folder to write to").to_string();
            assert!(text.contains(said) && text.contains("--out"), "{text}");
        }
    }

    #[test]
    fn palettes_have_a_colour_for_every_class() {
        assert_eq!(palette().len(), 3 * PART_COUNT);
        assert_eq!(ppp_palette().len(), 3 * PppClass::ALL.len());
        assert_eq!(ppp_palette()[..3], [0, 0, 0]);
        assert_eq!(ppp_index(Part::HandLeft.index()), PppClass::LowerArms.index());
    }
}
