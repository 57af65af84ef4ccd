//! `mirror eval`: scores of the shipped network on a folder of labelled pictures.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fmt::Write;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use frame::{FrameBuffer, Orientation};
use serde::Deserialize;
use vision::evaluate::{Evaluation, IGNORE, LabelClass, LabelPoint, Report};

use crate::cli::EvalArgs;
use crate::config;
use crate::model::{ModelSource, Parsers};
use crate::pictures::{self, LabelMap};
use crate::progress::Progress;
use crate::report;

/// Scores the pictures of a folder.
///
/// # Errors
/// A folder that is not of the expected form; the message names the file and what it should hold.
pub fn eval(args: &EvalArgs) -> Result<()> {
    let effective = config::load(&args.settings, &[])?;
    let set = LabelledSet::read(&args.folder)?;
    let source = ModelSource::new(&effective.settings.vision).without_smoothing();
    let mut parsers = Parsers::new(source)?;
    let mut evaluation = Evaluation::new(set.classes.clone());
    let mut progress = Progress::new("pictures", set.images.len() as u64);
    let (mut picture, mut parts) = (FrameBuffer::new(), Vec::new());
    for image in &set.images {
        set.judge(image, &mut parsers, &mut picture, &mut parts, &mut evaluation)?;
        progress.advance();
    }
    drop(progress);
    let report = Report { images: set.images.len() as u64, ..evaluation.report() };
    let text = if args.json { serde_json::to_string(&report)? + "\n" } else { table(&report) };
    Ok(report::print(&text)?)
}

/// A folder of labelled pictures: `images/`, `labels/`, `classes.toml`, and optionally `person/` and
/// `points.csv`.
struct LabelledSet {
    folder: PathBuf,
    classes: Vec<LabelClass>,
    /// Sorted, so that every run reads them in the same order.
    images: Vec<PathBuf>,
    /// By the picture's name without its ending.
    points: HashMap<String, Vec<LabelPoint>>,
}

#[derive(Deserialize)]
struct RawClasses {
    class: Vec<RawClass>,
}

#[derive(Deserialize)]
struct RawClass {
    index: u8,
    name: String,
    maps: Vec<String>,
}

impl LabelledSet {
    fn read(folder: &Path) -> Result<LabelledSet> {
        let classes = read_classes(&folder.join("classes.toml"))?;
        let images = read_images(&folder.join("images"))?;
        let points = read_points(&folder.join("points.csv"), &classes)?;
        for name in points.keys() {
            let known = images.iter().any(|image| name_of(image) == *name);
            ensure!(known, "{}: points.csv names no picture of images/: {name}", folder.display());
        }
        Ok(LabelledSet { folder: folder.to_owned(), classes, images, points })
    }

    /// Parses a picture and adds it to the evaluation.
    fn judge(
        &self,
        image: &Path,
        parsers: &mut Parsers,
        picture: &mut FrameBuffer,
        parts: &mut Vec<u8>,
        evaluation: &mut Evaluation,
    ) -> Result<()> {
        let orientation = pictures::read_upright(image, picture)?;
        let layout = picture.frame().layout();
        let upright = (layout.width(), layout.height());
        // Turning by quarters is its own way back for a size.
        let size = orientation.upright_size(upright.0, upright.1);
        let name = name_of(image);
        let file = |folder| self.folder.join(folder).join(format!("{name}.png"));
        let (labels, person) = (map_of(&file("labels"), size)?, map_of(&file("person"), size)?);
        let points = self.points.get(&name);
        if labels.is_none() && person.is_none() && points.is_none() {
            bail!(
                "{} has no {}; label it or take it out",
                image.display(),
                file("labels").display()
            );
        }
        let parser = parsers.fresh(upright)?;
        parser.parse(&picture.frame()).with_context(|| image.display().to_string())?;
        let mut rgb = Vec::new();
        frame::rgb::upright(&picture.frame(), Orientation::default(), &mut rgb)?;
        parser.part_map(&rgb, parts);
        // The labels are drawn over the pixels of the file.
        if orientation != Orientation::default() {
            *parts = pictures::turn_back(orientation, parts, size);
        }
        if let Some(map) = labels {
            evaluation.add_labels(parts, &map.labels).map_err(|value| {
                let path = file("labels");
                anyhow!("{}: label {value} is no class of classes.toml", path.display())
            })?;
        }
        if let Some(map) = person {
            evaluation.add_person(parts, &map.labels);
        }
        if let Some(points) = points {
            evaluation.add_points(parts, size.0, points);
        }
        Ok(())
    }
}

