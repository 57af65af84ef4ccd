//! Scores of label maps against a labelled set, as `mirror eval` reports them. Pure: no files here.

use std::collections::BTreeMap;

use proto::taxonomy::{PART_COUNT, Part, PppClass};
use serde::Serialize;

/// Label value that is not judged.
pub const IGNORE: u8 = 255;
/// Value of somebody in a silhouette; of nobody it is 0.
pub const SOMEBODY: u8 = 1;

/// A class of the labelled set and which of our parts count as it.
#[derive(Clone, Debug)]
pub struct LabelClass {
    /// Value in the label pictures.
    pub index: u8,
    /// Its name in reports.
    pub name: String,
    /// Whether each of our 16 parts counts as it.
    pub parts: [bool; PART_COUNT],
}

impl LabelClass {
    /// From the names in a `classes.toml`: parts of ours (`hand_left`) or classes of PASCAL-Person-Part (`head`).
    ///
    /// # Errors
    /// The name that is neither.
    pub fn new(index: u8, name: &str, maps: &[String]) -> Result<LabelClass, String> {
        let mut parts = [false; PART_COUNT];
        for map in maps {
            let ppp = PppClass::from_name(map);
            let part = Part::from_name(map);
            if ppp.is_none() && part.is_none() {
                return Err(map.clone());
            }
            for p in Part::ALL {
                parts[usize::from(p.index())] |= Some(p) == part || Some(p.ppp()) == ppp;
            }
        }
        Ok(LabelClass { index, name: name.into(), parts })
    }
}

/// The first value in a label map that is neither of a class nor [`IGNORE`].
pub fn unknown_label(classes: &[LabelClass], labels: &[u8]) -> Option<u8> {
    let mut known = [false; 256];
    known[usize::from(IGNORE)] = true;
    classes.iter().for_each(|class| known[usize::from(class.index)] = true);
    labels.iter().copied().find(|&label| !known[usize::from(label)])
}

/// The first value in a silhouette that is none of 0, [`SOMEBODY`] and [`IGNORE`].
pub fn unknown_person(person: &[u8]) -> Option<u8> {
    person.iter().copied().find(|value| ![0, SOMEBODY, IGNORE].contains(value))
}

/// A labelled point, in whole pixels of a picture; it may lie outside of it.
#[derive(Clone, Debug)]
pub struct LabelPoint {
    /// Column.
    pub x: i32,
    /// Row.
    pub y: i32,
    /// Name of a [`LabelClass`].
    pub class_name: String,
}

/// Pixels of one class, added up over all pictures.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    right: u64,
    labelled: u64,
    claimed: u64,
}

/// A part of a whole, counted.
#[derive(Clone, Copy, Debug, Default)]
struct Share {
    part: u64,
    whole: u64,
}

impl Share {
    fn add(&mut self, is_part: bool, counts: bool) {
        self.part += u64::from(is_part);
        self.whole += u64::from(counts);
    }

    /// 0..=1; `None` of nothing.
    fn value(self) -> Option<f64> {
        (self.whole > 0).then(|| self.part as f64 / self.whole as f64)
    }
}

/// Adds up pictures; [`Evaluation::report`] gives the scores.
#[derive(Clone, Debug)]
pub struct Evaluation {
    classes: Vec<LabelClass>,
    /// Class position by part.
    class_of_part: [Option<usize>; PART_COUNT],
    tallies: Vec<Tally>,
    images: u64,
    judged_by: JudgedBy,
    /// Of the judged pixels, those that got their class.
    right: Share,
    /// Of the pixels of anybody, ours or theirs, those of both.
    person: Share,
    /// Of the judged pixels of pictures of nobody, those taken for somebody.
    nobody: Share,
    /// By class: of its points, those that got it.
    points: BTreeMap<String, Share>,
}

/// Accuracy of labelled points.
#[derive(Clone, Debug, Serialize)]
pub struct PointReport {
    /// Share of points that got their class.
    pub accuracy: f64,
    /// Share of points that got their class, by class.
    pub per_class: BTreeMap<String, f64>,
}

/// Pictures by what they were judged by; scores of one kind rest on these alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct JudgedBy {
    /// With a label map.
    pub labels: u64,
    /// With a silhouette.
    pub person: u64,
    /// With labelled points.
    pub points: u64,
}

