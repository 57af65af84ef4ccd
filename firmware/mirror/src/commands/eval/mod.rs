//! `mirror eval`: scores of the shipped network on a folder of labelled pictures.

mod set;

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use frame::FrameBuffer;
use vision::evaluate::{Evaluation, Report};

use crate::cli::EvalArgs;
use crate::config;
use crate::model::{ModelSource, Parsers};
use crate::pictures::{self, Header};
use crate::progress::Progress;
use crate::report;
use crate::second_look::{self, Care};
use set::{Labelled, LabelledSet};

/// Scores the pictures of a folder. What is wrong with any of them is told before the first one is parsed, and does not keep the others
/// from being scored.
///
/// # Errors
/// A folder that is not of the expected form, none of whose pictures can be judged, or a network that cannot be loaded; at the end, if a
/// picture was not judged. Messages name the file and what it should hold.
pub fn eval(args: &EvalArgs) -> Result<()> {
    let effective = config::load(&args.settings, &[])?;
    let set = LabelledSet::read(&args.folder)?;
    let sound = set.check();
    let all = set.images.len();
    ensure!(!sound.is_empty(), "none of the {all} pictures can be judged");
    let source = ModelSource::new(&effective.settings.vision).without_smoothing();
    let mut judge = Judge::new(&set, Parsers::new(source)?, Care::of(args.once));
    let mut progress = Progress::new("pictures", sound.len() as u64);
    let mut judged = 0;
    for image in sound {
        match judge.judge(image) {
            Ok(()) => judged += 1,
            Err(error) => report::tell(&error),
        }
        progress.advance();
    }
    drop(progress);
    let report = judge.evaluation.report();
    let text = if args.json { serde_json::to_string(&report)? + "\n" } else { table(&report) };
    report::print(&text)?;
    ensure!(
        judged == all,
        "{} of {all} pictures were not judged; the scores are those of the others",
        all - judged
    );
    Ok(())
}

/// Parses pictures of a set and adds up what is right. Memory is used again for every picture.
struct Judge<'a> {
    set: &'a LabelledSet,
    parsers: Parsers,
    care: Care,
    picture: FrameBuffer,
    evaluation: Evaluation,
}

impl<'a> Judge<'a> {
    fn new(set: &'a LabelledSet, parsers: Parsers, care: Care) -> Judge<'a> {
        let evaluation = Evaluation::new(set.classes.clone());
        Judge { set, parsers, care, picture: FrameBuffer::new(), evaluation }
    }

    /// Parses a picture and adds it to the evaluation; one that fails adds nothing.
    fn judge(&mut self, image: &Path) -> Result<()> {
        // It was sound when the set was checked: one trouble says enough.
        let labelled = self.set.look_at(image).map_err(|mut troubles| troubles.swap_remove(0))?;
        self.judge_by(image, &labelled)
    }

    fn judge_by(&mut self, image: &Path, labelled: &Labelled<'_>) -> Result<()> {
        let orientation = pictures::read_upright(image, &mut self.picture)?;
        let frame = self.picture.frame();
        let upright = (frame.layout().width(), frame.layout().height());
        // Turning by quarters is its own way back for a size.
        let size = orientation.upright_size(upright.0, upright.1);
        ensure!(
            labelled.header == Header { size, orientation },
            "{}: the picture has changed while it was judged; judge the set again",
            image.display()
        );
        let seen = second_look::look(&mut self.parsers, &frame, self.care);
        let seen = seen.with_context(|| image.display().to_string())?;
        self.add(image, labelled, seen.labels)
    }

    fn add(&mut self, image: &Path, labelled: &Labelled<'_>, parts: Vec<u8>) -> Result<()> {
        let Header { size, orientation } = labelled.header;
        // The labels are drawn over the pixels of the file.
        let parts = pictures::turn_back(orientation, parts, size);
        let unknown =
            |value: u8| anyhow!("{}: its map holds {value}, which has no class", image.display());
        if let Some(labels) = &labelled.labels {
            self.evaluation.add_labels(&parts, labels).map_err(unknown)?;
        }
        if let Some(person) = &labelled.person {
            self.evaluation.add_person(&parts, person).map_err(unknown)?;
        }
        if let Some(points) = labelled.points {
            self.evaluation.add_points(&parts, size.0, points);
        }
        self.evaluation.add_picture();
        Ok(())
    }
}

fn table(report: &Report) -> String {
    let percent = |value: f64| format!("{:.1} %", 100.0 * value);
    let mut text = format!("{:24}{:>10}{:>10}\n", "class", "IoU", "recall");
    // Writing to a String cannot fail.
    for (name, iou) in &report.iou {
        let recall = report.recall.get(name).copied().map(percent).unwrap_or_default();
        let _ = writeln!(text, "{name:24}{:>10}{recall:>10}", percent(*iou));
    }
    let by = report.judged_by;
    let _ = writeln!(text, "\n{:24}{:>10}", "pictures", report.images);
    for (title, count) in
        [("with label map", by.labels), ("with silhouette", by.person), ("with points", by.points)]
    {
        let _ = writeln!(text, "{title:24}{count:>10}");
    }
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
    use std::fs;

    use super::*;
    use crate::testing::{Folder, settings};

    #[test]
    fn a_picture_that_changes_while_it_is_judged_is_named() {
        let folder = Folder::new("changes");
        let folder = folder.path();
        for part in ["images", "labels"] {
            fs::create_dir_all(folder.join(part)).expect("writable");
        }
        let classes = "[[class]]\nindex = 0\nname = \"head\"\nmaps = [\"head\"]\n";
        fs::write(folder.join("classes.toml"), classes).expect("writable");
        let draw = |(width, height): (u32, u32)| {
            let rgb = vec![90; 3 * width as usize * height as usize];
            let png = pictures::rgb_png((width, height), &rgb).expect("encodes");
            fs::write(folder.join("images/a.png"), png).expect("writable");
        };
        draw((32, 16));
        let labels = pictures::grey_png((32, 16), &[0; 32 * 16]).expect("encodes");
        fs::write(folder.join("labels/a.png"), labels).expect("writable");
        let set = LabelledSet::read(folder).expect("a set");
        let source = ModelSource::new(&settings().vision);
        let mut judge = Judge::new(&set, Parsers::new(source).expect("built in"), Care::Once);
        let image = folder.join("images/a.png");
        let labelled = set.look_at(&image).expect("sound");
        draw((16, 32));
        let error = judge.judge_by(&image, &labelled).expect_err("other pixels").to_string();
        assert!(error.contains("a.png") && error.contains("changed"), "{error}");
        assert_eq!(judge.evaluation.report().images, 0);
        draw((32, 16));
        judge.judge_by(&image, &labelled).expect("of its size");
        assert_eq!(judge.evaluation.report().images, 1);
    }
}