fn name_of(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// A label map of the picture's size; `None` where there is no such file.
fn map_of(path: &Path, (width, height): (u32, u32)) -> Result<Option<LabelMap>> {
    if !path.exists() {
        return Ok(None);
    }
    let map = pictures::read_labels(path)?;
    ensure!(
        (map.width, map.height) == (width, height),
        "{} is {} x {}, its picture {width} x {height}; they must have the same size",
        path.display(),
        map.width,
        map.height
    );
    Ok(Some(map))
}

fn read_classes(path: &Path) -> Result<Vec<LabelClass>> {
    let text = fs::read_to_string(path).with_context(|| {
        format!("cannot read {}; it lists the classes of the labels", path.display())
    })?;
    let raw: RawClasses = toml::from_str(&text).with_context(|| path.display().to_string())?;
    let class = |raw: RawClass| {
        LabelClass::new(raw.index, &raw.name, &raw.maps).map_err(|unknown| {
            anyhow!(
                "{}: class `{}` maps to `{unknown}`, which is neither a part of the network nor a \
                 class of PASCAL-Person-Part",
                path.display(),
                raw.name
            )
        })
    };
    let classes: Vec<LabelClass> = raw.class.into_iter().map(class).collect::<Result<_>>()?;
    check_classes(&classes).with_context(|| path.display().to_string())?;
    Ok(classes)
}

/// Every class has an index and a name of its own, and an index that labels can have.
fn check_classes(classes: &[LabelClass]) -> Result<()> {
    ensure!(!classes.is_empty(), "there is no [[class]] in it");
    for (k, class) in classes.iter().enumerate() {
        ensure!(
            class.index != IGNORE,
            "class `{}` has index 255, which means not judged",
            class.name
        );
        for other in &classes[..k] {
            let apart = class.index != other.index && class.name != other.name;
            ensure!(
                apart,
                "classes `{}` ({}) and `{}` ({}) share a name or an index; give each its own",
                other.name,
                other.index,
                class.name,
                class.index
            );
        }
    }
    Ok(())
}

fn read_images(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)
        .with_context(|| format!("cannot read {}; it holds the pictures", folder.display()))?;
    let mut images = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| folder.display().to_string())?.path();
        if path.extension().is_some_and(is_picture) {
            images.push(path);
        }
    }
    images.sort();
    ensure!(!images.is_empty(), "{} has no .jpg, .jpeg or .png picture", folder.display());
    for pair in images.windows(2) {
        let (one, other) = (&pair[0], &pair[1]);
        let same = name_of(one) == name_of(other);
        ensure!(!same, "{} and {} share their labels", one.display(), other.display());
    }
    Ok(images)
}

fn is_picture(ending: &OsStr) -> bool {
    ["jpg", "jpeg", "png"].iter().any(|known| ending.eq_ignore_ascii_case(known))
}