/// What `mirror eval --json` prints. All shares are 0..=1; a class that is neither labelled nor claimed is absent.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Pictures judged.
    pub images: u64,
    /// How many of them by what.
    pub judged_by: JudgedBy,
    /// Mean of `iou`; none when no picture has a label map.
    pub miou: Option<f64>,
    /// Intersection over union by class, pixels pooled over all pictures.
    pub iou: BTreeMap<String, f64>,
    /// Share of a class's labelled pixels that got it.
    pub recall: BTreeMap<String, f64>,
    /// Share of judged pixels that got their class; none when no picture has a label map.
    pub pixel_accuracy: Option<f64>,
    /// Intersection over union of the silhouette, pooled; none when no picture has a silhouette, or all are of nobody and nobody
    /// was claimed.
    pub person_iou: Option<f64>,
    /// Share of the pixels of pictures with an empty silhouette that were taken for somebody; none when no picture's
    /// silhouette is empty.
    pub false_alarms: Option<f64>,
    /// Labelled points; none when the set has none.
    pub points: Option<PointReport>,
}

impl Evaluation {
    /// For a set with these classes. In label maps a part that counts as several classes is judged as the first of them.
    pub fn new(classes: Vec<LabelClass>) -> Evaluation {
        let class_of_part = std::array::from_fn(|part| classes.iter().position(|c| c.parts[part]));
        let tallies = vec![Tally::default(); classes.len()];
        Evaluation {
            classes,
            class_of_part,
            tallies,
            images: 0,
            judged_by: JudgedBy::default(),
            right: Share::default(),
            person: Share::default(),
            nobody: Share::default(),
            points: BTreeMap::new(),
        }
    }

    /// Counts a picture, whatever it is judged by.
    pub fn add_picture(&mut self) {
        self.images += 1;
    }

    /// Adds a picture's label map: our parts and the set's labels, pixel by pixel.
    ///
    /// # Errors
    /// A label value that no class has; nothing is added then.
    pub fn add_labels(&mut self, parts: &[u8], labels: &[u8]) -> Result<(), u8> {
        if let Some(unknown) = unknown_label(&self.classes, labels) {
            return Err(unknown);
        }
        let mut position = [None; 256];
        for (k, class) in self.classes.iter().enumerate() {
            position[usize::from(class.index)] = Some(k);
        }
        self.judged_by.labels += 1;
        for (&part, &label) in parts.iter().zip(labels) {
            // The others are not judged.
            let Some(wanted) = position[usize::from(label)] else { continue };
            let given = self.class_of_part[usize::from(part)];
            self.right.add(given == Some(wanted), true);
            self.tallies[wanted].labelled += 1;
            if let Some(given) = given {
                self.tallies[given].claimed += 1;
            }
            self.tallies[wanted].right += u64::from(given == Some(wanted));
        }
        Ok(())
    }

    /// Adds a silhouette: 0 nobody, 1 somebody, 255 not judged.
    ///
    /// # Errors
    /// Another value; nothing is added then.
    pub fn add_person(&mut self, parts: &[u8], person: &[u8]) -> Result<(), u8> {
        if let Some(unknown) = unknown_person(person) {
            return Err(unknown);
        }
        self.judged_by.person += 1;
        let empty = person.iter().all(|&p| p == 0 || p == IGNORE);
        for (&part, &person) in parts.iter().zip(person).filter(|(_, p)| **p != IGNORE) {
            let (ours, theirs) = (part != 0, person != 0);
            self.person.add(ours && theirs, ours || theirs);
            self.nobody.add(empty && ours, empty);
        }
        Ok(())
    }

    /// Adds labelled points of a picture that is `width` pixels wide. Points outside count as wrong.
    pub fn add_points(&mut self, parts: &[u8], width: u32, points: &[LabelPoint]) {
        self.judged_by.points += 1;
        for point in points {
            let class = self.classes.iter().find(|c| c.name == point.class_name);
            let part = part_at(parts, width, point);
            let hit = class.zip(part).is_some_and(|(class, part)| class.parts[usize::from(part)]);
            self.points.entry(point.class_name.clone()).or_default().add(hit, true);
        }
    }

