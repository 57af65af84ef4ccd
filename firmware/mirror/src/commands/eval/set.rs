//! A folder of labelled pictures: what is in it, and what keeps any of them from being judged.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result, anyhow, bail, ensure};
use proto::taxonomy::Part;
use serde::Deserialize;
use vision::evaluate::{IGNORE, LabelClass, LabelPoint, SOMEBODY, unknown_label, unknown_person};

use crate::pictures::{self, Header};
use crate::report;

/// A folder of labelled pictures: `images/`, `labels/`, `classes.toml`, and optionally `person/` and
/// `points.csv`.
pub struct LabelledSet {
    folder: PathBuf,
    /// The classes of the labels.
    pub classes: Vec<LabelClass>,
    /// Sorted, so that every run reads them in the same order.
    pub images: Vec<PathBuf>,
    /// File names in `labels/`.
    labels: HashSet<String>,
    /// File names in `person/`.
    person: HashSet<String>,
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

/// What the set says of one picture, over the pixels of its file.
pub struct Labelled<'a> {
    pub header: Header,
    /// A class of every pixel.
    pub labels: Option<Vec<u8>>,
    /// Whether there is somebody at every pixel: nobody 0, somebody 1, not judged 255.
    pub person: Option<Vec<u8>>,
    pub points: Option<&'a Vec<LabelPoint>>,
}

impl LabelledSet {
    /// Reads what is in the folder, but no picture and no map.
    ///
    /// # Errors
    /// A folder that is not of this form; the message names the file and what it should hold.
    pub fn read(folder: &Path) -> Result<LabelledSet> {
        let classes = read_classes(&folder.join("classes.toml"))?;
        let images = read_images(&folder.join("images"))?;
        let names = check_names(&images)?;
        let labels = read_maps(&folder.join("labels"), &names)?;
        if !labels.is_empty() {
            check_apart(&classes)
                .with_context(|| folder.join("classes.toml").display().to_string())?;
        }
        let person = read_maps(&folder.join("person"), &names)?;
        let points = read_points(&folder.join("points.csv"), &classes)?;
        let mut unknown: Vec<&str> =
            points.keys().map(String::as_str).filter(|name| !names.contains_key(*name)).collect();
        unknown.sort_unstable();
        ensure!(
            unknown.is_empty(),
            "{}: points.csv names no picture of images/: {}",
            folder.display(),
            listed(&unknown)
        );
        Ok(LabelledSet { folder: folder.to_owned(), classes, images, labels, person, points })
    }

    /// The pictures that can be judged, as far as their headers and their label maps tell. Whatever is wrong with the others is told.
    pub fn check(&self) -> Vec<&Path> {
        let (mut sound, mut somebody, mut ignored) = (Vec::new(), false, false);
        for image in &self.images {
            match self.look_at(image) {
                Ok(labelled) => {
                    let person = labelled.person.unwrap_or_default();
                    somebody |= person.contains(&SOMEBODY);
                    ignored |= person.contains(&IGNORE);
                    sound.push(image.as_path());
                }
                Err(troubles) => troubles.iter().for_each(report::tell),
            }
        }
        if ignored && !somebody {
            let person = self.folder.join("person");
            warn(&format!(
                "{} holds 0 and 255 alone; somebody is 1, and 255 means not judged",
                person.display()
            ));
        }
        sound
    }