/// Points by picture; empty where there is no such file.
fn read_points(path: &Path, classes: &[LabelClass]) -> Result<HashMap<String, Vec<LabelPoint>>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(HashMap::new()),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let mut points: HashMap<String, Vec<LabelPoint>> = HashMap::new();
    // Spreadsheets put a byte order mark before the first line.
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    for (number, line) in text.lines().enumerate() {
        if line.trim().is_empty() || (number == 0 && line.starts_with("image,")) {
            continue;
        }
        let (image, point) = parse_point(line).with_context(|| {
            format!("{} line {}: expected image,x,y,class_name", path.display(), number + 1)
        })?;
        ensure!(
            classes.iter().any(|class| class.name == point.class_name),
            "{} line {}: `{}` is no class of classes.toml",
            path.display(),
            number + 1,
            point.class_name
        );
        points.entry(image).or_default().push(point);
    }
    Ok(points)
}

/// A line `image,x,y,class_name`: the picture with or without its ending, and a place in pixels,
/// whose fractions do not matter. One outside of the picture is as wrong on every side.
fn parse_point(line: &str) -> Result<(String, LabelPoint)> {
    let fields: Vec<&str> = line.split(',').map(|field| field.trim().trim_matches('"')).collect();
    let [image, x, y, class_name] = fields[..] else {
        bail!("there are {} fields", fields.len());
    };
    let path = Path::new(image);
    let name = if path.extension().is_some_and(is_picture) { name_of(path) } else { image.into() };
    let place = |text: &str| -> Result<i32> {
        let value: f64 = text.parse().with_context(|| format!("`{text}` is no number"))?;
        ensure!(value.is_finite(), "`{text}` is no place");
        // The conversion saturates, and no picture is as large as that.
        Ok(value.floor() as i32)
    };
    Ok((name, LabelPoint { x: place(x)?, y: place(y)?, class_name: class_name.into() }))
}

fn table(report: &Report) -> String {
    let percent = |value: f64| format!("{:.1} %", 100.0 * value);
    let mut text = format!("{:24}{:>10}{:>10}\n", "class", "IoU", "recall");
    // Writing to a String cannot fail.
    for (name, iou) in &report.iou {
        let recall = report.recall.get(name).copied().map(percent).unwrap_or_default();
        let _ = writeln!(text, "{name:24}{:>10}{recall:>10}", percent(*iou));
    }
    let _ = writeln!(text, "\n{:24}{:>10}", "pictures", report.images);
    let rows = [
        ("mean IoU", report.miou),
        ("pixel accuracy", report.pixel_accuracy),
        ("silhouette IoU", report.person_iou),
        ("false alarms", report.false_alarms),
        ("points", report.points.as_ref().map(|points| points.accuracy)),
    ];
    for (title, value) in rows {
        if let Some(value) = value {
            let _ = writeln!(text, "{title:24}{:>10}", percent(value));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_told_apart_by_name_and_by_index() {
        let class =
            |index, name: &str| LabelClass::new(index, name, &["head".into()]).expect("known");
        assert!(check_classes(&[class(0, "a"), class(1, "b")]).is_ok());
        for (bad, says) in [
            (vec![class(0, "a"), class(0, "b")], "`a` (0) and `b` (0)"),
            (vec![class(0, "a"), class(1, "a")], "`a` (0) and `a` (1)"),
            (vec![class(255, "a")], "255"),
            (vec![], "no [[class]]"),
        ] {
            let text = check_classes(&bad).expect_err(says).to_string();
            assert!(text.contains(says), "{text}");
        }
    }

    #[test]
    fn a_point_has_four_fields() {
        let (image, point) = parse_point("a.jpg, 3.7,\"12\",head").expect("valid");
        assert_eq!((image.as_str(), point.x, point.y), ("a", 3, 12));
        assert_eq!(parse_point("street.17,1,2,head").expect("valid").0, "street.17");
        assert_eq!(point.class_name, "head");
        let outside = parse_point("a,-0.2,1e12,head").expect("a place outside").1;
        assert_eq!((outside.x, outside.y), (-1, i32::MAX));
        for broken in ["a,1,2", "a,x,2,head", "a,-inf,2,head", "a,1,nan,head", "a,1,2,head,more"] {
            assert!(parse_point(broken).is_err(), "{broken}");
        }
    }
}