    /// The scores so far.
    pub fn report(&self) -> Report {
        let named = |value: &dyn Fn(&Tally) -> Option<f64>| -> BTreeMap<String, f64> {
            let pairs = self.classes.iter().zip(&self.tallies);
            pairs.filter_map(|(c, t)| value(t).map(|v| (c.name.clone(), v))).collect()
        };
        let union = |t: &Tally| t.labelled + t.claimed - t.right;
        let iou = named(&|t| Share { part: t.right, whole: union(t) }.value());
        let recall = named(&|t| Share { part: t.right, whole: t.labelled }.value());
        Report {
            images: self.images,
            judged_by: self.judged_by,
            miou: (!iou.is_empty()).then(|| iou.values().sum::<f64>() / iou.len() as f64),
            iou,
            recall,
            pixel_accuracy: self.right.value(),
            person_iou: self.person.value(),
            false_alarms: self.nobody.value(),
            points: self.point_report(),
        }
    }

    fn point_report(&self) -> Option<PointReport> {
        let (part, whole) = self
            .points
            .values()
            .fold((0, 0), |(part, whole), share| (part + share.part, whole + share.whole));
        let of = |(name, share): (&String, &Share)| Some((name.clone(), share.value()?));
        Some(PointReport {
            accuracy: Share { part, whole }.value()?,
            per_class: self.points.iter().filter_map(of).collect(),
        })
    }
}