    /// What is said of a picture.
    ///
    /// # Errors
    /// Everything that keeps it from being judged.
    pub fn look_at(&self, image: &Path) -> Result<Labelled<'_>, Vec<Error>> {
        let header = pictures::read_header(image).map_err(|error| vec![error])?;
        let points = self.points.get(&name_of(image));
        match (self.labels_of(image, &header), self.person_of(image, &header)) {
            (Ok(None), Ok(None)) if points.is_none() => Err(vec![self.unlabelled(image)]),
            (Ok(labels), Ok(person)) => Ok(Labelled { header, labels, person, points }),
            (labels, person) => Err(labels.err().into_iter().chain(person.err()).collect()),
        }
    }

    /// A picture's label map. Where one picture has any, each must have its own: what is forgotten would be left out of the scores.
    fn labels_of(&self, image: &Path, header: &Header) -> Result<Option<Vec<u8>>> {
        let path = self.map_of("labels", image);
        if !self.labels.contains(&file_name(&path)) {
            return if self.labels.is_empty() { Ok(None) } else { Err(self.unlabelled(image)) };
        }
        let labels = read_map(&path, header)?;
        if let Some(value) = unknown_label(&self.classes, &labels) {
            bail!("{}: label {value} is no class of classes.toml", path.display());
        }
        Ok(Some(labels))
    }

    fn person_of(&self, image: &Path, header: &Header) -> Result<Option<Vec<u8>>> {
        let path = self.map_of("person", image);
        if !self.person.contains(&file_name(&path)) {
            return Ok(None);
        }
        let person = read_map(&path, header)?;
        if let Some(value) = unknown_person(&person) {
            bail!(
                "{}: {value} is no value of a silhouette; nobody is 0, somebody 1, and 255 is not judged",
                path.display()
            );
        }
        Ok(Some(person))
    }

    fn map_of(&self, folder: &str, image: &Path) -> PathBuf {
        self.folder.join(folder).join(format!("{}.png", name_of(image)))
    }

    fn unlabelled(&self, image: &Path) -> Error {
        anyhow!(
            "{} has no {}; label it or take it out",
            image.display(),
            self.map_of("labels", image).display()
        )
    }
}

fn name_of(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// A map of the size of its picture, whose header says how large it lies in its file.
fn read_map(path: &Path, header: &Header) -> Result<Vec<u8>> {
    let map = pictures::read_labels(path)?;
    let (size, given) = (header.size, (map.width, map.height));
    if given == size {
        return Ok(map.labels);
    }
    let turned = header.orientation.upright_size(size.0, size.1);
    let hint = match given == turned {
        true => {
            "; that is the picture as it is shown, and labels are read over the pixels of the file as it lies"
        }
        false => "; they must have the same size",
    };
    bail!(
        "{} is {} x {}, its picture {} x {}{hint}",
        path.display(),
        given.0,
        given.1,
        size.0,
        size.1
    )
}

/// What may be a mistake and keeps nothing from being judged. Nobody may be there to read it.
fn warn(text: &str) {
    let _ = writeln!(std::io::stderr(), "mirror: warning: {text}");
}

/// The first of some names, and how many more there are.
fn listed(names: &[&str]) -> String {
    const MOST: usize = 5;
    match names.len().saturating_sub(MOST) {
        0 => names.join(", "),
        more => format!("{} and {more} more", names[..MOST].join(", ")),
    }
}

/// Sorted names of the files in a folder; hidden ones, which systems leave behind, are none. `None` where there is no folder.
fn files_of(folder: &Path) -> Result<Option<Vec<String>>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(error).with_context(|| format!("cannot read {}", folder.display()));
        }
    };
    let mut names = Vec::new();
    for entry in entries {
        names.push(file_name(&entry.with_context(|| folder.display().to_string())?.path()));
    }
    names.retain(|name| !name.starts_with('.'));
    names.sort_unstable();
    Ok(Some(names))
}

