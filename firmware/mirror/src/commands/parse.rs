//! `mirror parse`: pictures to label maps, colour pictures, and lists of people.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use embedded_graphics::prelude::RgbColor;
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

/// What was found in one picture; the shape of NAME.json and of the entries of `--json`.
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
/// Two pictures that would share their files, a folder that cannot be made or written to, a network
/// that cannot be loaded; and at the end, if a picture failed.
pub fn parse(args: &ParseArgs) -> Result<()> {
    let names = names(&args.images)?;
    let effective = config::load(&args.settings, &[])?;
    make_folder(&args.out)?;
    let source = ModelSource::new(&effective.settings.vision).without_smoothing();
    let mut work = Work {
        parsers: Parsers::new(source)?,
        picture: FrameBuffer::new(),
        out: args.out.clone(),
        classes: args.classes,
    };
    let mut progress = Progress::new("pictures", args.images.len() as u64);
    let (mut all, mut failed) = (Vec::new(), 0);
    for (image, name) in args.images.iter().zip(&names) {
        match work.parse(image, name) {
            Ok(found) => all.push(found),
            Err(error) => {
                failed += 1;
                eprintln!("mirror: {}", report::describe(&error));
            }
        }
        progress.advance();
    }
    drop(progress);
    let text = if args.json { serde_json::to_string_pretty(&all)? + "\n" } else { summary(&all) };
    report::print(&text)?;
    if failed > 0 {
        bail!("{failed} of {} pictures could not be parsed", names.len());
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

/// The files' names without their endings; they must differ, since the results are named after
/// them.
fn names(images: &[PathBuf]) -> Result<Vec<OsString>> {
    let mut seen: HashMap<OsString, &Path> = HashMap::new();
    let mut names = Vec::with_capacity(images.len());
    for image in images {
        let Some(name) = image.file_stem() else {
            return Err(Usage(format!("{} names no picture", image.display())).into());
        };
        if let Some(other) = seen.insert(name.to_owned(), image) {
            return Err(Usage(format!(
                "{} and {} would both be written as {}.png; parse them into different folders",
                other.display(),
                image.display(),
                name.display()
            ))
            .into());
        }
        names.push(name.to_owned());
    }
    Ok(names)
}

struct Work {
    parsers: Parsers,
    picture: FrameBuffer,
    out: PathBuf,
    classes: Classes,
}

impl Work {
    fn parse(&mut self, image: &Path, name: &OsString) -> Result<Found> {
        pictures::read_picture(image, &mut self.picture)?;
        let frame = self.picture.frame();
        let (width, height) = (frame.layout().width(), frame.layout().height());
        let parser = self.parsers.fresh((width, height))?;
        parser.parse(&frame).with_context(|| image.display().to_string())?;
        let mut labels = Vec::new();
        parser.part_map(&mut labels);
        let persons = found::persons(parser, &labels);
        let mut map = LabelMap { width, height, labels };
        let palette = match self.classes {
            Classes::Full => palette(),
            Classes::Ppp => {
                map.labels.iter_mut().for_each(|label| *label = ppp_index(*label));
                ppp_palette()
            }
        };
        let path = self.path(name, ".png");
        pictures::write_labels(&path, &map)?;
        pictures::write_coloured(&self.path(name, ".colour.png"), &map, palette)?;
        let found = Found {
            image: image.display().to_string(),
            width,
            height,
            labels: path.display().to_string(),
            pixels: self.count(&map.labels),
            persons,
        };
        let json = self.path(name, ".json");
        fs::write(&json, serde_json::to_string_pretty(&found)? + "\n")
            .with_context(|| format!("cannot write {}", json.display()))?;
        Ok(found)
    }

    fn path(&self, name: &OsString, ending: &str) -> PathBuf {
        let mut file = name.clone();
        file.push(ending);
        self.out.join(file)
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
        overlay::part_colour(part.unwrap_or(Part::Background))
    };
    PppClass::ALL.into_iter().map(colour).flat_map(|rgb| [rgb.r(), rgb.g(), rgb.b()]).collect()
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
    use proto::taxonomy::PART_COUNT;

    #[test]
    fn pictures_that_would_overwrite_each_other_are_refused() {
        let images = |names: &[&str]| names.iter().map(PathBuf::from).collect::<Vec<_>>();
        assert!(names(&images(&["a/x.jpg", "a/y.jpg"])).is_ok());
        let error = names(&images(&["a/x.jpg", "b/x.png"])).expect_err("one x.png for two");
        let text = error.to_string();
        assert!(text.contains("a/x.jpg") && text.contains("b/x.png"), "{text}");
        assert_eq!(report::exit_code(&error), 2);
        assert!(names(&images(&[".."])).is_err());
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