/// Our part at a point, if the picture of `width` pixels a row has it.
fn part_at(parts: &[u8], width: u32, point: &LabelPoint) -> Option<u8> {
    let (x, y) = (u32::try_from(point.x).ok()?, u32::try_from(point.y).ok()?);
    let at = y as usize * width as usize + x as usize;
    if x < width { parts.get(at).copied() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classes() -> Vec<LabelClass> {
        let class = |index, name: &str, maps: &[&str]| {
            let maps: Vec<String> = maps.iter().map(|m| m.to_string()).collect();
            LabelClass::new(index, name, &maps).expect("known names")
        };
        vec![
            class(0, "nothing", &["background"]),
            class(4, "head", &["head"]),
            class(9, "body", &["torso", "upper_arm_left", "upper_arm_right"]),
        ]
    }

    #[test]
    fn a_hand_computed_picture() {
        let mut evaluation = Evaluation::new(classes());
        //            right right  hair=head  arm=body  face for nothing  leg: no class  ignored
        let parts = [0, 2, 1, 4, 2, 10, 3];
        let labels = [0, 4, 4, 9, 0, 9, 255];
        evaluation.add_labels(&parts, &labels).expect("known values");
        evaluation.add_person(&parts, &[0, 1, 1, 1, 0, 1, 255]).expect("known values");
        let report = evaluation.report();
        assert_eq!(report.iou["nothing"], 0.5);
        assert_eq!(report.iou["head"], 2.0 / 3.0);
        assert_eq!(report.iou["body"], 0.5);
        assert!((report.miou.expect("labelled") - (0.5 + 2.0 / 3.0 + 0.5) / 3.0).abs() < 1e-12);
        assert_eq!(report.recall["head"], 1.0);
        assert_eq!(report.pixel_accuracy, Some(4.0 / 6.0));
        assert_eq!(report.person_iou, Some(4.0 / 5.0));
        assert!(report.points.is_none() && report.false_alarms.is_none());
    }

    /// Pixels are counted over all pictures: a large one weighs as much as it has pixels, and nothing is a mean of pictures.
    #[test]
    fn pictures_of_unequal_size_are_pooled() {
        let mut evaluation = Evaluation::new(classes());
        let point = |x, y, name: &str| LabelPoint { x, y, class_name: name.into() };
        // Head 2 of 2, nothing 0 of 0.
        let small = [1, 2];
        evaluation.add_labels(&small, &[4, 4]).expect("known values");
        evaluation.add_person(&small, &[1, 1]).expect("known values");
        evaluation.add_points(&small, 2, &[point(0, 0, "head")]);
        // Head 1 of 4 labelled, of which 2 go to the body and 1 to nothing; nothing 4 of 4.
        let large = [1, 3, 3, 0, 0, 0, 0, 0];
        evaluation.add_labels(&large, &[4, 4, 4, 4, 0, 0, 0, 0]).expect("known values");
        evaluation.add_person(&large, &[1, 1, 1, 1, 1, 1, 0, 0]).expect("known values");
        let points =
            [point(1, 0, "head"), point(2, 0, "head"), point(3, 0, "head"), point(1, 0, "body")];
        evaluation.add_points(&large, 8, &points);
        (0..2).for_each(|_| evaluation.add_picture());
        let report = evaluation.report();
        let pairs = |map: &BTreeMap<String, f64>| {
            map.iter().map(|(n, v)| (n.clone(), *v)).collect::<Vec<_>>()
        };
        let named = |pairs: &[(&str, f64)]| {
            pairs.iter().map(|(n, v)| (n.to_string(), *v)).collect::<Vec<_>>()
        };
        assert_eq!(
            pairs(&report.iou),
            named(&[("body", 0.0), ("head", 3.0 / 6.0), ("nothing", 4.0 / 5.0)])
        );
        assert_eq!(pairs(&report.recall), named(&[("head", 3.0 / 6.0), ("nothing", 1.0)]));
        assert_eq!(report.miou, Some((0.0 + 0.5 + 0.8) / 3.0));
        assert_eq!(report.pixel_accuracy, Some(7.0 / 10.0));
        assert_eq!(report.person_iou, Some(5.0 / 8.0));
        let points = report.points.expect("some");
        assert_eq!((points.accuracy, points.per_class["head"]), (2.0 / 5.0, 1.0 / 4.0));
        assert_eq!(
            (report.images, report.judged_by),
            (2, JudgedBy { labels: 2, person: 2, points: 2 })
        );
    }

    #[test]
    fn false_alarms_count_in_pictures_of_nobody_alone() {
        let mut evaluation = Evaluation::new(classes());
        evaluation.add_person(&[3, 3, 0, 0], &[0, 1, 0, 0]).expect("known values");
        evaluation.add_person(&[3, 0, 0, 0, 3], &[0, 0, 0, 0, 255]).expect("known values");
        let report = evaluation.report();
        assert_eq!(report.false_alarms, Some(0.25));
        assert!(
            report.miou.is_none() && report.pixel_accuracy.is_none(),
            "nothing is labelled by class"
        );
    }

    #[test]
    fn nobody_who_is_taken_for_nobody_has_no_overlap() {
        let mut evaluation = Evaluation::new(classes());
        evaluation.add_person(&[0, 0, 3], &[0, 0, 255]).expect("known values");
        let report = evaluation.report();
        assert_eq!((report.person_iou, report.false_alarms), (None, Some(0.0)));
        evaluation.add_person(&[0], &[1]).expect("known values");
        assert_eq!(evaluation.report().person_iou, Some(0.0), "somebody was missed");
    }

    #[test]
    fn points_count_by_class_and_outside_is_wrong() {
        let mut evaluation = Evaluation::new(classes());
        let point = |x, y, name: &str| LabelPoint { x, y, class_name: name.into() };
        evaluation.add_points(
            &[1, 3, 3, 0],
            2,
            &[
                point(0, 0, "head"),
                point(1, 0, "head"),
                point(2, 0, "body"),
                point(0, 9, "body"),
                point(-1, 1, "body"),
                point(0, -1, "body"),
                point(0, 1, "body"),
            ],
        );
        let points = evaluation.report().points.expect("some");
        assert_eq!(points.accuracy, 2.0 / 7.0);
        assert_eq!(points.per_class["body"], 1.0 / 5.0);
    }

    #[test]
    fn an_unknown_label_or_name_is_named() {
        let mut evaluation = Evaluation::new(classes());
        assert_eq!(evaluation.add_labels(&[1, 1], &[4, 7]), Err(7));
        assert_eq!(evaluation.add_person(&[1, 1], &[1, 2]), Err(2));
        let report = evaluation.report();
        assert!(
            report.iou.is_empty() && report.person_iou.is_none(),
            "nothing of such a picture is counted"
        );
        assert_eq!(report.judged_by, JudgedBy::default());
        assert_eq!(LabelClass::new(0, "x", &["wing".into()]).expect_err("unknown"), "wing");
    }
}