/// Names of the maps in a folder that belong to a picture; the others are told.
fn read_maps(folder: &Path, names: &HashMap<String, &Path>) -> Result<HashSet<String>> {
    let files = files_of(folder)?.unwrap_or_default();
    let is_of_picture =
        |file: &String| file.strip_suffix(".png").is_some_and(|name| names.contains_key(name));
    let (maps, others): (Vec<String>, Vec<String>) = files.into_iter().partition(is_of_picture);
    if !others.is_empty() {
        let others: Vec<&str> = others.iter().map(String::as_str).collect();
        warn(&format!(
            "{} holds what is the map of no picture, NAME.png: {}",
            folder.display(),
            listed(&others)
        ));
    }
    Ok(maps.into_iter().collect())
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

/// A part counts as one class: a pixel of it could not be judged as two.
fn check_apart(classes: &[LabelClass]) -> Result<()> {
    for (k, class) in classes.iter().enumerate() {
        for other in &classes[..k] {
            let both = |part: &Part| {
                class.parts[usize::from(part.index())] && other.parts[usize::from(part.index())]
            };
            if let Some(part) = Part::ALL.into_iter().find(both) {
                bail!(
                    "classes `{}` and `{}` both map `{}`, and a pixel is judged as one class; let one of them map it, or make them one",
                    other.name,
                    class.name,
                    part.name()
                );
            }
        }
    }
    Ok(())
}

fn read_images(folder: &Path) -> Result<Vec<PathBuf>> {
    let files = files_of(folder)?
        .with_context(|| format!("there is no {}; it holds the pictures", folder.display()))?;
    let (pictures, others): (Vec<&str>, Vec<&str>) = files
        .iter()
        .map(String::as_str)
        .partition(|file| Path::new(file).extension().is_some_and(is_picture));
    if !others.is_empty() {
        warn(&format!(
            "{} holds what is no .jpg, .jpeg or .png picture: {}",
            folder.display(),
            listed(&others)
        ));
    }
    ensure!(!pictures.is_empty(), "{} has no .jpg, .jpeg or .png picture", folder.display());
    Ok(pictures.into_iter().map(|file| folder.join(file)).collect())
}

/// Pictures by their names without endings, by which labels and points are found.
fn check_names(images: &[PathBuf]) -> Result<HashMap<String, &Path>> {
    let mut names = HashMap::with_capacity(images.len());
    for image in images {
        if let Some(other) = names.insert(name_of(image), image.as_path()) {
            bail!(
                "{} and {} share their labels; give each its own name",
                other.display(),
                image.display()
            );
        }
    }
    Ok(names)
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
        if line.trim().is_empty() || (number == 0 && fields(line) == COLUMNS) {
            continue;
        }
        let (image, point) = parse_point(line).with_context(|| {
            format!("{} line {}: expected {}", path.display(), number + 1, COLUMNS.join(","))
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

/// Columns of `points.csv`; a first line may name them.
const COLUMNS: [&str; 4] = ["image", "x", "y", "class_name"];

fn fields(line: &str) -> Vec<&str> {
    line.split(',').map(|field| field.trim().trim_matches('"').trim()).collect()
}

/// A line `image,x,y,class_name`: the picture with or without its ending, and a place in pixels,
/// whose fractions do not matter. One outside of the picture is as wrong on every side.
fn parse_point(line: &str) -> Result<(String, LabelPoint)> {
    let fields = fields(line);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Folder;

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
    fn a_part_that_two_classes_map_is_named_with_both() {
        let class = |index, name: &str, maps: &[&str]| {
            let maps: Vec<String> = maps.iter().map(|map| map.to_string()).collect();
            LabelClass::new(index, name, &maps).expect("known")
        };
        let (head, hat) = (class(1, "head", &["head"]), class(2, "hat", &["hair"]));
        let text = check_apart(&[head.clone(), hat]).expect_err("hair twice").to_string();
        assert!(["`head`", "`hat`", "`hair`"].iter().all(|name| text.contains(name)), "{text}");
        assert!(check_apart(&[head, class(2, "arms", &["upper_arms", "hand_left"])]).is_ok());
    }

    #[test]
    fn pictures_of_one_name_are_found_wherever_they_stand() {
        let names = |files: &[&str]| {
            check_names(&files.iter().map(PathBuf::from).collect::<Vec<_>>())
                .map(|names| names.len())
        };
        assert_eq!(names(&["a.jpg", "a.k.png", "b.png"]).expect("three names"), 3);
        let text = names(&["a.jpg", "a.k.png", "a.png"]).expect_err("a twice").to_string();
        assert!(text.contains("a.jpg") && text.contains("a.png"), "{text}");
    }

    #[test]
    fn only_the_names_of_the_columns_are_a_header() {
        let folder = Folder::new("points");
        let path = folder.path().join("points.csv");
        let classes = [LabelClass::new(0, "torso", &["torso".into()]).expect("known")];
        let read = |text: &str| {
            fs::write(&path, text).expect("writable");
            read_points(&path, &classes)
        };
        let header =
            ["image,x,y,class_name\n", "\u{feff}\"image\", \"x\",\" y \",\"class_name\"\r\n", ""];
        for header in header {
            let points = read(&format!("{header}a.jpg,45,70,torso\n")).expect("valid");
            assert_eq!((points.len(), points["a"][0].x, points["a"][0].y), (1, 45, 70), "{header}");
        }
        assert_eq!(read("image,45,70,torso\n").expect("a picture of this name")["image"].len(), 1);
        for wrong in [
            "image,y,x,class_name\na,1,2,torso\n",
            "image,x,y\na,1,2,torso\n",
            "a,1,2,torso\nimage,x,y,class_name\n",
        ] {
            let text = format!("{:#}", read(wrong).expect_err(wrong));
            assert!(text.contains("expected image,x,y,class_name"), "{text}");
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
